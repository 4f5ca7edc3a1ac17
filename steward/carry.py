"""Carry out plans through the house's clusters, each watched over, each move recorded before and after."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from functools import partial

import polars as pl

from actions.apply import apply
from actions.budget import Made, made_of
from actions.port import Cluster
from actions.restart import settle
from actions.rows import approvals_from, moves_from, outcome_frame, outcomes_from
from fleet.approval import Approval
from fleet.batch import Batch, Trouble
from fleet.errors import SourceFailed
from fleet.move import Move, Outcome, Plan, Stage
from fleet.tables import OUTCOME
from steward.compose import House
from steward.overseer import why_not_leading, why_stopped

ACTOR = "gpu-steward"


def settle_unfinished(house: House) -> list[Outcome]:
    """Record what became of moves that a crash left without a result; a cluster that can't be read waits."""
    settled: list[Outcome] = []
    for cluster in house.clusters:
        moves, outcomes = begun(house)
        try:
            settled += settle(moves, outcomes, cluster, house.clock, _recorder(house), actor=ACTOR)
        except SourceFailed as error:
            house.store.append(Batch(cluster.name, troubles=(Trouble("failed", cluster.name, str(error)),)))
    return settled


def carry_out(
    house: House,
    made: Plan,
    *,
    is_dry_run: bool,
    only: Collection[str] | None = None,
    actor: str = ACTOR,
    even_braked: bool = False,
    began_at: datetime | None = None,
) -> list[Outcome]:
    """Rehearse a plan's moves, or make them; each is recorded before and after.

    What people answered is read from the record: the engine makes nothing that waits for them. `only` names the moves
    where not all are to be made, `began_at` is when the turn began. `even_braked` is for taking back while the brake is
    on; what takes something is never made then.
    """
    # What changes nothing may be written at the end, in one go.
    record = (lambda _outcome: None) if is_dry_run else _recorder(house)
    even_braked = even_braked and all("undo_of" in move.evidence for move in made.moves)
    chosen = {move.move_id for move in made.moves if only is None or move.move_id in only}
    outcomes: list[Outcome] = []
    for cluster in house.clusters:
        mine = {move.move_id for move in made.moves if reaches(house, cluster, move)}
        outcomes += apply(
            made,
            cluster,
            house.settings.actions,
            house.clock,
            record,
            actor=actor,
            kill_switch=partial(_stopped, house, cluster, even_braked=even_braked, is_dry_run=is_dry_run),
            is_dry_run=is_dry_run,
            recent=recent_moves(house),
            approvals=read_approvals(house),
            only=chosen & mine,
            began_at=began_at,
        )
    for move in made.moves:
        if move.move_id in chosen and not any(reaches(house, cluster, move) for cluster in house.clusters):
            detail = f"no cluster {move.cluster} is followed: [collect] contexts names none of that name"
            outcomes.append(Outcome(move.move_id, house.clock.now(), Stage.REFUSED, is_dry_run, actor, detail))
            record(outcomes[-1])
    if is_dry_run and outcomes:
        house.store.append_stored("outcome", outcome_frame(outcomes))
    return outcomes


def recent_moves(house: House) -> tuple[Made, ...]:
    """Return what was made before, which budgets and cooldowns count."""
    return made_of(*begun(house))


def read_approvals(house: House) -> list[Approval]:
    """Return everything that was ever asked and answered."""
    return approvals_from(house.store.read("approval"))


def begun(house: House) -> tuple[list[Move], list[Outcome]]:
    """Return the moves that were ever begun in earnest, plan by plan, and what became of them; rehearsals stay out."""
    engine = house.store.engine
    outcomes, moves, plans = (engine.table(name) for name in ("outcome", "move", "plan"))
    real = outcomes.filter(~outcomes.is_dry_run)
    ours = moves.semi_join(real, "move_id").left_join(plans.select("plan_id", "made_at"), "plan_id")
    bodies = engine.run(ours.order_by("made_at", "plan_id", "ordinal").select("body")).get_column("body")
    return moves_from(bodies), outcomes_from(engine.run(real).cast(pl.Schema(OUTCOME.schema())))


def reaches(house: House, cluster: Cluster, move: Move) -> bool:
    """Return whether a move is for this one of the house's clusters; one that stands for several takes the rest."""
    names = {each.name for each in house.clusters}
    return (
        len(names) == 1 or cluster.name == move.cluster or (cluster.name == "simulator" and move.cluster not in names)
    )


def why_not_led(house: House, cluster: Cluster, now: datetime) -> str | None:
    """Return why another steward acts in this cluster and not we; None where we do."""
    return why_not_leading(house.overseers.get(cluster.name), now)


def _stopped(house: House, cluster: Cluster, *, even_braked: bool, is_dry_run: bool) -> str | None:
    overseer = house.overseers.get(cluster.name)
    if is_dry_run and overseer is not None:
        overseer = replace(overseer, leadership=None)  # who only rehearses needs no lead, and takes it from nobody
    return why_stopped(overseer, house.store.path, house.clock.now(), even_braked=even_braked)


def _recorder(house: House) -> Callable[[Outcome], None]:
    def record(outcome: Outcome) -> None:
        house.store.append_stored("outcome", outcome_frame([outcome]))

    return record
