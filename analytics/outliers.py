"""Find GPUs that differ from their peers: the deciding half of fleet-relative health.

Peers are GPUs of one model, in one phase (at rest or at work), in three circles: those of the same job, of the same
node, and of the whole fleet. A GPU is compared by its own median over parts of the window, so that the length of a
training step does not matter, and scored by how many scaled median absolute deviations it is off in the bad
direction. It is an outlier where it is off in most parts of the window; the nearest circle with enough peers speaks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import polars as pl

from fleet.bounds import require_between, require_positive
from fleet.verdict import Severity, Verdict

MAD_TO_SIGMA = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


@dataclass(frozen=True, slots=True)
class Signal:
    """A measure to compare: `bad` is the direction that is bad (-1 low, 1 high), `floor` the least scale that counts.

    `ratio_min`: beside the deviations, the GPU must be off by this part of the peers' median (0: no such rule).
    `phases`: when it is compared.
    """

    name: str
    bad: int
    floor: float
    ratio_min: float = 0.0
    phases: tuple[str, ...] = ("work",)


SIGNALS = (
    Signal("power_w", -1, 10.0, 0.15),
    Signal("sm_clock_mhz", -1, 20.0, 0.08),
    Signal("sm_activity", -1, 0.03, 0.25),
    Signal("temperature_c", 1, 2.0, 0.15, ("work", "rest")),
    Signal("corrected_per_hour", 1, 20.0, 0.0, ("work", "rest")),
    Signal("replays_per_hour", 1, 20.0, 0.0, ("work", "rest")),
)
_CIRCLES = ("job", "node", "fleet")
_JOB_ONLY = frozenset({"power_w", "sm_activity", "sm_clock_mhz"})
"""Power, SM activity and clocks tell of the work itself: they are compared between mates of one job only."""


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """How far off is too far: `deviations_min` scaled MADs, in `parts_min` of the `parts` of `window_s`.

    A circle speaks with `peers_min` GPUs besides the one looked at. A GPU is at work above `active_above`.
    """

    window_s: float = 3600.0
    parts: int = 6
    parts_min: int = 5
    peers_min: int = 7
    job_peers_min: int = 3
    deviations_min: float = 6.0
    active_above: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_positive("window_s", self.window_s)
        require_between("parts", self.parts, 1, 60)
        require_between("parts_min", self.parts_min, 1, self.parts)
        require_between("peers_min", self.peers_min, 2, float("inf"))
        require_between("job_peers_min", self.job_peers_min, 2, float("inf"))
        require_positive("deviations_min", self.deviations_min)
        require_between("active_above", self.active_above, 0, 1)


def judge_outliers(parts: pl.DataFrame, policy: OutlierPolicy, now: datetime) -> list[Verdict]:
    """Return one verdict for each GPU that stands out from its peers, by its strongest signal.

    `parts` is what `outlier_parts` gives: a row a GPU and part of the window with its phase, job and medians.
    """
    offs = [
        off for signal in SIGNALS for circle in _circles(signal) if (off := _off(parts, signal, circle, policy)).height
    ]
    if not offs:
        return []
    place = {circle: number for number, circle in enumerate(_CIRCLES)}
    strongest = (
        pl.concat(offs)
        .with_columns(place=pl.col("circle").replace_strict(place, return_dtype=pl.Int8))
        .sort("uuid", "signal", "place")
        .unique(["uuid", "signal"], keep="first", maintain_order=True)
        .filter(pl.col("bad_parts") >= policy.parts_min)
        .sort("uuid", pl.col("deviations").abs(), descending=[False, True])
    )
    verdicts = []
    for (_,), rows in strongest.group_by("uuid", maintain_order=True):
        first, *others = rows.iter_rows(named=True)
        verdicts.append(_verdict(first, others, policy, now))
    return verdicts


def _circles(signal: Signal) -> tuple[str, ...]:
    return ("job",) if signal.name in _JOB_ONLY else _CIRCLES


def _off(parts: pl.DataFrame, signal: Signal, circle: str, policy: OutlierPolicy) -> pl.DataFrame:
    """Return for each GPU with enough peers in a circle how far off it is, and in how many parts of the window."""
    keys = ["part", "model", "phase", *{"job": ["job"], "node": ["cluster", "node"], "fleet": []}[circle]]
    value = pl.col(signal.name).cast(pl.Float64)
    known = parts.filter(
        value.is_not_null(), value.is_finite(), pl.col("phase").is_in(list(signal.phases)),
        *(pl.col(key).is_not_null() for key in keys),
    )  # fmt: skip
    peers_min = policy.job_peers_min if circle == "job" else policy.peers_min
    median = value.median().over(keys)
    scaled = known.with_columns(peers=pl.len().over(keys) - 1, median=median, value=value).filter(
        pl.col("peers") >= peers_min
    )
    gap = pl.col("value") - pl.col("median")
    scaled = scaled.with_columns(mad=gap.abs().median().over(keys) * MAD_TO_SIGMA)
    scale = pl.max_horizontal(pl.col("mad"), pl.lit(signal.floor))
    off = scaled.with_columns(deviations=gap / scale)
    is_bad = (pl.col("deviations") * signal.bad >= policy.deviations_min) & (
        gap.abs() >= signal.ratio_min * pl.col("median").abs()
    )
    return off.group_by("uuid", "cluster", "node", "model", "workload").agg(
        signal=pl.lit(signal.name),
        circle=pl.lit(circle),
        phase=pl.col("phase").mode().sort().first(),
        parts=pl.len().cast(pl.Int64),
        bad_parts=is_bad.sum().cast(pl.Int64),
        deviations=pl.col("deviations").median(),
        value=pl.col("value").median(),
        peer_median=pl.col("median").median(),
        peer_mad=pl.col("mad").median(),
        peers=pl.col("peers").min().cast(pl.Int64),
    )


def _verdict(
    row: Mapping[str, object], others: list[dict[str, object]], policy: OutlierPolicy, now: datetime
) -> Verdict:
    is_straggler = row["signal"] in _JOB_ONLY
    told = {name: row[name] for name in _TOLD}
    evidence = {**told, "others": [{name: other[name] for name in _TOLD} for other in others]}
    return Verdict(
        now, "anomaly", "gpu", str(row["uuid"]), "degraded", Severity.WARNING,
        "straggler" if is_straggler else f"outlier_{row['signal']}", MappingProxyType(evidence),
        cluster=str(row["cluster"]), node=str(row["node"]),
        workload=None if row["workload"] is None else str(row["workload"]), action="inspect",
        confidence=_confidence(row, policy), until=now,
    )  # fmt: skip


_TOLD = ("signal", "circle", "phase", "value", "peer_median", "peer_mad", "deviations", "peers", "bad_parts", "parts")


def _confidence(row: Mapping[str, object], policy: OutlierPolicy) -> float:
    """Return 0.5 at the line, rising with the deviations and the parts that agree; never above 0.95."""
    deviations, bad, parts = row["deviations"], row["bad_parts"], row["parts"]
    if not isinstance(deviations, float) or not isinstance(bad, int) or not isinstance(parts, int):
        return 0.5
    return min(0.95, 0.5 * min(abs(deviations) / policy.deviations_min, 2.0) * bad / max(parts, 1))
