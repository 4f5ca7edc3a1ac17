"""What chaos needs: a small simulated fleet, verdicts drawn at random, and somebody else who changes things."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random

from fleet.clock import FixedClock
from fleet.move import Move, MoveKind
from fleet.state import FleetState, ObjectRef
from fleet.verdict import Severity, Verdict
from simulator.cluster import SimulatorCluster
from simulator.spec_file import spec_from
from simulator.step import advance, build
from simulator.world import World

PLACES = ("east", "west")
CAUSES = ("xid_79", "xid_95", "row_remap_failure")
ACTIONS = ("fence", "reset_gpu", "run_diagnostics", "reboot_node", "drain")
STRANGER = "alice"


@dataclass
class Scene:
    """A fleet of two clusters that name things alike, its clock, what is wrong with it, and what a stranger holds."""

    rng: Random
    world: World
    clock: FixedClock
    failing: dict[str, tuple[str, str]] = field(default_factory=dict)
    cured: set[str] = field(default_factory=set)
    idle: set[tuple[str, ObjectRef]] = field(default_factory=set)
    demand: dict[tuple[str, str], float] = field(default_factory=dict)
    cordons: set[tuple[str, str]] = field(default_factory=set)
    is_within_a_write: bool = False

    def happens(self, odds: float) -> bool:
        """Throw the dice."""
        return self.rng.random() < odds

    @property
    def cluster(self) -> SimulatorCluster:
        """Return the fleet as a cluster that always answers truly."""
        return SimulatorCluster(self.world)

    def state(self) -> FleetState:
        """Return the true state of now."""
        return self.cluster.observe()

    def later(self, by: timedelta) -> None:
        """Let time pass."""
        self.clock.move(by)
        advance(self.world, self.clock.now())

    def freeze(self) -> None:
        """Let nothing happen by itself any more; time still passes."""
        self.world.agenda.clear()


def scene(seed: int) -> Scene:
    """Build a fleet of 96 GPUs that has lived for six hours."""
    rng = Random(seed)  # noqa: S311 - a game of chance that must repeat, not a secret
    spec = spec_from({"preset": "default", "gpus": 96, "days": 2, "seed": seed}, "chaos")
    world = build(spec)
    clock = FixedClock(world.now)
    made = Scene(rng, world, clock)
    made.later(timedelta(hours=6))
    _name_alike(made)
    return made


def _name_alike(scene: Scene) -> None:
    """Let both clusters number their nodes from 0 on, and some workloads bear the same name in both."""
    world, count = scene.world, Counter[int]()
    names = []
    for cluster in map(int, world.fabric.node_cluster):
        names.append(f"node-{count[cluster]:03}")
        count[cluster] += 1
    world.fabric = replace(world.fabric, node_name=tuple(names))
    east, west = (
        [each for each in sorted(world.live_workloads) if world.workloads[each].cluster == place] for place in (0, 1)
    )
    for here in scene.rng.sample(west, min(8, len(west))):
        mine = world.workloads[here]
        alike = [each for each in east if world.workloads[each].ref.kind == mine.ref.kind]
        twin = scene.rng.choice(alike) if alike else None
        if twin is not None and (1, world.workloads[twin].ref) not in world.workload_of:
            del world.workload_of[1, mine.ref]
            mine.ref = world.workloads[twin].ref
            world.workload_of[1, mine.ref] = here


def has_twin(world: World, ref: ObjectRef) -> bool:
    """Return whether workloads of both clusters bear that name now."""
    return all(world.workload_of.get((place, ref)) in world.live_workloads for place in (0, 1))


def disturb(scene: Scene) -> None:
    """Let faults, idleness and demand come and go; now and then one cause spreads over a pool."""
    rng, state = scene.rng, scene.state()
    for gpu in rng.sample(state.gpus, 2):
        if scene.happens(0.3):
            scene.failing[gpu.uuid] = (rng.choice(CAUSES), rng.choice(ACTIONS))
    if scene.failing and scene.happens(0.3):
        uuid = rng.choice(sorted(scene.failing))
        scene.failing.pop(uuid)
        scene.cured.add(uuid)
    if scene.happens(0.05):
        pool = rng.choice(state.nodes).pool
        nodes = {(node.cluster, node.name) for node in state.nodes if node.pool == pool}
        for gpu in state.gpus:
            if (gpu.cluster, gpu.node) in nodes and scene.happens(0.6):
                scene.failing[gpu.uuid] = ("driver_wave", "fence")
    known = {(each.cluster, each.ref) for each in state.workloads}
    scene.idle &= known
    for each in rng.sample(state.workloads, min(4, len(state.workloads))):
        scene.idle ^= {(each.cluster, each.ref)}
    for quota in state.quotas:
        if scene.happens(0.2) or (quota.cluster, quota.workspace) not in scene.demand:
            scene.demand[quota.cluster, quota.workspace] = round(quota.gpus * rng.uniform(0.2, 1.8), 1)


def verdicts(scene: Scene) -> list[Verdict]:
    """Say what is wrong, as an analysis of this moment would."""
    now, state = scene.clock.now(), scene.state()
    gpus = {gpu.uuid: gpu for gpu in state.gpus}
    found = [
        Verdict(
            made_at=now, topic="health", subject_kind="gpu", subject=uuid, state="failing", severity=Severity.CRITICAL,
            rule=cause, action=action, cluster=gpus[uuid].cluster, node=gpus[uuid].node, until=now,
            evidence={"cause": cause},
        )
        for uuid, (cause, action) in sorted(scene.failing.items())
    ]  # fmt: skip
    found += [
        Verdict(
            made_at=now, topic="health", subject_kind="gpu", subject=uuid, state="healthy", severity=Severity.OK,
            rule="no_finding", action="none", cluster=gpus[uuid].cluster, node=gpus[uuid].node, until=now,
        )
        for uuid in sorted(scene.cured - set(scene.failing))
    ]  # fmt: skip
    plain = Verdict(
        made_at=now, topic="idle", subject_kind="workload", subject="", state="idle", severity=Severity.WARNING,
        rule="all_parts_idle", action="reclaim", since=now - timedelta(hours=9), until=now, coverage=1.0,
        evidence={"usd_per_gpu_hour": "2.5"},
    )  # fmt: skip
    for cluster, ref in sorted(scene.idle):
        told = replace(plain, subject=str(ref), workload=str(ref), cluster=cluster)
        if scene.happens(0.2):  # its source does not say which cluster it speaks of
            told = replace(told, cluster=None, evidence={**plain.evidence, "unsaid": True})
        found.append(told)
    for (cluster, workspace), gpus_wanted in sorted(scene.demand.items()):
        evidence = {"forecast_gpus": gpus_wanted, "forecast_upper_gpus": round(gpus_wanted * 1.3, 1)}
        found.append(replace(
            plain, topic="demand", subject_kind="workspace", subject=workspace, workspace=workspace, cluster=cluster,
            state="forecast", severity=Severity.INFO, rule="forecast", action=None, since=None, evidence=evidence,
        ))  # fmt: skip
    return found


def meddle(scene: Scene) -> None:
    """Let a stranger cordon, uncordon, stop, start, protect, re-quota or make anew something, without asking us."""
    rng, world = scene.rng, scene.world
    match rng.randrange(9):
        case 0:
            _cordon(scene, rng.randrange(len(world.node_cordoned_by)))
        case 1:
            for node, holder in enumerate(world.node_cordoned_by):
                if holder is not None and scene.happens(0.5):
                    _uncordon(scene, node)
        case 2 | 3:
            _touch_workload(scene)
        case 4:
            quota = rng.choice(list(world.quota_now.values()))
            quota.gpus, quota.version = max(0.0, quota.gpus + rng.choice((-2, 2))), quota.version + 1
        case 5:
            _cancel(scene)
        case 6 | 7:
            _bear_anew(scene)
        case _:
            gpu = rng.randrange(len(world.gpu_is_fenced))
            node = int(world.fabric.gpu_node[gpu])
            world.gpu_is_fenced[gpu] ^= True
            world.node_version[node] += 1
            world.recount(node)


def _cordon(scene: Scene, node: int) -> None:
    world = scene.world
    if world.node_is_schedulable[node]:
        world.node_is_schedulable[node], world.node_cordoned_by[node] = False, STRANGER
        world.node_version[node] += 1
        world.recount(node)
        scene.cordons.add(_place(world, node))


def _uncordon(scene: Scene, node: int) -> None:
    world = scene.world
    world.node_is_schedulable[node], world.node_cordoned_by[node] = True, None
    world.node_version[node] += 1
    world.recount(node)
    scene.cordons.discard(_place(world, node))


def _place(world: World, node: int) -> tuple[str, str]:
    return (world.spec.clusters[int(world.fabric.node_cluster[node])].name, world.fabric.node_name[node])


def _cancel(scene: Scene) -> None:
    """Let the stranger end our drains, or take back what we asked for."""
    state = scene.state()
    kinds = ((MoveKind.CANCEL_DRAIN, "drain"), (MoveKind.WITHDRAW_REPAIR, "repair"))
    for node in state.nodes:
        for kind, name in kinds:
            if getattr(node, name) is not None and scene.happens(0.5):
                target = ObjectRef("Node", "", node.name)
                scene.cluster.make(Move("stranger", kind, node.cluster, target, STRANGER, "I want it so"))


def _bear_anew(scene: Scene) -> None:
    """Let its owner delete a workload, one that we stopped where there is one, and make another that looks the same."""
    world = scene.world
    live = sorted(world.live_workloads)
    ours = [each for each in live if world.workloads[each].suspended_by == "gpu-steward"]
    if live:
        workload = world.workloads[scene.rng.choice(ours or live)]
        workload.births += 1
        workload.version += int(scene.is_within_a_write)  # a server would not take a write meant for the other


def _touch_workload(scene: Scene) -> None:
    rng, world = scene.rng, scene.world
    live = list(world.live_workloads)
    if not live:
        return
    workload = world.workloads[rng.choice(live)]
    workload.version += 1
    if scene.happens(0.5):
        workload.is_protected = not workload.is_protected
    elif workload.is_suspended:
        workload.suspended_by = STRANGER
