"""Say what a plan would do: one difference a move, before and after, in plain text."""

from collections.abc import Mapping
from decimal import Decimal

from actions.fields import fields_after
from actions.kinds import KINDS
from fleet.move import Move, MoveKind, Plan


def diff_lines(plan: Plan) -> list[str]:
    """Return a plan as lines: what is taken (-), given (+) or changed (~), from what to what, and why."""
    lines = [f"Plan {plan.plan_id}, made {plan.made_at.isoformat()}"]
    for move in plan.moves:
        lines.extend(_move_lines(move))
    lines.extend(f"  held back: {held.action} {held.subject}: {held.reason}" for held in plan.held_back)
    saved = "unpriced" if plan.saving_usd_per_hour is None else f"saves {_money(plan.saving_usd_per_hour)} USD/h"
    if not plan.moves:
        saved = "saves nothing"
    lines.append(f"{len(plan.moves)} moves, {saved}, {len(plan.held_back)} held back")
    return lines


def _move_lines(move: Move) -> list[str]:
    lines = [f"{KINDS[move.kind].sign} {move.kind.value} {move.target} in {move.cluster} ({move.gpus:g} GPUs)"]
    before = move.evidence.get("before")
    for name, value in fields_after(move).items():
        was = before.get(name, "?") if isinstance(before, Mapping) else "?"
        if was != value:
            lines.append(f"    {name}: {_word(was)} -> {_word(value)}")
    if move.kind in {MoveKind.FENCE_GPU, MoveKind.UNFENCE_GPU}:
        lines.append(f"    gpu: {', '.join(move.gpu_uuids)}")
    lines.append(f"    why: {move.reason}")
    if move.risk:
        lines.append(f"    risk: {move.risk}")
    if move.saving_usd_per_hour is not None:
        lines.append(f"    saves: {_money(move.saving_usd_per_hour)} USD/h")
    return [*lines, f"    id: {move.move_id}"]


def _money(amount: Decimal) -> str:
    return f"{amount:.2f}"


def _word(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
