"""Give back what was repaired: withdraw the request, end the drain, unfence, uncordon, unmark. Never another's."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from actions.budget import Made
from actions.evidence import Draft
from actions.index import FleetIndex
from actions.rule_policies import RepairPolicy
from actions.steps import last_made, node_step
from fleet.move import MoveKind
from fleet.state import Node

if TYPE_CHECKING:
    from actions.repair import Case

_RULE = "repair"
_CLEAN = ("healthy", "probation")
_FIRST = 0.25  # giving back comes before taking


def give_back(
    case: "Case", index: FleetIndex, policy: RepairPolicy, now: datetime, recent: Sequence[Made]
) -> tuple[Draft, ...] | str:
    """Return the moves that give a node back, in order, or why it stays out of use."""
    node = case.node
    asked = last_made(node, {MoveKind.REQUEST_REPAIR}, recent)
    is_repaired = asked is not None and (case.first is None or asked.at >= case.first.at)
    since = asked.at if asked is not None and is_repaired else None if case.first is None else case.first.at
    if not node.is_ready:
        return "waits for the node to be ready"
    unknown = [subject for subject in case.subjects if not _is_clean(subject, case, since)]
    if unknown:
        return f"waits for a clean verdict on {unknown[0]}; {_state_of(unknown[0], case)}"
    wait_h = policy.verify_h if is_repaired else policy.settle_h
    begun = max([each.since for each in case.clean if each.state == "probation" and each.since], default=since)
    if begun is None:
        return "no record of ours tells since when it is out of use; a person has to give it back"
    if now - begun < timedelta(hours=wait_h):
        return f"clean since {begun.isoformat()}; given back after {wait_h:g} h"
    why = "repaired and clean" if is_repaired else "clean without a repair"
    return _returns(case, index, f"{why} since {begun.isoformat()}")


def leftovers(node: Node, index: FleetIndex, recent: Sequence[Made]) -> tuple[Draft, ...]:
    """Return the moves that clear what stands of a repair on a node that somebody took back into use meanwhile."""
    kinds = [
        kind
        for kind, value in (
            (MoveKind.WITHDRAW_REPAIR, node.repair),
            (MoveKind.CANCEL_DRAIN, node.drain),
            (MoveKind.UNMARK_NODE, node.mark),
        )
        if value is not None and last_made(node, {_ASKED[kind]}, recent, rule=_RULE) is not None
    ]
    return tuple(
        node_step(kind, node, index, rule=_RULE, cause="left over", order=(_FIRST, float(place)),
                  reason="it is in use again; nothing of its repair may follow")
        for place, kind in enumerate(kinds)
    )  # fmt: skip


_ASKED = {
    MoveKind.WITHDRAW_REPAIR: MoveKind.REQUEST_REPAIR,
    MoveKind.CANCEL_DRAIN: MoveKind.DRAIN_NODE,
    MoveKind.UNMARK_NODE: MoveKind.MARK_NODE,
}


def _state_of(subject: str, case: "Case") -> str:
    states = sorted({each.state for each in case.clean if each.subject == subject and each.topic == "health"})
    return f"it was last {', '.join(states)}" if states else "nothing is known of it"


def _is_clean(subject: str, case: "Case", since: datetime | None) -> bool:
    told = [each for each in case.clean if each.subject == subject]
    return any(each.topic == "health" for each in told) and all(
        each.state in _CLEAN and (since is None or each.made_at > since) for each in told if each.topic == "health"
    )


def _returns(case: "Case", index: FleetIndex, why: str) -> tuple[Draft, ...]:
    node = case.node
    wanted: list[tuple[MoveKind, tuple[str, ...]]] = []
    if node.repair is not None:
        wanted.append((MoveKind.WITHDRAW_REPAIR, ()))
    if node.drain is not None:
        wanted.append((MoveKind.CANCEL_DRAIN, ()))
    wanted += [(MoveKind.UNFENCE_GPU, (uuid,)) for uuid in case.fenced]
    if case.is_cordoned:
        wanted.append((MoveKind.UNCORDON_NODE, ()))
    if node.mark is not None:
        wanted.append((MoveKind.UNMARK_NODE, ()))
    return tuple(
        node_step(kind, node, index, rule=_RULE, cause=case.cause, reason=why, order=(_FIRST, float(place)),
                  verdicts=case.clean, first=case.first, gpu_uuids=uuids)
        for place, (kind, uuids) in enumerate(wanted)
    )  # fmt: skip
