import pytest

from fleet.errors import BadInput
from fleet.fractions import MigBasis, compute_slices_of, dra_fraction, mig_fraction, mps_fraction, time_slice_fraction


@pytest.mark.parametrize(
    ("profile", "model", "basis", "part"),
    [
        pytest.param("1g.5gb", "A100-SXM4-40GB", "compute", 1 / 7, id="a-seventh"),
        pytest.param("1g.5gb", "A100-SXM4-40GB", "memory", 1 / 8, id="an-eighth-of-memory"),
        pytest.param("1g.5gb", "A100-SXM4-40GB", "max", 1 / 7, id="compute-is-more"),
        pytest.param("3g.20gb", "A100-SXM4-40GB", "max", 0.5, id="memory-is-more"),
        pytest.param("7g.80gb", "NVIDIA H100 80GB HBM3", "max", 1.0, id="whole"),
        pytest.param("1g.10gb+me", "NVIDIA H100 80GB HBM3", "compute", 1 / 7, id="with-media-engines"),
        pytest.param("1c.3g.40gb", "NVIDIA H100 80GB HBM3", "max", 0.5, id="a-compute-instance"),
        pytest.param("2g.12gb", "A30", "compute", 0.5, id="four-slices"),
        pytest.param("1g.99gb", "unheard of", "memory", 1 / 7, id="memory-unknown"),
    ],
)
def test_a_mig_device_is_a_part_of_its_gpu(profile: str, model: str, basis: MigBasis, part: float) -> None:
    assert mig_fraction(profile, model, basis=basis) == pytest.approx(part)


def test_a_word_that_is_no_profile_tells_nothing() -> None:
    assert mig_fraction("half", "A100") is None
    assert mig_fraction("1g.24gb", "unheard of", basis="memory", memory_gib=96.0) == 0.25
    assert compute_slices_of("NVIDIA A30") == 4


def test_places_of_a_shared_gpu_are_parts_of_it() -> None:
    assert time_slice_fraction(4) == 0.25
    assert time_slice_fraction(4, units=2) == 0.5
    assert time_slice_fraction(2, units=3) == 1.0
    with pytest.raises(BadInput, match="replicas"):
        time_slice_fraction(0)


def test_the_larger_of_cores_and_memory_counts() -> None:
    assert mps_fraction(0.25, 0.5) == 0.5
    assert mps_fraction(0.25, None) == 0.25
    assert mps_fraction(None, 1.4) == 1.0
    assert mps_fraction(None, None) is None


def test_the_scarcest_counter_of_a_device_counts() -> None:
    assert dra_fraction({"memory": 10.0, "sms": 66.0}, {"memory": 80.0, "sms": 132.0}) == 0.5
    assert dra_fraction({"other": 1.0}, {"memory": 80.0}) is None
    assert dra_fraction({"memory": 1.0}, {"memory": 0.0}) is None
