"""Scheduled jobs: one rule, once: judge, plan that rule alone, and carry its moves as far as its mode lets them go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actions.kinds import RULES, rule_of
from actions.places import without_doubtful
from actions.plan import content_of, digest, plan
from actions.rows import plan_frames
from fleet.errors import BadInput
from fleet.move import HeldBack, Move, Outcome, Plan, Stage
from fleet.verdict import Verdict
from steward.acting import act, ready_of
from steward.brake import reason_of
from steward.carry import ACTOR, carry_out, recent_moves, settle_unfinished
from steward.compose import House
from steward.cycle import record_findings
from steward.judge import judge
from steward.moments import newest_moment
from steward.overseer import why_stopped
from steward.report import Report, plain

DONE, FAILED, HELD = 0, 1, 3
JOBS: Mapping[str, str] = {
    "fence": "takes failing GPUs, and nodes most of whose GPUs fail, out of use",
    "repair": "drains what was taken out of use and asks for its repair, one step a run",
    "reclaim": "stops workloads all of whose GPUs idle",
    "stalled": "stops gangs that hang, whole, once every member did nothing for long",
    "budget": "holds the queues of workspaces that spent their budget",
    "rebalance": "moves quota from workspaces with spare to workspaces short of it",
    "reslice": "lays out MIG devices anew as demand asks, one step a run",
    "defragment": "makes room for gangs by moving what is in the way",
    "pool": "sets the limits of node pools as demand asks",
}
EXIT_CODES = (
    "0 nothing to do, or done; 1 a move failed; 2 bad settings; 3 held: brake, not the leader, stale data, busy store"
)
_ENDS = {Stage.APPLIED: "made", Stage.REFUSED: "refused", Stage.FAILED: "failed"}
_COLUMNS = ("kind", "target", "gpus", "state", "detail")


@dataclass(frozen=True, slots=True)
class _Done:
    plans: tuple[Plan, ...]
    outcomes: Sequence[Outcome]
    waiting: Mapping[str, str]


def order_job(house: House, parameters: Mapping[str, object]) -> Report:
    """Run the job of one rule ("rule") once; with "yes" its moves are made by its mode, without they are rehearsed.

    The exit code: 0 nothing to do or done, 1 a move failed, 3 held by the brake, another's lead or stale data. A
    second run right after the first makes nothing: what was made stands, and what was proposed is not proposed again.
    """
    rule = str(parameters.get("rule", ""))
    if rule not in JOBS:
        message = f"rule: there is no job {rule}; the jobs are {', '.join(JOBS)}"
        raise BadInput(message, field="rule")
    if not house.clusters:
        message = "there is no cluster to act in: [collect] sources names none that can be moved"
        raise BadInput(message, field="collect.sources")
    now = house.clock.now()
    held = _why_held(house, now)
    if held is not None:
        return _report(house, rule, now, _Done((), (), {}), held)
    is_real = parameters.get("yes") is True
    if is_real:
        settle_unfinished(house)
    findings = judge(house, now)
    record_findings(house, findings)
    plans = tuple(_plans(house, findings.verdicts, rule, now))
    for made in plans:
        for table, frame in plan_frames(made).items():
            house.store.append_stored(table, frame)
    if is_real:
        outcomes: Sequence[Outcome] = act(house, plans, now)
    else:
        outcomes = [outcome for made in plans for outcome in carry_out(house, made, is_dry_run=True, actor=ACTOR)]
    waiting = {move_id: why for made in plans for move_id, why in ready_of(house, made, now).waiting.items()}
    return _report(house, rule, now, _Done(plans, outcomes, waiting), None, is_real=is_real)


def answer_jobs(house: House, _parameters: Mapping[str, object]) -> Report:
    """List the jobs: what each does, in which mode its rule is, and how it is run."""
    modes = house.settings.actions.modes
    items = [
        {"job": name, "mode": modes.of(name), "does": does, "command": f"steward job {name} --once --yes -o json"}
        for name, does in JOBS.items()
    ]
    notes = (f"exit codes: {EXIT_CODES}", "without --yes a job rehearses; deploy/cronjobs has a CronJob for each")
    return Report("JobList", house.clock.now(), {}, items, ("job", "mode", "does", "command"), notes)


def answer_brake(house: House, _parameters: Mapping[str, object]) -> Report:
    """Tell whether moves are stopped, by the brake beside the store or in a cluster, and why; nothing is changed."""
    now = house.clock.now()
    reason = reason_of(house.store.path)
    told = (why_stopped(house.overseers.get(each.name), house.store.path, now) for each in house.clusters)
    reason = reason if reason is not None else next((why for why in told if why is not None), None)
    return Report("BrakeReport", now, {"brake": "off" if reason is None else "on", "reason": reason})


def only_rule(made: Plan, rule: str) -> Plan:
    """Return the part of a plan that one rule asks for, under a name of its own; what others would do is left out."""
    chosen = [move for move in made.moves if rule_of(move) == rule]
    plan_id = digest("job", rule, made.plan_id)
    named = tuple(replace(move, move_id=digest("move", plan_id, content_of(move))) for move in chosen)
    return replace(made, plan_id=plan_id, moves=named, held_back=_held_of(made, rule))


def _held_of(made: Plan, rule: str) -> tuple[HeldBack, ...]:
    topics = {"fence": _FENCING, "reclaim": {"reclaim", "recommend_fewer"}, "rebalance": _QUOTA}
    wanted = topics.get(rule)
    return tuple(each for each in made.held_back if wanted is None or each.action in wanted)


_FENCING = {"fence", "reset_gpu", "run_diagnostics", "inspect", "replace_gpu", "cordon", "drain", "reboot_node"}
_QUOTA = {"raise_quota", "lower_quota", "none"}


def _plans(house: House, verdicts: Sequence[Verdict], rule: str, now: datetime) -> list[Plan]:
    recent = recent_moves(house)
    states = {cluster.name: cluster.observe() for cluster in house.clusters}
    known, held = without_doubtful(verdicts, states)
    made = (plan(state, known, house.settings.actions, now, recent=recent, held_back=held) for state in states.values())
    return [only_rule(each, rule) for each in made]


def _why_held(house: House, now: datetime) -> str | None:
    """Return why nothing may be done now, or nothing that is known is young enough to act on; None where neither."""
    for cluster in house.clusters:
        reason = why_stopped(house.overseers.get(cluster.name), house.store.path, now)
        if reason is not None:
            return f"{cluster.name}: {reason}"
    newest, limit = newest_moment(house), timedelta(seconds=house.settings.actions.evidence.max_age_s)
    if newest is None:
        return "stale data: nothing was ever collected"
    if now - newest > limit:
        return f"stale data: the newest sample is of {plain(newest)}; nothing older than {limit} is acted on"
    return None


def _report(house: House, rule: str, now: datetime, done: _Done, held: str | None, *, is_real: bool = False) -> Report:
    last = {each.move_id: each for each in done.outcomes}
    moves = [move for made in done.plans for move in made.moves]
    items = [_item(move, last.get(move.move_id), done.waiting.get(move.move_id)) for move in moves]
    states = [str(item["state"]) for item in items]
    is_failed = any(state not in {"made", "refused", "waits", "rehearsed"} for state in states)
    summary: dict[str, object] = {
        "job": rule,
        "mode": house.settings.actions.modes.of(rule),
        "plans": [made.plan_id for made in done.plans],
        **{name: states.count(name) for name in ("made", "waits", "rehearsed", "refused", "failed")},
        "held_back": sum(len(made.held_back) for made in done.plans),
        "held": held,
    }
    notes = [f"held: {held}"] if held is not None else []
    if held is None and not items:
        notes.append("nothing to do")
    if items and not is_real:
        notes.append("this was a rehearsal and changed nothing; --yes makes the moves by the rule's mode")
    code = HELD if held is not None else FAILED if is_failed else DONE
    return Report("JobReport", now, summary, items, _COLUMNS, tuple(notes), code)


def _item(move: Move, last: Outcome | None, waits: str | None) -> dict[str, object]:
    state, detail = "waits", waits
    if last is not None and not last.is_dry_run:
        state, detail = _ENDS.get(last.stage, last.stage.value), last.detail
    elif last is not None and last.stage is Stage.REFUSED:
        state, detail = "refused", last.detail
    elif last is not None and waits is None:
        state, detail = "rehearsed", last.detail
    return {
        **move.row(),
        "state": state,
        "detail": detail,
        "move_id": move.move_id,
    }


assert set(JOBS) == set(RULES) - {"workspace"}  # noqa: S101 - a rule without a job would never run
ORDERS = {"job": order_job}
QUESTIONS = {"jobs": answer_jobs, "brake_state": answer_brake}
