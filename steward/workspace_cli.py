"""The commands `steward workspace ...`: workspaces by manifest or by word, changed only with --yes."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from steward.actions_cli import user_name
from steward.manifest_file import read_manifests


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Really do it; without it, it is rehearsed.")]
NameArgument = Annotated[str, typer.Argument(help="The workspace.")]


def register(app: typer.Typer) -> None:
    """Add the command group `workspace` to the command line."""
    group = typer.Typer(
        help="Make, change, watch and delete workspaces: namespaces, quotas, queues, roles and isolation.",
        no_args_is_help=True,
    )
    group.command(name="list")(list_all)
    for command in (show, apply, create, delete, drift, export):
        group.command()(command)
    app.add_typer(group, name="workspace")


def list_all(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the workspaces that have a manifest."""
    _answer(context, "workspaces", {}, output)


def show(context: typer.Context, name: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one workspace: its manifest, what stands of it in each cluster, and who changed it when."""
    _answer(context, "workspace", {"name": name}, output)


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("-f", "--file", help="Manifests, one or more YAML documents; - reads stdin.")],
    yes: YesOption = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Output.TABLE,
) -> None:
    """Make workspaces what their manifests say; without --yes it is rehearsed and nothing changes."""
    manifests, places = read_manifests(file)
    _answer(
        context, "workspace_apply", {"manifests": manifests, "places": places, "yes": yes, "who": user_name()}, output
    )


def create(  # noqa: PLR0917 - typer takes each option as an argument and calls by name
    context: typer.Context,
    name: NameArgument,
    namespace: Annotated[list[str], typer.Option(help="A namespace of it; may be given more than once.")],
    owner: Annotated[str | None, typer.Option(help="Whose it is.")] = None,
    cluster: Annotated[list[str] | None, typer.Option(help="A cluster it lives in (else all).")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs it may count on.", min=0)] = None,
    pool: Annotated[str | None, typer.Option(help="The pool that these GPUs are of.")] = None,
    model: Annotated[str | None, typer.Option(help="Their model.")] = None,
    editor: Annotated[list[str] | None, typer.Option(help="A user who may change what is in it.")] = None,
    yes: YesOption = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Output.TABLE,
) -> None:  # fmt: skip
    """Make a workspace without a file; `export` writes its manifest afterwards."""
    if gpus is None and (pool is not None or model is not None):
        message = "--pool and --model say which GPUs --gpus means; give it, too"
        raise typer.BadParameter(message)
    quota = {key: value for key, value in (("gpus", gpus), ("pool", pool), ("model", model)) if value is not None}
    told: dict[str, object] = {
        "owner": owner,
        "clusters": cluster or None,
        "namespaces": [{"name": each} for each in namespace],
        "quotas": [quota] if quota else None,
        "roles": [{"role": "Editor", "users": editor}] if editor else None,
    }
    spec = {key: value for key, value in told.items() if value is not None}
    manifest = {
        "apiVersion": "gpusteward.dev/v1alpha1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "spec": spec,
    }
    _answer(
        context,
        "workspace_apply",
        {"manifests": [manifest], "places": ["command line"], "yes": yes, "who": user_name()},
        output,
    )


def delete(
    context: typer.Context,
    name: NameArgument,
    force: Annotated[bool, typer.Option("--force", help="Even where pods run or volumes are kept.")] = False,  # noqa: FBT002 - a flag of typer's
    yes: YesOption = False,  # noqa: FBT002 - a flag of typer's
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete a workspace: what bears our record goes, adopted namespaces are let go and stay."""
    _answer(context, "workspace_delete", {"name": name, "force": force, "yes": yes, "who": user_name()}, output)


def drift(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The workspace (else all).")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show where clusters are not as the manifests wish. Exit code: 0 nowhere, 1 somewhere."""
    _answer(context, "workspace_drift", {"name": name}, output)


def export(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The workspace (else all).")] = None,
    output: OutputOption = Output.YAML,
) -> None:
    """Write manifests that can be applied again."""
    if output is not Output.YAML:
        _answer(context, "workspace_export", {"name": name}, output)
    import yaml  # noqa: PLC0415 - few commands need it

    from steward.front import ask  # noqa: PLC0415 - --help must stay quick

    body = ask(context.obj.config, context.obj.store, "workspace_export", {"name": name})
    items = body["items"]
    typer.echo(
        yaml.safe_dump_all(items if isinstance(items, list) else [], sort_keys=False, allow_unicode=True), nl=False
    )


def _answer(context: typer.Context, name: str, given: Mapping[str, object], output: Output) -> NoReturn:
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick
    from steward.report import render  # noqa: PLC0415 - likewise

    body = ask(context.obj.config, context.obj.store, name, given)
    typer.echo(render(body, output.value))
    code = body["exitCode"]
    raise typer.Exit(code if isinstance(code, int) else 1)
