"""What the node agent costs: CPU as a share of one core and memory, for 8 GPUs read every 10 s.

The driver is an object in place of the library, so the driver's own time is not in it; what is measured is ours: the
real bindings, the probe's child, rows, the store and the exposition. The baseline asks the same driver for the same
metrics in a plain loop with nothing around it.

    python benchmarks/agent.py [--turns N] [--gpus N]

Targets: under 1 % of a core, all of it.
"""

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import pynvml

from collectors.agent import Agent, probed_node
from collectors.clock_source import ClockSource
from collectors.exposition import Exposition
from collectors.node_holders import HolderSource
from collectors.nvml_identity import IDENTITY_READERS
from collectors.nvml_readers import SAMPLE_READERS
from collectors.pod_resources import Assigned
from fleet.clock import SystemClock
from steward.agent_run import StoreSink

INTERVAL_S = 10.0
TARGET = 0.01
DRIVER = Path(__file__).parents[1] / "tests" / "collectors" / "nvml_driver.py"
_BASELINE_FLAG = "--baseline"


def make_driver() -> object:
    """Return the driver object of the tests with as many GPUs as BENCHMARK_GPUS says."""
    return _module().FakeDriver(gpu_count=int(os.environ["BENCHMARK_GPUS"]))


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nvml_driver", DRIVER)
    if spec is None or spec.loader is None:
        message = f"{DRIVER} is not there: run this from a checkout"
        raise FileNotFoundError(message)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kubelet:
    """A kubelet that gave each GPU to a pod; the socket's own cost is not in it."""

    def assigned(self) -> tuple[Assigned, ...]:
        """Return one GPU for each pod."""
        return tuple(
            Assigned("team", f"trainer-{index}", "main", "nvidia.com/gpu", f"GPU-{index}")
            for index in range(int(os.environ["BENCHMARK_GPUS"]))
        )

    def allocatable(self) -> frozenset[str]:
        """Return what it gave."""
        return frozenset(each.device for each in self.assigned())


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process that it shares with no other, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measure(turns: int, *, is_stored: bool) -> None:
    """Turn the agent so many times without waiting between, and print what that cost in parent and child."""
    with tempfile.TemporaryDirectory() as folder:
        clock = SystemClock()
        sink = StoreSink(Path(folder) / "agent.duckdb", "n1", clock)
        gpus = probed_node(clock, "c1", "n1", driver=f"{Path(__file__).stem}:make_driver")
        holders = HolderSource("c1", "n1", lambda: gpus.memory, Kubelet())
        agent = Agent(
            [ClockSource(clock, "c1", "n1"), gpus, holders], clock=clock, wait=lambda _seconds: True,
            sink=sink.take if is_stored else None, rest=sink.rest, exposition=(exposition := Exposition(clock)),
            holders=lambda: holders.holders,
        )  # fmt: skip
        agent.turn()
        agent.turn()
        child = gpus.child_pid
        if child is None:
            message = "the probe has no child"
            raise RuntimeError(message)
        before = time.process_time(), cpu_s(child)
        for _ in range(turns):
            agent.turn()
            exposition.render()
        parent_ms = (time.process_time() - before[0]) / turns * 1000
        child_ms = (cpu_s(child) - before[1]) / turns * 1000
        share = (parent_ms + child_ms) / 1000 / INTERVAL_S
        what = "store and /metrics" if is_stored else "/metrics only     "
        print(
            f"agent, {what}: {parent_ms + child_ms:6.1f} ms CPU a turn"
            f" (parent {parent_ms:.1f}, probe {child_ms:.1f}) = {share:.2%} of a core"
            f" (target {TARGET:.0%}: {'met' if share < TARGET else 'MISSED'})"
        )
        print(
            f"    memory: parent {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at its peak,"
            f" probe {memory_mib(child):.0f} MiB of its own"
        )
        gpus.close()
        sink.close()


def measure_baseline(turns: int) -> None:
    """Ask the driver for every metric in a plain loop, keep nothing, and print what that cost."""
    pynvml.nvmlLib = make_driver()
    pynvml.nvmlInit()
    readers = [*IDENTITY_READERS.values(), *SAMPLE_READERS.values()]

    def loop() -> None:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for read in readers:
                try:
                    read(handle)
                except pynvml.NVMLError:
                    continue

    loop()
    before = time.process_time()
    for _ in range(turns):
        loop()
    each_ms = (time.process_time() - before) / turns * 1000
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"baseline, a plain loop of the same calls: {each_ms:6.1f} ms CPU a turn, {peak_mib:.0f} MiB")


def main() -> None:
    """Measure the baseline in a process of its own, then the agent with and without the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument(_BASELINE_FLAG, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["BENCHMARK_GPUS"] = str(options.gpus)
    if options.baseline:
        measure_baseline(options.turns)
        return
    print(f"{options.gpus} GPUs, {options.turns} turns; shares are for one turn every {INTERVAL_S:g} s", flush=True)
    subprocess.run([sys.executable, __file__, _BASELINE_FLAG, "--turns", str(options.turns)], check=True)  # noqa: S603 - ourselves
    measure(options.turns, is_stored=False)
    measure(options.turns, is_stored=True)


if __name__ == "__main__":
    main()
