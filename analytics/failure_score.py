"""Hold predicted risks against what happened: ranking, precision at the top, calibration by decile."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from analytics.failure_risk import Flags, Floats


@dataclass(frozen=True, slots=True)
class Decile:
    """A tenth of the cases by predicted risk; neighbours that tie on the risk stand together."""

    count: int
    predicted: float
    observed: float

    @property
    def error(self) -> float:
        """Return predicted minus observed, as a ratio."""
        return self.predicted - self.observed

    @property
    def noise(self) -> float:
        """Return the standard error of the observed share, as if cases were independent."""
        return float(np.sqrt(max(self.predicted * (1 - self.predicted), 0.0) / self.count))


def rank_quality(risk: Floats, happened: Flags) -> float | None:
    """Return the area under the ROC curve; None where nothing, or everything, happened."""
    if happened.all() or not happened.any():
        return None
    return float(roc_auc_score(happened, risk))


def precision_at_top(risk: Floats, happened: Flags, share: float = 0.1) -> float:
    """Return the share that happened among the riskiest `share`; a tie at the edge counts by its mean."""
    wanted = max(round(len(risk) * share), 1)
    order = np.argsort(-risk, kind="stable")
    edge = risk[order[wanted - 1]]
    above, tied = risk > edge, risk == edge
    missing = wanted - int(above.sum())
    return float((happened[above].sum() + missing * happened[tied].mean()) / wanted)


def deciles(risk: Floats, happened: Flags) -> list[Decile]:
    """Return ten groups by predicted risk, lowest first; groups that a tie would split are merged.

    What is left at the top of less than a tenth joins the group below, so that none is smaller than that.
    """
    order = np.argsort(risk, kind="stable")
    found: list[Decile] = []
    start = 0
    for tenth in range(1, 11):
        stop = round(len(order) * tenth / 10)
        while 0 < stop < len(order) and risk[order[stop]] == risk[order[stop - 1]]:
            stop += 1
        if stop <= start:
            continue
        if len(order) - stop < len(order) // 10:
            stop = len(order)
        part = order[start:stop]
        found.append(Decile(len(part), float(risk[part].mean()), float(happened[part].mean())))
        start = stop
    return found
