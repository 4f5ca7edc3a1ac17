"""What is wished for after a workspace's change was taken back: the manifest of before, else it would be made again.

Each move of a workspace names the manifest it was made for (`manifest_at`). Taking back what brought a manifest about
takes back the manifest, too; taking back what only set a difference right does not.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from actions.budget import made_of
from controller.workspace import CHANGES, MANIFEST_AT
from fleet.move import Move, Outcome, Stage
from fleet.workspace import Desired
from steward.carry import begun
from steward.compose import House
from steward.workspaces import Version, keep_desired, versions_of


@dataclass(frozen=True, slots=True)
class Wish:
    """What becomes of one workspace's manifest: `now` is in force, `then` is to be (None: it stays), `note` says it."""

    name: str
    now: Desired
    then: Desired | None
    note: str


def wishes_of(house: House, taken_back: Sequence[Move], left: Sequence[Move]) -> list[Wish]:
    """Return what becomes of the manifests when these moves are taken back and `left` of their plans is not."""
    by_name: defaultdict[str, list[Move]] = defaultdict(list)
    for move in taken_back:
        if MANIFEST_AT in move.evidence and move.workspace is not None:
            by_name[move.workspace].append(move)
    return [
        wish
        for name, moves in sorted(by_name.items())
        if (wish := _wish(house, name, moves, is_part=any(each.workspace == name for each in left))) is not None
    ]


def keep_wishes(house: House, wishes: Sequence[Wish], now: datetime, who: str) -> None:
    """Store the manifests of before, before anything is taken back: a crash in between never makes it again."""
    keep_desired(house.store, [each.then for each in wishes if each.then is not None], now, who)


def give_back(house: House, wishes: Sequence[Wish], moves: Sequence[Move], outcomes: Sequence[Outcome]) -> list[str]:
    """Return what is to be told; where nothing of a workspace could be taken back, its manifest is in force again."""
    applied = {each.move_id for each in outcomes if each.stage is Stage.APPLIED and not each.is_dry_run}
    notes: list[str] = []
    for wish in wishes:
        is_done = any(move.workspace == wish.name and move.move_id in applied for move in moves)
        if wish.then is not None and not is_done:
            keep_desired(house.store, [wish.now], house.clock.now(), "gpu-steward")
            notes.append(f"workspace {wish.name}: nothing of it was taken back, so its manifest stays")
        else:
            notes.append(wish.note)
    return notes


def _wish(house: House, name: str, moves: Sequence[Move], *, is_part: bool) -> Wish | None:
    versions = versions_of(house.store, name)
    made_for = max(str(move.evidence[MANIFEST_AT]) for move in moves)
    place = next((place for place, each in enumerate(versions) if each.made_at.isoformat() == made_for), None)
    if place is None:
        return None
    current = versions[-1]
    gone = replace(versions[place].desired, is_deleted=True, is_forced=False)
    before = versions[place - 1].desired if place else gone
    if current.desired == before:
        return Wish(name, current.desired, None, f"workspace {name}: its manifest is as it was before already")
    if not current.is_same(versions[place]):
        note = f"its manifest was changed since, at {current.made_at.isoformat()} by {current.actor}; that one stays"
        return Wish(name, current.desired, None, f"workspace {name}: {note}")
    if is_part:
        note = "only a part of its change is taken back, so its manifest stays, and the next plan sets it again"
        return Wish(name, current.desired, None, f"workspace {name}: {note}")
    if not _is_change(house, moves, versions, versions[place]):
        note = "this had only set right what differed from its manifest, which stays; the next plan sets it right again"
        return Wish(name, current.desired, None, f"workspace {name}: {note}")
    note = "it had no manifest before, and is to be gone again"
    if place:
        last = versions[place - 1]
        note = f"the manifest of {last.made_at.isoformat()} by {last.actor} is in force again"
    return Wish(name, current.desired, before, f"workspace {name}: {note}")


def _is_change(house: House, moves: Sequence[Move], versions: Sequence[Version], version: Version) -> bool:
    """Return whether these moves brought a manifest about: they were ordered with it, or are the first made for it."""
    if any(move.evidence.get(CHANGES) is True for move in moves):
        return True
    ids, clusters = {move.move_id for move in moves}, {move.cluster for move in moves}
    alike = {each.made_at.isoformat() for each in versions if each.is_same(version)}
    every = made_of(*begun(house))
    first = min((made.at for made in every if made.move.move_id in ids), default=None)
    return first is not None and not any(
        made.at < first
        and made.move.workspace == moves[0].workspace
        and made.move.cluster in clusters
        and made.move.evidence.get(MANIFEST_AT) in alike
        for made in every
    )
