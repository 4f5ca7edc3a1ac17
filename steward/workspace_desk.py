"""The desk's answers about workspaces, and the orders that make, change and delete them as moves of the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from actions.apply import apply
from actions.kinds import rule_of
from actions.plan import plan
from actions.port import Cluster
from actions.rows import plan_frames
from analytics.known_workspaces import undeclared
from controller.workspace import RULE, propose_workspaces
from fleet.errors import BadInput, SourceFailed
from fleet.move import Move, Outcome, Plan, Stage
from fleet.state import FleetState
from fleet.workspace import Desired, Workspace
from fleet.workspace_manifest import manifest_of, workspace_from
from steward.carry import ACTOR, carry_out, recent_moves
from steward.compose import House
from steward.overseer import why_stopped
from steward.report import Item, Report
from steward.workspaces import desired_of, history_of, keep_desired

_ROUNDS = 5  # namespaces first, then what is in them; a queue goes when its namespaces are gone
_LIST = ("workspace", "owner", "namespaces", "clusters", "gpus", "roles", "state")
_PARTS = ("cluster", "object", "state", "detail")
_STEPS = ("kind", "target", "cluster", "stage", "detail")
_KINDS = {"apply_object": "differs", "delete_object": "not wanted"}


def list_workspaces(house: House, _parameters: Mapping[str, object]) -> Report:
    """Return every workspace: those with a manifest, then those that are only seen."""
    wanted, now = [_row(each) for each in desired_of(house.store)], house.clock.now()
    tables = [house.store.read(name) for name in ("workspace", "workspace_member", "quota")]
    others = undeclared(tables[0], tables[1], tables[2], now, {str(each["workspace"]) for each in wanted})
    items = [*wanted, *({**row, "roles": "", "state": "no manifest"} for row in others.iter_rows(named=True))]
    notes = () if wanted else ("no workspace has a manifest yet; see `steward workspace create` and `apply`",)
    return Report("WorkspaceList", now, {"workspaces": len(items)}, items, _LIST, notes)


def show_workspace(house: House, parameters: Mapping[str, object]) -> Report:
    """Return one workspace: what its manifest says, what stands of it in each cluster, and its history."""
    found = _named(house, parameters)
    items, notes = _parts_of(house, (found,), with_good=True)
    history = tuple(
        f"{at.isoformat()} {'deleted' if is_deleted else 'applied'} by {actor}"
        for at, actor, is_deleted in history_of(house.store, found.workspace.name)
    )
    return Report(
        "Workspace",
        house.clock.now(),
        {**_row(found), "manifest": manifest_of(found.workspace)},
        items,
        _PARTS,
        (*notes, *history),
    )


def drift_of(house: House, parameters: Mapping[str, object]) -> Report:
    """Return where the clusters are not as the manifests wish; the exit code is 1 where they are not."""
    desired = (_named(house, parameters),) if parameters.get("name") is not None else desired_of(house.store)
    items, notes = _parts_of(house, desired, with_good=False)
    summary: dict[str, object] = {"workspaces": len(desired), "differences": len(items)}
    return Report("WorkspaceDrift", house.clock.now(), summary, items, _PARTS, notes, exit_code=int(bool(items)))


def export_workspaces(house: House, parameters: Mapping[str, object]) -> Report:
    """Return manifests, as they can be applied again; those of deleted workspaces only when named."""
    wanted = parameters.get("name")
    desired = [_named(house, parameters)] if wanted is not None else desired_of(house.store)
    items = [manifest_of(each.workspace) for each in desired if wanted is not None or not each.is_deleted]
    return Report("WorkspaceExport", house.clock.now(), {"workspaces": len(items)}, items, ("kind", "metadata"))


def apply_workspaces(house: House, parameters: Mapping[str, object]) -> Report:
    """Make workspaces what the given manifests say, or rehearse it."""
    manifests = parameters.get("manifests")
    if not isinstance(manifests, Sequence) or isinstance(manifests, str) or not manifests:
        message = "manifests: there is no manifest to apply"
        raise BadInput(message, field="manifests")
    places = parameters.get("places")
    named = [str(each) for each in places] if isinstance(places, Sequence) and not isinstance(places, str) else []
    made = [
        workspace_from(each, named[place] if place < len(named) else f"manifest {place + 1}")
        for place, each in enumerate(manifests)
    ]
    _check_together(house, made)
    return _carry(house, [Desired(each) for each in made], who=_who(parameters), is_real=parameters.get("yes") is True)


def delete_workspace(house: House, parameters: Mapping[str, object]) -> Report:
    """Delete a workspace, or rehearse it: only what bears our record goes, and adopted namespaces stay."""
    found = _named(house, parameters)
    gone = Desired(found.workspace, is_deleted=True, is_forced=parameters.get("force") is True)
    return _carry(house, [gone], who=_who(parameters), is_real=parameters.get("yes") is True)


def _who(parameters: Mapping[str, object]) -> str:
    return str(parameters.get("who") or ACTOR).strip() or ACTOR


def _carry(house: House, changed: Sequence[Desired], *, who: str, is_real: bool) -> Report:
    now = house.clock.now()
    plans: list[Plan] = []
    outcomes: list[Outcome] = []
    troubles: list[str] = []
    if is_real:
        keep_desired(house.store, changed, now, who)
    for cluster in house.clusters:
        try:
            if is_real:
                _make(replace(house, clusters=(cluster,)), changed, who, plans, outcomes)
            else:
                _rehearse(house, cluster, changed, plans, outcomes)
        except SourceFailed as error:
            troubles.append(f"cluster {cluster.name} can't be read: {error}")
    return _told(house, plans, outcomes, troubles, is_real=is_real)


def _make(alone: House, changed: Sequence[Desired], who: str, plans: list[Plan], outcomes: list[Outcome]) -> None:
    (cluster,) = alone.clusters
    for _ in range(_ROUNDS):
        made = _plan(alone, cluster.observe(), changed, cluster.name)
        if plans and not made.moves and not made.held_back:
            return
        plans.append(made)
        for table, frame in plan_frames(made).items():
            alone.store.append_stored(table, frame)
        came = carry_out(alone, made, is_dry_run=False, is_approved=True, actor=who)
        outcomes += came
        if not any(each.stage is Stage.APPLIED for each in came):
            return


def _rehearse(
    house: House, cluster: Cluster, changed: Sequence[Desired], plans: list[Plan], outcomes: list[Outcome]
) -> None:
    made = _plan(house, cluster.observe(), changed, cluster.name)
    plans.append(made)
    outcomes += apply(
        made,
        cluster,
        house.settings.actions,
        house.clock,
        lambda _outcome: None,
        actor=ACTOR,
        kill_switch=partial(_stopped, house, cluster),
        recent=recent_moves(house),
    )


def _stopped(house: House, cluster: Cluster) -> str | None:
    overseer = house.overseers.get(cluster.name)
    # who only rehearses needs no lead
    alone = None if overseer is None else replace(overseer, leadership=None)
    return why_stopped(alone, house.store.path, house.clock.now())


def _plan(house: House, state: FleetState, changed: Sequence[Desired], cluster: str) -> Plan:
    """Return what the changed workspaces come to in one cluster, and nothing else."""
    names = {each.workspace.name for each in changed}
    others = [each for each in desired_of(house.store) if each.workspace.name not in names]
    proposal = propose_workspaces([*others, *changed], state, cluster)
    mine = replace(
        proposal,
        drafts=tuple(each for each in proposal.drafts if each.move.workspace in names),
        held_back=tuple(each for each in proposal.held_back if not _is_of_others(each.subject, state, names)),
    )
    made = plan(state, (), house.settings.actions, house.clock.now(), recent=recent_moves(house), further={RULE: mine})
    return replace(made, moves=tuple(each for each in made.moves if rule_of(each) == RULE))


def _is_of_others(subject: str, state: FleetState, names: set[str]) -> bool:
    owners = {each.owner for each in state.objects if str(each.ref) == subject and each.owner is not None}
    return bool(owners) and not owners & names


def _told(
    house: House, plans: Sequence[Plan], outcomes: Sequence[Outcome], troubles: Sequence[str], *, is_real: bool
) -> Report:
    last = {each.move_id: each for each in outcomes}
    moves = {move.move_id: move for made in plans for move in made.moves}
    items = [
        {
            "kind": move.kind.value,
            "target": str(move.target),
            "cluster": move.cluster,
            "stage": _stage(last.get(name)),
            "detail": move.reason if name not in last or _is_rehearsed(last[name]) else last[name].detail,
            "reason": move.reason,
            "before": _body_before(move),
            "after": move.arguments.get("body"),
            "move_id": name,
        }
        for name, move in moves.items()
    ]
    held = {f"held back: {each.subject}: {each.reason}" for made in plans for each in made.held_back}
    hint = "" if is_real else "this was a rehearsal and changed nothing; --yes keeps the manifest and makes the moves"
    undo = [f"take it back: steward undo {made.plan_id}" for made in plans if is_real and made.moves]
    nowhere = [] if house.clusters else ["no cluster that can be moved is configured; the manifest alone is kept"]
    failed = any(each.stage in {Stage.FAILED, Stage.REFUSED} for each in last.values()) or bool(troubles)
    notes = (*sorted(held), *troubles, *nowhere, *undo, *([hint] if hint else []))
    summary: dict[str, object] = {
        "moves": len(items),
        "made": sum(each.stage is Stage.APPLIED and not each.is_dry_run for each in last.values()),
        "held back": len(held),
    }
    return Report("WorkspaceReport", house.clock.now(), summary, items, _STEPS, notes, exit_code=int(failed))


def _stage(outcome: Outcome | None) -> str:
    if outcome is None:
        return "planned"
    return "would be made" if _is_rehearsed(outcome) else outcome.stage.value


def _is_rehearsed(outcome: Outcome) -> bool:
    return outcome.is_dry_run and outcome.stage is Stage.APPLIED


def _body_before(move: Move) -> object:
    before = move.evidence.get("before")
    return before.get("body") if isinstance(before, Mapping) else None


def _parts_of(house: House, desired: Sequence[Desired], *, with_good: bool) -> tuple[list[Item], tuple[str, ...]]:
    items: list[Item] = []
    notes: list[str] = []
    names = {each.workspace.name for each in desired}
    for cluster in house.clusters:
        try:
            state = cluster.observe()
        except SourceFailed as error:
            notes.append(f"cluster {cluster.name} can't be read: {error}")
            continue
        everybody = [each for each in desired_of(house.store) if each.workspace.name not in names]
        proposal = propose_workspaces([*everybody, *desired], state, cluster.name)
        changing = set()
        for draft in proposal.drafts:
            if draft.move.workspace in names:
                changing.add(str(draft.move.target))
                word = "missing" if _body_before(draft.move) is None else _KINDS[draft.move.kind.value]
                items.append(_part(cluster.name, str(draft.move.target), word, draft.move.reason))
        items += [
            _part(cluster.name, held.subject, "held back", held.reason)
            for held in proposal.held_back
            if not _is_of_others(held.subject, state, names)
        ]
        if with_good:
            items += [
                _part(cluster.name, str(each.ref), "as declared", "")
                for each in state.objects
                if each.owner in names and str(each.ref) not in changing
            ]
    if not house.clusters:
        notes.append("no cluster that can be looked at is configured ([collect] sources)")
    return items, tuple(notes)


def _part(cluster: str, name: str, state: str, detail: str) -> Item:
    return {"cluster": cluster, "object": name, "state": state, "detail": detail}


def _named(house: House, parameters: Mapping[str, object]) -> Desired:
    name = str(parameters.get("name", ""))
    desired = {each.workspace.name: each for each in desired_of(house.store)}
    if name not in desired:
        known = ", ".join(sorted(desired)) or "none yet"
        message = f"there is no workspace {name!r} with a manifest; there are: {known}"
        raise BadInput(message, field="name")
    return desired[name]


def _check_together(house: House, made: Sequence[Workspace]) -> None:
    """Refuse two manifests of one name, and a namespace that two workspaces want in one cluster."""
    names = [each.name for each in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"metadata.name: workspace {twice[0]} stands in two of the given manifests"
        raise BadInput(message, field="metadata.name")
    others = [each.workspace for each in desired_of(house.store) if not each.is_deleted]
    everybody = [*made, *(each for each in others if each.name not in names)]
    held: dict[str, Workspace] = {}
    for workspace in everybody:
        for space in workspace.namespaces:
            before = held.setdefault(space.name, workspace)
            if before is not workspace and _meet(before, workspace, space.name):
                message = f"namespace {space.name}: workspaces {before.name} and {workspace.name} both want it"
                raise BadInput(message, field="spec.namespaces")


def _meet(one: Workspace, other: Workspace, namespace: str) -> bool:
    places = [
        next(space.clusters for space in each.namespaces if space.name == namespace) or each.clusters
        for each in (one, other)
    ]
    return not places[0] or not places[1] or bool(set(places[0]) & set(places[1]))


def _row(desired: Desired) -> dict[str, object]:
    workspace = desired.workspace
    people = [f"{seat.role}: {', '.join((*seat.users, *seat.groups))}" for seat in workspace.seats]
    return {
        "workspace": workspace.name,
        "owner": workspace.owner,
        "namespaces": ", ".join(each.name for each in workspace.namespaces),
        "clusters": ", ".join(workspace.clusters) or "all",
        "gpus": sum(each.gpus for each in workspace.quotas) if workspace.quotas else None,
        "roles": "; ".join(people),
        "state": "to be deleted" if desired.is_deleted else "wanted",
    }


Answer = Callable[[House, Mapping[str, object]], Report]
QUESTIONS: Mapping[str, Answer] = {
    "workspaces": list_workspaces,
    "workspace": show_workspace,
    "workspace_drift": drift_of,
    "workspace_export": export_workspaces,
}
ORDERS: Mapping[str, Answer] = {"workspace_apply": apply_workspaces, "workspace_delete": delete_workspace}
