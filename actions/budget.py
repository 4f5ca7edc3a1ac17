"""How much may still be done: GPUs an hour, shares of workspace and pool, nodes a turn, and a breaker by cause."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actions.fence_means import gpus_out, is_kept_free
from actions.index import FleetIndex, Pool
from actions.kinds import is_taking, kind_of, rule_of
from actions.policy import ActionPolicy, Budget
from fleet.move import Move, MoveKind, Outcome, Stage

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Made:
    """A move that was made, when, and whether it was taken back since.

    Of one that is not `is_certain` only the beginning is known: it counts as spent, and nothing else is built on it.
    `prior` is what it found before it, as JSON; of one that was carried on (a drain) what its beginning found.
    """

    move: Move
    at: datetime
    is_undone: bool = False
    is_certain: bool = True
    prior: str | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """What was made lately and what this turn has decided so far; what was made since `began_at` is of this turn."""

    recent: tuple[Made, ...] = ()
    turn: tuple[Move, ...] = ()
    began_at: datetime | None = None

    def of_turn(self) -> tuple[Move, ...]:
        """Return what this turn made and decided so far, by whichever plan."""
        if self.began_at is None:
            return self.turn
        mine = {move.move_id for move in self.turn if move.move_id}
        made = (each.move for each in self.recent if each.at >= self.began_at and each.move.move_id not in mine)
        return (*made, *self.turn)

    def of_rule(self, rule: str, now: datetime) -> tuple[Move, ...]:
        """Return the moves of one rule that count against its budget now: the last hour's and this turn's."""
        turn = {move.move_id for move in self.turn if move.move_id}
        hour = [made.move for made in self.recent if now - made.at < _HOUR and made.move.move_id not in turn]
        return tuple(move for move in (*hour, *self.turn) if rule_of(move) == rule and is_taking(move))


def lately(recent: Iterable[Made], policy: ActionPolicy, now: datetime) -> tuple[Made, ...]:
    """Return what budgets and cooldowns still count of everything that was ever made."""
    hours = max(policy.cooldown.undone_h, policy.cooldown.turned_h) + 1
    return tuple(made for made in recent if now - made.at < hours * _HOUR)


def made_of(moves: Iterable[Move], outcomes: Iterable[Outcome]) -> tuple[Made, ...]:
    """Return what was really made of `moves`, or may have been, in that order; a dry run makes nothing."""
    ordered = list(moves)
    position = {move.move_id: number for number, move in enumerate(ordered)}
    by_id = {move.move_id: move for move in ordered}
    made: dict[str, Made] = {}
    priors: dict[str, str | None] = {}
    before: dict[str, Made | None] = {}  # what stood there when a move was begun again
    for outcome in in_order(outcomes):
        move = by_id.get(outcome.move_id)
        if outcome.is_dry_run or move is None:
            continue
        known = made.get(move.move_id)
        if outcome.stage is Stage.APPLIED:
            made[move.move_id] = Made(move, outcome.ts, prior=priors.setdefault(move.move_id, outcome.prior))
        elif outcome.stage is Stage.UNDONE:
            priors.pop(move.move_id, None)
            made.update({} if known is None else {move.move_id: replace(known, is_undone=True)})
        elif outcome.stage in _OPEN or outcome.prior is not None:
            if outcome.stage is Stage.INTENDED:
                before[move.move_id] = known
            made[move.move_id] = Made(move, outcome.ts, is_certain=False)
        elif known is not None and not known.is_certain:
            _restore(made, before, move.move_id)
            if move.move_id not in made:
                priors.pop(move.move_id, None)
    return tuple(sorted(made.values(), key=lambda each: (each.at, position[each.move.move_id])))


_OPEN = {Stage.INTENDED, Stage.UNCLEAR}


def _restore(made: dict[str, Made], before: dict[str, Made | None], move_id: str) -> None:
    """Forget a beginning that came to nothing."""
    earlier = before.get(move_id)
    del made[move_id]
    if earlier is not None:
        made[move_id] = earlier


def in_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return outcomes in the order they came about; at the same moment, an intention before its result."""
    ranks = {stage: rank for rank, stage in enumerate(Stage)}
    return sorted(outcomes, key=lambda each: (each.ts, ranks[each.stage]))


def gpus_spent(move: Move) -> float:
    """Return the GPUs a move counts for: a quota that is lowered is counted where another is raised."""
    if move.kind is not MoveKind.SET_QUOTA:
        return move.gpus
    before = move.evidence.get("before")
    was = before.get("gpus") if isinstance(before, Mapping) else None
    becomes = move.arguments.get("gpus")
    is_lowered = isinstance(was, int | float) and isinstance(becomes, int | float) and becomes < was
    return 0.0 if is_lowered else move.gpus


def gpus_left(rule: str, spending: Spending, budget: Budget, now: datetime) -> float:
    """Return how many GPUs one rule may still touch in this hour."""
    return budget.max_gpus_per_hour - sum(gpus_spent(move) for move in spending.of_rule(rule, now))


def why_no_room(move: Move, spending: Spending, index: FleetIndex, policy: ActionPolicy, now: datetime) -> str | None:
    """Say which bound of the budget a move would break, or None where there is room for it."""
    if not is_taking(move):
        return None
    budget = policy.budget
    spent = spending.of_rule(rule_of(move), now)
    left = budget.max_gpus_per_hour - sum(gpus_spent(each) for each in spent)
    if gpus_spent(move) > left:
        return f"budget: {gpus_spent(move):g} GPUs; {max(left, 0):g} of {budget.max_gpus_per_hour} an hour are left"
    reason = _hourly_share(move, spent, index, budget) or _cause(move, spent, index, budget)
    if reason is not None:
        return reason
    match kind_of(move).scope:
        case "workload":
            return _workspace(move, spent, index, budget) or _pool(move, spent, index, budget)
        case "gpu" | "node":
            return _nodes(move, spending.of_turn(), index, budget) or _pool(move, spent, index, budget)
        case _:
            return None


def _hourly_share(move: Move, spent: Sequence[Move], index: FleetIndex, budget: Budget) -> str | None:
    if budget.max_share_per_hour >= 1:
        return None
    size = sum(gpu.cluster == move.cluster for gpu in index.state.gpus)
    touched = sum(gpus_spent(each) for each in (*spent, move) if each.cluster == move.cluster)
    limit = _share(budget.max_share_per_hour, size)
    if touched <= limit:
        return None
    return f"budget: {touched:g} of the {size} GPUs of {move.cluster} within an hour; {limit} are allowed"


def _cause(move: Move, spent: Sequence[Move], index: FleetIndex, budget: Budget) -> str | None:
    if budget.max_share_per_cause >= 1 and budget.max_gpus_per_cause is None:
        return None
    size = sum(gpu.cluster == move.cluster for gpu in index.state.gpus)
    limit = _bound(budget.max_share_per_cause, size, budget.max_gpus_per_cause)
    same = [each for each in (*spent, move) if (each.cluster, each.cause) == (move.cluster, move.cause)]
    touched = sum(gpus_spent(each) for each in same)
    if touched <= limit:
        return None
    return f"budget: {touched:g} GPUs of {move.cluster} for cause {move.cause} within an hour; {limit} are allowed"


def tripped(
    shown: Iterable[tuple[str, Sequence[str]]], index: FleetIndex, share: float, min_gpus: int
) -> Mapping[tuple[Pool, str], str]:
    """Return the reason by pool and cause where too much of a pool shows one cause at once.

    `shown` holds pairs of a cause and the UUIDs of GPUs that show it. One node alone never trips: its GPUs share
    a board and a power supply, and taking it out is what the rule is for.
    """
    found: dict[tuple[Pool, str], set[str]] = defaultdict(set)
    for cause, uuids in shown:
        for uuid in uuids:
            if uuid in index.gpus:
                found[index.pool_of(index.gpus[uuid]), cause].add(uuid)
    reasons = {}
    for (pool, cause), uuids_found in found.items():
        size = len(index.gpus_by_pool[pool])
        nodes = {index.gpus[uuid].node for uuid in uuids_found}
        if len(nodes) > 1 and len(uuids_found) >= min_gpus and len(uuids_found) > share * size:
            reasons[pool, cause] = (
                f"breaker: {len(uuids_found)} of {size} GPUs of pool {pool[1] or 'without a name'} in {pool[0]} "
                f"show {cause} at once (limit {share:.0%}); look for a common cause"
            )
    return reasons


def _workspace(move: Move, spent: Sequence[Move], index: FleetIndex, budget: Budget) -> str | None:
    held = {
        (workload.cluster, str(workload.ref)): index.gpus_held(workload)
        for workload in index.state.workloads
        if (workload.cluster, workload.workspace) == (move.cluster, move.workspace) and not workload.is_suspended
    }
    taken = {
        (each.cluster, str(each.target)): each.gpus
        for each in (*spent, move)
        if (each.cluster, each.workspace) == (move.cluster, move.workspace)
    }
    whole = sum({**held, **taken}.values())
    limit = _bound(budget.max_share_of_workspace, whole, budget.max_gpus_of_workspace)
    if sum(taken.values()) <= limit:
        return None
    return (
        f"budget: {sum(taken.values()):g} of the {whole:g} GPUs of workspace {move.workspace or 'without a name'} "
        f"within an hour; {limit} are allowed"
    )


def _pool(move: Move, spent: Sequence[Move], index: FleetIndex, budget: Budget) -> str | None:
    mine = gpus_out(move, index)
    touched = mine.union(*(gpus_out(each, index) for each in spent))
    is_out = kind_of(move).scope != "workload"
    if is_out and not index.gpus_by_node.get((move.cluster, move.target.name)):
        return _nodes_of_pool(move, spent, index, budget)
    for pool in sorted({index.pool_of(index.gpus[uuid]) for uuid in mine if uuid in index.gpus}, key=str):
        gpus = index.gpus_by_pool[pool]
        out = {gpu.uuid for gpu in gpus if gpu.uuid in touched or (is_out and _is_out(gpu.uuid, index))}
        limit = _bound(budget.max_share_of_pool, len(gpus), budget.max_gpus_of_pool)
        if len(out) > limit:
            return (
                f"budget: {len(out)} of the {len(gpus)} GPUs of pool {pool[1] or 'without a name'} in {pool[0]} "
                f"would be touched; {limit} are allowed"
            )
    return None


def _nodes_of_pool(move: Move, spent: Sequence[Move], index: FleetIndex, budget: Budget) -> str | None:
    """Return the bound on a pool that a move of a node would break whose GPUs nobody has told: by nodes."""
    node = index.nodes.get((move.cluster, move.target.name))
    if node is None:
        return None
    touched = {each.target.name for each in (*spent, move) if each.cluster == move.cluster and _is_of_node(each)}
    pool = [each for each in index.nodes.values() if (each.cluster, each.pool) == (node.cluster, node.pool)]
    out = [each for each in pool if each.name in touched or not each.is_schedulable]
    limit = _share(budget.max_share_of_pool, len(pool))
    if len(out) <= limit:
        return None
    return (
        f"budget: {len(out)} of the {len(pool)} nodes of pool {node.pool or 'without a name'} in {node.cluster}, whose "
        f"GPUs are not known, would be touched; {limit} are allowed"
    )


def _is_out(uuid: str, index: FleetIndex) -> bool:
    gpu = index.gpus[uuid]
    node = index.nodes.get((gpu.cluster, gpu.node))
    return gpu.is_fenced or (node is not None and is_kept_free(node))


def _nodes(move: Move, turn: Sequence[Move], index: FleetIndex, budget: Budget) -> str | None:
    nodes = {each.target.name for each in (*turn, move) if each.cluster == move.cluster and _is_of_node(each)}
    count = sum(cluster == move.cluster for cluster, _ in index.nodes)
    limit = min(budget.max_nodes_per_turn, _share(budget.max_share_of_nodes_per_turn, count))
    if len(nodes) <= limit:
        return None
    return f"budget: {len(nodes)} of {count} nodes in one turn; {limit} are allowed"


def _is_of_node(move: Move) -> bool:
    return is_taking(move) and kind_of(move).scope in {"gpu", "node"}


def _bound(share: float, whole: float, count: int | None) -> int:
    return _share(share, whole) if count is None else min(count, _share(share, whole))


def _share(share: float, whole: float) -> int:
    # a hair less, so that 0.1 of 30 (3.0000000000000004 in floating point) stays 3
    return math.ceil(share * whole - 1e-9)
