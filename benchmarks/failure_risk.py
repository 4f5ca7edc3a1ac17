"""Score predicted failure risk on recorded faults against the count of past faults and the plain probation rule.

Servers (JSON: fault_start and fault_end by node): fit on the earlier two thirds of the time, score the last third,
each day a case for each server; "within 7 days" is what is asked. GPU lives (CSV: serial, insert, remove, event): fit
on half of the serials, score the other half: each fault a case ("does it come back within 30 days?"), and each week a
case for each GPU in service. Given two files of a kind, the first is fitted and the second scored.

    python benchmarks/failure_risk.py [FOLDER] [--servers 400]
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

from analytics.failure_risk import (
    EXPOSURE,
    FAULTS,
    GPU_RATES,
    NODE_RATES,
    Flags,
    Floats,
    RiskModel,
    RiskPolicy,
    comes_back,
    fit_risk,
    lay_over_days,
    with_scores,
    without_bursts,
)
from analytics.failure_score import deciles, precision_at_top, rank_quality

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)  # the server trace counts days from an unnamed beginning
HORIZON_D = 7
PROBATION_D = (1, 7, 14, 30)
CALIBRATION_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class Trace:
    """Faults (`analytics.failure_risk.FAULTS` and `ends_at`), lives in service, and the end of what was recorded."""

    faults: pl.DataFrame
    exposure: pl.DataFrame
    until: datetime


def read_servers(path: Path, servers: int) -> Trace:
    """Read a trace of fault_start and fault_end by node; servers without a fault are only counted in `servers`."""
    rows = json.loads(path.read_text())
    open_: dict[tuple[str, str], list[int]] = {}
    faults: list[dict[str, object]] = []
    for row in sorted(rows, key=lambda row: (row["event_time"], row["event_type"] != "fault_end")):
        kind = row["fault_type"].get("Class") or row["fault_type"].get("Level")
        key = (row["node_id"], json.dumps(row["fault_type"], sort_keys=True))
        if row["event_type"] == "fault_start":
            faults.append({"subject": row["node_id"], "ts": moment(row["event_time"]), "kind": kind, "ends_at": None})
            open_.setdefault(key, []).append(len(faults) - 1)
        elif open_.get(key):
            faults[open_[key].pop(0)]["ends_at"] = moment(row["event_time"])
    frame = pl.DataFrame(faults, schema={**FAULTS, "ends_at": FAULTS["ts"]})
    named = frame.get_column("subject").unique().to_list()
    others = [f"never-{number}" for number in range(max(servers - len(named), 0))]
    exposure = pl.DataFrame(
        {"subject": [*named, *others], "since": [EPOCH] * (len(named) + len(others)), "until": None}, schema=EXPOSURE
    )
    return Trace(frame, exposure, moment(max(row["event_time"] for row in rows)))


def moment(day: float) -> datetime:
    """Return the moment that a count of days means."""
    return EPOCH + timedelta(days=day)


def read_lives(path: Path) -> Trace:
    """Read GPU lives: a row in service with its event at the end, or an event alone."""
    rows = pl.read_csv(path, infer_schema_length=None).with_columns(
        pl.col("SN").cast(pl.String),
        *(pl.col(name).str.to_datetime(time_unit="us").dt.replace_time_zone("UTC") for name in ("insert", "remove")),
    )
    faults = rows.filter(pl.col("event").is_not_null()).select(
        subject="SN", ts="remove", kind="event", ends_at=pl.lit(None, dtype=FAULTS["ts"])
    )
    lives = rows.filter(pl.col("insert").is_not_null()).select(subject="SN", since="insert", until="remove")
    until = rows.get_column("remove").max()
    if not isinstance(until, datetime):
        message = f"{path}: no life has an end"
        raise SystemExit(message)
    return Trace(faults.unique().sort("subject", "ts"), lives, until)


def score_servers(fitted: Trace, scored: Trace) -> tuple[bool, list[str]]:
    """Fit and score a server trace; return whether our ranking beat both baselines, and the lines to print."""
    cut = EPOCH + (fitted.until - EPOCH) * (2 / 3)
    policy = RiskPolicy()
    model = fit_risk(fitted.faults.select(*FAULTS), fitted.exposure, cut, policy, NODE_RATES)
    days = lay_over_days(
        scored.faults.select(*FAULTS), scored.exposure, (EPOCH, scored.until), model.weights, model.memory_d
    )
    labels = days.labels(HORIZON_D)
    first = int((cut - EPOCH).total_seconds() // 86400) if scored is fitted else 0
    span = slice(first, labels.shape[1])
    never = int(days.never[span].sum())
    risk = with_never(model.risk(days.score[:, span].astype(np.float64), HORIZON_D), model, never)
    happened = np.concatenate([labels[:, span].ravel(), np.zeros(never, bool)])
    rivals = {"count of past faults": np.cumsum(days.hits, axis=1)[:, span].astype(np.float64)}
    for window_d in PROBATION_D:
        rivals[f"probation of {window_d} days"] = on_probation(scored, days.hits.shape, window_d)[:, span]
    lines = [
        f"servers: {model.fault_count} faults fitted, {span.stop - span.start} days scored, memory {model.memory_d} d",
        f"{'':26}{'AUC':>8}{'precision at top 10 %':>24}",
    ]
    ours = rank_quality(risk, happened) or 0.0
    lines.append(f"{'predicted 7-day risk':26}{ours:8.4f}{precision_at_top(risk, happened):24.4f}")
    best = 0.0
    for name, values in rivals.items():
        rival = np.concatenate([values.ravel(), np.zeros(never)])
        quality = rank_quality(rival, happened) or 0.0
        best = max(best, quality)
        lines.append(f"{name:26}{quality:8.4f}{precision_at_top(rival, happened):24.4f}")
    lines += [f"ratio to the best baseline: {ours / best:.4f}", *calibration(risk, happened)]
    lines.append(f"base rate at fit: {model.base[HORIZON_D]:.4f}, at score: {happened.mean():.4f}")
    lines.append(f"alert line at {policy.false_alarms_per_day_max:g} false alarms a day: {model.alert_line}")
    return ours > best, lines


def with_never(risk: Floats, model: RiskModel, never: int) -> Floats:
    """Return the risks as one row, with those of the cases that never failed after them."""
    return np.concatenate([risk.ravel(), np.full(never, float(model.risk(np.zeros(1), HORIZON_D)[0]))])


def on_probation(trace: Trace, shape: tuple[int, ...], window_d: int) -> Floats:
    """Return 1 for each server and day with a fault open or repaired within `window_d` days, else 0."""
    names = trace.faults.sort("subject", "ts").get_column("subject").unique(maintain_order=True)
    rows = dict(zip(names, range(len(names)), strict=True))
    found = np.zeros(shape)
    for subject, ts, ends_at in trace.faults.select("subject", "ts", "ends_at").iter_rows():
        start = int((ts - EPOCH).total_seconds() // 86400)
        end = shape[1] if ends_at is None else int((ends_at - EPOCH).total_seconds() // 86400) + window_d
        found[rows[subject], start : max(end, start + 1)] = 1.0
    return found


def score_lives(fitted: Trace, scored: Trace) -> tuple[bool, list[str]]:
    """Fit one set of serials and score another; return whether repeats are calibrated, and the lines to print."""
    first = fitted.exposure.get_column("since").min()
    if not isinstance(first, datetime):
        return False, ["lives: nothing was ever in service"]
    until = max(fitted.until, scored.until) + timedelta(seconds=1)
    model = fit_risk(fitted.faults.select(*FAULTS), fitted.exposure, until, RiskPolicy(), GPU_RATES)
    faults = without_bursts(scored.faults.select(*FAULTS), RiskPolicy().burst_s)
    days = lay_over_days(faults, scored.exposure, (first, until), model.weights, model.memory_d)
    seen = days.labels(30)[:, ::7]
    weeks = slice(0, days.labels(30).shape[1], 7)
    exposed = days.exposed[:, weeks]
    risk = model.risk(days.score[:, weeks].astype(np.float64), 30)
    never = int(days.never[weeks].sum())
    everyone = np.concatenate([risk[exposed], np.full(never, float(model.risk(np.zeros(1), 30)[0]))])
    happened = np.concatenate([seen[exposed], np.zeros(never, bool)])
    repeat, again = repeats(scored, model, until)
    worst = max(abs(group.error) for group in (*deciles(repeat, again), *deciles(everyone, happened)))
    return worst <= CALIBRATION_LIMIT, [
        f"GPU lives: {model.fault_count} faults fitted, memory {model.memory_d} d, weights {dict(model.weights)}",
        f"repeat within 30 days of a fault, {len(again):,} faults of the other half:",
        *calibration(repeat, again),
        f"fault within 30 days, {len(happened):,} GPU-weeks; AUC {rank_quality(everyone, happened) or 0:.4f}:",
        *calibration(everyone, happened),
        f"worst decile off by {worst:.4f} (limit {CALIBRATION_LIMIT})",
    ]


def repeats(scored: Trace, model: RiskModel, until: datetime) -> tuple[Floats, Flags]:
    """Return the predicted risk that each fault comes back within 30 days, and whether it did."""
    faults = without_bursts(scored.faults.select(*FAULTS), RiskPolicy().burst_s)
    told = with_scores(faults, model.weights, model.memory_d).with_columns(again=comes_back(30))
    told = told.filter(pl.col("ts") <= until - timedelta(days=30))
    return model.repeat_risk(told.get_column("score").to_numpy(), 30), told.get_column("again").to_numpy()


def calibration(risk: Floats, happened: Flags) -> list[str]:
    """Return the lines of a calibration table."""
    rows = [f"{'decile':>8}{'cases':>10}{'predicted':>11}{'observed':>10}{'noise':>8}"]
    for place, group in enumerate(deciles(risk, happened), start=1):
        rows.append(f"{place:8}{group.count:10,}{group.predicted:11.4f}{group.observed:10.4f}{group.noise:8.4f}")
    return rows


def halves(trace: Trace) -> tuple[Trace, Trace]:
    """Return the serials in two halves, by a hash that knows nothing of them."""
    names = pl.concat([trace.faults.get_column("subject"), trace.exposure.get_column("subject")]).unique()
    first = [name for name in names if sha256(name.encode()).digest()[0] % 2 == 0]
    chosen = pl.col("subject").is_in(first)
    return (
        Trace(trace.faults.filter(chosen), trace.exposure.filter(chosen), trace.until),
        Trace(trace.faults.filter(~chosen), trace.exposure.filter(~chosen), trace.until),
    )


def traces_in(folder: Path, servers: int) -> tuple[list[Trace], list[Trace]]:
    """Return the server traces and the GPU lives of a folder, told by what is in the files."""
    of_servers = [
        read_servers(path, servers) for path in sorted(folder.glob("*.json")) if "fault_start" in path.read_text()
    ]
    of_gpus = [
        read_lives(path)
        for path in sorted(folder.glob("*.csv"))
        if {"SN", "insert", "remove", "event"} <= set(pl.scan_csv(path).collect_schema())
    ]
    return of_servers, of_gpus


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of every trace there is; 1 where a target is missed or nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(os.environ.get("STEWARD_DATA") or Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("folder", type=Path, nargs="?", default=root / "faults")
    parser.add_argument("--servers", type=int, default=400, help="servers the trace covers, faulty or not")
    options = parser.parse_args(arguments)
    of_servers, of_gpus = traces_in(options.folder, options.servers)
    results = [score_servers(trace, trace) for trace in of_servers]
    if len(of_gpus) > 1:
        results.append(score_lives(of_gpus[0], of_gpus[1]))
    results += [score_lives(*halves(trace)) for trace in of_gpus]
    for is_met, lines in results:
        print("\n".join([*lines, f"target met: {is_met}", ""]))
    return 0 if results and all(is_met for is_met, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
