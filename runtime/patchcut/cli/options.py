"""Commands and their options: those of `Settings` are made from its fields, and every command ends alike."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, NoReturn

import typer

from patchcut.errors import OptionError, PatchcutError
from patchcut.settings import Settings, option_name

EXIT_GOOD, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

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


def _option(one: Any, defaults: dict[str, object]) -> inspect.Parameter:
    """The option of a field of `Settings`."""
    default, type_ = defaults.get(one.name, one.default), one.metadata["type"]
    shown: Any = one.metadata["default_text"] or default is not None
    option = typer.Option(
        option_name(one.name), help=one.metadata["help"].replace("[", "\\["), show_default=shown
    )
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
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("patchcut: stopped", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except PatchcutError as error:
        print(f"patchcut: {error}", file=sys.stderr)
        status = EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAILED
    except BrokenPipeError:
        # The reader of stdout has left: nothing may be said there, not even by the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    raise typer.Exit(status)
