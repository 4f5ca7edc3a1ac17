"""The command `steward agent`."""

from pathlib import Path
from typing import Annotated

import typer


def agent(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    interval_s: Annotated[
        float | None, typer.Option("--interval", help="Seconds between two readings (else [agent] interval_s, 10).")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Where /metrics and /healthz are (else [agent] listen, 127.0.0.1:9400).")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Read once, print the metrics and stop.")] = False,  # noqa: FBT002 - a flag of typer's
    no_store: Annotated[bool, typer.Option("--no-store", help="Serve /metrics only.")] = False,  # noqa: FBT002 - a flag of typer's
    capture: Annotated[Path | None, typer.Option(help="Read this nvidia-smi capture in place of a driver.")] = None,
    phase: Annotated[str, typer.Option(help="Part of the capture: idle or load.")] = "idle",
) -> None:
    """Read this node's GPUs at every tick; store what they tell and serve it as dcgm-exporter does, until SIGTERM."""
    from steward.agent_run import AgentOptions, run_agent  # noqa: PLC0415 - --help must stay quick

    options = AgentOptions(interval_s, listen, once, not no_store, capture, phase)
    raise typer.Exit(run_agent(context.obj.config, context.obj.store, options))


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(agent)
