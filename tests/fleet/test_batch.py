from datetime import UTC, datetime

import polars as pl
import pytest

from fleet.batch import Batch, Trouble
from fleet.errors import BadFrame

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SAMPLE = pl.DataFrame({"gpu_uuid": ["GPU-a", "GPU-b"], "ts": [NOON, NOON], "utilization": [0.0, None]})


def test_a_checked_batch_has_every_frame_in_the_shape_of_its_table() -> None:
    trouble = Trouble("rejected", "power.draw", "not a number", 3, "[N/A]")
    batch = Batch("nvml", {"gpu_sample": SAMPLE}, NOON, (trouble,)).checked()
    assert batch.frames["gpu_sample"].width > SAMPLE.width
    assert batch.frames["gpu_sample"]["utilization"].to_list() == [0.0, None]
    assert (batch.source, batch.read_until, batch.troubles) == ("nvml", NOON, (trouble,))


def test_checking_twice_changes_nothing_more() -> None:
    once = Batch("nvml", {"gpu_sample": SAMPLE}).checked()
    assert once.checked().frames["gpu_sample"].equals(once.frames["gpu_sample"])


def test_a_table_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(BadFrame, match=r"source nvml: there is no table gpu_samples; the tables are .*gpu_sample,"):
        Batch("nvml", {"gpu_samples": SAMPLE}).checked()


def test_one_bad_frame_refuses_the_whole_batch() -> None:
    frames = {"gpu_sample": SAMPLE, "watermark": pl.DataFrame({"source": ["nvml"]})}
    with pytest.raises(BadFrame, match="table watermark, column ts: is required"):
        Batch("nvml", frames).checked()


def test_an_empty_batch_is_read_and_there_was_nothing() -> None:
    batch = Batch("nvml").checked()
    assert (batch.row_count(), dict(batch.frames), batch.troubles) == (0, {}, ())


def test_rows_are_counted_over_all_frames() -> None:
    assert Batch("nvml", {"gpu_sample": SAMPLE, "slice_sample": SAMPLE.head(1)}).row_count() == 3


def test_the_frames_of_a_checked_batch_can_not_be_exchanged() -> None:
    batch = Batch("nvml", {"gpu_sample": SAMPLE}).checked()
    with pytest.raises(TypeError):
        batch.frames["gpu_sample"] = SAMPLE  # type: ignore[index]  # that it can't be done is the point
