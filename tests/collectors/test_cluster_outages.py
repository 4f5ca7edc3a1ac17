"""The Kubernetes source through outages: afterwards there is no gap, no duplicate and no interval left open."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest

from collectors.cluster import ApiServer
from collectors.cluster_source import ClusterSource, Pace
from fleet.errors import SourceFailed
from steward.compose import House, begin_sources, close_sources, known_of
from steward.config import Settings
from steward.cycle import collect
from tests.kube.faults import Fault
from tests.kube.server import KubeServer, write_kubeconfig
from tests.kube.site import NOW, Site, standing

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with standing(tmp_path, monkeypatch) as site:
        yield site


@pytest.mark.parametrize("is_cut_mid_line", [False, True], ids=["between events", "in the middle of a line"])
def test_watches_that_die_after_every_event_lose_nothing(site: Site, *, is_cut_mid_line: bool) -> None:
    source = site.source()
    site.turn(source)
    site.kube.faults.cut_after, site.kube.faults.is_cut_mid_line = 1, is_cut_mid_line
    started = site.later()
    for number in range(8):
        site.run(f"p{number}")
    ended = site.later()
    for number in range(0, 8, 2):
        site.drop(f"p{number}")
    assert site.turn(source) == ()
    assert site.intervals() == {f"p{n}": (started, None if n % 2 else ended) for n in range(8)}


def test_a_watch_that_never_tells_anything_is_a_failure_and_the_next_look_goes_on(site: Site) -> None:
    source = site.source()
    site.run("p")
    site.turn(source)
    site.kube.faults.cut_after = 0
    site.later()
    site.drop("p")
    with pytest.raises(SourceFailed, match="no watch lasts"):
        site.turn(source)
    assert site.intervals()["p"] == (NOW, None)
    site.kube.faults.cut_after = None
    assert site.turn(source) == ()
    assert site.intervals()["p"] == (NOW, NOW + timedelta(minutes=1))


def test_deletes_that_the_server_has_forgotten_are_found_by_listing_anew(site: Site) -> None:
    source = site.source()
    site.run("stays")
    site.run("goes")
    site.turn(source)
    ended = site.later()
    site.drop("goes")
    site.run("comes")
    site.kube.api.storage.compact()
    assert site.turn(source) == ()
    assert site.intervals() == {"stays": (NOW, None), "goes": (NOW, ended), "comes": (ended, None)}


def test_a_list_that_expires_while_it_is_paged_through_is_begun_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.cluster_watch.PAGE_SIZE", 10)
    for number in range(35):
        site.run(f"p{number:02}")
    site.kube.faults.add(Fault("GET /api/v1/pods?limit=10&continue=", status=410))
    source = site.source()
    assert site.turn(source) == ()
    assert len(site.intervals()) == 35
    pages = [line for line in site.kube.asked if line.startswith("GET /api/v1/pods?limit=10")]
    assert len(pages) == 2 + 4
    site.run("more")
    site.kube.api.storage.compact()
    site.kube.faults.add(Fault("GET /api/v1/pods?limit=10&continue=", times=9, status=410))
    (trouble,) = site.turn(source)
    assert (trouble.place, "expired" in trouble.reason) == ("/api/v1/pods", True)


def test_ten_minutes_of_5xx_leave_no_gap_and_no_duplicate(site: Site) -> None:
    source = site.source()
    site.run("goes")
    site.run("stays")
    site.turn(source)
    site.kube.faults.add(Fault("/api", times=100_000, status=503))
    ended = site.later()
    site.drop("goes")
    site.run("comes")
    for _ in range(3):
        site.later(3)
        with pytest.raises(SourceFailed, match="cluster east: /apis: 503"):
            site.turn(source)
    site.kube.faults.clear()
    assert site.turn(source) == ()
    told = site.intervals()
    assert (told["stays"], told["comes"]) == ((NOW, None), (ended, None))
    assert told["goes"] == (NOW, site.clock.now())  # the last moment it can have been there, as far as anybody told


def test_a_server_that_asks_for_patience_is_given_it(site: Site) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        if seconds > 0:
            waits.append(seconds)
        return False

    server = ApiServer("east", "east", site.ours, wait)
    site.kube.faults.add(Fault("/api/v1/nodes", status=429, retry_after="7"))
    site.kube.faults.add(Fault("/api/v1/nodes", status=503))
    assert b"NodeList" in server.get("/api/v1/nodes", {})
    assert waits == [7.0, 10.0]
    site.kube.faults.add(Fault("/api/v1/nodes", status=429, retry_after="3600", times=9))
    with pytest.raises(SourceFailed, match="429"):
        server.get("/api/v1/nodes", {})
    assert max(waits) == 10.0
    server.close()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/api/v1/pods?", keep=40),
        Fault("/api/v1/pods?", keep=40, is_honest_length=True),
        Fault("/api/v1/pods?", body=b"<html>busy</html>"),
    ],
    ids=["connection breaks", "body breaks off", "a proxy's page"],
)
def test_a_body_that_breaks_off_once_is_asked_for_again(site: Site, fault: Fault) -> None:
    site.run("p")
    site.kube.faults.add(fault)
    assert site.turn(site.source()) == ()
    assert site.intervals() == {"p": (NOW, None)}


def test_a_body_that_always_breaks_off_is_unknown_and_not_empty(site: Site) -> None:
    source = site.source()
    site.run("p")
    site.turn(source)
    site.kube.api.storage.compact()
    site.kube.faults.add(Fault("/api/v1/pods?", keep=40, is_honest_length=True, times=99))
    site.run("other")
    (trouble,) = site.turn(source)
    assert (trouble.kind, trouble.place) == ("failed", "/api/v1/pods")
    assert site.intervals() == {"p": (NOW, None)}
    assert site.store.read("demand_sample").get_column("running_gpus").to_list() == [1.0]
    site.kube.faults.clear()
    site.later()
    site.turn(source)
    assert set(site.intervals()) == {"p", "other"}


def test_a_slow_cluster_is_waited_for_only_so_long_and_told_when_it_answers(site: Site) -> None:
    site.run("p")
    site.kube.faults.add(Fault("GET /apis", delay_s=60))
    source = site.source(Pace(patience_s=0.05, between_s=600))
    with pytest.raises(SourceFailed, match=r"within 0\.05 s"):
        site.turn(source)
    site.kube.faults.stop.set()  # the answer comes at last
    assert source._next is not None
    source._next.result(10)
    site.turn(source)
    assert site.intervals() == {"p": (NOW, None)}


def test_a_cluster_that_hangs_from_turn_to_turn_costs_only_the_first_of_them_time(site: Site) -> None:
    site.run("p")
    site.kube.faults.add(Fault("GET /apis", delay_s=60))
    source = site.source(Pace(patience_s=5, between_s=600))
    source.begin()
    source._patient_until_s -= 5  # the first turn has waited
    began = monotonic()
    for _ in range(2):
        with pytest.raises(SourceFailed, match="is waited for"):
            site.turn(source)
    assert monotonic() - began < 4
    assert site.intervals() == {}


def test_a_clock_of_ours_that_is_five_minutes_off_moves_no_interval(site: Site) -> None:
    site.ours.move(timedelta(minutes=-5))
    source = site.source()
    site.run("goes")
    site.turn(source)
    ended = site.later()
    site.drop("goes")
    site.turn(source)
    assert site.intervals() == {"goes": (NOW, ended)}
    assert site.store.read("demand_sample").get_column("ts").to_list() == [NOW, ended]
    assert site.store.read("node").get_column("last_seen_at").to_list() == [ended]


def test_a_batch_that_was_never_stored_is_told_again(site: Site) -> None:
    source = site.source()
    site.run("p")
    site.turn(source)
    ended = site.later()
    site.drop("p")
    assert next(source.collect(None, NOW)).frames["pod"].height == 1  # and the store could not take it
    site.turn(source)
    assert site.intervals() == {"p": (NOW, ended)}


def test_a_collector_killed_between_look_and_store_is_followed_by_one_that_closes_what_went(site: Site) -> None:
    first = site.source()
    site.run("goes")
    site.run("stays")
    site.turn(first)
    site.later()
    site.drop("goes")
    next(first.collect(None, NOW))  # killed here: seen, and not stored
    ended = site.later()
    second = site.source()
    site.turn(second)
    assert site.intervals() == {"stays": (NOW, None), "goes": (NOW, ended)}


def test_two_collectors_of_one_cluster_tell_it_once(site: Site) -> None:
    one, two = site.source(), site.source()
    site.run("p")
    site.turn(one)
    site.turn(two)
    ended = site.later()
    site.drop("p")
    site.turn(two)
    site.turn(one)
    assert site.intervals() == {"p": (NOW, ended)}
    members = site.store.read("workspace_member").to_dicts()
    assert [(row["namespace"], row["ends_at"]) for row in members] == [("team", None)]


def test_a_node_that_comes_back_under_another_name_leaves_no_pod_open_on_the_old_one(site: Site) -> None:
    source = site.source()
    site.run("p", uid="old")
    site.turn(source)
    ended = site.later()
    site.drop("p")
    site.kube.api.storage.drop(("nodes.", "", "n1"))
    site.kube.seed({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "renamed"}})
    site.run("p", node="renamed", uid="new")
    site.turn(source)
    rows = {
        row["pod_uid"]: (row["node"], row["starts_at"], row["ends_at"]) for row in site.store.read("pod").to_dicts()
    }
    assert rows == {"old": ("n1", NOW, ended), "new": ("renamed", ended, None)}


def test_a_server_that_is_restarted_is_followed_on(site: Site, tmp_path: Path) -> None:
    source = site.source()
    site.run("goes")
    site.turn(source)
    other = KubeServer(site.clock.now)  # another one, that knows none of the old versions
    other.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    running = other.serve()
    write_kubeconfig(tmp_path / "config", [("east", other.url)])
    other.api.storage.revision = 1000
    other.api.storage.compact()
    source._server.close()
    ended = site.later()
    site.turn(source)
    running.close()
    assert site.intervals() == {"goes": (NOW, ended)}


def test_a_kind_that_may_not_be_read_is_told_and_nothing_is_concluded_from_it(site: Site) -> None:
    source = site.source()
    site.run("p")
    site.turn(source)
    site.kube.faults.add(Fault("/api/v1/pods?", status=403, times=99))
    site.later()
    site.drop("p")
    (trouble,) = site.turn(source)
    assert "grant get, list and watch on pods" in trouble.reason
    assert site.intervals() == {"p": (NOW, None)}
    site.kube.faults.clear()
    ended = site.later()
    site.turn(source)
    assert site.intervals() == {"p": (NOW, ended)}


def test_between_turns_a_cluster_is_followed_so_that_nothing_is_forgotten(site: Site) -> None:
    source = site.source(Pace(patience_s=10, between_s=0.01))
    site.turn(source)
    started = site.later()
    site.run("short")
    _wait_for(site, "short", source)
    ended = site.later()
    site.drop("short")
    _wait_for(site, None, source)
    site.kube.api.storage.compact()  # too late for a collector that looks at turns only
    site.turn(source)
    assert site.intervals() == {"short": (started, ended)}


def _wait_for(site: Site, name: str | None, source: ClusterSource) -> None:
    """Wait until the thread between turns has seen a pod (None: has seen it go)."""
    pause = threading.Event()
    for _ in range(500):
        items = {pod.name for pod in source._look._core.pods.items.values()}
        gone = {pod.name for pod in source._look._gone_pods.values()}
        if (name in items) if name is not None else bool(gone):
            return
        pause.wait(0.01)
    pytest.fail(f"not seen within five seconds: {site.kube.asked[-5:]}")


def test_a_dead_cluster_does_not_hold_up_the_others(site: Site, tmp_path: Path) -> None:
    hung = KubeServer(site.clock.now)
    running = hung.serve()
    hung.faults.add(Fault("GET /", times=99, delay_s=60))
    write_kubeconfig(tmp_path / "config", [("east", site.kube.url), ("hung", hung.url), ("dead", "http://127.0.0.1:9")])
    site.run("p")
    sources = [
        ClusterSource(site.ours, name, name, lambda: known_of(site.store, "east"), Pace(0.3, 600))
        for name in ("hung", "dead", "east")
    ]
    house = House(Settings(), site.store, site.ours, tuple(sources))
    begin_sources(sources)
    for source in sources[1:]:
        assert source._next is not None
        source._next.exception(10)
    collected = collect(house, NOW)
    hung.faults.stop.set()
    close_sources(sources)
    running.close()
    failed = {name: trouble.reason for name, trouble in collected.troubles}
    assert set(failed) == {"kubernetes:hung", "kubernetes:dead"}
    assert "is waited for" in failed["kubernetes:hung"]
    assert site.intervals() == {"p": (NOW, None)}
    assert site.store.read("source_failure").height == 2


def test_a_closed_source_leaves_no_thread_and_can_be_used_again(site: Site) -> None:
    source = site.source()
    for _ in range(2):
        site.turn(source)
        source.close()
        assert not [each for each in threading.enumerate() if each.name.startswith("kubernetes-")]
