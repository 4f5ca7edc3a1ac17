"""How far a forecast looks ahead and back, and who competes to make it."""

from collections.abc import Mapping
from dataclasses import dataclass

from analytics.backtest import LAST_VALUE, Forecaster
from analytics.points import FadingBlend, LastValue, SeasonalNaive
from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class ForecastPolicy:
    """How far to look ahead and back; under `history_min_days` of history a forecast says so in its note."""

    horizon_h: int = 24
    history_min_days: int = 14
    context_days: int = 56
    step_h: int = 1
    season_h: int = 24

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("horizon_h", "history_min_days", "context_days", "step_h", "season_h"):
            require_positive(name, getattr(self, name))
        require_between("context_days", self.context_days, self.history_min_days, 3660)
        require_between("horizon_h", self.horizon_h, self.step_h, 24 * 366)
        require_between("season_h", self.season_h, self.step_h, 24 * 366)
        for name in ("horizon_h", "season_h"):
            if getattr(self, name) % self.step_h != 0:
                message = f"{name}: {getattr(self, name)} is not a multiple of step_h {self.step_h}"
                raise BadInput(message, field=name)

    @property
    def horizon(self) -> int:
        """Return the number of steps to forecast."""
        return self.horizon_h // self.step_h

    @property
    def season(self) -> int:
        """Return the number of steps in a season."""
        return self.season_h // self.step_h

    @property
    def length(self) -> int:
        """Return the number of steps to look back on."""
        return self.context_days * 24 // self.step_h


def forecasters(policy: ForecastPolicy) -> Mapping[str, Forecaster]:
    """Return the forecasters that compete, by the name that the table `forecast` gives them."""
    return {
        LAST_VALUE: LastValue(),
        "seasonal_naive": SeasonalNaive(policy.season),
        "fading_blend": FadingBlend(fade=24 / policy.step_h, memory=72 / policy.step_h),
    }
