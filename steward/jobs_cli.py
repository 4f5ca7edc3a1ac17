"""Commands for CronJobs: `steward job RULE --once`, one rule each, and `steward job list`."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from fleet.errors import StoreBusy

Answer = Callable[[typer.Context, str, Mapping[str, object], str], None]
HELD = 3


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Job(StrEnum):
    """The rules that can be run as jobs."""

    FENCE = "fence"
    REPAIR = "repair"
    RECLAIM = "reclaim"
    STALLED = "stalled"
    BUDGET = "budget"
    REBALANCE = "rebalance"
    RESLICE = "reslice"
    DEFRAGMENT = "defragment"
    POOL = "pool"


_Printed = Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")]
_Once = Annotated[bool, typer.Option("--once", help="Run once and end, as a job always does; said for the reader.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Make the moves as the rule's mode allows; else they are rehearsed.")]
_HELP = """Run one rule once, for CronJobs.

Exit codes: 0 nothing to do or done, 1 a move failed, 2 bad settings, 3 held (brake, not the leader, stale data).
"""


def register(app: typer.Typer, answer: Answer) -> None:
    """Add the commands to the application; `answer` asks the desk and prints."""
    group = typer.Typer(help=_HELP, rich_markup_mode=None, no_args_is_help=True)
    for job in Job:
        group.command(name=job.value, help=f"Judge, plan the rule {job.value} alone, and carry out by its mode.")(
            _command(job, answer)
        )

    @group.command(name="list")
    def list_jobs(context: typer.Context, output: _Printed = Output.TABLE) -> None:
        """List the jobs, the modes of their rules and how they are run."""
        answer(context, "jobs", {}, output.value)

    app.add_typer(group, name="job")


def _command(job: Job, answer: Answer) -> Callable[[typer.Context, bool, bool, Output], None]:
    def run(
        context: typer.Context,
        once: _Once = True,  # noqa: FBT002 - a flag of typer's
        yes: _Yes = False,  # noqa: FBT002 - likewise
        output: _Printed = Output.TABLE,
    ) -> None:
        del once
        try:
            answer(context, "job", {"rule": job.value, "yes": yes}, output.value)
        except StoreBusy as error:
            typer.echo(f"held: {error}", err=True)
            raise typer.Exit(HELD) from error

    return run
