"""Tell each GPU's state from everything that happened to it: a pure function of events, findings of now, and a policy.

Nothing is remembered between turns. Faults that events told of are *latched*: they stay open until the very thing that
can clear them happened (a reset, a boot, the GPU's return, the code that takes another back). What samples show is
*live*: it is open while the rules find it. A fault that a repair closed leaves its GPU on *probation*; one that comes
back in that time was not helped by that repair, and asks for the next rung of the ladder.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType

from analytics.xid import XidOverride, decode
from fleet.bounds import require_between, require_positive
from fleet.verdict import Severity

STATES = ("healthy", "probation", "unknown", "degraded", "failing", "failed")
"""From mild to bad; what is not known outranks a clean bill and a probation, never a fault."""

LADDER = ("restart_application", "reset_gpu", "reboot_node", "run_diagnostics", "replace_gpu")
"""The rungs: application, GPU reset, node reboot, diagnostics, replacement."""

RUNG_OF = MappingProxyType(
    {"none": 0, "update_software": 0, "restart_application": 0, "drain": 1, "reset_gpu": 1, "reboot_node": 2,
     "inspect": 3, "run_diagnostics": 3, "replace_gpu": 4}
)  # fmt: skip
STATE_OF_RUNG = ("degraded", "failing", "failed", "failed", "failed")
_REPAIR_RUNG = MappingProxyType({"gpu_reset": 1, "boot": 2})
_TAKES_BACK = MappingProxyType({162: 163})
_RETURNS = frozenset({"gpu_lost", "probe_hang", "gpu_unavailable"})
_ACTION_OF_KIND = MappingProxyType(
    {"gpu_lost": "reboot_node", "probe_hang": "reboot_node", "gpu_unavailable": "reboot_node",
     "ecc_double_bit": "reset_gpu", "dram_retirement_failed": "replace_gpu", "poison_fatal": "reset_gpu"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatePolicy:
    """How long things count: `history_days` are looked at, a repair is on probation for `probation_s`.

    Live findings within `boot_grace_s` of a boot are not believed yet. `debounce` asks that a rule's finding stand in
    at least so many of the last so many polls, for rules whose evidence counts them: rule -> (polls, of).
    A latched fault that nothing cleared is let go after `history_days`.
    """

    history_days: float = 30.0
    probation_s: float = 7 * 86400.0
    boot_grace_s: float = 900.0
    debounce: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_positive("history_days", self.history_days)
        require_between("probation_s", self.probation_s, 0, self.history_days * 86400.0)
        require_between("boot_grace_s", self.boot_grace_s, 0, float("inf"))
        for rule, (polls, of) in self.debounce.items():
            require_between(f"debounce.{rule}", polls, 1, of)


@dataclass(frozen=True, slots=True, order=True)
class Happening:
    """One event on one subject; the order is that of time, and total, so that no order of arrival matters."""

    ts: datetime
    kind: str
    code: int
    message: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Incident:
    """One fault from its opening to its clearing; `rung` is what it asks for, after what was tried in vain."""

    kind: str
    code: int | None
    opened_at: datetime
    last_at: datetime
    count: int
    rung: int
    tried: tuple[str, ...] = ()
    cleared_at: datetime | None = None
    cleared_by: str | None = None

    @property
    def name(self) -> str:
        """Return the rule's name: the kind, with the code where there is one."""
        return self.kind if self.code is None else f"{self.kind}_{self.code}"

    def told(self) -> dict[str, object]:
        """Return it as evidence."""
        return {
            "fault": self.name, "opened_at": self.opened_at.isoformat(), "last_at": self.last_at.isoformat(),
            "count": self.count, "asks_for": LADDER[self.rung], "tried_in_vain": list(self.tried),
            "cleared_at": None if self.cleared_at is None else self.cleared_at.isoformat(),
            "cleared_by": self.cleared_by,
        }  # fmt: skip


def incidents(
    happenings: Iterable[Happening],
    heard_at: datetime | None,
    policy: StatePolicy,
    overrides: tuple[XidOverride, ...] = (),
) -> list[Incident]:
    """Return the faults of one subject in order of opening, open ones included; the same for any order of arrival.

    `heard_at` is when a sample last told of the subject: a GPU that speaks again is not lost any more. `overrides`
    change what XIDs ask for.
    """
    found: list[Incident] = []
    open_: dict[tuple[str, int | None], Incident] = {}
    for event in sorted(set(happenings)):
        if (event.kind == "xid" and event.code not in _TAKES_BACK) or event.kind in _ACTION_OF_KIND:
            _open(open_, found, event, policy, overrides)
        else:
            by = event.kind if event.kind != "xid" else f"xid_{event.code}"
            _clear(open_, found, event.ts, by, partial(_is_cleared, event))
    if heard_at is not None:
        _clear(open_, found, heard_at, "telemetry", lambda one: one.kind in _RETURNS and one.last_at < heard_at)
    return sorted([*found, *open_.values()], key=lambda one: (one.opened_at, one.name))


def _open(
    open_: dict[tuple[str, int | None], Incident],
    found: Sequence[Incident],
    event: Happening,
    policy: StatePolicy,
    overrides: tuple[XidOverride, ...],
) -> None:
    """Open a fault, or count it again where it is open; one that came back after a repair asks for more."""
    rung = _asked_rung(event, overrides)
    if rung is None:
        return
    key = (event.kind, None if event.code < 0 else event.code)
    same = open_.get(key)
    if same is not None:
        open_[key] = replace(same, last_at=event.ts, count=same.count + event.times, rung=max(same.rung, rung))
        return
    before = max((one for one in found if (one.kind, one.code) == key), key=lambda one: one.opened_at, default=None)
    tried: tuple[str, ...] = ()
    if before is not None and before.cleared_at is not None and before.cleared_by is not None:
        is_back = (event.ts - before.cleared_at).total_seconds() <= policy.probation_s
        repaired = _REPAIR_RUNG.get(before.cleared_by)
        if is_back and repaired is not None:
            tried = (*before.tried, before.cleared_by)
            rung = max(rung, repaired + 1)
    open_[key] = Incident(key[0], key[1], event.ts, event.ts, event.times, rung, tried)


def _is_cleared(event: Happening, one: Incident) -> bool:
    """Return whether an event closes a fault: a repair of its rung, its return, or what takes it back."""
    if event.kind in _REPAIR_RUNG:
        return one.rung <= _REPAIR_RUNG[event.kind]
    if event.kind == "gpu_recovered":
        return one.kind in _RETURNS
    return event.kind == "xid" and one.kind == "xid" and one.code == _TAKES_BACK.get(event.code)


def _clear(
    open_: dict[tuple[str, int | None], Incident],
    found: list[Incident],
    at: datetime,
    by: str,
    is_cleared: Callable[[Incident], bool],
) -> None:
    keys = [key for key, one in open_.items() if is_cleared(one)]
    found.extend(replace(open_.pop(key), cleared_at=at, cleared_by=by) for key in keys)


def _asked_rung(event: Happening, overrides: tuple[XidOverride, ...]) -> int | None:
    """Return the rung an event asks for by itself; None where it is no fault."""
    if event.kind != "xid":
        action = _ACTION_OF_KIND.get(event.kind)
        return None if action is None else RUNG_OF[action]
    xid = decode(event.code, event.message or None, None, overrides)
    rung = RUNG_OF.get(xid.action, 0)
    return rung if xid.severity == Severity.CRITICAL and rung > 0 else None
