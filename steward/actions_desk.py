"""Orders about moves: plan, apply, approve, refuse, undo, brake. Questions about them stand in `actions_record`.

Each order takes `who` gives it ("who"). A server fills that in itself where it knows the caller by a token of theirs,
and then says that it is proven ("is_proven"), which no caller can say of themselves.
Approve and refuse answer an `ApprovalReport`, one item a move: `move_id`, `plan_id`, `target`, `kind`, `state`
(proposed, notified, approved, refused, expired, made), `approved_by`, `claimed`, `persons`, `expires_at`, `outlook`.
Apply and undo answer one item an outcome: `move`, `kind`, `target`, `cluster`, `stage`, `dry_run`, `detail`. Their exit
code: 0 all of it is made (or would be), 1 a move failed, 3 one was refused or waits for others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

import polars as pl

from actions.apply import SKIPPED, groups_of
from actions.approval import Standing, check_answer, content_digest, person_of, persons_for, why_unproven
from actions.budget import made_of
from actions.drift import Change, changed_settings, changed_targets
from actions.explain import diff_items, summary_of
from actions.index import index_of
from actions.kinds import is_undo
from actions.rows import moves_from, outcomes_from, plan_frames, plan_from
from actions.undo import undo_plan
from fleet.approval import Approval, Step
from fleet.errors import BadInput, SourceFailed, StaleState
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from steward.acting import Voice, approve_by, keep, propose, read_answers, standings_of, waiting_of
from steward.actions_record import approvals_of, item_of, plan_of
from steward.brake import pull, reason_of, release
from steward.carry import carry_out, reaches, recent_moves, settle_unfinished
from steward.compose import House
from steward.cycle import make_plans, record_findings
from steward.judge import judge
from steward.moments import as_of, stale_notes
from steward.overseer import why_stopped
from steward.report import Report, plain
from steward.workspace_undo import Wish, give_back, keep_wishes, wishes_of

_MOVE_COLUMNS = ("kind", "target", "cluster", "gpus", "workspace", "saving_usd_per_hour", "reason")
_ANSWER_COLUMNS = ("target", "kind", "state", "approved_by", "persons", "expires_at", "outlook", "move_id")
_DONE_COLUMNS = ("kind", "target", "stage", "dry_run", "detail", "move")
_NONE: Mapping[str, str] = MappingProxyType({})
UNNAMED, WAITING = "unnamed", "waiting"
FAILED, HELD = 1, 3


def order_plan(house: House, parameters: Mapping[str, object]) -> Report:
    """Make a plan from the verdicts of now, record it with its proposals, and show it; nothing is changed."""
    now = as_of(house, str(parameters.get("as_of", "now")))
    if not house.clusters:
        message = "no cluster to plan for: [collect] sources names none that can be moved (kubernetes, simulator)"
        raise BadInput(message, field="collect.sources")
    findings = judge(house, now)
    record_findings(house, findings)
    plans = make_plans(house, findings.verdicts, now)
    if not plans:
        message = "no cluster could be read, so there is no plan; `steward doctor` tells what each of them said"
        raise SourceFailed(message)
    for made in plans:
        propose(house, made, _who(parameters), now)
    items = [item for made in plans for item in diff_items(made, approvals_of(house, made, now))]
    heads = [f"Plan {made.plan_id}, made {plain(made.made_at)}" for made in plans]
    ids = [made.plan_id for made in plans]
    hints = [
        f"rehearse it: steward apply {each.plan_id}; make it: steward apply {each.plan_id} --yes"
        for each in plans
        if each.moves
    ]
    summary: dict[str, object] = {
        "plans": ids,
        "summary": [summary_of(made) for made in plans],
        "held_back": [f"{each.action} {each.subject}: {each.reason}" for made in plans for each in made.held_back],
    }
    return Report("PlanReport", now, summary, items, _MOVE_COLUMNS, (*heads, *hints, *stale_notes(house, now)))


def order_apply(house: House, parameters: Mapping[str, object]) -> Report:
    """Carry out a recorded plan, that very one, or rehearse it; refused where world or settings changed since.

    Raises `StaleState` that names every field that changed. With "only" a move, that one is made, with those of its
    group. Who applies a plan approves its moves, but not what was made of it before; those that need another person
    wait for them.
    """
    made = plan_of(house, parameters.get("plan_id"))
    chosen = replace(made, moves=_only(made, parameters.get("only")))
    now, who = house.clock.now(), _who(parameters)
    is_real = parameters.get("yes") is True
    if is_real:
        settle_unfinished(house)
    check_world(house, made, chosen.moves)
    ids = {move.move_id for move in chosen.moves}
    if not is_real:
        return _carried(house, chosen, carry_out(house, made, is_dry_run=True, only=ids, actor=who), is_real=False)
    standing = _standing(house)
    begin = [move for move in chosen.moves if move.move_id not in standing]
    voice = Voice(who, _is_proven(parameters))
    # what is stopped now is not made later by itself, when nobody thinks of it any more
    waiting = {} if _is_stopped(house, begin, now) else _approve_all(house, made, begin, voice, now)
    done = carry_out(house, made, is_dry_run=False, only=ids - set(waiting), actor=who)
    return _carried(house, chosen, done, is_real=True, waiting=waiting)


def order_approve(house: House, parameters: Mapping[str, object]) -> Report:
    """Approve a plan's moves, or one move; the next turn makes what then has all the approvals it needs."""
    return _answer(house, parameters, Step.APPROVED)


def order_refuse(house: House, parameters: Mapping[str, object]) -> Report:
    """Refuse a plan's moves, or one move; it is not made, nor proposed again for a while."""
    return _answer(house, parameters, Step.REFUSED)


def order_undo(house: House, parameters: Mapping[str, object]) -> Report:
    """Take back what was made of a plan or a move, last first; what others changed since is refused with the reason."""
    wanted = str(parameters.get("what", ""))
    moves = house.store.read("move").filter((pl.col("plan_id") == wanted) | (pl.col("move_id") == wanted))
    if moves.is_empty():
        message = f"there is no plan and no move {wanted}; the moves made are listed in the table move"
        raise BadInput(message, field="what")
    is_real = parameters.get("yes") is True
    if is_real:
        settle_unfinished(house)
    outcomes = outcomes_from(house.store.read("outcome"))
    ordered = moves_from(moves.sort("ordinal").get_column("body"))
    made = undo_plan(ordered, outcomes, house.clock.now())
    wishes = _wishes(house, moves, made, outcomes)
    for table, frame in plan_frames(made).items() if is_real else ():
        house.store.append_stored(table, frame)
    even_braked = parameters.get("even_braked") is True
    keep_wishes(house, wishes if is_real else (), house.clock.now(), _who(parameters))
    done = carry_out(house, made, is_dry_run=not is_real, actor=_who(parameters), even_braked=even_braked)
    report = _carried(house, made, done, is_real=is_real)
    held = tuple(f"not taken back: {each.subject}: {each.reason}" for each in made.held_back)
    nothing = () if made.moves or held else (_why_nothing(ordered),)
    told = give_back(house, wishes, made.moves, done) if is_real else [f"then {each.note}" for each in wishes]
    return replace(report, kind="UndoReport", notes=(*report.notes, *held, *nothing, *told))


def _wishes(house: House, rows: pl.DataFrame, made: Plan, outcomes: Sequence[Outcome]) -> list[Wish]:
    """Return what becomes of the manifests of workspaces whose moves are taken back."""
    ids = {move.evidence.get("undo_of") for move in made.moves}
    plans = house.store.read("move").join(rows.select("plan_id").unique(), on="plan_id", how="semi")
    every = moves_from(plans.sort("ordinal").get_column("body"))
    asked = set(rows.get_column("move_id"))
    standing = (each.move for each in made_of(every, outcomes) if each.is_certain and not each.is_undone)
    left = [move for move in standing if move.move_id not in asked]
    return wishes_of(house, [move for move in every if move.move_id in ids], left)


def order_brake(house: House, parameters: Mapping[str, object]) -> Report:
    """Stop all moves, let them be made again, or show whether they are stopped."""
    path, now = house.store.path, house.clock.now()
    order = str(parameters.get("order", "status"))
    if order == "on":
        pull(path, f"{plain(now)} {parameters.get('reason', 'no reason given')}")
    elif order == "off":
        release(path)
    elif order != "status":
        message = f"brake: {order!r} is not one of on, off, status"
        raise BadInput(message, field="order")
    reason = reason_of(path)
    return Report("BrakeReport", now, {"brake": "off" if reason is None else "on", "reason": reason})


def check_world(house: House, made: Plan, moves: Sequence[Move]) -> None:
    """Return where the settings and the targets of `moves` are as planned; raise `StaleState` naming what is not."""
    changes: list[Change] = changed_settings(made.policy, house.settings.actions)
    standing = _standing(house)
    for cluster in house.clusters:
        mine = [move for move in moves if move.move_id not in standing and reaches(house, cluster, move)]
        if mine:
            changes += changed_targets(mine, index_of(cluster.observe()))
    if changes:
        words = "; ".join(str(change) for change in changes)
        message = f"plan {made.plan_id} is no longer of this world ({words}); make a new one with `steward plan`"
        raise StaleState(message)


def _standing(house: House) -> frozenset[str]:
    """Return the ids of the moves that were made and stand; a drain goes on until its pods are gone."""
    return frozenset(
        each.move.move_id
        for each in recent_moves(house)
        if each.is_certain and not each.is_undone and each.move.kind is not MoveKind.DRAIN_NODE
    )


def _is_stopped(house: House, moves: Sequence[Move], now: datetime) -> bool:
    return any(
        why_stopped(house.overseers.get(cluster.name), house.store.path, now) is not None
        for cluster in house.clusters
        if any(reaches(house, cluster, move) for move in moves)
    )


def _why_nothing(moves: Sequence[Move]) -> str:
    if moves and all(is_undo(move) for move in moves):
        return "it takes something back itself, and an undo is not undone; `steward plan` plans anew"
    return "nothing of it stands; there is nothing to take back"


def _only(made: Plan, only: object) -> tuple[Move, ...]:
    if only is None:
        return made.moves
    for group in groups_of(made.moves):
        if any(move.move_id == only for move in group):
            return group
    message = f"plan {made.plan_id} has no move {only}"
    raise BadInput(message, field="only")


def _approve_all(house: House, made: Plan, moves: Sequence[Move], voice: Voice, now: datetime) -> dict[str, str]:
    """Record that somebody approves these moves and return, by move id, what others still have to agree to."""
    policy, answers = house.settings.actions, read_answers(house)
    if not person_of(voice.who) and any(answers.is_needed(move, made, policy) for move in moves):
        message = "who: who applies a plan approves it, and an approval needs a name; give yours with --as"
        raise BadInput(message, field="who")
    approve_by(house, made, moves, voice, now)
    answers = read_answers(house)

    def why(move: Move) -> str | None:
        reason = answers.why_waiting(move, made, policy, now)
        persons = persons_for(move, made, policy.approval)
        doubt = f"; {why_unproven(persons)}" if persons > 1 and not voice.is_proven else ""
        return None if reason is None else reason + doubt

    return waiting_of(moves, why)


def _answer(house: House, parameters: Mapping[str, object], step: Step) -> Report:
    who, wanted = _who(parameters), str(parameters.get("what", ""))
    if not person_of(who):
        message = "who: an approval needs a name; give yours with --as"
        raise BadInput(message, field="who")
    rows = house.store.read("move").filter((pl.col("plan_id") == wanted) | (pl.col("move_id") == wanted))
    if rows.is_empty():
        message = f"there is no plan and no move {wanted}; `steward proposals` shows what waits for an answer"
        raise BadInput(message, field="what")
    now = house.clock.now()
    made = plan_from(house.store.read("plan"), house.store.read("move"), rows.get_column("plan_id")[0])
    ids = set(rows.get_column("move_id"))
    moves = [move for move in made.moves if move.move_id in ids]
    known = standings_of(house, now)
    proposed = [move for move in moves if content_digest(move) in known]
    if not proposed:
        message = f"{wanted} was not proposed: its moves need no answer, or it was only rehearsed"
        raise BadInput(message, field="what")
    voice = Voice(who, _is_proven(parameters))
    if len(moves) == 1:
        check_answer(known[content_digest(moves[0])], who, step, now, is_proven=voice.is_proven)
    note = str(parameters.get("note") or "")
    answered = [move for move in proposed if _may_answer(known[content_digest(move)].state, step)]
    taken = [move for move in answered if step is not Step.APPROVED or _takes(known[content_digest(move)], voice)]
    for move in taken or answered:
        check_answer(known[content_digest(move)], who, step, now, is_proven=voice.is_proven)
    keep(house, [_answered(move, made, known, now, Said(step, voice, note)) for move in taken])
    known = standings_of(house, now)
    items = [item_of(house, move, made, known[content_digest(move)], now) for move in proposed]
    notes = _notes(answered, taken, voice)
    summary = {"plan": made.plan_id, "by": who, "is_proven": voice.is_proven}
    return Report("ApprovalReport", now, summary, items, _ANSWER_COLUMNS, notes)


def _takes(standing: Standing, voice: Voice) -> bool:
    return standing.persons == 1 or voice.is_proven


def _notes(answered: Sequence[Move], taken: Sequence[Move], voice: Voice) -> tuple[str, ...]:
    if not answered:
        return ("nothing of it waits for an answer",)
    left = len(answered) - len(taken)
    if left:
        return (f"{left} moves are not approved by this: {why_unproven(2)}",)
    return () if voice.is_proven else (f"the name {voice.who} is only claimed: no token of their own proved it",)


def _may_answer(state: str, step: Step) -> bool:
    return state in {"proposed", "notified"} or (state == "approved" and step is Step.REFUSED)


def _carried(
    house: House, made: Plan, outcomes: Sequence[Outcome], *, is_real: bool, waiting: Mapping[str, str] = _NONE
) -> Report:
    moves = {move.move_id: move for move in made.moves}
    taken_back = {str(move.evidence["undo_of"]): move for move in made.moves if is_undo(move)}
    told = [(each.move_id, each.stage.value, each.is_dry_run, each.detail) for each in outcomes]
    told += [(name, WAITING, False, why) for name, why in waiting.items()]
    items = [
        _item(moves.get(name) or taken_back.get(name), name, stage, detail, is_dry_run=dry)
        for name, stage, dry, detail in told
    ]
    ends = {name: (stage, detail) for name, stage, _, detail in told if name in moves}
    failed = [name for name, (stage, _) in ends.items() if stage in {Stage.FAILED, Stage.UNCLEAR, Stage.INTENDED}]
    held = [
        name
        for name, (stage, detail) in ends.items()
        if stage in {Stage.REFUSED, WAITING} and not detail.startswith(SKIPPED)
    ]
    notes = [] if is_real else ["this was a rehearsal and changed nothing; --yes makes the moves"]
    notes = notes if moves else [f"plan {made.plan_id} has no moves; there is nothing to make"]
    if failed or held:
        notes.append(f"{len(failed)} failed and {len(held)} were refused or wait, of {len(moves)} moves")
    code = FAILED if failed else HELD if held else 0
    return Report(
        "ApplyReport", house.clock.now(), {"plan": made.plan_id}, items, _DONE_COLUMNS, tuple(notes), exit_code=code
    )


def _item(move: Move | None, name: str, stage: str, detail: str, *, is_dry_run: bool) -> dict[str, object]:
    return {
        "kind": None if move is None else move.kind.value,
        "target": None if move is None else str(move.target),
        "cluster": None if move is None else move.cluster,
        "stage": stage,
        "dry_run": is_dry_run,
        "detail": detail,
        "move": name,
    }


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: what it is, whose, and why."""

    step: Step
    voice: Voice
    note: str


def _answered(move: Move, made: Plan, known: Mapping[str, Standing], now: datetime, said: Said) -> Approval:
    # a clock that was set back since must not put the answer before what it answers
    content = content_digest(move)
    moment = max(now, known[content].proposed_at)
    return said.voice.row(Approval(content, move.move_id, made.plan_id, moment, said.step, "", said.note))


def _who(parameters: Mapping[str, object]) -> str:
    return str(parameters.get("who") or UNNAMED).strip() or UNNAMED


def _is_proven(parameters: Mapping[str, object]) -> bool:
    return parameters.get("is_proven") is True


ORDERS = {
    "plan": order_plan,
    "apply": order_apply,
    "approve": order_approve,
    "refuse": order_refuse,
    "undo": order_undo,
    "brake": order_brake,
}
