"""A source in a child process: hangs, kills and refusals end the child, and never the one who asks."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.nvml_rows import NodeMemory
from collectors.probe import ProbedSource, ProbePolicy, load
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput, SourceFailed, SourceUnavailable

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = ProbePolicy(deadline_s=0.4, start_deadline_s=30, backoff_s=10, backoff_max_s=15)


class Watch:
    """A clock for waiting times that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Steering:
    """Says to the driver in the child what it is to do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.say()

    def say(self, **orders: str) -> None:
        self._path.write_text("\n".join(f"{where.removeprefix('gpu_')}={what}" for where, what in orders.items()))


@pytest.fixture
def steering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steering:
    path = tmp_path / "orders"
    monkeypatch.setenv("STEERED_DRIVER", str(path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the child looks for the driver where its parent does
    return Steering(path)


@pytest.fixture
def watch() -> Watch:
    return Watch()


Opener = Callable[[str], ProbedSource[NodeMemory]]


@pytest.fixture
def probe(steering: Steering, watch: Watch) -> Iterator[Opener]:  # noqa: ARG001 - the steering comes before the child
    opened: list[ProbedSource[NodeMemory]] = []

    def open_probe(driver: str = "steered") -> ProbedSource[NodeMemory]:
        source: ProbedSource[NodeMemory] = ProbedSource(
            "nvml", "collectors.nvml:open_nvml", (FixedClock(NOW), "c1", "n1", f"probe_drivers:{driver}"),
            clock=FixedClock(NOW), cluster="c1", node="n1", policy=POLICY, monotonic_s=watch,
        )  # fmt: skip
        opened.append(source)
        return source

    yield open_probe
    for source in opened:
        source.close()
        assert source.child_pid is None


def collected(source: ProbedSource[NodeMemory]) -> list[Batch]:
    return [batch.checked() for batch in source.collect(None, NOW)]


def sampled(batches: list[Batch]) -> list[str]:
    frames = [batch.frames["gpu_sample"] for batch in batches if "gpu_sample" in batch.frames]
    return [uuid for frame in frames for uuid in frame["gpu_uuid"].to_list()]


def events(batches: list[Batch]) -> list[tuple[object, ...]]:
    return [row for batch in batches for row in batch.frames["event"].select("gpu_uuid", "kind", "message").rows()]


def test_what_the_child_reads_arrives_whole_and_the_child_stays(probe: Opener) -> None:
    source = probe("steered")
    first = collected(source)
    pid = source.child_pid
    second = collected(source)
    assert sampled(first) == sampled(second) == ["GPU-0", "GPU-1", "GPU-2"]
    assert [batch.source for batch in first] == ["nvml"]
    assert first[0].read_until == NOW
    assert source.child_pid == pid
    assert pid != os.getpid()
    assert source.memory is not None
    assert len(source.memory.processes) == 6


def test_a_gpu_that_hangs_is_named_left_alone_for_a_while_and_tried_again(
    probe: Opener, steering: Steering, watch: Watch
) -> None:
    source = probe("steered")
    collected(source)
    steering.say(gpu_1="hang")
    hung = collected(source)
    assert events(hung) == [("GPU-1", "probe_hang", "GPU 1: the driver did not answer within 0.4 s")]
    assert [trouble.place for trouble in hung[0].troubles] == ["n1, GPU 1"]
    assert sampled(hung) == ["GPU-0", "GPU-2"]  # the others are read at the same tick

    others = collected(source)
    assert sampled(others) == ["GPU-0", "GPU-2"]
    assert others[0].frames["gpu"]["gpu_uuid"].to_list() == ["GPU-0", "GPU-1", "GPU-2"]
    assert events(others) == []

    watch.now_s = 10
    assert [kind for _, kind, _ in events(collected(source))] == ["probe_hang"]
    watch.now_s = 24
    assert sampled(collected(source)) == ["GPU-0", "GPU-2"]
    steering.say()
    watch.now_s = 25
    assert sampled(collected(source)) == ["GPU-0", "GPU-1", "GPU-2"]
    assert source.hang_count == 2


def test_of_two_gpus_that_hang_at_once_the_second_is_left_to_the_next_tick(probe: Opener, steering: Steering) -> None:
    source = probe("steered")
    collected(source)
    steering.say(gpu_0="hang", gpu_1="hang")
    assert [uuid for uuid, _, _ in events(collected(source))] == ["GPU-0", "GPU-1"]
    assert sampled(collected(source)) == ["GPU-2"]


def test_a_driver_that_can_not_be_opened_is_left_alone_longer_and_longer_up_to_a_bound(
    probe: Opener, steering: Steering, watch: Watch
) -> None:
    steering.say(opening="hang")
    source = probe("steered")
    for wait_s in (10, 15):
        assert [(uuid, kind) for uuid, kind, _ in events(collected(source))] == [(None, "probe_hang")]
        watch.now_s += wait_s - 1
        with pytest.raises(SourceFailed, match="did not answer; the next try is in 1 s"):
            collected(source)
        watch.now_s += 1
    steering.say()
    assert sampled(collected(source)) == ["GPU-0", "GPU-1", "GPU-2"]


def test_a_child_that_is_killed_leaves_no_gap(probe: Opener) -> None:
    source = probe("steered")
    collected(source)
    pid = source.child_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert sampled(collected(source)) == ["GPU-0", "GPU-1", "GPU-2"]
    assert source.child_pid not in {None, pid}


def test_a_driver_that_takes_the_child_with_it_is_a_failure_with_its_place(
    probe: Opener, steering: Steering, watch: Watch
) -> None:
    steering.say(gpu_2="die")
    source = probe("steered")
    with pytest.raises(SourceFailed, match=r"ended twice while at GPU 2 \(exit status -9\); the next try is in 10 s"):
        collected(source)
    with pytest.raises(SourceFailed, match="the next try is in 10 s"):
        collected(source)
    watch.now_s = 10
    steering.say()
    assert sampled(collected(source)) == ["GPU-0", "GPU-1", "GPU-2"]


def test_a_node_without_a_driver_is_unavailable_as_without_a_probe(probe: Opener) -> None:
    source = probe("missing")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="no NVIDIA driver loaded here"):
            collected(source)


def test_a_driver_that_can_not_be_made_says_why_each_time(probe: Opener) -> None:
    source = probe("nobody_made_this")
    for _ in range(2):
        with pytest.raises(SourceFailed, match="'probe_drivers:nobody_made_this' is not the import path"):
            collected(source)


def test_who_did_not_listen_to_the_end_gets_no_old_answer(probe: Opener) -> None:
    source = probe("steered")
    next(source.collect(None, NOW))
    assert sampled(collected(source)) == ["GPU-0", "GPU-1", "GPU-2"]


def test_a_probe_that_is_closed_starts_anew_when_asked(probe: Opener) -> None:
    source = probe("steered")
    collected(source)
    source.close()
    assert source.child_pid is None
    assert sampled(collected(source)) == ["GPU-0", "GPU-1", "GPU-2"]


@pytest.mark.parametrize(
    "path", ["nowhere:made", "collectors.probe:nothing", "collectors.probe", "fleet.columns:SMALL"]
)
def test_an_import_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(BadInput):
        load(path)


@pytest.mark.parametrize("field", ["deadline_s", "start_deadline_s", "backoff_s", "backoff_max_s", "stuck_max"])
def test_a_policy_refuses_what_means_nothing(field: str) -> None:
    with pytest.raises(BadInput, match=field):
        ProbePolicy(**{field: 0})
