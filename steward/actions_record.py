"""Questions about moves: what waits for whom, what a plan would do, and the whole story of what was done.

`proposals`: one item a proposal, see `item_of`. `plan_diff`: one item a move of a plan (`actions.explain.diff_items`:
rule, sign, kind, target, cluster, changes of field, before, after, saving, risk, reason, approvals, ids); `summary` has
the plan's id, moment, line and what was held back. `actions_log`: one item an event, oldest first: `ts`, `event`
(planned, proposed, notified, approved, refused, expired, intended, applied, failed, unclear, undone), `who`, `rule`,
`kind`, `target`, `cluster`, `workspace`, `detail`, `is_dry_run`, `patch`, `prior`, `evidence`, `move_id`, `plan_id`.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from actions.approval import Standing, persons_for, why_waiting
from actions.explain import diff_items, summary_of
from actions.kinds import rule_of
from actions.rows import plan_from
from fleet.approval import Step
from fleet.errors import BadInput
from fleet.move import Move, Plan
from steward.acting import read_answers, standings_of
from steward.compose import House
from steward.moments import as_of
from steward.report import Report

_OPEN = ("proposed", "notified", "approved")
_PROPOSAL_COLUMNS = ("target", "kind", "gpus", "workspace", "state", "needs", "expires_at", "move_id")
_DIFF_COLUMNS = ("sign", "kind", "target", "cluster", "gpus", "saving_usd_per_hour", "reason", "approvals")
_LOG_COLUMNS = ("ts", "event", "who", "rule", "kind", "target", "detail", "move_id")


def proposals(house: House, parameters: Mapping[str, object]) -> Report:
    """Tell which proposals wait, for whom and until when; with "all", also those that are answered or over."""
    now = house.clock.now()
    show_all = str(parameters.get("all", "false")).lower() == "true"
    known = [each for each in standings_of(house, now).values() if show_all or each.state in _OPEN]
    plans = {each.plan_id for each in known}
    found = {plan_id: plan_of(house, plan_id) for plan_id in plans}
    items = [
        item_of(house, move, found[each.plan_id], each, now)
        for each in sorted(known, key=lambda standing: (standing.proposed_at, standing.move_id))
        for move in found[each.plan_id].moves
        if move.move_id == each.move_id
    ]
    notes = () if items else ("nothing waits for an answer",)
    return Report("ProposalsReport", now, {"proposals": len(items)}, items, _PROPOSAL_COLUMNS, notes)


def plan_diff(house: House, parameters: Mapping[str, object]) -> Report:
    """Show a recorded plan, the latest where none is named, as differences."""
    made, now = plan_of(house, parameters.get("plan_id")), house.clock.now()
    summary: dict[str, object] = {
        "plans": [made.plan_id],
        "made_at": made.made_at,
        "summary": [summary_of(made)],
        "saving_usd_per_hour": made.saving_usd_per_hour,
        "held_back": [f"{each.action} {each.subject}: {each.reason}" for each in made.held_back],
    }
    return Report("PlanDiff", now, summary, diff_items(made, approvals_of(house, made, now)), _DIFF_COLUMNS)


def actions_log(house: House, parameters: Mapping[str, object]) -> Report:
    """Tell what was planned, proposed, answered, made and undone, as one story; rehearsals only with "dry_runs"."""
    now = house.clock.now()
    since = _since(house, str(parameters.get("since") or "7d"), now)
    moves = house.store.read("move").join(
        house.store.read("plan").select("plan_id", "made_at"), on="plan_id", how="left"
    )
    events = pl.concat([_planned(moves), _answered(house, moves), _done(house)], how="diagonal_relaxed")
    if str(parameters.get("dry_runs", "false")).lower() != "true":
        events = events.filter(~pl.col("is_dry_run"))
    bodies = dict(moves.select("move_id", "body").iter_rows())
    plans = dict(moves.select("move_id", "plan_id").iter_rows())
    told = set(events.filter(pl.col("event") != "planned").get_column("move_id"))
    events = events.filter(pl.col("ts") >= since, pl.col("move_id").is_in(list(told)))
    items = [
        item
        for row in events.sort("ts", "rank", "move_id").iter_rows(named=True)
        if row["move_id"] in bodies
        for item in [_event(row, Move.from_json(bodies[row["move_id"]]), plans[row["move_id"]])]
        if _matches(item, parameters)
    ]
    notes = () if items else ("nothing was done in this time",)
    return Report("ActionsLog", now, {"since": since, "events": len(items)}, items, _LOG_COLUMNS, notes)


def item_of(house: House, move: Move, made: Plan, standing: Standing, now: datetime) -> dict[str, object]:
    """Return a proposal as an item: what, how far it has come, who agreed, who is needed, until when, what next."""
    policy = house.settings.actions
    waits = why_waiting(move, made, standing, policy, now)
    missing = max(standing.persons - len(standing.approvers), 0)
    not_them = [*standing.approvers, *([standing.proposed_by] if standing.persons > 1 else [])]
    who = f"{missing} person{'s' if missing > 1 else ''}" + (f" other than {', '.join(not_them)}" if not_them else "")
    who += ", each by a token of their own" if standing.persons > 1 else ""
    is_waiting = standing.state in {"proposed", "notified"}
    return {
        "move_id": standing.move_id,
        "plan_id": standing.plan_id,
        "rule": rule_of(move),
        **move.row(),
        "risk": move.risk,
        "state": standing.state,
        "persons": standing.persons,
        "approved_by": list(standing.approvers),
        "claimed": list(standing.claimed),
        "needs": who if is_waiting and missing else None,
        "proposed_at": standing.proposed_at,
        "proposed_by": standing.proposed_by,
        "notified_at": standing.notified_at,
        "expires_at": standing.expires_at,
        "note": None if standing.answer is None else standing.answer.note,
        "outlook": waits or ("the next turn makes it" if standing.state in _OPEN else None),
    }


def approvals_of(house: House, made: Plan, now: datetime) -> dict[str, str]:
    """Return by move id what each move of a plan needs, or waits for, before it is made."""
    policy, answers = house.settings.actions, read_answers(house)
    words = {}
    for move in made.moves:
        persons = persons_for(move, made, policy.approval)
        waits = answers.why_waiting(move, made, policy, now)
        needed = "none" if not answers.is_needed(move, made, policy) else f"{persons} needed"
        words[move.move_id] = needed if waits is None else f"{needed}; {waits}"
    return words


def plan_of(house: House, plan_id: object) -> Plan:
    """Return a recorded plan, the latest where none is named; raises `BadInput` where there is none."""
    plans = house.store.read("plan")
    if plan_id is None:
        if plans.is_empty():
            message = "no plan is recorded yet; make one with `steward plan`"
            raise BadInput(message, field="plan_id")
        plan_id = plans.sort("made_at").get_column("plan_id")[-1]
    return plan_from(plans, house.store.read("move"), str(plan_id))


def _planned(moves: pl.DataFrame) -> pl.DataFrame:
    return moves.select("move_id", ts="made_at").with_columns(
        event=pl.lit("planned"), rank=pl.lit(0), is_dry_run=pl.lit(value=False)
    )


def _answered(house: House, moves: pl.DataFrame) -> pl.DataFrame:
    rows = house.store.read("approval").join(moves.select("move_id"), on="move_id", how="semi")
    places = {step.value: place for place, step in enumerate(Step)}
    is_claimed = pl.col("step").is_in(["approved", "refused"]) & pl.col("person_count").ne_missing(1)
    named = pl.when(is_claimed).then(pl.col("who") + " (claimed)").otherwise(pl.col("who"))
    rows = rows.with_columns(who=named)
    return rows.select("move_id", "ts", "who", event="step", detail="note").with_columns(
        rank=1 + pl.col("event").replace_strict(places, return_dtype=pl.Int32), is_dry_run=pl.lit(value=False)
    )


def _done(house: House) -> pl.DataFrame:
    rows = house.store.read("outcome")
    return rows.select("move_id", "ts", "detail", "prior", "is_dry_run", event="stage", who="actor").with_columns(
        rank=len(Step) + pl.when(pl.col("event") == "intended").then(1).otherwise(2)
    )


def _event(row: Mapping[str, object], move: Move, plan_id: str) -> dict[str, object]:
    detail = row.get("detail")
    prior = row.get("prior")
    return {
        "ts": row["ts"],
        "event": row["event"],
        "who": row.get("who"),
        "rule": rule_of(move),
        "kind": move.kind.value,
        "target": str(move.target),
        "cluster": move.cluster,
        "workspace": move.workspace,
        "detail": move.reason if row["event"] == "planned" else detail,
        "is_dry_run": row["is_dry_run"],
        "patch": dict(move.arguments),
        "prior": json.loads(prior) if isinstance(prior, str) else None,
        "evidence": dict(move.evidence),
        "move_id": move.move_id,
        "plan_id": plan_id,
    }


def _matches(item: Mapping[str, object], parameters: Mapping[str, object]) -> bool:
    wanted = {"rule": "rule", "workspace": "workspace", "plan": "plan_id", "move": "move_id"}
    return all(parameters.get(name) in {None, item[field]} for name, field in wanted.items())


def _since(house: House, text: str, now: datetime) -> datetime:
    units = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "m": timedelta(minutes=1)}
    number, unit = text[:-1], text[-1:]
    if number.isdigit() and unit in units:
        return now - int(number) * units[unit]
    return as_of(house, text)


QUESTIONS = {"proposals": proposals, "plan_diff": plan_diff, "actions_log": actions_log}
