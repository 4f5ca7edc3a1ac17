"""Say what a plan would do: each move as a difference, field by field, grouped by rule, as data and as plain lines."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

from actions.fence_means import MEANS
from actions.fields import fields_after
from actions.kinds import KINDS, RULES, rule_of
from actions.words import in_gpus
from fleet.move import Move, MoveKind, Plan

Sign = Literal["-", "+", "~"]
_FEW = 3  # of the same are told by name
_VERBS: Mapping[str, str] = {"-": "to take", "+": "to give", "~": "to change"}


def diff_items(plan: Plan, approvals: Mapping[str, str] | None = None) -> list[dict[str, object]]:
    """Return the moves as JSON-able items, in the order they are made.

    `changes` holds field, before and after; `approvals` says by move id what a move needs or waits for.
    """
    return [_item(move, plan, approvals or {}) for move in plan.moves]


def summary_of(plan: Plan) -> str:
    """Return the plan in one line: how many moves take, give and change, and what they save."""
    signs: list[str] = [KINDS[move.kind].sign for move in plan.moves]
    counts = ", ".join(f"{signs.count(sign)} {words}" for sign, words in _VERBS.items())
    priced = plan.saving_usd_per_hour
    saved = "unpriced" if priced is None else f"saves {_money(priced)} USD/h"
    return f"Plan: {counts}; {saved if plan.moves else 'saves nothing'}; {len(plan.held_back)} held back."


def diff_lines(plan: Plan, approvals: Mapping[str, str] | None = None) -> list[str]:
    """Return a plan as lines: grouped by rule, what is taken (-), given (+) or changed (~), from what to what, why."""
    held = [f"{each.action} {each.subject}: {each.reason}" for each in plan.held_back]
    head = f"Plan {plan.plan_id}, made {plan.made_at.isoformat()}"
    return lines_of(diff_items(plan, approvals), head=head, held_back=held, summary=summary_of(plan))


def lines_of(items: Sequence[Mapping[str, object]], *, head: str, held_back: Sequence[str], summary: str) -> list[str]:
    """Return the lines of a plan whose items stand in an answer (`diff_items`)."""
    lines = [head]
    for rule in RULES:
        group = [item for item in items if item["rule"] == rule]
        if group:
            lines.append(f"Rule {rule}:")
        for item in group:
            lines.extend(_lines(item))
    lines.extend(f"  held back: {text}" for text in _gathered(held_back))
    return [*lines, summary]


def _gathered(held_back: Sequence[str]) -> list[str]:
    """Return what was held back with one line for all of the same action and reason, where there are many."""
    groups: dict[tuple[str, str], list[str]] = {}
    for text in held_back:
        head, _, reason = text.partition(": ")
        action, _, subject = head.partition(" ")
        groups.setdefault((action, reason), []).append(subject)
    return [
        f"{action} {subject}: {reason}"
        for (action, reason), subjects in groups.items()
        for subject in (subjects if len(subjects) <= _FEW else [_counted(subjects)])
    ]


def _counted(subjects: Sequence[str]) -> str:
    return f"{', '.join(subjects[:_FEW])} and {len(subjects) - _FEW} more"


def _item(move: Move, plan: Plan, approvals: Mapping[str, str]) -> dict[str, object]:
    before = move.evidence.get("before")
    known: Mapping[str, object] = before if isinstance(before, Mapping) else {}
    changes = [
        {"field": name, "before": known.get(name), "after": value, "is_before_known": name in known}
        for name, value in fields_after(move).items()
        if name not in known or known[name] != value
    ]
    return {
        "rule": rule_of(move),
        "sign": KINDS[move.kind].sign,
        "kind": move.kind.value,
        "target": str(move.target),
        "cluster": move.cluster,
        "gpus": move.gpus,
        "gpu_uuids": list(move.gpu_uuids),
        "workspace": move.workspace,
        "pool": move.pool,
        "changes": changes,
        "reason": move.reason,
        "risk": move.risk,
        "saving_usd_per_hour": move.saving_usd_per_hour,
        "approvals": approvals.get(move.move_id),
        "move_id": move.move_id,
        "plan_id": plan.plan_id,
        "cause": move.cause,
        "arguments": dict(move.arguments),
        "resource_version": move.resource_version,
        "evidence": dict(move.evidence),
    }


def _lines(item: Mapping[str, object]) -> list[str]:
    lines = [f"{item['sign']} {item['kind']} {item['target']} in {item['cluster']} ({_gpus(item['gpus'])})"]
    changes = item["changes"]
    for change in changes if isinstance(changes, list) else []:
        was = _word(change["before"]) if change["is_before_known"] else "?"
        lines.append(f"    {change['field']}: {was} -> {_word(change['after'])}")
    uuids = item["gpu_uuids"]
    if item["kind"] in {MoveKind.FENCE_GPU.value, MoveKind.UNFENCE_GPU.value} and isinstance(uuids, list):
        lines.append(f"    gpu: {', '.join(uuids)}")
    told = item["arguments"]
    if isinstance(told, Mapping) and MEANS in told:
        lines.append(f"    by: {told[MEANS]}")
    lines.append(f"    why: {item['reason']}")
    if item["risk"]:
        lines.append(f"    risk: {item['risk']}")
    if item["saving_usd_per_hour"] is not None:
        lines.append(f"    saves: {_money(Decimal(str(item['saving_usd_per_hour'])))} USD/h")
    if item["approvals"] is not None:
        lines.append(f"    approvals: {item['approvals']}")
    return [*lines, f"    id: {item['move_id']}"]


def _gpus(count: object) -> str:
    return in_gpus(count) if isinstance(count, int | float) else "GPUs unknown"


def _money(amount: Decimal) -> str:
    return f"{amount:.2f}"


def _word(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
