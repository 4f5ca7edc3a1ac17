"""Activity of the parts of a GPU (Hopper and later) through NVML's GPM: the mean between two looks.

A look only keeps the counters as they stand, so nothing waits here; the first look at a GPU gives no activity yet. Two
looks at less than a tenth of a second give none either: the driver renews its counters no faster, and two looks at one
state of them would tell of a busy GPU that it did nothing (seen on an H200 with driver 580).
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import pynvml

from collectors.nvml_rows import Row
from collectors.nvml_values import Handle, ratio

Key = tuple[str, int | None]  # the GPU's UUID, and the GPU instance on it where it is split
_METRICS: Mapping[str, int] = MappingProxyType(
    {
        "gr_activity": pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL,
        "sm_activity": pynvml.NVML_GPM_METRIC_SM_UTIL,
        "tensor_activity": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
        "dram_activity": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
    }
)
_APART_S = 0.1  # nvml.h: the time between two samples should be 100 ms or longer
_ROUNDING_PERCENT = 101.0  # counters of two clocks are divided, so a full interval may come out a little above 100


class ActivityReader:
    """Reads activity as ratios by column; keeps one look of each GPU and GPU instance until the next.

    `seconds` tells how much time has passed, on a clock that nobody sets.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._looks: dict[Key, Any] = {}
        self._looked_at: dict[Key, float] = {}
        self._has_gpm: dict[str, bool] = {}

    def read(self, gpu: Handle, uuid: str, instance: int | None = None) -> Row:
        """Return the mean activity since the last look, empty where there was none or the GPU has no GPM.

        `gpu` is the handle of the whole GPU, also where an instance of it is asked for.
        """
        if uuid not in self._has_gpm:
            self._has_gpm[uuid] = bool(pynvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice)
        if not self._has_gpm[uuid]:
            return {}
        moment = self._seconds()
        if (uuid, instance) in self._looks and moment - self._looked_at[uuid, instance] < _APART_S:
            return {}
        before = self._looks.pop((uuid, instance), None)
        try:
            now = _look(gpu, instance)
            self._looks[uuid, instance], self._looked_at[uuid, instance] = now, moment
            return {} if before is None else _between(before, now)
        finally:
            if before is not None:
                pynvml.nvmlGpmSampleFree(before)

    def keep(self, keys: Iterable[Key]) -> None:
        """Let go of the looks at all other GPUs and instances: those that are gone."""
        for key in self._looks.keys() - set(keys):
            pynvml.nvmlGpmSampleFree(self._looks.pop(key))

    def close(self) -> None:
        """Let go of everything, before the driver is closed."""
        self._has_gpm.clear()
        self.keep(())


def _look(gpu: Handle, instance: int | None) -> Any:  # noqa: ANN401 - pynvml has no types
    look = pynvml.nvmlGpmSampleAlloc()
    take: Callable[[], object] = (
        (lambda: pynvml.nvmlGpmSampleGet(gpu, look))
        if instance is None
        else (lambda: pynvml.nvmlGpmMigSampleGet(gpu, instance, look))
    )
    try:
        take()
    except pynvml.NVMLError:
        pynvml.nvmlGpmSampleFree(look)
        raise
    return look


def _between(before: Any, now: Any) -> Row:  # noqa: ANN401 - pynvml has no types
    question = pynvml.c_nvmlGpmMetricsGet_t()
    question.version, question.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(_METRICS)
    question.sample1, question.sample2 = before, now
    for slot, metric in zip(question.metrics, _METRICS.values(), strict=False):  # there is room for all metrics
        slot.metricId = metric
    pynvml.nvmlGpmMetricsGet(question)
    slots = zip(_METRICS, question.metrics, strict=False)
    return {name: _activity(slot.value) for name, slot in slots if slot.nvmlReturn == pynvml.NVML_SUCCESS}


def _activity(percent: float) -> float | None:
    if math.isnan(percent) or percent > _ROUNDING_PERCENT:
        return None
    return ratio(min(percent, 100.0))
