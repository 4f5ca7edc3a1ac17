"""What each kind of fault is: whom it strikes, what telemetry and logs show, what work suffers, what it calls for.

XID codes and what to do about them follow NVIDIA's public XID catalogue; clock event bits are NVML's
(0x8 hardware slowdown, 0x40 hardware thermal slowdown, 0x80 power brake).
"""

from dataclasses import dataclass
from types import MappingProxyType

CORRECTED = "ecc_corrected_count"
UNCORRECTED = "ecc_uncorrected_count"
_BUS = "GPU has fallen off the bus."


@dataclass(frozen=True, slots=True)
class News:
    """A line in a log: `times` of them, the first `after_s` after the fault begins, then about every `every_s`."""

    code: int | None
    text: str
    after_s: int = 0
    times: int = 1
    every_s: int = 0
    kind: str = "xid"


@dataclass(frozen=True, slots=True)
class Mark:
    """What it does to a column: set, add, ramp (value an hour), or_bits, times, at_least; `lasts` beyond the fault."""

    column: str
    operation: str
    value: float
    lasts: bool = False


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault.

    `scope`: gpu, node or rack. `needs`: what the GPU must have for it: "", row_remap, nvlink, work (somebody on it).
    `kills`: work on it fails when it begins and with each line of its news. `hides`: its samples vanish.
    `is_lost`: nothing can be placed there. `ends_with`: what repairs it (an event kind), "" = it passes.
    """

    scope: str
    least_hours: float
    most_hours: float
    is_actionable: bool
    action: str
    news: tuple[News, ...] = ()
    marks: tuple[Mark, ...] = ()
    needs: str = ""
    kills: bool = False
    hides: bool = False
    is_lost: bool = False
    ends_with: str = ""


def _ecc_mark(column: str, value: float) -> tuple[Mark, Mark]:
    lifetime = column.replace("_count", "_lifetime_count")
    return Mark(column, "add", value), Mark(lifetime, "add", value, lasts=True)


def _reset_asked(action: int) -> Mark:
    return Mark("recovery_action", "set", action)


def _decoy(code: int, text: str, times: int = 1, needs: str = "work") -> FaultKind:
    news = (News(code, text, times=times, every_s=5),)
    return FaultKind("gpu", 0.02, 0.05, is_actionable=False, action="none", news=news, needs=needs, kills=True)


KINDS: MappingProxyType[str, FaultKind] = MappingProxyType({
    "xid_79": FaultKind(
        "gpu", 6, 36, is_actionable=True, action="reboot_node", kills=True, hides=True, is_lost=True, ends_with="boot",
        news=(News(79, f"pid='<unknown>', name=<unknown>, {_BUS}"),),
    ),
    "xid_48": FaultKind(
        "gpu", 4, 24, is_actionable=True, action="reset_gpu", kills=True, ends_with="gpu_reset", needs="row_remap",
        news=(News(48, "DBE (double bit error) ECC error on the FB, partition 3, subpartition 1."),
              News(63, "Row remapping pending.", after_s=3)),
        marks=(*_ecc_mark(UNCORRECTED, 2), Mark("rows_remapped_uncorrected_count", "add", 1, lasts=True),
               Mark("is_remap_pending", "set", 1), _reset_asked(1)),
    ),
    "xid_94": FaultKind(
        "gpu", 4, 24, is_actionable=True, action="reset_gpu", kills=True, ends_with="gpu_reset", needs="row_remap",
        news=(News(94, "Contained ECC error."), News(63, "Row remapping pending.", after_s=2)),
        marks=(*_ecc_mark(UNCORRECTED, 1), Mark("rows_remapped_uncorrected_count", "add", 1, lasts=True),
               Mark("is_remap_pending", "set", 1), _reset_asked(1)),
    ),
    "xid_95": FaultKind(
        "gpu", 4, 24, is_actionable=True, action="reset_gpu", kills=True, ends_with="gpu_reset", needs="row_remap",
        news=(News(95, "Uncontained ECC error.", times=2, every_s=1800),),
        marks=(*_ecc_mark(UNCORRECTED, 3), _reset_asked(1)),
    ),
    "xid_74": FaultKind(
        "gpu", 3, 18, is_actionable=True, action="reset_gpu", kills=True, ends_with="gpu_reset", needs="nvlink",
        news=(News(74, "NVLink: fatal error detected on link 2(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
                   times=3, every_s=900),),
        marks=(Mark("nvlink_active_count", "add", -1), Mark("nvlink_error_count", "ramp", 400), _reset_asked(1)),
    ),
    "xid_31": _decoy(31, "pid=41772, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS"),
    "xid_13": _decoy(13, "pid=41772, name=python3, Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0)", times=3),
    "xid_43": _decoy(43, "pid=41772, name=python3, Ch 00000010"),
    "xid_45": _decoy(45, "pid=41772, name=python3, Ch 00000010", times=8),
    "ecc_storm": FaultKind(
        "gpu", 12, 60, is_actionable=True, action="inspect", needs="row_remap",
        marks=(Mark(CORRECTED, "ramp", 3000), Mark("ecc_corrected_lifetime_count", "ramp", 3000, lasts=True),
               Mark("rows_remapped_corrected_count", "add", 1, lasts=True)),
        ends_with="gpu_reset",
    ),
    "remap_pending": FaultKind(
        "gpu", 12, 72, is_actionable=True, action="reset_gpu", needs="row_remap", ends_with="gpu_reset",
        news=(News(63, "Row remapping pending."),),
        marks=(*_ecc_mark(CORRECTED, 40), Mark("rows_remapped_corrected_count", "add", 1, lasts=True),
               Mark("is_remap_pending", "set", 1), _reset_asked(1)),
    ),
    "remap_failed": FaultKind(
        "gpu", 48, 240, is_actionable=True, action="fence", needs="row_remap", kills=True, ends_with="gpu_reset",
        news=(News(64, "Row remapping failure."),),
        marks=(*_ecc_mark(UNCORRECTED, 6), Mark("is_remap_failed", "set", 1)),
    ),
    "thermal_throttle": FaultKind(
        "gpu", 8, 48, is_actionable=True, action="inspect",
        marks=(Mark("clock_event_bits", "or_bits", 0x48), Mark("temperature_c", "at_least", 1.0),
               Mark("sm_clock_mhz", "times", 0.55), Mark("power_w", "times", 0.75)),
    ),
    "power_brake": FaultKind(
        "gpu", 4, 24, is_actionable=True, action="inspect",
        marks=(Mark("clock_event_bits", "or_bits", 0x88), Mark("sm_clock_mhz", "times", 0.3),
               Mark("power_w", "times", 0.6)),
    ),
    "lost_gpu": FaultKind(
        "gpu", 6, 36, is_actionable=True, action="reboot_node", kills=True, hides=True, is_lost=True, ends_with="boot",
    ),
    "dead_exporter": FaultKind(
        "node", 2, 16, is_actionable=False, action="none", hides=True,
        news=(News(None, "the exporter does not answer", after_s=60, kind="exporter_lost"),),
    ),
    "boot_wave": FaultKind(
        "rack", 0.1, 0.25, is_actionable=False, action="none", kills=True, hides=True, is_lost=True, ends_with="boot",
    ),
    "pcie_down": FaultKind(
        "gpu", 12, 72, is_actionable=True, action="inspect",
        marks=(Mark("pcie_width", "set", 8), Mark("pcie_replay_count", "ramp", 60)),
    ),
})  # fmt: skip
