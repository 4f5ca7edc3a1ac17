"""After a restart: find the moves whose result was never recorded, and settle each by looking at the cluster."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actions.budget import in_order
from actions.fields import fields_of, is_done
from actions.index import index_of
from actions.port import Cluster
from fleet.clock import Clock
from fleet.move import Move, Outcome, Stage


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A move that was begun and whose end is not known; `prior` is its target before, as JSON."""

    move: Move
    prior: str | None


def unfinished(moves: Sequence[Move], outcomes: Sequence[Outcome]) -> tuple[Unfinished, ...]:
    """Return the moves that were intended, or made and not seen, and have no result; dry runs never count."""
    known = {move.move_id: move for move in moves}
    last: dict[str, Outcome] = {}
    for outcome in in_order(outcomes):
        if not outcome.is_dry_run and outcome.move_id in known:
            last[outcome.move_id] = outcome
    open_ends = (
        outcome
        for outcome in last.values()
        if outcome.stage is Stage.INTENDED or (outcome.stage is Stage.FAILED and outcome.prior is not None)
    )
    return tuple(Unfinished(known[outcome.move_id], outcome.prior) for outcome in open_ends)


def settle(
    moves: Sequence[Move],
    outcomes: Sequence[Outcome],
    cluster: Cluster,
    clock: Clock,
    record: Callable[[Outcome], None],
    *,
    actor: str,
) -> list[Outcome]:
    """Record the result of each unfinished move as the cluster shows it, and return what was recorded.

    Nothing is made: what was not made is planned anew. Raises `SourceFailed` where the cluster can't be read.
    """
    open_ends = unfinished(moves, outcomes)
    if not open_ends:
        return []
    settled: list[Outcome] = []

    def say(move_id: str, stage: Stage, detail: str, prior: str | None = None) -> None:
        outcome = Outcome(move_id, clock.now(), stage, is_dry_run=False, actor=actor, detail=detail, prior=prior)
        record(outcome)
        settled.append(outcome)

    for each in open_ends:
        move = each.move
        index = index_of(cluster.observe_for(move))  # read past every cache: an old picture would tell a lie for ever
        current = fields_of(move, index)
        if all(name != move.cluster for name, _ in index.nodes):
            continue  # another cluster's to settle
        if is_done(move, index):
            say(move.move_id, Stage.APPLIED, "settled: the cluster shows it as made", each.prior)
            undone = move.evidence.get("undo_of")
            if isinstance(undone, str):
                say(undone, Stage.UNDONE, "settled: the cluster shows it as taken back")
        elif current is not None and each.prior is not None and current == json.loads(each.prior):
            say(move.move_id, Stage.FAILED, "settled: it was never made; the target is as it was")
        else:
            say(move.move_id, Stage.UNCLEAR, f"settled: the target is neither as before nor as planned: {current}")
    return settled
