"""`steward xid`: explain an XID, or decode a pasted kernel log line by line. Needs no store and no settings."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from analytics.xid import XidOverride
    from steward.report import Output

_HELP = "An XID's number, a file with kernel log lines, or - for standard input; nothing lists the catalogue."


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(xid)


def xid(
    context: typer.Context,
    what: Annotated[str | None, typer.Argument(metavar="[CODE | FILE | -]", help=_HELP)] = None,
    driver: Annotated[str | None, typer.Option(help="Driver version, for NVLink errors (575 changed them).")] = None,
    switch: Annotated[bool, typer.Option("--switch", help="CODE is an SXid, of an NVSwitch.")] = False,  # noqa: FBT002 - a flag of typer's
    output: Annotated[str, typer.Option("-o", "--output", help="table, wide, json or yaml.")] = "table",
) -> None:
    """Explain an XID or SXid, or decode kernel log lines: which GPU, what it means, what to do and why."""
    from steward.report import render  # noqa: PLC0415 - --help must stay quick
    from steward.xid_report import explain_code, explain_log, list_codes  # noqa: PLC0415 - likewise

    form = _form(output)
    overrides = _overrides(context.obj.config)
    if what is None:
        report = list_codes(overrides, is_switch=switch)
    elif what.isascii() and what.isdigit():
        report = explain_code(what, driver, overrides, is_switch=switch)
    else:
        report = explain_log(_text(what), driver, overrides)
    typer.echo(render(report.to_body(), form))
    raise typer.Exit(report.exit_code)


def _form(output: str) -> "Output":
    for form in ("table", "wide", "json", "yaml"):
        if output == form:
            return form
    message = f"'{output}' is not one of table, wide, json, yaml"
    raise typer.BadParameter(message, param_hint="--output")


def _text(what: str) -> str:
    if what == "-":
        return typer.get_text_stream("stdin", encoding="utf-8", errors="replace").read()
    try:
        return Path(what).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        from fleet.errors import BadInput  # noqa: PLC0415 - --help must stay quick

        message = f"{what}: neither an XID's number nor a file that can be read ({error.strerror})"
        raise BadInput(message, place=what) from error
    except ValueError as error:
        from fleet.errors import BadInput  # noqa: PLC0415 - likewise

        message = f"{what!r}: neither an XID's number nor the name of a file"
        raise BadInput(message, place=what) from error


def _overrides(config: Path | None) -> "tuple[XidOverride, ...]":
    """Return the changes of a settings file that was named; looking for one would cost more than the answer."""
    if config is None:
        return ()
    from steward.config import find_file, load_settings  # noqa: PLC0415 - pulls in the rooms' policies

    return load_settings(find_file(config, os.environ, Path.cwd()), os.environ).health.overrides
