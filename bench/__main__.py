"""`python -m bench`: list, run and report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from patchcut import Settings
from patchcut.cli.options import command, with_settings
from patchcut.errors import PatchcutError
from patchcut_kernels import default_threads
from rich.console import Console

from bench import machine, report, rows
from bench.cases import GROUPS, NEED_DATA, BenchError, Options, open_group

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

README, PAGE = machine.ROOT / "README.md", machine.ROOT / "docs/measured.md"
_WIDTH = None if sys.stdout.isatty() else 120  # what is piped is not folded at 80
_console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=_WIDTH)
_errors = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


@app.command("list")
def _list() -> None:
    """Say what can be measured, and what the targets are."""
    for name in GROUPS:
        group = open_group(name)
        _console.print(f"{name}: {group.TITLE}", style="bold")
        for case in group.CASES:
            _console.print(f"  {case}")
        for target in group.TARGETS:
            _console.print(f"  target: {target}")


@command(app, "run")
@with_settings(only=("bundle", "threads"), device="cpu", threads=default_threads())
def _run(
    group: Annotated[str, typer.Argument(help=f"{', '.join(GROUPS)}, or all.")],
    *,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Timed calls of each.", show_default="the group's")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(envvar="PATCHCUT_DATA", help=f"Folder of data sets, for {', '.join(NEED_DATA)}."),
    ] = None,
    fp32_bundle: Annotated[
        Path | None, typer.Option(help="The same head on a float backbone, for `quality`: what int8 loses.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="How long `soak` streams, and `serve` is overloaded.", show_default="30, 5"
        ),
    ] = None,
    kills: Annotated[
        int | None, typer.Option(min=0, help="How often `batch` is killed.", show_default="100")
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Append the rows to bench/results.")] = False,
    settings: Settings,
) -> int:
    """Measure a group of cases; what cannot be measured here is skipped and told."""
    if group not in (*GROUPS, "all"):
        raise typer.BadParameter(f"must be one of {', '.join(GROUPS)}, all; got {group!r}")
    options = Options(settings, repeats, data, fp32_bundle, minutes, kills)
    done: list[rows.Row] = []
    skipped = 0
    for name in GROUPS if group == "all" else (group,):
        try:
            found = _measure(name, options)
        except (BenchError, PatchcutError) as error:
            _errors.print(f"skipped {name}: {error}")
            skipped += 1
            continue
        done += found
        if record:
            rows.append(found)
    if done:
        report.print_sections(report.make_sections(done), _console)
    if record and done:
        _console.print(f"recorded {len(done)} rows in bench/results")
    return 1 if skipped and group != "all" else 0


@app.command("report")
def _report(
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="Write all tables into docs/measured.md, and a few numbers into README.md."
        ),
    ] = False,
) -> None:
    """Show the newest recorded run of each case, a section a machine."""
    found = rows.read()
    if not found:
        _errors.print("nothing is recorded yet: python -m bench run all --record")
        raise typer.Exit(1)
    if not write:
        report.print_sections(report.make_sections(found), _console)
        return
    report.write_into(PAGE, report.to_page(found))
    report.write_into(README, report.to_readme(found))
    _console.print("wrote docs/measured.md and README.md")


def _measure(name: str, options: Options) -> list[rows.Row]:
    load = machine.load_1min()
    if load > 0.5:
        _errors.print(f"{name}: the load is {load}; other work on this machine is in these numbers")
    machine.set_threads(options.threads)
    outcomes = []
    for outcome in open_group(name).run(options):
        _errors.print(f"{name}: {outcome.case}, {outcome.contender}")
        outcomes.append(outcome)
    return rows.make_rows(name, outcomes, threads=options.threads, load=load, command=options.command(name))


if __name__ == "__main__":
    app(prog_name="python -m bench")
