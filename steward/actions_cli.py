"""Commands about moves: plan, apply, proposals, approve, refuse, undo, brake and the log of all of it."""

import csv
import io
import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class LogOutput(StrEnum):
    """How the log is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


class Brake(StrEnum):
    """What can be asked of the brake."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


_COLOURS = {"-": "red", "+": "green", "~": "yellow"}
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")]
AsOption = Annotated[str | None, typer.Option("--as", help="Your name (else the user of this machine).")]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="Your own token, which proves who you are ([serve] people_file).")
]
What = Annotated[str, typer.Argument(help="A plan or a move, by its id.")]
Note = Annotated[str | None, typer.Option(help="Why, for the record.")]
Yes = Annotated[bool, typer.Option("--yes", help="Really do it; without it that is rehearsed.")]


def register(app: typer.Typer) -> None:
    """Hang the commands into the command line."""
    for name, command in (
        ("plan", plan),
        ("apply", apply_plan),
        ("proposals", proposals),
        ("approve", approve),
        ("refuse", refuse),
        ("undo", undo),
        ("brake", brake),
    ):
        app.command(name=name)(command)
    group = typer.Typer(help="What was planned, asked, answered, made and undone.", rich_markup_mode=None)
    group.command(name="log")(log)
    app.add_typer(group, name="actions")


def plan(
    context: typer.Context,
    as_of: Annotated[str, typer.Option("--as-of", help="The moment to judge: 'now', 'data' or a time.")] = "now",
    who: AsOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a plan from the verdicts of now, record it and show what it would change, field by field, and why."""
    body = _ask(context, "plan", {"as_of": as_of, "who": user_name(who)})
    if output is not Output.TABLE:
        _print(body, output)
    _print_plan(body)


def apply_plan(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    plan_id: Annotated[str | None, typer.Argument(help="The plan (else the latest).")] = None,
    only: Annotated[str | None, typer.Option(help="Only this move, and those it belongs to.")] = None,
    yes: Yes = False,  # noqa: FBT002 - a flag of typer's
    who: AsOption = None,
    token: TokenOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Rehearse a recorded plan, that very one, or make it with --yes; refused where the world changed since."""
    asked = {"plan_id": plan_id, "only": only, "yes": yes, "who": user_name(who)}
    _print(_ask(context, "apply", asked, token), output)


def proposals(
    context: typer.Context,
    show_all: Annotated[bool, typer.Option("--all", help="Show those that are answered or over, too.")] = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Output.TABLE,
) -> None:
    """Show which moves wait for an answer: whose, until when, and what happens without one."""
    _print(_ask(context, "proposals", {"all": "true" if show_all else None}), output)


def approve(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    what: What,
    note: Note = None,
    who: AsOption = None,
    token: TokenOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Approve a plan's moves, or one move; the next turn makes them. Large moves need two persons."""
    _print(_ask(context, "approve", {"what": what, "note": note, "who": user_name(who)}, token), output)


def refuse(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    what: What,
    note: Note = None,
    who: AsOption = None,
    token: TokenOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Refuse a plan's moves, or one move; it is not made, nor proposed again for a while."""
    _print(_ask(context, "refuse", {"what": what, "note": note, "who": user_name(who)}, token), output)


def undo(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    what: What,
    yes: Yes = False,  # noqa: FBT002 - a flag of typer's
    even_braked: Annotated[bool, typer.Option("--even-braked", help="Although the brake is on.")] = False,  # noqa: FBT002 - a flag of typer's
    who: AsOption = None,
    token: TokenOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back what was made of a plan or a move, last first; what others changed since is left alone."""
    asked = {"what": what, "yes": yes, "even_braked": even_braked, "who": user_name(who)}
    _print(_ask(context, "undo", asked, token), output)


def brake(
    context: typer.Context,
    order: Annotated[Brake, typer.Argument(help="on stops every move, off lets them be made again.")] = Brake.STATUS,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever finds it on.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop all moves at once, or show whether they are stopped."""
    _print(_ask(context, "brake", {"order": order.value, "reason": reason}), output)


def log(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    since: Annotated[str, typer.Option(help="24h, 7d, 4w, or a time with zone.")] = "7d",
    rule: Annotated[str | None, typer.Option(help="Only this rule's.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Only this workspace's.")] = None,
    plan_id: Annotated[str | None, typer.Option("--plan", help="Only this plan's.")] = None,
    dry_runs: Annotated[bool, typer.Option("--dry-runs", help="Rehearsals, too.")] = False,  # noqa: FBT002 - a flag of typer's
    output: Annotated[LogOutput, typer.Option("-o", "--output", help="How the log is printed.")] = LogOutput.TABLE,
) -> None:
    """Tell what was done as one story: planned, proposed, told, approved, made, undone; who, why, what was before."""
    asked = {"since": since, "rule": rule, "workspace": workspace, "plan": plan_id}
    body = _ask(context, "actions_log", {**asked, "dry_runs": "true" if dry_runs else None})
    if output is not LogOutput.CSV:
        _print(body, Output(output.value))
    typer.echo(_csv(body), nl=False)


def _ask(
    context: typer.Context, name: str, parameters: Mapping[str, object], token_file: Path | None = None
) -> Mapping[str, object]:
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick

    return ask(context.obj.config, context.obj.store, name, parameters, token_file)


def _print(body: Mapping[str, object], output: Output) -> NoReturn:
    from steward.report import render  # noqa: PLC0415 - --help must stay quick

    text = render(body, output.value)
    if text:
        typer.echo(text)
    code = body["exitCode"]
    raise typer.Exit(code if isinstance(code, int) else 1)


def _print_plan(body: Mapping[str, object]) -> None:
    """Print a plan as a difference, in colours where a person reads it on a terminal."""
    from rich.console import Console  # noqa: PLC0415 - --help must stay quick
    from rich.text import Text  # noqa: PLC0415 - likewise

    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    for line in _plan_lines(body):
        style = _COLOURS.get(line[:1], "bold" if line.startswith(("Plan", "Rule")) else "")
        console.print(Text(line, style=style)) if console.is_terminal else typer.echo(line)


def _plan_lines(body: Mapping[str, object]) -> list[str]:
    from actions.explain import lines_of  # noqa: PLC0415 - --help must stay quick

    summary, items, notes = body["summary"], body["items"], body["notes"]
    told = summary if isinstance(summary, Mapping) else {}
    rows = items if isinstance(items, list) else []
    texts = [str(note) for note in notes] if isinstance(notes, list) else []
    lines: list[str] = []
    for place, plan_id in enumerate(told["plans"]):
        head = next((text for text in texts if text.startswith(f"Plan {plan_id}")), f"Plan {plan_id}")
        mine = [item for item in rows if item["plan_id"] == plan_id]
        held = told["held_back"] if place == len(told["plans"]) - 1 else []
        lines += lines_of(mine, head=head, held_back=held, summary=told["summary"][place])
    return lines + [text for text in texts if not text.startswith("Plan ")]


def _csv(body: Mapping[str, object]) -> str:
    items = body["items"]
    rows = items if isinstance(items, list) else []
    names = list(rows[0]) if rows else []
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = (row[name] for name in names)
        writer.writerow(
            [json.dumps(each, sort_keys=True) if isinstance(each, dict | list) else each for each in values]
        )
    return file.getvalue()


def user_name(given: str | None = None) -> str:
    """Return who asks: the name given, else the user of this machine."""
    import getpass  # noqa: PLC0415 - --help must stay quick
    import os  # noqa: PLC0415 - likewise

    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
