"""Do the odds that a limit is passed hold? `python -m benchmarks.exhaustion [--series FILE] [--part ...]`.

At each origin of the forecast protocol, limits stand at the 60, 80, 95 and 99 % quantile of what was known then. Brier
scores, macro over data sets, against the climatology (the share of past windows whose peak was above) and against the
last value with normal error (its spread that of past peaks about the value before). Then how often what was given a
probability came.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import polars as pl

from analytics.backtest import Floats
from analytics.exhaustion import PeakForecast, PeakPolicy
from benchmarks.forecast import CONTEXT, Panel, origins, read

LIMITS = (0.6, 0.8, 0.95, 0.99)
STRIDE = 6


def past_peaks(context: Floats, window: int) -> tuple[Floats, Floats]:
    """Return peaks of past windows and how far they were above the value just before, `[series, window]`."""
    starts = range(1, context.shape[1] - window + 1, STRIDE)
    peaks = np.stack([context[:, start : start + window].max(axis=1) for start in starts], axis=1)
    return peaks, peaks - np.stack([context[:, start - 1] for start in starts], axis=1)


def normal_above(limit: Floats, last: Floats, rise: Floats) -> Floats:
    """Return the odds by a normal error about the last value; certain where it is above already."""
    spread = np.sqrt((rise**2).mean(axis=1)) + 1e-9
    odds = np.array([0.5 * math.erfc(each / math.sqrt(2)) for each in (limit - last) / spread])
    return np.where(last > limit, 1.0, odds)


def score(panel: Panel, window: int, part: str) -> pl.DataFrame:
    """Return one row for each origin, series and limit: the odds by each and what came."""
    rows = []
    for origin in origins(panel, window, part):
        context = panel.values[:, max(0, origin - CONTEXT) : origin]
        peak = panel.values[:, origin : origin + window].max(axis=1)
        made = PeakForecast(PeakPolicy(windows_h=(window,))).fit(context)
        peaks, rise = past_peaks(context, window)
        for share in LIMITS:
            limit = np.nanquantile(context, share, axis=1)
            ours = made.probability_above(limit)[:, 0]
            climate = (peaks > limit[:, None]).mean(axis=1)
            normal = normal_above(limit, context[:, -1], rise)
            rows += [
                (panel.name, *each) for each in zip(ours, climate, normal, peak > limit, np.isfinite(peak), strict=True)
            ]
    names = ["dataset", "ours", "climatology", "normal", "came", "is_known"]
    kinds = [pl.String(), *[pl.Float64()] * 3, pl.Boolean(), pl.Boolean()]
    frame = pl.DataFrame([[str(row[0]), *map(float, row[1:4]), *map(bool, row[4:])] for row in rows],
                         schema=dict(zip(names, kinds, strict=True)), orient="row")  # fmt: skip
    return frame.filter(pl.col("is_known"), pl.col("ours").is_finite())


def main() -> None:
    """Print Brier scores and the reliability table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=Path, default=Path("../shared/data/traces/series_hourly_dev.parquet"))
    parser.add_argument("--part", choices=("tune", "kept", "all"), default="kept")
    arguments = parser.parse_args()
    panels = read(arguments.series, None)
    for window in (24, 168):
        found = pl.concat([score(panel, window, arguments.part) for panel in panels])
        if found.is_empty():
            continue
        came = pl.col("came").cast(pl.Float64)
        brier = found.group_by("dataset").agg(
            ((pl.col(name) - came) ** 2).mean().alias(name) for name in ("ours", "climatology", "normal")
        )
        macro = brier.mean().row(0, named=True)
        print(f"\nwindow {window} h, part {arguments.part}, {found.height} odds")
        for name in ("climatology", "normal"):
            print(f"Brier ours {macro['ours']:.4f}, {name} {macro[name]:.4f}: {macro['ours'] / macro[name]:.3f} of it")
        table = found.with_columns(bin=(pl.col("ours") * 10).floor().clip(0, 9)).group_by("bin").agg(
            pl.col("ours").mean().alias("said"), came.mean().alias("came"), pl.len()
        )  # fmt: skip
        for _, said, share, count in table.sort("bin").iter_rows():
            print(f"said {said:6.1%}  came {share:6.1%}  of {count}")


if __name__ == "__main__":
    main()
