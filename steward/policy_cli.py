"""The command that replays policies over the recorded past."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleet.errors import BadInput

Answer = Callable[[typer.Context, str, Mapping[str, object], str], None]


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Verdicts(StrEnum):
    """Where the verdicts of a past moment come from."""

    AUTO = "auto"
    RECORDED = "recorded"
    JUDGED = "judged"


def register(app: typer.Typer, answer: Answer) -> None:
    """Add the command to the application; `answer` asks the desk and prints."""

    @app.command(name="replay-policy")
    def replay_policy(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
        context: typer.Context,
        policy: Annotated[Path | None, typer.Argument(help="A policy file (else the settings in force).")] = None,
        other: Annotated[Path | None, typer.Argument(help="Another one, to be compared with the first.")] = None,
        since: Annotated[str, typer.Option("--from", help="A time with zone, or a length back from --to: 14d.")] = "7d",
        until: Annotated[
            str | None, typer.Option("--to", help="A time with zone, or a length back (else the newest hour).")
        ] = None,
        step: Annotated[str, typer.Option(help="A plan is made every: 30m, 1h, 6h.")] = "1h",
        verdicts: Annotated[Verdicts, typer.Option(help="Recorded, judged anew, or what there is.")] = Verdicts.AUTO,
        grace: Annotated[str, typer.Option(help="A reclaim wanted again so soon is wrong at once.")] = "1h",
        within: Annotated[str, typer.Option(help="A reclaim wanted again so soon is wrong.")] = "4h",
        health_every: Annotated[str, typer.Option(help="Judge health at least so often, and after events.")] = "6h",
        output: Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")] = Output.TABLE,
    ) -> None:
        """Run a policy over the recorded past: what it would have reclaimed and fenced, and whom it would have hurt."""
        asked: dict[str, object] = {"from": since, "to": until, "step": step, "verdicts": verdicts.value}
        asked |= {"grace": grace, "within": within, "health_every": health_every}
        asked["detail"] = output in {Output.JSON, Output.YAML}
        for name, path in (("policy", policy), ("other", other)):
            if path is not None:
                asked |= {name: _read(path), f"{name}_name": path.stem}
        answer(context, "replay_policy", asked, output.value)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: can't be read as a policy: {error}"
        raise BadInput(message, place=str(path), field="policy") from error
