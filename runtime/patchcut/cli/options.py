"""Commands and their options: those of `Settings` are made from its fields, and every command ends alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, NoReturn

import typer

from patchcut.cli.signals import EXIT_INTERRUPTED
from patchcut.cli.streams import StdoutError, close_stdout, drop_stdout, say
from patchcut.errors import OptionError, PatchcutError
from patchcut.settings import Settings, option_name

EXIT_GOOD, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

Command = Callable[..., int]


def command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """A decorator that makes a function a command of `app`; what it returns is the exit status.

    Errors that patchcut foresees become one line on stderr.
    Examples:
        >>> hello = options.command(typer.Typer(), "hello")(lambda: 0)
        >>> hello()
        0
    """

    def register(function: Command) -> Command:
        def run(*args: Any, **values: Any) -> None:
            exit_with(lambda: function(*args, **values))

        _look_like(run, function, inspect.signature(function).parameters.values())
        app.command(name)(run)
        return function

    return register


def with_settings(
    settings_type: type[Settings] = Settings, /, *, only: Sequence[str] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """A decorator that gives a command an option for each setting; its function takes one `settings`.

    Args:
        settings_type: `Settings`, or a dataclass that adds fields to it.
        only: the settings that the command has an option for; all where none is named.
        defaults: what the command takes where nothing is said, of the settings for which that differs from
            the field's own default.
    Examples:
        >>> run = options.with_settings(head="cc")(lambda *, settings: 0)
        >>> str(inspect.signature(run).parameters["head"].default)
        'cc'
    """

    def decorate(function: Command) -> Command:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "settings"]
        wanted = [one for one in fields(settings_type) if one.metadata["on_command_line"]]
        options = [_option(one, defaults) for one in wanted if not only or one.name in only]

        def run(*args: Any, **values: Any) -> int:
            chosen = {option.name: values.pop(option.name) for option in options}
            return function(*args, settings=settings_type(**{**defaults, **chosen}), **values)

        _look_like(run, function, [*own, *options])
        return run

    return decorate


def with_options_of(make: Callable[..., Any]) -> Callable[[Command], Command]:
    """A decorator that gives a command the options of `make`; its function takes what that makes, `options`.

    Args:
        make: takes its own options and `settings`.
    Examples:
        >>> def make(*, loud: bool = False, settings: object = None) -> bool:
        ...     return loud
        >>> run = options.with_options_of(make)(lambda *, options: int(options))
        >>> list(inspect.signature(run).parameters), run(loud=True, settings=None)
        (['loud', 'settings'], 1)
    """

    def decorate(function: Command) -> Command:
        hints = inspect.get_annotations(make, eval_str=True)
        made = [
            p.replace(annotation=hints.get(p.name, p.annotation))
            for p in inspect.signature(make).parameters.values()
        ]
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "options"]

        def run(**values: Any) -> int:
            chosen = {option.name: values.pop(option.name) for option in own}
            return function(options=make(**values), **chosen)

        _look_like(run, function, [*made, *own])
        return run

    return decorate


def _option(one: Any, defaults: dict[str, object]) -> inspect.Parameter:
    """The option of a field of `Settings`."""
    default, type_ = defaults.get(one.name, one.default), one.metadata["type"]
    shown: Any = one.metadata["default_text"] or default is not None
    spelt = option_name(one.name)
    if type_ is bool and default is None:
        spelt += f"/{option_name(f'no_{one.name}')}"
    option = typer.Option(spelt, help=one.metadata["help"].replace("[", "\\["), show_default=shown)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(
        one.name,
        kind,
        default=default,
        annotation=Annotated[type_ | None if default is None else type_, option],
    )


def _look_like(run: Any, function: Command, parameters: Any) -> None:
    """Gives `run` the documentation of `function` and these parameters, as typer reads them."""
    run.__doc__, run.__name__, run.__wrapped__ = function.__doc__, function.__name__, function
    hints = inspect.get_annotations(function, eval_str=True)
    resolved = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters]
    run.__signature__ = inspect.Signature(resolved)
    run.__annotations__ = {p.name: p.annotation for p in resolved}


def exit_with(work: Callable[[], int]) -> NoReturn:
    """Leaves the process with what `work` returns; what it raises becomes one line on stderr and a status.

    Raises:
        typer.Exit: always.
    Examples:
        >>> try:
        ...     options.exit_with(lambda: 2)
        ... except typer.Exit as exit:
        ...     exit.exit_code
        2
    """
    try:
        status = work()
        close_stdout()
    except KeyboardInterrupt:
        say("patchcut: stopped")
        status = EXIT_INTERRUPTED
    except (PatchcutError, BrokenPipeError) as error:
        status = status_of(error)
    raise typer.Exit(status)


def status_of(error: PatchcutError | BrokenPipeError) -> int:
    """The exit status of an error, which is said on stderr; a reader of stdout who left is not told.

    Examples:
        >>> options.status_of(patchcut.FrameError("frame", "is none"))
        1
    """
    if isinstance(error, BrokenPipeError):
        drop_stdout()
        return EXIT_FAILED
    if isinstance(error, StdoutError):
        drop_stdout()  # once is enough
    say(f"patchcut: {error}")
    return EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAILED
