"""The server's push door and its token: a file's token stays, and what is pushed is in the store and rolled up."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadConfig
from steward.compose import last_xids, open_door
from steward.config import load_settings
from steward.host import read_token
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_a_token_stands_in_a_file_or_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a-token-that-is-long-enough\n")
    assert read_token(path) == "a-token-that-is-long-enough"
    assert read_token(None) != read_token(None)


@pytest.mark.parametrize("text", ["", "short", "two words that are long", "ümläüt-that-is-long-enough"])
def test_a_token_that_no_header_could_carry_or_anyone_could_guess_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(BadConfig, match="token_file"):
        read_token(path)
    with pytest.raises(BadConfig, match="can't be read"):
        read_token(tmp_path / "gone")


def test_the_last_xid_of_each_gpu_is_what_a_gauge_is_held_against(clock: FixedClock) -> None:
    def event(uuid: str, code: int, minute: int, kind: str = "xid") -> dict[str, object]:
        ts = NOW.replace(hour=11, minute=minute)
        return {"ts": ts, "cluster": "c1", "node": "n1", "gpu_uuid": uuid, "kind": kind, "code": code, "source": "kmsg"}

    gpus = [{"gpu_uuid": uuid, "uuid": uuid, "cluster": "c1", "node": "n1"} for uuid in ("GPU-a", "GPU-b")]
    events = [event("GPU-a", 31, 1), event("GPU-a", 79, 5), event("GPU-b", 13, 2), event("GPU-b", 48, 9, "sxid")]
    with Store.open(None, clock=clock) as store:
        assert last_xids(store) == {}
        store.append(Batch("kmsg", {"gpu": pl.DataFrame(gpus), "event": pl.DataFrame(events)}))
        assert last_xids(store) == {"GPU-a": 79, "GPU-b": 13}


def test_the_door_of_the_house_stores_under_the_settings_cluster(clock: FixedClock, tmp_path: Path) -> None:
    path = tmp_path / "steward.toml"
    path.write_text('[collect]\ncluster = "lab"\n')
    with Store.open(None, clock=clock) as store:
        door = open_door(load_settings(path, {}), store)
        assert door.receive(b"\x00") == 0
        assert door.take_first() is None
