"""Commands of idleness and use: idle, usage, funnel, top, rightsize, packing."""

import csv
import io
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

_LEAST_S = 0.5


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


class Kind(StrEnum):
    """What verdicts are shown of."""

    WORKLOAD = "workload"
    POD = "pod"
    REPLICA = "replica"
    GPU = "gpu"
    SLICE = "slice"
    WORKSPACE = "workspace"


class By(StrEnum):
    """What use is told by."""

    WORKSPACE = "workspace"
    NAMESPACE = "namespace"
    WORKLOAD = "workload"
    OWNER = "owner"
    CLUSTER = "cluster"
    NODE = "node"
    MODEL = "model"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")]
AsOfOption = Annotated[
    str, typer.Option("--as-of", help="The moment: 'now', 'data' (the newest stored) or a time with zone.")
]
SinceOption = Annotated[str, typer.Option("--since", help="How far back: 6h, 7d, 2w.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (idle, usage, funnel, top, rightsize, packing):
        app.command()(command)


def idle(
    context: typer.Context,
    as_of: AsOfOption = "now",
    kind: Annotated[Kind, typer.Option(help="What is judged.")] = Kind.WORKLOAD,
    all_states: Annotated[bool, typer.Option("--all", help="Show what works and what is unknown too.")] = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what idles, whose it is, since when, what it costs, when it is used next and what a reclaim would free."""
    answer(context, "idle", {"as_of": as_of, "kind": kind.value, "all": all_states}, output)


def usage(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="What it is told by.")] = By.WORKSPACE,
    since: SinceOption = "7d",
    as_of: AsOfOption = "data",
    hourly: Annotated[bool, typer.Option("--hourly", help="A row an hour.")] = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell how busy what each group held was: GPU-hours held, median, 95th part and mean of the activity."""
    answer(context, "usage", {"by": by.value, "since": since, "as_of": as_of, "hourly": hourly}, output)


def funnel(
    context: typer.Context,
    by: Annotated[
        str, typer.Option("--by", help="Of cluster, pool, model, workspace, workload, hour; commas between.")
    ] = "cluster",
    since: SinceOption = "7d",
    as_of: AsOfOption = "data",
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell where the GPU-hours of the ledger went: from all there were down to those that were busy."""
    answer(context, "funnel", {"by": by, "since": since, "as_of": as_of}, output)


def top(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,  # noqa: FBT002 - a flag of typer's
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=_LEAST_S)] = 5.0,
    workspace: Annotated[str | None, typer.Option(help="Only what this workspace holds.")] = None,
    as_of: AsOfOption = "now",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every GPU and slice as it is now, busiest first, again and again until Ctrl-C."""
    parameters = {"workspace": workspace, "as_of": as_of}
    if once or output is not Output.TABLE:
        answer(context, "top", parameters, output)
    from rich.console import Console  # noqa: PLC0415 - --help must stay quick
    from rich.live import Live  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    console = Console()
    try:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as screen:
            while True:
                lines = _text(_ask(context, "top", parameters), Output.TABLE).splitlines()
                screen.update(Text("\n".join(lines[: console.height]), no_wrap=True, overflow="ellipsis"), refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        raise typer.Exit from None


def rightsize(
    context: typer.Context, since: SinceOption = "7d", as_of: AsOfOption = "data", output: OutputOption = Output.TABLE
) -> None:
    """Recommend what each workload should hold: fewer GPUs, a MIG profile, a share of a GPU, or none at all."""
    answer(context, "rightsize", {"since": since, "as_of": as_of}, output)


def packing(
    context: typer.Context,
    size: Annotated[int, typer.Option(help="GPUs a pod of the gang needs on one node.", min=1, max=64)] = 8,
    as_of: AsOfOption = "now",
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell which gangs fit now, what is stranded, and which pods to move to make room."""
    answer(context, "packing", {"size": size, "as_of": as_of}, output)


def _ask(context: typer.Context, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick

    return ask(context.obj.config, context.obj.store, name, parameters)


def answer(context: typer.Context, name: str, parameters: Mapping[str, object], output: Output) -> NoReturn:
    """Ask the desk, print its answer and end with its exit code."""
    body = _ask(context, name, parameters)
    text = _text(body, output)
    if text:
        typer.echo(text)
    code = body["exitCode"]
    raise typer.Exit(code if isinstance(code, int) else 1)


def _text(body: Mapping[str, object], output: Output) -> str:
    from steward.report import render  # noqa: PLC0415 - --help must stay quick

    if output is Output.CSV:
        return as_csv(body)
    if output is Output.TABLE:
        return render(body, "table")
    if output is Output.WIDE:
        return render(body, "wide")
    return render(body, "json" if output is Output.JSON else "yaml")


def as_csv(body: Mapping[str, object]) -> str:
    """Return a report's items as CSV under a line of names; what is not known is an empty field."""
    items, columns = body["items"], body["columns"]
    if not isinstance(items, list) or not isinstance(columns, list):
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, [str(name) for name in columns], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(items)
    return text.getvalue().rstrip("\n")
