"""The desk's question of sharing: which nodes' GPUs small pods could hold by turns, and what speaks for it."""

from collections.abc import Mapping
from dataclasses import replace

from fleet.verdict import Verdict
from steward.compose import House
from steward.moments import as_of
from steward.packing_turn import sharing_verdicts
from steward.report import Report

SHARING_COLUMNS = (
    "node", "workspace", "sharing", "gpus", "pods", "gpus_needed", "places_more", "gain_gpus", "memory_needed_mib",
    "memory_mib", "activity_needed",
)  # fmt: skip
_SUPPOSED = {f"1/{places}": places for places in (2, 3, 4)}
_NO_PROFILE = (
    "[sharing] profiles names nothing that the device plugin could be told, so nothing is proposed; these rows suppose"
    " 2, 3 or 4 places a GPU"
)
_NO_ISOLATION = "sharing by time keeps nobody out of another's memory, and a fault of one may end them all"


def answer_sharing(house: House, parameters: Mapping[str, object]) -> Report:
    """Return the nodes whose GPUs could be shared by time, and the sums of peaks that decide it.

    Where the settings name no profile, what two to four places a GPU would do is shown; no rule acts on that.
    """
    now = as_of(house, str(parameters.get("as_of", "now")))
    policy = house.settings.sharing
    is_supposed = not policy.profiles
    found = sharing_verdicts(house, now, replace(policy, profiles=_SUPPOSED) if is_supposed else policy)
    summary = {
        "nodes": len(found),
        "gpus_held": sum(_count(each, "pods") for each in found),
        "gpus_needed": sum(_count(each, "gpus_needed") for each in found),
        "waiting_pods_met": sum(_count(each, "gain_gpus") for each in found),
    }
    known = house.store.read("node").height
    notes = [_NO_PROFILE] if is_supposed else []
    notes += [_NO_ISOLATION] if found else ["no node is surely safe to share: docs/idleness.md says what is asked for"]
    notes += [] if known else ["unknown: no node with GPUs was ever collected into this store"]
    return Report("SharingReport", now, summary, [_item(each) for each in found], SHARING_COLUMNS, tuple(notes))


def _count(verdict: Verdict, name: str) -> int:
    value = verdict.evidence[name]
    return int(value) if isinstance(value, int | float) else 0


def _item(verdict: Verdict) -> dict[str, object]:
    told = {name: verdict.evidence[name] for name in SHARING_COLUMNS if name in verdict.evidence}
    base = {"node": verdict.node, "cluster": verdict.cluster, "workspace": verdict.workspace}
    return {**base, **told, "coverage": verdict.coverage, "evidence": dict(verdict.evidence)}
