"""Who holds which device: kubelet and processes joined by device id, and told where they disagree."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from collectors.exposition import Exposition, Holder
from collectors.node_holders import HolderSource, device_ids, resolve
from collectors.nvml_rows import GpuProcess, NodeMemory, Row, SlicePlace
from collectors.pod_resources import Assigned, PodResources
from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from fleet.errors import SourceFailed, SourceUnavailable
from store.store import Store
from tests.collectors.kubelet_server import KubeletServer, devices, pod

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
A, B = "8d7c4a1e-0b3f-4e55-9c1a-2f6b7d8e9a01", "1f0e9d8c-7b6a-4958-8372-615049382716"
A_ID, B_ID = "aa" * 32, "bb" * 32
MAIN = Holder("team", "trainer", "main")


def memory(*processes: GpuProcess, is_split: bool = False, lost: frozenset[str] = frozenset()) -> NodeMemory:
    """Return a node of two GPUs, the second of which may be split in two MIG devices."""
    known: dict[int, tuple[str, Row]] = {
        index: (f"GPU-{index}", {"minor_number": index + 4, "mig_enabled": is_split and index == 1}) for index in (0, 1)
    }
    slices = (SlicePlace("MIG-x", "GPU-1", 3, 0), SlicePlace("MIG-y", "GPU-1", 5, 0)) if is_split else ()
    return NodeMemory(known, lost=lost, processes=processes, slices=slices)


def process(pid: int, device: str = "GPU-0") -> GpuProcess:
    is_slice = device.startswith("MIG")
    return GpuProcess("GPU-1" if is_slice else device, device if is_slice else None, None, None, pid, "compute", None)


class Kubelet:
    """A kubelet that gave what it is made of, or that fails."""

    def __init__(
        self, *given: Assigned, offered: frozenset[str] = frozenset(), error: SourceFailed | None = None
    ) -> None:
        self.given, self.offered, self.error = given, offered, error

    def assigned(self) -> tuple[Assigned, ...]:
        if self.error is not None:
            raise self.error
        return self.given

    def allocatable(self) -> frozenset[str]:
        return self.offered


def gave(device: str, pod_name: str = "trainer", container: str = "main", resource: str = "nvidia.com/gpu") -> Assigned:
    return Assigned("team", pod_name, container, resource, device)


class Node:
    """A node's files: cgroups of processes, and the log files that tell names."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.logs = folder / "proc", folder / "log"
        for made in (self.proc, self.logs / "pods", self.logs / "containers"):
            made.mkdir(parents=True)

    def run(self, pid: int, path: str) -> None:
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "cgroup").write_text(f"0::{path}\n")

    def run_in_pod(self, pid: int, uid: str, container_id: str) -> None:
        unit = f"kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{container_id}.scope"
        self.run(pid, f"/kubepods.slice/{unit}")

    def name_container(self, pod_name: str, container: str, container_id: str) -> None:
        (self.logs / "containers" / f"{pod_name}_team_{container}-{container_id}.log").touch()

    def name_pod(self, pod_name: str, uid: str) -> None:
        (self.logs / "pods" / f"team_{pod_name}_{uid}").mkdir()

    def source(self, kubelet: Kubelet | PodResources, now: NodeMemory) -> HolderSource:
        return HolderSource("c1", "n1", lambda: now, kubelet, proc=self.proc, logs=self.logs)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.run_in_pod(10, A, A_ID)
    made.run_in_pod(20, B, B_ID)
    made.run(30, "/system.slice/x.service")
    made.name_container("trainer", "main", A_ID)
    made.name_container("server", "web", B_ID)
    return made


def troubles(source: HolderSource, turns: int = 2) -> list[list[Trouble]]:
    return [[trouble for batch in source.collect(None, NOW) for trouble in batch.troubles] for _ in range(turns)]


def test_where_both_agree_nothing_is_told_and_the_pod_holds_the_device(node: Node) -> None:
    source = node.source(Kubelet(gave("GPU-0"), offered=frozenset({"GPU-0", "GPU-1"})), memory(process(10)))
    assert troubles(source) == [[], []]
    assert source.holders == {"GPU-0": (MAIN,)}


def test_what_is_given_and_not_used_is_held_and_no_disagreement(node: Node) -> None:
    source = node.source(Kubelet(gave("GPU-0")), memory())
    assert troubles(source) == [[], []]
    assert source.holders == {"GPU-0": (MAIN,)}


@pytest.mark.parametrize(
    ("given", "pid", "how"),
    [
        ((gave("GPU-0"),), 20, "pod team/server, container web has a process on it, and the kubelet did not give it"),
        ((), 20, "pod team/server, container web has a process on it"),
        ((gave("GPU-0", container="sidecar"),), 10, "pod team/trainer, container main has a process on it"),
        ((gave("GPU-0"),), 30, "a process of no container runs on it, and the kubelet gave it to a pod"),
        ((gave("GPU-7"),), None, "the kubelet gave it to pod team/trainer, and the driver has no such device"),
    ],
    ids=["another pod", "given to nobody", "another container", "a process of the host", "a device that is not there"],
)
def test_a_disagreement_is_told_once_when_it_lasts(
    node: Node, given: tuple[Assigned, ...], pid: int | None, how: str
) -> None:
    source = node.source(Kubelet(*given), memory(*(() if pid is None else (process(pid),))))
    first, second, third = troubles(source, 3)
    assert (first, third) == ([], [])
    (told,) = second
    assert (told.kind, told.place) == ("noticed", f"n1, {'GPU-7' if pid is None else 'GPU-0'}")
    assert how in told.reason


def test_a_disagreement_that_ends_and_comes_back_is_told_again(node: Node) -> None:
    kubelet = Kubelet()
    source = node.source(kubelet, memory(process(10)))
    assert [len(told) for told in troubles(source)] == [0, 1]
    kubelet.given = (gave("GPU-0"),)
    assert troubles(source) == [[], []]
    kubelet.given = ()
    assert [len(told) for told in troubles(source)] == [0, 1]


@pytest.mark.parametrize(
    ("pid", "how"),
    [(30, "a process of the host on what was given to nobody"), (99, "a process whose cgroup is not there")],
)
def test_what_can_not_be_compared_is_no_disagreement(node: Node, pid: int, how: str) -> None:
    given = () if pid == 30 else (gave("GPU-0"),)
    assert troubles(node.source(Kubelet(*given), memory(process(pid)))) == [[], []], how


def test_a_pod_without_a_name_on_this_node_is_neither_named_nor_accused(node: Node) -> None:
    node.run_in_pod(40, "00000000-0000-4000-8000-000000000000", "cc" * 32)
    source = node.source(Kubelet(gave("GPU-0")), memory(process(40)))
    assert troubles(source) == [[], []]


def test_without_a_kubelet_the_processes_tell_and_the_want_is_told_once(node: Node) -> None:
    source = node.source(Kubelet(error=SourceUnavailable("there is no socket")), memory(process(10), process(20)))
    first, second = troubles(source)
    assert first == [Trouble("failed", "pods", "there is no socket")]
    assert second == []
    assert source.holders == {"GPU-0": (MAIN, Holder("team", "server", "web"))}


def test_a_pod_is_known_by_its_folder_where_its_container_is_not_named(node: Node) -> None:
    node.run_in_pod(50, A.replace("8d7c", "9e8d"), "dd" * 32)
    node.name_pod("notebook", A.replace("8d7c", "9e8d"))
    source = node.source(Kubelet(gave("GPU-0", "notebook", "any")), memory(process(50)))
    assert troubles(source) == [[], []]


def test_a_container_that_starts_later_gets_its_name_too(node: Node) -> None:
    kubelet, now = Kubelet(error=SourceUnavailable("none")), memory(process(10))
    source = HolderSource("c1", "n1", lambda: now, kubelet, proc=node.proc, logs=node.logs)
    troubles(source, 1)
    node.run_in_pod(60, B.replace("1f0e", "2f0e"), "ee" * 32)
    node.name_container("late", "main", "ee" * 32)
    now = memory(process(60))
    troubles(source, 1)
    assert source.holders == {"GPU-0": (Holder("team", "late", "main"),)}


IDS = [
    ("GPU-0", "nvidia.com/gpu", "GPU-0"),
    ("GPU-0::7", "nvidia.com/gpu.shared", "GPU-0"),
    ("MIG-x", "nvidia.com/mig-1g.10gb", "MIG-x"),
    ("MIG-x::0", "nvidia.com/gpu", "MIG-x"),
    ("MIG-GPU-1/5/0", "nvidia.com/mig-1g.10gb", "MIG-y"),
    ("nvidia4", "nvidia.com/gpu", "GPU-0"),
    ("nvidia4/vgpu2", "nvidia.com/gpu", "GPU-0"),
    ("nvidia5/gi3", "nvidia.com/gpu", "MIG-x"),
    ("nvidia5/gi3/vgpu0", "nvidia.com/gpu", "MIG-x"),
    ("gpu-4", "gpu.nvidia.com", "GPU-0"),
    ("gpu-4", "example.com/gpu", None),
    ("nvidia9", "nvidia.com/gpu", None),
    ("GPU-0::", "nvidia.com/gpu", None),
    ("", "nvidia.com/gpu", None),
]


@pytest.mark.parametrize(("device", "resource", "uuid"), IDS, ids=str)
def test_every_spelling_of_a_device_finds_it(device: str, resource: str, uuid: str | None) -> None:
    assert resolve(gave(device, resource=resource), device_ids(memory(is_split=True))) == uuid


def test_pods_that_share_a_gpu_all_hold_it(node: Node) -> None:
    source = node.source(
        Kubelet(gave("GPU-0::0"), gave("GPU-0::1"), gave("GPU-0::2", "server", "web")), memory(process(10))
    )
    assert troubles(source) == [[], []]
    assert source.holders == {"GPU-0": (MAIN, Holder("team", "server", "web"))}


def test_of_two_pods_on_a_gpu_that_is_not_shared_the_one_that_runs_there_holds_it(node: Node) -> None:
    source = node.source(Kubelet(gave("GPU-0", "ended"), gave("GPU-0", "server", "web")), memory(process(20)))
    assert troubles(source) == [[], []]
    assert source.holders == {"GPU-0": (Holder("team", "server", "web"),)}


def test_a_process_on_a_mig_device_belongs_to_that_and_not_to_its_gpu(node: Node) -> None:
    split = memory(process(10, "MIG-x"), is_split=True)
    source = node.source(Kubelet(gave("MIG-x", resource="nvidia.com/mig-1g.10gb")), split)
    assert troubles(source) == [[], []]
    assert source.holders == {"MIG-x": (MAIN,)}
    wrong = node.source(Kubelet(gave("MIG-y", resource="nvidia.com/mig-1g.10gb")), split)
    assert [trouble.place for told in troubles(wrong) for trouble in told] == ["n1, MIG-x"]


def test_a_gpu_that_the_kubelet_can_not_hand_out_is_told_unless_it_is_lost_or_split(node: Node) -> None:
    def places(now: NodeMemory, *offered: str) -> list[str]:
        source = node.source(Kubelet(offered=frozenset(offered)), now)
        return [trouble.place for told in troubles(source) for trouble in told]

    assert places(memory(), "GPU-0::0", "GPU-0::1") == ["n1, GPU-1"]
    assert places(memory(), "GPU-0", "GPU-1") == []
    assert places(memory(lost=frozenset({"GPU-1"})), "GPU-0") == []
    assert places(memory(is_split=True), "GPU-0", "MIG-x", "MIG-y") == []
    assert places(memory(), "something else") == []  # no device plugin of NVIDIA's: nothing to compare


def test_before_the_driver_was_read_nobody_holds_anything(node: Node) -> None:
    source = HolderSource("c1", "n1", lambda: None, Kubelet(), proc=node.proc, logs=node.logs)
    assert troubles(source) == [[], []]
    assert source.holders == {}


def test_the_labels_of_metrics_come_from_a_real_socket(node: Node, tmp_path: Path) -> None:
    kubelet = KubeletServer()
    kubelet.list_pods(pod("team", "trainer", {"main": [devices("nvidia.com/gpu", "GPU-0")]}))
    exposition = Exposition(FixedClock(NOW))
    resources = PodResources(tmp_path / "k.sock")
    with kubelet.at(tmp_path / "k.sock"):
        source = node.source(resources, memory(process(10)))
        assert troubles(source) == [[], []]
        resources.close()
    assert kubelet.calls == 4
    exposition.hold(source.holders)
    rows = {"gpu_uuid": ["GPU-0"], "ts": [NOW], "power_w": [70.0]}
    exposition.update(Batch("nvml", {"gpu_sample": pl.DataFrame(rows)}).checked())
    line = next(line for line in exposition.render().splitlines() if line.startswith("DCGM_FI_DEV_POWER_USAGE"))
    assert 'container="main",namespace="team",pod="trainer"' in line


class Watched:
    """A node whose holders are read turn by turn, ten seconds apart, into a store."""

    def __init__(self, node: Node, kubelet: Kubelet, store: Store) -> None:
        self.kubelet, self.memory, self.store, self.turns = kubelet, memory(), store, 0
        self.node = node
        self.restart()
        store.append(Batch("nvml", {"gpu": gpu_frame("GPU-0", "GPU-1")}))

    def restart(self) -> None:
        self.source = HolderSource(
            "c1", "n1", lambda: self.memory, self.kubelet, proc=self.node.proc, logs=self.node.logs
        )

    def turn(self, *processes: GpuProcess, is_read: bool = True) -> None:
        if is_read:
            self.memory = memory(*processes, is_split=True)
        for batch in self.source.collect(None, NOW + timedelta(seconds=10 * self.turns)):
            self.store.append(batch.checked())
        self.turns += 1

    def spans(self) -> list[tuple[str, str, float, float, float | None]]:
        """Return device, pod, and start, last sight and end in turns."""
        return [
            (
                row["slice_uuid"] or row["gpu_uuid"], row["pod"],
                *(None if row[name] is None else (row[name] - NOW).total_seconds() / 10
                  for name in ("starts_at", "last_seen_at", "ends_at")),
            )
            for row in self.store.read("holder").sort("starts_at", "pod").to_dicts()
        ]  # fmt: skip


def gpu_frame(*uuids: str) -> pl.DataFrame:
    return pl.DataFrame({"gpu_uuid": uuids, "uuid": uuids}).with_columns(cluster=pl.lit("c1"), node=pl.lit("n1"))


@pytest.fixture
def watched(node: Node) -> Iterator[Watched]:
    with Store.open(None, clock=FixedClock(NOW + timedelta(hours=1))) as store:
        yield Watched(node, Kubelet(), store)


def test_a_holder_has_one_row_from_first_sight_to_its_end(watched: Watched) -> None:
    watched.turn()
    watched.kubelet.given = (gave("GPU-0"), gave("MIG-x", "server", "web"))
    for _ in range(3):
        watched.turn()
    watched.kubelet.given = (gave("GPU-0"),)
    watched.turn()
    assert watched.spans() == [("MIG-x", "server", 1, 3, 4), ("GPU-0", "trainer", 1, 4, None)]


def test_a_row_says_who_told_of_whom_and_how_many_places(watched: Watched, node: Node) -> None:
    node.name_pod("trainer", A)
    watched.kubelet.given = (gave("GPU-0::0"), gave("GPU-0::4"))
    watched.turn(process(10), process(20))
    rows = watched.store.read("holder").sort("pod").select(
        "cluster", "node", "gpu_uuid", "slice_uuid", "namespace", "container", "pod_uid", "share_count", "source"
    )  # fmt: skip
    assert rows.rows() == [
        ("c1", "n1", "GPU-0", None, "team", "web", None, None, "processes"),
        ("c1", "n1", "GPU-0", None, "team", "main", A, 2, "kubelet"),
    ]


def test_of_two_pods_of_one_name_the_newer_is_meant(watched: Watched, node: Node) -> None:
    node.name_pod("trainer", B)
    node.name_pod("trainer", A)
    os.utime(node.logs / "pods" / f"team_trainer_{B}", (1e9, 1e9))
    watched.kubelet.given = (gave("GPU-0"),)
    watched.turn()
    assert watched.store.read("holder").get_column("pod_uid").to_list() == [A]


def test_a_teller_that_is_silent_ends_nothing(watched: Watched) -> None:
    watched.kubelet.given = (gave("MIG-x"),)
    watched.turn(process(20))
    watched.kubelet.error = SourceFailed("not now")
    watched.turn(process(20))
    watched.turn(is_read=False)  # the driver hangs
    watched.kubelet.error = None
    watched.turn(process(20))
    watched.turn()
    assert watched.spans() == [("GPU-0", "server", 0, 3, 4), ("MIG-x", "trainer", 0, 4, None)]


def test_after_a_restart_what_goes_on_touches_what_was_seen_before(watched: Watched) -> None:
    watched.kubelet.given = (gave("GPU-0"),)
    for _ in range(2):
        watched.turn()
    watched.restart()
    for _ in range(2):
        watched.turn()
    assert watched.spans() == [("GPU-0", "trainer", 0, 1, None), ("GPU-0", "trainer", 2, 3, None)]


def test_a_clock_that_is_set_back_ends_no_row_before_it_begins(watched: Watched) -> None:
    watched.turns = 30
    watched.kubelet.given = (gave("GPU-0"),)
    watched.turn()
    watched.turns = 0
    watched.turn()
    watched.kubelet.given = ()
    watched.turn()
    assert watched.spans() == [("GPU-0", "trainer", 30, 30, 30)]
