"""Time the reading of a written kernel log against one regular expression over its lines, which finds codes alone.

Ours also reads times, addresses and instances, makes events of lines, and keeps its place. The run is refused unless
both found the same number of XID lines. Printed: seconds (best of three), lines a second, and ours over the baseline.

    python benchmarks/kernel_log.py [--lines 500000] [--share 0.01]
"""

import argparse
import random
import re
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from collectors.kernel_file import read_added
from collectors.kernel_lines import read_message
from collectors.kernel_log import KernelLogSource
from collectors.kernel_records import read_lines
from fleet.clock import FixedClock

START = datetime(2026, 3, 1, tzinfo=UTC)
ROUNDS = 3
CODES = (13, 31, 43, 45, 48, 63, 74, 79, 94, 119, 154)
_XID = re.compile(r"NVRM: Xid \(PCI:[0-9a-fA-F:.]+\): (\d+)")


def make_log(path: Path, lines: int, share: float, seed: int) -> None:
    """Write a log of ordinary lines, a share of them XIDs of eight GPUs."""
    chance = random.Random(seed)  # noqa: S311 - a benchmark's noise
    with path.open("w") as file:
        for number in range(lines):
            moment = START + timedelta(seconds=number * 0.17)
            text = "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready"
            if chance.random() < share:
                bus = chance.randrange(8)
                text = f"NVRM: Xid (PCI:0000:{bus:02x}:00): {chance.choice(CODES)}, pid={number}, name=python3, x"
            file.write(f"{moment.isoformat()} node7 kernel: {text}\n")


def best_of(run: Callable[[], int]) -> tuple[float, int]:
    """Return the shortest time of a few rounds, in seconds, and what the last of them counted."""
    times, count = [], 0
    for _ in range(ROUNDS):
        before = time.perf_counter()
        count = run()
        times.append(time.perf_counter() - before)
    return min(times), count


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=500_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    clock = FixedClock(START + timedelta(days=30))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "kernel.log"
        make_log(log, options.lines, options.share, options.seed)

        def ours() -> int:
            (batch,) = KernelLogSource(clock, "c", None, log).collect(None, clock.now())
            return batch.frames["event"].height

        def baseline() -> int:
            with log.open() as file:
                return sum(_XID.search(line) is not None for line in file)

        records = read_lines(read_added(log, None, clock.now()).lines, clock.now())
        found = sum(read_message(record.text) is not None for record in records)
        theirs_s, expected = best_of(baseline)
        if found != expected:
            message = f"ours found {found} XID lines, the baseline {expected}"
            raise SystemExit(message)
        ours_s, events = best_of(ours)
    print(f"lines {options.lines:,}  XID lines {found:,}  events {events:,}")
    print(f"ours      {ours_s:7.3f} s  {options.lines / ours_s:12,.0f} lines/s")
    print(f"baseline  {theirs_s:7.3f} s  {options.lines / theirs_s:12,.0f} lines/s")
    print(f"ours / baseline  {ours_s / theirs_s:.2f}")


if __name__ == "__main__":
    main()
