"""How long `steward demo` takes, beside the simulation alone that it contains: python benchmarks/demo.py [GPUs] [days].

Targets: under 60 s and under 2 GiB for 512 GPUs and 14 days on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SIMULATE = (
    "import sys; from simulator.presets import default_spec; from simulator.source import SimulatorSource;"
    "from simulator.step import build; spec = default_spec(int(sys.argv[1]), float(sys.argv[2]));"
    "print(sum(b.frames['gpu_sample'].height for b in SimulatorSource(build(spec)).collect(None, spec.ends_at)))"
)
_DEMO = "from steward.cli import main; main()"


def measure(code: str, *arguments: str) -> tuple[float, float]:
    """Run code in a process of its own and return its wall seconds and its peak memory in MiB."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own code
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(process.returncode)
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main(gpus: str, days: str) -> None:
    """Print seconds, ratio and peak memory of both."""
    alone_s, alone_mib = measure(_SIMULATE, gpus, days)
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "demo.duckdb")
        whole_s, whole_mib = measure(_DEMO, "--store", store, "demo", "--gpus", gpus, "--days", days)
    print(f"{'':18}seconds   ratio  peak MiB")
    print(f"simulation alone  {alone_s:7.1f}    1.00  {alone_mib:8.0f}")
    print(f"steward demo      {whole_s:7.1f}  {whole_s / alone_s:6.2f}  {whole_mib:8.0f}")
    print(f"under 60 s and 2048 MiB: {whole_s < 60 and whole_mib < 2048}")  # noqa: PLR2004 - the targets


if __name__ == "__main__":
    main(*(sys.argv[1:3] if len(sys.argv) > 2 else ("512", "14")))  # noqa: PLR2004 - both or none
