"""Numbers in reasons read as people say them."""

import pytest

from actions.words import counted, in_gpus


@pytest.mark.parametrize(
    ("count", "said"),
    [(1.0, "1 GPU"), (0.0, "0 GPUs"), (1 / 7, "0.14 GPUs"), (16.428571, "16.43 GPUs"), (1536.0, "1,536 GPUs")],
)
def test_gpus_are_told_to_two_digits_and_one_is_one(count: float, said: str) -> None:
    assert in_gpus(count) == said


def test_what_is_counted_is_named() -> None:
    assert [counted(number, "pod") for number in (0, 1, 2)] == ["0 pods", "1 pod", "2 pods"]
