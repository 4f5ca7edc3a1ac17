"""The command line: data on stdout, everything else on stderr; heavy imports inside commands."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fleet.errors import BadInput, StewardError
from steward import (
    actions_cli,
    agent_cli,
    cost_cli,
    explain_cli,
    forecast_cli,
    jobs_cli,
    policy_cli,
    prices_cli,
    sharing_cli,
    usage_cli,
    workspace_cli,
    xid_cli,
)

NAGIOS_UNKNOWN = 3

app = typer.Typer(
    help="See, judge and steer fleets of shared GPUs. Nothing is changed in a cluster unless you say --yes.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class SourceName(StrEnum):
    """What can be collected from."""

    NVML = "nvml"
    KMSG = "kmsg"
    PROMETHEUS = "prometheus"
    KUBERNETES = "kubernetes"
    SIMULATOR = "simulator"


class Phase(StrEnum):
    """Which part of a capture is played."""

    IDLE = "idle"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works: which settings file and which store."""

    config: Path | None
    store: Path | None


OutputOption = Annotated[Format, typer.Option("-o", "--output", help="How the answer is printed.")]
AsOfOption = Annotated[
    str,
    typer.Option("--as-of", help="The moment to judge: 'now', 'data' (the newest stored) or a time with zone."),
]


@app.callback()
def place(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (else STEWARD_CONFIG, ./steward.toml).")] = None,
    store: Annotated[Path | None, typer.Option(help="Database file (else [store] path, else the data folder).")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,  # noqa: FBT002 - a flag of typer's
) -> None:
    """Keep what all commands share."""
    if version:
        from importlib.metadata import version as installed  # noqa: PLC0415 - only this flag needs it

        typer.echo(installed("gpu-steward"))
        raise typer.Exit
    context.obj = Place(config, store)


def _answer(context: typer.Context, name: str, parameters: Mapping[str, object], output: Format) -> NoReturn:
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick
    from steward.report import render  # noqa: PLC0415 - likewise

    body = ask(context.obj.config, context.obj.store, name, parameters)
    text = render(body, output.value)
    if text:
        typer.echo(text)
    code = body["exitCode"]
    raise typer.Exit(code if isinstance(code, int) else 1)


@app.command()
def demo(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    gpus: Annotated[int, typer.Option(help="GPUs in the simulated fleet.", min=8)] = 512,
    days: Annotated[float, typer.Option(help="Days to simulate.", min=0.1)] = 14,
    seed: Annotated[int, typer.Option(help="Seed of the fleet, its work and its faults.", min=0)] = 7,
    preset: Annotated[str, typer.Option(help="default, serving_heavy or notebook_heavy.")] = "default",
    spec: Annotated[Path | None, typer.Option(help="A TOML file that describes the whole fleet.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Simulate a fleet with known faults and waste, run the loop over it, and say what was found and missed."""
    from steward.demo import run_demo  # noqa: PLC0415 - --help must stay quick
    from steward.report import render  # noqa: PLC0415 - likewise

    report = run_demo(context.obj.store, gpus=gpus, days=days, seed=seed, preset=preset, spec=spec)
    typer.echo(render(report.to_body(), output.value))
    raise typer.Exit(report.exit_code)


@app.command()
def collect(
    context: typer.Context,
    source: Annotated[list[SourceName] | None, typer.Option(help="What to read (else [collect] sources).")] = None,
    capture: Annotated[Path | None, typer.Option(help="Read this nvidia-smi capture in place of a driver.")] = None,
    phase: Annotated[Phase, typer.Option(help="Part of the capture: at rest or under load.")] = Phase.IDLE,
    output: OutputOption = Format.TABLE,
) -> None:
    """Read the sources once and store what they tell."""
    names = [name.value for name in source or []]
    file = None if capture is None else str(capture.resolve())
    _answer(context, "collect", {"sources": names, "capture": file, "phase": phase.value}, output)


@app.command()
def replay(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A recorded trace, or a folder of them.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Load recorded traces (Parquet or CSV) into the store; what they are is told by their columns."""
    _answer(context, "replay", {"path": str(path.resolve())}, output)


@app.command()
def analyse(context: typer.Context, as_of: AsOfOption = "data", output: OutputOption = Format.TABLE) -> None:
    """Judge what is stored: health, idleness, cost, demand, capacity and queues."""
    _answer(context, "analyse", {"as_of": as_of}, output)


@app.command()
def health(
    context: typer.Context,
    as_of: AsOfOption = "now",
    all_gpus: Annotated[bool, typer.Option("--all", help="Show healthy GPUs too.")] = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Format.TABLE,
) -> None:
    """Tell which GPUs fail, why, and what to do. Exit code: 0 fine, 1 warning, 2 critical, 3 unknown."""
    _answer(context, "health", {"as_of": as_of, "all": all_gpus}, output)


@app.command()
def run(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Turn the loop once: collect, store, analyse, plan, make what is approved, rehearse the rest."""
    _answer(context, "run", {}, output)


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on (else [serve] host, 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (else [serve] port, 8787).")] = None,
) -> None:
    """Serve the dashboard, the API and /metrics, and turn the loop, in one process that owns the store."""
    from steward.host import run_server  # noqa: PLC0415 - --help must stay quick

    run_server(context.obj.config, context.obj.store, host, port)


@app.command()
def doctor(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Check settings, store and sources. Exit code: 0 fine, 1 warning, 2 critical, 3 unknown."""
    _answer(context, "doctor", {}, output)


@app.command()
def config(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show the settings in force, and where they come from."""
    _answer(context, "config", {}, output)


@app.command()
def migrate(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Bring the store to this version's schema (every command that opens it does so too)."""
    _answer(context, "migrate", {}, output)


actions_cli.register(app)
agent_cli.register(app)
prices_cli.register(app)
explain_cli.register(app)
xid_cli.register(app)
usage_cli.register(app)
sharing_cli.register(app)
cost_cli.register(app)
workspace_cli.register(app)


jobs_cli.register(app, lambda context, name, given, output: _answer(context, name, given, Format(output)))
policy_cli.register(app, lambda context, name, given, output: _answer(context, name, given, Format(output)))
forecast_cli.register(app, lambda context, name, given, output: _answer(context, name, given, Format(output)))


def main() -> None:
    """Run the command line; what the user can mend is told in one line, without a traceback."""
    try:
        app(prog_name="steward")
    except StewardError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(_exit_code(error, sys.argv[1:]))


def _exit_code(error: StewardError, arguments: list[str]) -> int:
    if {"health", "doctor"} & set(arguments):
        return NAGIOS_UNKNOWN
    return 2 if isinstance(error, BadInput) else 1
