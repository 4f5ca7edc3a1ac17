"""Score forecasters by rolling origins: `python benchmarks/forecast.py [--series FILE] [--part tune|kept|all]`.

Context at most 8 weeks, origins every 29 hours, horizons 24 and 168 hours, forecasts clipped at zero. The file has
`series_id`, `ts` (hourly) and `gpus_in_use` (else `gpus_requested`), optionally `dataset`. The last part of each data
set is kept for the final score (`--kept-days`, by default a third of its length, at most three weeks); what is tuned is
tuned on the rest. Ratios stand against the seasonal naive of 24 hours (relMAE) and the best single model of the run.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analytics.backtest import Floats
from analytics.combination import Combination
from analytics.points import FadingBlend, LastValue, SeasonalNaive
from analytics.singles import BoostedQuantiles, Conformal, QuantileForecaster, Theta
from analytics.trials import LEVELS

CONTEXT = 8 * 7 * 24
STRIDE = 29
Make = Callable[[int], QuantileForecaster]
MODELS: Mapping[str, Make] = {
    "last value": lambda horizon: Conformal(LastValue(), horizon),
    "seasonal naive 24": lambda horizon: Conformal(SeasonalNaive(24), horizon),
    "fading blend": lambda horizon: Conformal(FadingBlend(), horizon),
    "theta": lambda horizon: Conformal(Theta(), horizon),
    "boosted quantiles": BoostedQuantiles,
    "combination": Combination,
}
OURS = "combination"
AT = {level: int(np.argmin(np.abs(LEVELS - level))) for level in (0.025, 0.1, 0.5, 0.9, 0.975)}


@dataclass(frozen=True)
class Panel:
    """One data set: `[series, hour]`, NaN for gaps, and from which hour on it is kept."""

    name: str
    values: Floats
    kept_from: int


def read(path: Path, kept_days: float | None) -> list[Panel]:
    """Return the data sets of a file of hourly series."""
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, try_parse_dates=True)
    demand = [pl.col(name) for name in ("gpus_in_use", "gpus_requested") if name in frame.columns]
    frame = frame.with_columns(value=pl.coalesce(demand))
    if "dataset" not in frame.columns:
        frame = frame.with_columns(dataset=pl.lit(path.stem))
    panels = []
    for (name,), group in frame.group_by("dataset", maintain_order=True):
        wide = group.pivot("series_id", index="ts", values="value").sort("ts").upsample("ts", every="1h")
        values = wide.drop("ts").to_numpy().T.astype(np.float64)
        kept_h = min(21 * 24, values.shape[1] // 3) if kept_days is None else round(24 * kept_days)
        panels.append(Panel(str(name), values, values.shape[1] - kept_h))
    return panels


def origins(panel: Panel, horizon: int, part: str) -> list[int]:
    """Return the hours to forecast from: those whose whole horizon lies in the part."""
    length = panel.values.shape[1]
    first, end = {"tune": (240, panel.kept_from), "kept": (panel.kept_from, length), "all": (240, length)}[part]
    return list(range(first, end - horizon + 1, STRIDE))


def score(actual: Floats, naive: Floats, made: Floats, scale: Floats) -> dict[str, Floats]:
    """Return measures by series; `actual` is `[series, origin, step]`, `made` has the levels last."""
    known = np.isfinite(actual) & np.isfinite(naive)
    held = np.where(known, actual, 0.0)

    def mean(array: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Floats = np.where(known, array, 0.0).sum(axis=(1, 2)) / known.sum(axis=(1, 2))
        return result

    def share_inside(low: float, high: float) -> Floats:
        hair = 1e-9
        return mean(((held >= made[..., AT[low]] - hair) & (held <= made[..., AT[high]] + hair)).astype(np.float64))

    miss = held - made[..., AT[0.5]]
    pinball = [
        mean(np.maximum(level * (held - made[..., AT[level]]), (level - 1) * (held - made[..., AT[level]])))
        for level in (0.1, 0.5, 0.9)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "relMAE": mean(np.abs(miss)) / mean(np.abs(held - naive)),
            "MASE": mean(np.abs(miss)) / scale,
            "sMAPE": mean(2 * np.abs(miss) / np.maximum(np.abs(held) + np.abs(made[..., AT[0.5]]), 1e-9)),
            "wQL": 2 * np.mean(pinball, axis=0) / mean(np.abs(held)),
            "cover80": share_inside(0.1, 0.9),
            "cover95": share_inside(0.025, 0.975),
            "width80": mean(made[..., AT[0.9]] - made[..., AT[0.1]]) / mean(np.abs(held)),
        }


def run(panel: Panel, horizon: int, part: str) -> dict[str, tuple[dict[str, Floats], float]]:
    """Return measures by series and CPU seconds per 1,000 series for each model."""
    starts = origins(panel, horizon, part)
    if not starts:
        return {}
    actual = np.stack([panel.values[:, start : start + horizon] for start in starts], axis=1)
    contexts = [panel.values[:, max(0, start - CONTEXT) : start] for start in starts]
    naive = np.stack([np.tile(context[:, -24:], (1, horizon // 24)) for context in contexts], axis=1)
    scale = np.nanmean(np.abs(np.diff(panel.values[:, : starts[0]], axis=1)), axis=1)
    results = {}
    for name, make in MODELS.items():
        began = time.process_time()
        made = np.stack([make(horizon).fit(context).predict_quantiles() for context in contexts], axis=1)
        cpu_s = (time.process_time() - began) / len(starts) / panel.values.shape[0] * 1000
        results[name] = (score(actual, naive, np.maximum(made, 0.0), scale), cpu_s)
    return results


def finite_mean(values: Floats) -> float:
    """Return the mean over series that could be scored."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def interval(shares: Floats, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over series."""
    kept = shares[np.isfinite(shares)]
    drawn = np.random.default_rng(seed).choice(kept, (2000, kept.size)).mean(axis=1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def main() -> None:
    """Run the protocol and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=Path, default=Path("../shared/data/traces/series_hourly_dev.parquet"))
    parser.add_argument("--part", choices=("tune", "kept", "all"), default="kept")
    parser.add_argument("--kept-days", type=float, default=None)
    arguments = parser.parse_args()
    panels = read(arguments.series, arguments.kept_days)
    for horizon in (24, 168):
        tables = {panel.name: run(panel, horizon, arguments.part) for panel in panels}
        tables = {name: table for name, table in tables.items() if table}
        print(f"\nhorizon {horizon} h, part {arguments.part}")
        macro: dict[str, dict[str, list[float]]] = {name: {} for name in MODELS}
        shares: dict[str, list[Floats]] = {"cover80": [], "cover95": []}
        for dataset, table in tables.items():
            for name, (measures, cpu_s) in table.items():
                line = {key: finite_mean(value) for key, value in measures.items()} | {"CPU-s/1000": cpu_s}
                for key, value in line.items():
                    macro[name].setdefault(key, []).append(value)
                print(f"{dataset:16}{name:20}" + "".join(f"{key} {value:8.3f}  " for key, value in line.items()))
            for key, collected in shares.items():
                collected.append(table[OURS][0][key])
        overall = {name: {key: float(np.mean(values)) for key, values in line.items()} for name, line in macro.items()}
        for name, line in overall.items():
            print(f"{'macro':16}{name:20}" + "".join(f"{key} {value:8.3f}  " for key, value in line.items()))
        for key in ("relMAE", "wQL"):
            best = min((line[key], name) for name, line in overall.items() if name != OURS)
            ratio = overall[OURS][key] / best[0]
            print(f"{key}: ours {overall[OURS][key]:.4f} = {ratio:.3f} of {best[1]} ({best[0]:.4f})")
        for key, collected in shares.items():
            pooled = np.concatenate(collected)
            low, high = interval(pooled)
            print(f"{key}: ours pooled over series {finite_mean(pooled):.3f} (95 % interval {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
