"""Which nodes could be shared by time: asked at the desk and by command, and judged for the rule."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from fleet.batch import Batch
from fleet.clock import FixedClock
from steward.cli import app
from steward.compose import House
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.packing_turn import packing_verdicts
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETTINGS = "[sharing.profiles]\nshared-2 = 2\n[sharing]\nheld_h_min = 5.0\nlook_back_d = 1.0\n"


def fill(store: Store) -> None:
    """Three notebooks of one workspace, each on a GPU of its own of which it uses little; one GPU is free."""
    gpus = [
        {"gpu_uuid": f"GPU-{place}", "uuid": f"GPU-{place}", "cluster": "east", "node": "n1", "gpu_index": place,
         "model": "Tesla T4", "memory_mib": 15_000, "first_seen_at": NOW - 9 * HOUR, "last_seen_at": NOW}
        for place in range(4)
    ]  # fmt: skip
    samples = [
        {"gpu_uuid": f"GPU-{place}", "ts": NOW - timedelta(minutes=back), "sm_activity": 0.3,
         "memory_used_mib": 5_000 + back % 7}
        for place in range(4)
        for back in range(1, 6 * 60)
    ]  # fmt: skip
    pods = [
        {"cluster": "east", "namespace": "lab", "pod": f"nb-{place}", "pod_uid": f"u{place}", "workload": f"nb{place}",
         "workload_kind": "Notebook", "workspace": "research", "gpu_uuid": f"GPU-{place}", "fraction": 1.0,
         "starts_at": NOW - 6 * HOUR}
        for place in range(3)
    ]  # fmt: skip
    node = {"cluster": "east", "node": "n1", "gpus": 4, "is_ready": True, "is_schedulable": True, "labels": "{}",
            "last_seen_at": NOW}  # fmt: skip
    waits = {"cluster": "east", "namespace": "lab", "pod": "w", "pod_uid": "w", "workload_kind": "Notebook",
             "workload": "w", "workspace": "research", "gpus": 1.0, "resources": '{"nvidia.com/gpu": 1}',
             "created_at": NOW - HOUR}  # fmt: skip
    frames = {
        "gpu": pl.DataFrame(gpus), "pod_allocation": pl.DataFrame(pods), "node": pl.DataFrame([node]),
        "pod": pl.DataFrame([waits]),
        "gpu_sample": pl.DataFrame(samples, schema_overrides={"sm_activity": pl.Float32}),
    }  # fmt: skip
    store.append(Batch("test", frames, NOW))
    store.roll_up(NOW - 9 * HOUR, NOW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "steward.toml").write_text(SETTINGS)
    return tmp_path


@pytest.fixture
def house(folder: Path) -> Iterator[House]:
    clock = FixedClock(NOW)
    with Store.open(folder / "s.duckdb", clock=clock) as store:
        fill(store)
        yield House(load_settings(folder / "steward.toml", {}), store, clock)


def test_the_desk_tells_the_nodes_with_the_sums_that_decide(house: House) -> None:
    body = HouseDesk(house).report("sharing", {})
    assert isinstance(body["items"], list)
    (row,) = body["items"]
    assert (row["node"], row["sharing"], row["pods"], row["gpus_needed"]) == ("n1", "shared-2", 3, 2)
    assert (row["memory_needed_mib"], row["gain_gpus"]) == (10_012.0, 1.0)
    assert "keeps nobody out of another's memory" in str(body["notes"])


def test_the_turn_judges_it_for_the_rule(house: House) -> None:
    found = [each for each in packing_verdicts(house, NOW) if each.action == "share"]
    assert [(each.subject, each.evidence["sharing"], each.evidence["replicas"]) for each in found] == [
        ("n1", "shared-2", 2)
    ]


def test_without_profiles_the_desk_supposes_some_and_the_turn_judges_nothing(house: House) -> None:
    plain = House(load_settings(None, {}), house.store, house.clock)
    assert [each for each in packing_verdicts(plain, NOW) if each.action == "share"] == []
    body = HouseDesk(plain).report("sharing", {})
    assert "names nothing that the device plugin could be told" in str(body["notes"])


def test_an_empty_house_knows_nothing_and_says_so() -> None:
    clock = FixedClock(NOW)
    with Store.open(None, clock=clock) as store:
        body = HouseDesk(House(load_settings(None, {}), store, clock)).report("sharing", {})
    assert body["items"] == []
    assert "unknown" in str(body["notes"])


@pytest.mark.parametrize(("form", "words"), [("table", "SHARED-2"), ("csv", "n1,research,shared-2"), ("json", "")])
def test_the_command_prints_it(folder: Path, form: str, words: str) -> None:
    with Store.open(folder / "s.duckdb", clock=FixedClock(NOW)) as store:
        fill(store)
    asked = ["--config", str(folder / "steward.toml"), "--store", str(folder / "s.duckdb"), "sharing"]
    result = CliRunner().invoke(app, [*asked, "--as-of", NOW.isoformat(), "-o", form])
    assert result.exit_code == 0, result.output
    assert words in (result.stdout.upper() if form == "table" else result.stdout)
    if form == "json":
        assert json.loads(result.stdout)["kind"] == "SharingReport"
