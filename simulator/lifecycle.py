"""Tasks from submission to end: they wait, hold units, go from phase to phase, end, fail and come back."""

from collections.abc import Iterable

from fleet.state import ObjectRef
from simulator.changes import NO_POD
from simulator.randomness import Purpose, generator
from simulator.work import FREE, Kind, phases
from simulator.world import Happening, PodRecord, Task, Workload, World

_LEAST_WORK_S = 60


def add_workload(world: World, workload: Workload, work_s: int) -> None:
    """Create a workload and submit its tasks, one per replica."""
    index = len(world.workloads)
    world.workloads.append(workload)
    world.workload_of[(workload.cluster, workload.ref)] = index
    for _ in range(workload.replicas):
        submit(world, index, work_s)


def submit(world: World, workload_index: int, work_s: int) -> None:
    """Put one task of a workload into the queue."""
    workload = world.workloads[workload_index]
    task = Task(
        index=len(world.tasks),
        name=f"{workload.ref.name}-{workload.task_count}",
        workload=workload_index,
        work_s=max(_LEAST_WORK_S, work_s),
        submitted_s=world.now_s,
        gpus=workload.nodes * workload.width * workload.unit_gpus,
    )
    workload.task_count += 1
    workload.live.append(task.index)
    world.live_workloads[workload_index] = None
    world.tasks.append(task)
    world.waiting.setdefault((workload.section, workload.workspace), []).append(task.index)
    world.pending_gpus[workload.cluster, workload.workspace] += task.gpus
    world.pending_jobs[workload.cluster, workload.workspace] += 1
    world.task_log.append((world.now_s, task.index))
    world.push_schedule()


def start(world: World, task: Task, units_by_node: list[tuple[int, list[int]]]) -> None:
    """Give a waiting task its units (it has left the queue already) and let it begin."""
    workload = world.workloads[task.workload]
    _count_pending(world, task, workload, -1)
    world.used_gpus[workload.cluster, workload.workspace] += task.gpus
    world.running_jobs[workload.cluster, workload.workspace] += 1
    task.status, task.started_s = "running", world.now_s
    for ordinal, (node, units) in enumerate(units_by_node):
        pod = len(world.pods)
        lives = [world.slices.now(unit) for unit in units]
        slices = tuple(None if life is None else life.uuid for life in lives)
        uid, name = pod_names(world, task, ordinal)
        world.pods.append(PodRecord(uid, name, task.index, node, units, world.now_s, slices))
        world.pod_log.append((world.now_s, pod))
        task.pods.append(pod)
        world.unit_pod[units] = pod
        world.free_units[node] -= len(units)
        world.leaving.pop(node, None)
    rng = generator(world.spec.seed, Purpose.TASK, task.index)
    task.phases = phases(world.spec, workload.kind, task.work_s, world.now_s, rng)
    world.task_log.append((world.now_s, task.index))
    begin_next_phase(world, task)


def pod_names(world: World, task: Task, ordinal: int) -> tuple[str, str]:
    """Return the UID and the name of one of a task's pods, which it has from its submission on."""
    return f"{task.index:08x}-{ordinal:04x}-4000-8000-{world.spec.seed:012x}", f"{task.name}-{ordinal}"


def begin_next_phase(world: World, task: Task) -> None:
    """Let a running task do what comes next, or end it where nothing does."""
    if task.status != "running":
        return
    phase = next(task.phases, None)
    if phase is None:
        stop(world, task, "succeeded")
        return
    for pod in task.pods:
        units = world.pods[pod].units
        world.changes.add(world.now_s, units, [pod] * len(units), phase)
    world.push(world.now_s + phase.seconds, Happening.PHASE_END, task.index)


def stop(world: World, task: Task, status: str) -> None:
    """End a task that waits or runs; its units are free at once."""
    workload = world.workloads[task.workload]
    if task.status == "pending":
        _count_pending(world, task, workload, -1)
        world.waiting[(workload.section, workload.workspace)].remove(task.index)
    else:
        world.used_gpus[workload.cluster, workload.workspace] -= task.gpus
        world.running_jobs[workload.cluster, workload.workspace] -= 1
        _release(world, task)
    task.status, task.ended_s = status, world.now_s
    workload.live.remove(task.index)
    if not workload.live and not workload.is_suspended:
        world.live_workloads.pop(task.workload, None)
    world.task_log.append((world.now_s, task.index))
    world.push_schedule()


def fail(world: World, task: Task) -> None:
    """Stop a running task because something broke under it, and submit what is left of its work."""
    left = work_left(world, task)
    stop(world, task, "failed")
    submit(world, task.workload, left)


def evict(world: World, task: Task) -> None:
    """Stop a running task because its place is wanted for something else, and submit what is left of its work."""
    left = work_left(world, task)
    stop(world, task, "cancelled")
    submit(world, task.workload, left)


def evict_from(world: World, units: Iterable[int], *, keeps_budgets: bool = False) -> None:
    """Evict every task that holds one of these units, gangs whole; what its owner protects stays until it ends.

    With `keeps_budgets`, a service keeps the replicas that its disruption budget asks for; they stay for now.
    """
    held = (world.task_of_unit(unit) for unit in units)
    for index in dict.fromkeys(task for task in held if task is not None):
        task = world.tasks[index]
        workload = world.workloads[task.workload]
        if not workload.is_protected and not (keeps_budgets and _is_needed(world, workload)):
            evict(world, task)


def _is_needed(world: World, workload: Workload) -> bool:
    """Return whether a service's disruption budget has no room for one replica less."""
    most = world.spec.workspaces[workload.workspace].max_unavailable
    if workload.kind is not Kind.SERVING or most is None:
        return False
    return sum(world.tasks[index].status != "running" for index in workload.live) >= most


def fail_on_gpu(world: World, gpu: int) -> None:
    """Fail every task that holds a part of a GPU; a gang goes with its member."""
    held = (world.task_of_unit(unit) for unit in world.fabric.units_of_gpu(gpu))
    for index in dict.fromkeys(task for task in held if task is not None):
        fail(world, world.tasks[index])


def work_left(world: World, task: Task) -> int:
    """Return the seconds a task would still work if it were stopped now (what it has done is kept)."""
    if task.started_s is None or world.workloads[task.workload].kind is Kind.SERVING:
        return task.work_s
    return max(_LEAST_WORK_S, task.work_s - (world.now_s - task.started_s))


def suspend(world: World, workload_index: int, actor: str) -> None:
    """Stop all tasks of a workload and remember what is left of them."""
    workload = world.workloads[workload_index]
    workload.is_suspended, workload.suspended_by = True, actor
    workload.version += 1
    for index in list(workload.live):
        task = world.tasks[index]
        workload.paused_work_s.append(work_left(world, task))
        stop(world, task, "cancelled")


def resume(world: World, workload_index: int) -> None:
    """Submit again what was left when the workload was suspended."""
    workload = world.workloads[workload_index]
    workload.is_suspended, workload.suspended_by = False, None
    workload.version += 1
    paused, workload.paused_work_s = workload.paused_work_s, []
    for work_s in paused:
        submit(world, workload_index, work_s)


def scale(world: World, workload_index: int, replicas: int, leaving: Iterable[str] = ()) -> None:
    """Bring a service to so many replicas; of those to go, what waits goes first, then pods named in `leaving`."""
    workload = world.workloads[workload_index]
    workload.version += 1
    first = set(leaving)

    def place(index: int) -> tuple[int, int]:
        task = world.tasks[index]
        is_named = any(world.pods[pod].name in first for pod in task.pods)
        return (0 if task.status == "pending" else 1 if is_named else 2, -index)

    for index in sorted(workload.live, key=place)[: max(0, len(workload.live) - replicas)]:
        stop(world, world.tasks[index], "cancelled")
    work_s = max((world.tasks[index].work_s for index in workload.live), default=_LEAST_WORK_S)
    for _ in range(replicas - len(workload.live)):
        submit(world, workload_index, work_s)


def find_workload(world: World, cluster: int, ref: ObjectRef) -> int | None:
    """Return the index of a workload that lives or is suspended, None where there is none of that name."""
    index = world.workload_of.get((cluster, ref))
    return index if index in world.live_workloads else None


def _count_pending(world: World, task: Task, workload: Workload, sign: int) -> None:
    world.pending_gpus[workload.cluster, workload.workspace] += sign * task.gpus
    world.pending_jobs[workload.cluster, workload.workspace] += sign


def _release(world: World, task: Task) -> None:
    for pod in task.pods:
        record = world.pods[pod]
        record.ends_s = world.now_s
        world.pod_log.append((world.now_s, pod))
        world.unit_pod[record.units] = NO_POD
        world.changes.add(world.now_s, record.units, [NO_POD] * len(record.units), FREE)
        world.recount(record.node)
