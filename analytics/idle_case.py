"""One GPU or slice, who holds it and what its samples tell: the case that the idle verdict is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from types import MappingProxyType

from analytics.activity import SECONDS_PER_HOUR, coverage
from analytics.idle_policy import IdlePolicy, Prior
from analytics.sizes import Size, smaller_size
from fleet.models import MODELS, canonical_model, idle_power_w
from fleet.state import ObjectRef

_MICRO = Decimal("0.000001")
_SPREADS = 4.0  # from the middle to the tenth part, four times over: five standard deviations of even noise


@dataclass(frozen=True, slots=True)
class Signals:
    """One row that `idle_signals` gives; its columns are explained there."""

    subject_kind: str
    subject: str
    gpu_uuid: str
    cluster: str
    node: str
    model: str | None
    is_mig: bool
    memory_mib: int | None
    sample_count: int
    known_count: int
    active_count: int
    traffic_count: int
    near_count: int
    spinning_count: int
    profiled_count: int
    activity_max: float | None
    activity_mean: float | None
    power_w_mean: float | None
    sm_p95: float | None
    profiled_max: float | None
    step_w_max: float | None
    step_w_median: float | None
    step_w_low: float | None
    signal: str | None
    memory_used_mib: int | None
    memory_mib_max: int | None
    memory_rise_mib: int | None
    process_count: int | None
    interval_s: float | None
    last_sample_at: datetime | None
    last_known_at: datetime | None
    last_active_at: datetime | None
    active_before_at: datetime | None
    near_first_at: datetime | None
    near_gap_end_at: datetime | None
    spun_from_at: datetime | None
    hour_active_at: datetime | None
    hour_gap_end_at: datetime | None
    last_hour_at: datetime | None
    wake_count: int | None
    quiet_hours: int | None
    namespace: str | None
    pod: str | None
    pod_uid: str | None
    workload_kind: str | None
    workload: str | None
    workspace: str | None
    owner: str | None
    fraction: float | None
    pod_started_at: datetime | None


@dataclass(frozen=True, slots=True)
class Holder:
    """One pod on one GPU or slice; `pod` is namespace/name, `workload` kind/namespace/name."""

    pod: str
    pod_uid: str
    kind: str
    workload: str
    workspace: str | None
    owner: str | None
    fraction: float
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """One subject with who holds it, and what it is judged by."""

    signals: Signals
    holders: tuple[Holder, ...]
    policy: IdlePolicy
    now: datetime
    prior: Prior

    @property
    def window_s(self) -> float:
        """Return the window of its holders' kinds, the longest of them, in seconds."""
        windows = [self.policy.window_of(holder.kind) for holder in self.holders]
        return max(windows, default=self.policy.window_s)

    @property
    def coverage(self) -> float | None:
        """Return the samples had of the window over those expected; None where the interval is not known."""
        return coverage(self.signals.known_count, self.policy.interval_s or self.signals.interval_s, self.window_s)

    @property
    def idle_power_w(self) -> float | None:
        """Return what its model draws at rest, in watts; None where that is not known."""
        model = self.signals.model or ""
        return self.prior.idle_power_w.get(model, idle_power_w(model))

    @property
    def power_span_w(self) -> float | None:
        """Return the watts between rest and the model's board power; None where either is not known."""
        facts, idle_w = MODELS.get(canonical_model(self.signals.model or "")), self.idle_power_w
        return None if facts is None or idle_w is None else facts.board_power_w - idle_w

    @property
    def is_drawing_power(self) -> bool:
        """Tell whether the board's mean power is above the line that a resting board of its model stays below."""
        idle_w, power_w = self.idle_power_w, self.signals.power_w_mean
        if idle_w is None or power_w is None:
            return False
        return power_w > idle_w * self.policy.power_ratio + self.policy.power_margin_w

    @property
    def worked_between_samples(self) -> bool:
        """Tell whether the energy counter rose faster, at any step of the window, than the board does at rest.

        At rest is what it drew in the middle of the window's steps; the board's own unrest widens the line.
        """
        low, median, most = self.signals.step_w_low, self.signals.step_w_median, self.signals.step_w_max
        if low is None or median is None or most is None:
            return False
        return most > median + max(self.policy.blip_power_w, _SPREADS * (median - low))

    @property
    def worked_long(self) -> bool:
        """Tell whether a profiling counter, which adds up over its interval, saw work for a good part of one.

        A probe lasts a second or two. NVML's utilization looks at an instant, so one high value of it may be a probe.
        """
        most = self.signals.profiled_max
        return most is not None and most > self.policy.blip_activity

    @property
    def took_memory(self) -> bool:
        """Tell whether more memory came to be held in the window than a process without work holds."""
        rise = self.signals.memory_rise_mib
        return rise is not None and rise > self.policy.memory_held_mib

    @property
    def woke_last(self) -> bool:
        """Tell whether the newest sample is an active one: whether it was a blip only the next one will tell."""
        last, active = self.signals.last_known_at, self.signals.last_active_at
        return last is not None and active is not None and active >= last

    @property
    def smaller(self) -> Size | None:
        """Return the smaller device that its single holder would do with; None where the whole is needed."""
        signals, policy = self.signals, self.policy
        if signals.subject_kind != "gpu" or signals.is_mig or len(self.holders) != 1:
            return None
        interval_s = policy.interval_s or signals.interval_s
        near = coverage(signals.near_count, interval_s, policy.near_s)
        if near is None or near < policy.coverage_min or self.holders[0].started_at > self.now - _near(policy):
            return None
        if signals.memory_mib_max is None or signals.sm_p95 is None:
            return None
        memory_mib, activity = signals.memory_mib_max * policy.memory_margin, signals.sm_p95 * policy.activity_margin
        return smaller_size(signals.model, signals.memory_mib, memory_mib, activity)


def holders_of(rows: Iterable[Signals]) -> tuple[Holder, ...]:
    """Return the pods that hold the subject of `rows`; a pod without an owner is its own workload."""
    holders = []
    for row in rows:
        if row.pod_uid is None or row.namespace is None or row.fraction is None or row.pod_started_at is None:
            continue
        is_owned = row.workload_kind is not None and row.workload is not None
        kind, name = (str(row.workload_kind), str(row.workload)) if is_owned else ("Pod", str(row.pod))
        holders.append(
            Holder(
                pod=f"{row.namespace}/{row.pod}",
                pod_uid=row.pod_uid,
                kind=kind,
                workload=str(ObjectRef(kind, row.namespace, name)),
                workspace=row.workspace,
                owner=row.owner,
                fraction=row.fraction,
                started_at=row.pod_started_at,
            )
        )
    return tuple(holders)


def idle_since(signals: Signals, policy: IdlePolicy) -> datetime | None:
    """Return when idleness began as far as unbroken evidence goes back: never across activity, never across a gap."""
    breaks = [moment for moment in (signals.active_before_at, signals.near_gap_end_at) if moment is not None]
    if breaks:
        return max(breaks)
    first, last_hour, hour = signals.near_first_at, signals.last_hour_at, timedelta(hours=1)
    if first is None or last_hour is None or first - (last_hour + hour) > timedelta(seconds=policy.gap_s):
        return first
    active_until = signals.hour_active_at + hour if signals.hour_active_at is not None else None
    return max(moment for moment in (active_until, signals.hour_gap_end_at) if moment is not None)


def stalled_since(signals: Signals) -> datetime | None:
    """Return the last sample at which it did not spin yet, else the first that was read; None without samples."""
    breaks = [moment for moment in (signals.spun_from_at, signals.near_gap_end_at) if moment is not None]
    return max(breaks) if breaks else signals.near_first_at


def held_since(holders: tuple[Holder, ...], since: datetime | None) -> datetime | None:
    """Return `since`, but not before the first of the holders came: what was before is not theirs."""
    if since is None or not holders:
        return since
    return max(since, min(holder.started_at for holder in holders))


def hours_held(case: Case, since: datetime | None) -> float | None:
    """Return GPU-hours charged to the holders since then; a GPU given out more than once over counts once."""
    total = sum(holder.fraction for holder in case.holders)
    if since is None or total <= 0:
        return None
    idle_s = sum(h.fraction * (case.now - max(since, h.started_at)).total_seconds() for h in case.holders)
    return idle_s / max(1.0, total) / SECONDS_PER_HOUR


def cost_of(hours: float | None, rate: Decimal | None) -> Decimal | None:
    """Return hours times the price of a GPU-hour, to the micro-dollar; None where either is not known."""
    if hours is None or rate is None:
        return None
    return (Decimal(repr(hours)) * rate).quantize(_MICRO, rounding=ROUND_HALF_EVEN)


_TOLD = (
    "sample_count", "known_count", "active_count", "traffic_count", "activity_max", "activity_mean", "signal",
    "memory_used_mib", "power_w_mean", "wake_count", "quiet_hours", "step_w_max", "step_w_median", "profiled_max",
    "memory_rise_mib", "sm_p95",
)  # fmt: skip


def evidence_of(case: Case) -> dict[str, object]:
    """Return the numbers that decide a case, for its verdict."""
    evidence: dict[str, object] = {name: getattr(case.signals, name) for name in _TOLD}
    evidence["interval_s"] = case.policy.interval_s or case.signals.interval_s
    evidence["window_s"] = case.window_s
    evidence["active_above"] = case.policy.active_above
    evidence["workloads"] = sorted({holder.workload for holder in case.holders})
    evidence["owners"] = sorted({holder.owner for holder in case.holders if holder.owner is not None})
    last = case.signals.last_active_at or case.signals.active_before_at or case.signals.hour_active_at
    evidence["last_active_at"] = None if last is None else last.isoformat()
    rate = case.prior.usd_per_gpu_hour.get(case.signals.gpu_uuid)
    evidence["usd_per_gpu_hour"] = None if rate is None else f"{rate:f}"
    return evidence


def frozen(evidence: Mapping[str, object]) -> Mapping[str, object]:
    """Return evidence that nobody can change any more."""
    return MappingProxyType(dict(evidence))


def _near(policy: IdlePolicy) -> timedelta:
    return timedelta(seconds=policy.near_s)
