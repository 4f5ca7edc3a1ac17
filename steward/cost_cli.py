"""Commands about money: `steward cost`, its explanation, budgets, corrections, months and bills."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from fleet.errors import BadInput

cost_app = typer.Typer(
    help="What was spent, by whom, why, and what of a budget is left.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class CostFormat(StrEnum):
    """How an answer about money is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    FOCUS = "focus"


class ShareIdle(StrEnum):
    """How what nobody held is shared."""

    NONE = "none"
    EVEN = "even"
    WEIGHTED = "weighted"


class AtLimit(StrEnum):
    """What happens when a budget is spent."""

    NOTIFY = "notify"
    STOP_BORROWING = "stop_borrowing"
    HOLD_QUEUE = "hold_queue"


_WINDOW_HELP = "24h, 7d, 4w, month or last-month; ends where the ledger ends."
Window = Annotated[str, typer.Option(help=_WINDOW_HELP)]
Since = Annotated[str | None, typer.Option(help="From this time on (with zone); wins over --window.")]
Until = Annotated[str | None, typer.Option(help="Up to this time (with zone); else the end of the ledger.")]
Output = Annotated[CostFormat, typer.Option("-o", "--output", help="How the answer is printed.")]


def register(app: typer.Typer) -> None:
    """Hang the commands into the command line."""
    app.add_typer(cost_app, name="cost")


@cost_app.callback(invoke_without_command=True)
def cost(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    by: Annotated[str, typer.Option(help="Views, by comma: workspace, label:team, model, ...")] = "workspace",
    window: Window = "7d",
    since: Since = None,
    until: Until = None,
    share_idle: Annotated[ShareIdle, typer.Option(help="Who pays for what nobody held.")] = ShareIdle.NONE,
    idle_by_node: Annotated[bool, typer.Option("--idle-by-node", help="Share idle within each node.")] = False,  # noqa: FBT002 - a flag of typer's
    step: Annotated[str | None, typer.Option(help="One row a step: 1h, 1d.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write rows to this .csv or .parquet in place of stdout.")] = None,
    output: Output = CostFormat.TABLE,
) -> None:
    """Tell what was spent in a window, by a view; the rows sum to the ledger to the micro-dollar."""
    if context.invoked_subcommand is not None:
        return
    form = "focus" if output is CostFormat.FOCUS else "view"
    parameters = {
        "by": by, "window": window, "since": since, "until": until, "share_idle": share_idle.value, "step": step,
        "idle_by_node": idle_by_node, "form": form,
    }  # fmt: skip
    _answer(context, "cost", parameters, output, to)


@cost_app.command()
def explain(  # noqa: PLR0917 - likewise
    context: typer.Context,
    workspace: Annotated[str | None, typer.Option(help="Lines of this workspace.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Lines of this namespace.")] = None,
    workload: Annotated[str | None, typer.Option(help="Lines of this workload, kind/namespace/name.")] = None,
    category: Annotated[str | None, typer.Option(help="Lines of this category.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Lines of this GPU, by UUID.")] = None,
    window: Window = "7d",
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="How many of the largest lines are shown.", min=0)] = 20,
    output: Output = CostFormat.TABLE,
) -> None:
    """Show the rows, rates and rules behind a number."""
    parameters = {
        "workspace": workspace, "namespace": namespace, "workload": workload, "category": category, "gpu_uuid": gpu,
        "window": window, "since": since, "until": until, "limit": limit,
    }  # fmt: skip
    _answer(context, "cost-explain", parameters, output)


@cost_app.command()
def budgets(context: typer.Context, output: Output = CostFormat.TABLE) -> None:
    """Tell how budgets stand. Exit code: 0 within, 1 a threshold is passed, 2 spent, 3 unknown."""
    _answer(context, "budgets", {}, output)


@cost_app.command()
def budget(  # noqa: PLR0917 - likewise
    context: typer.Context,
    workspace: Annotated[str, typer.Argument(help="The workspace.")],
    usd: Annotated[str | None, typer.Option(help="Dollars a calendar month.")] = None,
    gpu_hours: Annotated[str | None, typer.Option(help="GPU-hours a calendar month.")] = None,
    thresholds: Annotated[str | None, typer.Option(help="Shares that are told of (0.5,0.75,0.9,1).")] = None,
    at_limit: Annotated[AtLimit, typer.Option(help="What happens when it is spent.")] = AtLimit.NOTIFY,
    remove: Annotated[bool, typer.Option("--remove", help="Take its budget away.")] = False,  # noqa: FBT002 - a flag
    output: Output = CostFormat.TABLE,
) -> None:
    """Give a workspace a budget from now on, or take it away; what was stopped for it is then given back."""
    parameters = {
        "workspace": workspace, "usd": usd, "gpu_hours": gpu_hours, "thresholds": thresholds,
        "at_limit": at_limit.value, "remove": remove,
    }  # fmt: skip
    _answer(context, "budget", parameters, output)


@cost_app.command()
def close(
    context: typer.Context,
    month: Annotated[str, typer.Argument(help="The month, such as 2026-01.")],
    output: Output = CostFormat.TABLE,
) -> None:
    """Close a month: what is found out of it later is billed in the next."""
    _answer(context, "cost-close", {"month": month}, output)


@cost_app.command()
def reprice(
    context: typer.Context, window: Window = "month", since: Since = None, until: Until = None,
    output: Output = CostFormat.TABLE,
) -> None:  # fmt: skip
    """Bring booked lines to the prices of now, by corrections."""
    _answer(context, "cost-reprice", {"window": window, "since": since, "until": until}, output)


@cost_app.command()
def recount(
    context: typer.Context, window: Window = "7d", since: Since = None, until: Until = None,
    output: Output = CostFormat.TABLE,
) -> None:  # fmt: skip
    """Count a window anew from what is stored now, and book what differs."""
    _answer(context, "cost-recount", {"window": window, "since": since, "until": until}, output)


@cost_app.command()
def days(context: typer.Context, output: Output = CostFormat.TABLE) -> None:
    """Add up the ledger by day anew from its lines, which stay as they are."""
    _answer(context, "cost-days", {}, output)


@cost_app.command()
def charges(context: typer.Context, path: Path, output: Output = CostFormat.TABLE) -> None:
    """Take charges beside GPUs (storage, network, support) from a CSV file."""
    _answer(context, "cost-charges", _file(path), output)


@cost_app.command()
def work(context: typer.Context, path: Path, output: Output = CostFormat.TABLE) -> None:
    """Take work that was done (tokens, requests, training steps) from a CSV file."""
    _answer(context, "cost-work", _file(path), output)


@cost_app.command()
def unit(
    context: typer.Context, window: Window = "7d", since: Since = None, until: Until = None,
    output: Output = CostFormat.TABLE,
) -> None:  # fmt: skip
    """Tell what a million tokens, a request and a training step cost, by workload."""
    _answer(context, "cost-unit", {"window": window, "since": since, "until": until}, output)


@cost_app.command()
def waste(
    context: typer.Context, window: Window = "7d", since: Since = None, until: Until = None,
    output: Output = CostFormat.TABLE,
) -> None:  # fmt: skip
    """Tell what was lost: idle, unhealthy, fragments, throttled GPUs, waiting, quota that nobody used."""
    _answer(context, "cost-waste", {"window": window, "since": since, "until": until}, output)


@cost_app.command()
def reconcile(context: typer.Context, path: Path, output: Output = CostFormat.TABLE) -> None:
    """Compare the ledger with a provider's bill (CSV), node by node and day by day."""
    _answer(context, "cost-reconcile", _file(path), output)


def _file(path: Path) -> dict[str, object]:
    try:
        return {"text": path.read_text(encoding="utf-8"), "place": path.name}
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: can't be read: {error}"
        raise BadInput(message, place=str(path)) from error


def _answer(
    context: typer.Context, name: str, parameters: Mapping[str, object], output: CostFormat, to: Path | None = None
) -> NoReturn:
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick
    from steward.report import render  # noqa: PLC0415 - likewise

    body = ask(context.obj.config, context.obj.store, name, parameters)
    if to is not None:
        _write(body, to)
    elif output in {CostFormat.CSV, CostFormat.FOCUS}:
        typer.echo(_csv(body), nl=False)
    else:
        text = render(body, _OUTPUTS[output])
        if text:
            typer.echo(text)
    code = body["exitCode"]
    raise typer.Exit(code if isinstance(code, int) else 1)


_OUTPUTS: dict[CostFormat, Literal["table", "wide", "json", "yaml"]] = {
    CostFormat.TABLE: "table",
    CostFormat.WIDE: "wide",
    CostFormat.JSON: "json",
    CostFormat.YAML: "yaml",
}


def _csv(body: Mapping[str, object]) -> str:
    import csv  # noqa: PLC0415 - likewise
    import io  # noqa: PLC0415 - likewise

    items = body["items"]
    rows = items if isinstance(items, list) else []
    names = [*dict.fromkeys(name for row in rows for name in row)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if row.get(name) is None else _cell(row[name]) for name in names])
    return out.getvalue()


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _write(body: Mapping[str, object], to: Path) -> None:
    if to.suffix not in {".csv", ".parquet"}:
        message = f"--to: {to} ends neither in .csv nor in .parquet"
        raise BadInput(message, field="to")
    try:
        if to.suffix == ".csv":
            to.write_text(_csv(body), encoding="utf-8")
            return
        from analytics.focus import typed  # noqa: PLC0415 - only Parquet needs it

        typed(body["items"]).write_parquet(to)
    except OSError as error:
        message = f"--to: {to} can't be written: {error}"
        raise BadInput(message, field="to") from error
