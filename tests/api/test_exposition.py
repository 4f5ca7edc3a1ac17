from decimal import Decimal

import pytest

from api.exposition import Metric, Number, Sample, expose, metric
from fleet.errors import BadInput


def test_a_metric_is_written_with_help_type_and_sorted_labels() -> None:
    samples = (Sample(3, {"state": "failed", "cluster": "east"}), Sample(0, {"state": "ok", "cluster": "east"}))
    assert expose([Metric("gpusteward_gpus", "GPUs by state.", "gauge", samples)]) == (
        "# HELP gpusteward_gpus GPUs by state.\n"
        "# TYPE gpusteward_gpus gauge\n"
        'gpusteward_gpus{cluster="east",state="failed"} 3\n'
        'gpusteward_gpus{cluster="east",state="ok"} 0\n'
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param(0, "0", id="a zero is a measurement"),
        pytest.param(0.0, "0.0", id="a zero float too"),
        pytest.param(-0.5, "-0.5", id="negative"),
        pytest.param(1e21, "1e+21", id="large"),
        pytest.param(0.1, "0.1", id="as short as it reads back"),
        pytest.param(Decimal("12345678901.000001"), "12345678901.000001", id="money stays exact"),
        pytest.param(Decimal("1E+3"), "1000", id="money without exponent"),
        pytest.param(True, "1", id="a flag"),
        pytest.param(float("nan"), "NaN", id="not a number"),
        pytest.param(float("inf"), "+Inf", id="infinite"),
        pytest.param(float("-inf"), "-Inf", id="infinite below"),
    ],
)
def test_a_number_is_written_as_prometheus_reads_it(value: Number, written: str) -> None:
    assert expose([metric("m", "meaning", value)]).splitlines()[-1] == f"m {written}"


def test_what_is_not_measured_is_left_out_and_never_zero() -> None:
    samples = (Sample(None, {"gpu": "a"}), Sample(0.0, {"gpu": "b"}))
    assert expose([Metric("m", "h", "gauge", samples)]).splitlines()[2:] == ['m{gpu="b"} 0.0']
    assert expose([metric("m", "h", None)]) == ""
    assert expose([]) == ""


def test_labels_and_help_are_escaped_each_by_its_own_rule() -> None:
    text = expose([Metric("m", 'a "b"\nc\\d', "gauge", (Sample(1, {"l": 'a "b"\nc\\d'}),))])
    assert text == '# HELP m a "b"\\nc\\\\d\n# TYPE m gauge\nm{l="a \\"b\\"\\nc\\\\d"} 1\n'


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param([metric("9lives", "h", 1)], "9lives", id="name begins with a digit"),
        pytest.param([metric("a-b", "h", 1)], "a-b", id="name with a dash"),
        pytest.param([metric("m\n", "h", 1)], "m\n", id="name with a line end"),
        pytest.param([Metric("m", "h", "gauge", (Sample(1, {"a b": "x"}),))], "a b", id="label with a space"),
        pytest.param([Metric("m", "h", "gauge", (Sample(1, {"__a": "x"}),))], "__a", id="reserved label"),
        pytest.param([metric("m", "h", 1), metric("m", "h", 2)], "m", id="metric twice"),
        pytest.param(
            [Metric("m", "h", "gauge", (Sample(1, {"a": "x", "b": "y"}), Sample(2, {"b": "y", "a": "x"})))],
            "m",
            id="sample twice",
        ),
    ],
)
def test_what_prometheus_would_refuse_is_refused_first(wrong: list[Metric], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        expose(wrong)
    assert caught.value.field == field
