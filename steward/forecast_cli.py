"""Commands about times to come: forecast, capacity, wait-time, what-if."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated

import typer

Answer = Callable[[typer.Context, str, Mapping[str, object], str], None]


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class By(StrEnum):
    """Of what demand is forecast."""

    WORKSPACE = "workspace"
    MODEL = "model"
    POOL = "pool"
    CLUSTER = "cluster"
    ALL = "all"


_Printed = Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")]
_AsOf = Annotated[str, typer.Option("--as-of", help="'now', 'data' (the newest stored) or a time with zone.")]
_Cluster = Annotated[str | None, typer.Option(help="The cluster (needed where several have recorded jobs).")]
_GpusThere = Annotated[float | None, typer.Option("--gpus-there", help="GPUs the cluster has (else as stored).", min=0)]

_Reclaim = Annotated[bool, typer.Option("--reclaim-idle", help="Take back what the ledger says idles.")]


def register(app: typer.Typer, answer: Answer) -> None:
    """Add the commands to the application; `answer` asks the desk and prints."""

    @app.command()
    def forecast(
        context: typer.Context,
        by: Annotated[By, typer.Option(help="Of what demand is forecast.")] = By.WORKSPACE,
        horizon: Annotated[str, typer.Option(help="How far ahead: 24h, 7d; 30d at most.")] = "24h",
        as_of: _AsOf = "data",
        output: _Printed = Output.TABLE,
    ) -> None:
        """Forecast demand with bands, and say how wrong such forecasts were. JSON and YAML give every hour."""
        detail = output in {Output.JSON, Output.YAML}
        asked = {"by": by.value, "horizon": horizon, "as_of": as_of, "detail": detail}
        answer(context, "forecast", asked, output.value)

    @app.command()
    def capacity(context: typer.Context, as_of: _AsOf = "data", output: _Printed = Output.TABLE) -> None:
        """Say how likely each workspace is to pass its quota, and each pool to run out, within 1, 7 and 30 days."""
        answer(context, "capacity", {"as_of": as_of}, output.value)

    @app.command(name="wait-time")
    def wait_time(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
        context: typer.Context,
        workspace: Annotated[str, typer.Option(help="Who asks.")],
        gpus: Annotated[float, typer.Option(help="How many GPUs are asked for.", min=0)] = 1,
        priority: Annotated[int, typer.Option(help="Higher goes first.", min=0)] = 0,
        cluster: _Cluster = None,
        gpus_there: _GpusThere = None,
        as_of: _AsOf = "data",
        output: _Printed = Output.TABLE,
    ) -> None:
        """Quote how long a request would wait, as quantiles."""
        asked = {"workspace": workspace, "gpus": gpus, "priority": priority, "cluster": cluster}
        answer(context, "wait", {**asked, "gpus_there": gpus_there, "as_of": as_of}, output.value)

    @app.command(name="what-if")
    def what_if(  # noqa: PLR0917 - likewise
        context: typer.Context,
        add: Annotated[float, typer.Option(help="GPUs more.", min=0)] = 0,
        remove: Annotated[float, typer.Option(help="GPUs fewer.", min=0)] = 0,
        move: Annotated[list[str] | None, typer.Option(help="Move quota, FROM:TO:GPUS; may be repeated.")] = None,
        lend: Annotated[bool | None, typer.Option("--lend/--no-lend", help="Lend unused quota, or not.")] = None,
        reclaim_idle: _Reclaim = False,  # noqa: FBT002 - a flag of typer's
        drain: Annotated[str | None, typer.Option(help="Drain a rack, a node or a number of GPUs.")] = None,
        drain_hours: Annotated[float, typer.Option(help="For how long, from the record's begin.", min=0)] = 24,
        price: Annotated[str | None, typer.Option(help="Dollars for a GPU-hour.")] = None,
        cluster: _Cluster = None,
        gpus_there: _GpusThere = None,
        output: _Printed = Output.TABLE,
    ) -> None:
        """Replay recorded jobs with other GPUs, quotas or rules: waits, use and cost, with and without the change."""
        asked = {
            "add": add,
            "remove": remove,
            "moves": ",".join(move or []),
            "lend": lend,
            "reclaim_idle": reclaim_idle,
        }
        asked |= {"drain": drain, "drain_hours": drain_hours, "price": price, "cluster": cluster}
        answer(context, "what_if", {**asked, "gpus_there": gpus_there}, output.value)
