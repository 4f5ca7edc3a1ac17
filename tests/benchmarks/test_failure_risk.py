"""The recorded faults of others, through the benchmark as it is run: whatever cases the folder holds."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    place = Path(__file__).parents[2] / "benchmarks" / "failure_risk.py"
    spec = importlib.util.spec_from_file_location("failure_risk_benchmark", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_ranking_by_risk_beats_the_count_of_past_faults_on_every_server_trace(
    data_root: Path, benchmark: ModuleType
) -> None:
    traces, _ = benchmark.traces_in(data_root / "faults", 400)
    if not traces:
        pytest.skip("no server trace in the folder of faults")
    for trace in traces:
        _, lines = benchmark.score_servers(trace, trace)
        quality = {line[:26].strip(): float(line.split()[-2]) for line in lines[2:4]}
        assert quality["predicted 7-day risk"] > quality["count of past faults"]
        assert quality["predicted 7-day risk"] > 0.5


def test_repeats_of_gpus_that_were_not_learnt_from_are_calibrated_within_two_points(
    data_root: Path, benchmark: ModuleType
) -> None:
    _, lives = benchmark.traces_in(data_root / "faults", 400)
    if not lives:
        pytest.skip("no GPU lives in the folder of faults")
    for trace in lives:
        is_met, lines = benchmark.score_lives(*benchmark.halves(trace))
        assert is_met, "\n".join(lines)
