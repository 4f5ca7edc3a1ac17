"""One look at how the fleet is cut and filled: nodes to be cut anew or shared, pods to be moved for larger blocks."""

from collections.abc import Iterable
from datetime import datetime

from analytics.packing import held_now, judge_packing, rooms
from analytics.pool_odds import judge_pools
from analytics.sharing import judge_sharing, sharing_use, waiting_singles
from analytics.sharing_policy import SharingPolicy
from analytics.slice_demand import cut_nodes, held_slices, judge_slices, mig_nodes, waiting_pods, wanted_devices
from fleet.verdict import Verdict
from steward.compose import House


def packing_verdicts(house: House, now: datetime, failed: Iterable[str] = ()) -> list[Verdict]:
    """Return the verdicts of topic packing; `failed` are GPUs that are no room for anybody."""
    engine, layouts = house.store.engine, house.settings.actions.reslice.layouts
    nodes = cut_nodes(engine.run(mig_nodes(engine)), engine.run(held_slices(engine, now)))
    waiting = wanted_devices(engine.run(waiting_pods(engine, now)))
    places = rooms(engine.run(held_now(engine, now)), failed)
    return [
        *judge_slices(nodes, waiting, now, layouts),
        *judge_packing(places, now),
        *sharing_verdicts(house, now, house.settings.sharing),
    ]


def sharing_verdicts(house: House, now: datetime, policy: SharingPolicy) -> list[Verdict]:
    """Return the verdicts on nodes whose GPUs could be shared by time; nothing is asked where no profile is set."""
    if not policy.profiles:
        return []
    engine = house.store.engine
    used = engine.run(sharing_use(engine, now, policy))
    return judge_sharing(used, engine.run(waiting_singles(engine, now, policy)), policy, now)


def pool_verdicts(house: House, now: datetime) -> list[Verdict]:
    """Return the verdicts on pools by the odds that were stored last."""
    return judge_pools(house.store.read("exhaustion"), now)
