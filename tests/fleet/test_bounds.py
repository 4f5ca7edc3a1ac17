import pytest

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0])
def test_a_value_inside_its_bounds_or_on_one_is_taken(value: float) -> None:
    require_between("coverage", value, 0, 1)


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, float("nan"), float("inf"), float("-inf")])
def test_a_value_outside_its_bounds_is_refused_by_the_name_of_its_field(value: float) -> None:
    with pytest.raises(BadInput, match=f"^coverage: {value} is not between 0 and 1$") as told:
        require_between("coverage", value, 0, 1)
    assert told.value.field == "coverage"


@pytest.mark.parametrize("value", [5e-324, 1, 1e308])
def test_a_finite_value_above_zero_is_taken(value: float) -> None:
    require_positive("interval_s", value)


@pytest.mark.parametrize("value", [0, -0.0, -1, float("nan"), float("inf")])
def test_a_value_that_is_not_above_zero_and_finite_is_refused(value: float) -> None:
    with pytest.raises(BadInput, match=r"^interval_s: .* is not above zero") as told:
        require_positive("interval_s", value)
    assert told.value.field == "interval_s"
