"""The Kubernetes source over a small API server of our own, and its rows from objects alone."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from collectors.cluster import ClusterSource
from collectors.cluster_rows import Known, Seen, changes, frames_of, gpus_asked, provider_of, quantity
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import SourceFailed, SourceUnavailable
from fleet.tables import WORKSPACE_MEMBER
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
BORN = "2026-03-01T00:00:00Z"
Answer = tuple[int, object]


def named(name: str, namespace: str | None = None, **labels: str) -> dict[str, object]:
    meta: dict[str, object] = {"name": name, "creationTimestamp": BORN, "labels": labels}
    return {"metadata": meta if namespace is None else {**meta, "namespace": namespace}}


def pod(
    name: str, resources: Mapping[str, str], *, node: str | None = "n1", phase: str = "Running", **more: Any
) -> dict[str, object]:
    containers = [{"name": "main", "resources": {"limits": dict(resources)}}]
    return {
        **named(name, "team"),
        "spec": {"nodeName": node, "containers": containers, **more},
        "status": {"phase": phase},
    }


def node(name: str = "n1", **more: object) -> dict[str, object]:
    labels = {
        "nvidia.com/gpu.count": "8", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.replicas": "4",
        "karpenter.sh/nodepool": "h100", "karpenter.sh/capacity-type": "spot", "topology.kubernetes.io/region": "r1",
    }  # fmt: skip
    status = {
        "capacity": {"cpu": "96", "memory": "2097152Mi", "nvidia.com/gpu.shared": "32"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {**named(name, **labels), "spec": {"providerID": "aws:///r1a/i-1"}, "status": status, **more}


TEAM = named("team", **{"gpusteward.dev/workspace": "research"})
GRANT = {**named("gpus", "team"), "spec": {"hard": {"requests.nvidia.com/gpu": "16"}}}


def look(seen: Seen, known: Known | None = None) -> dict[str, list[dict[str, object]]]:
    frames, _ = frames_of(seen, known or Known(), "east", NOW)
    batch = Batch("t", frames).checked()
    return {name: frame.to_dicts() for name, frame in batch.frames.items()}


def test_a_node_is_told_with_its_pool_model_and_physical_gpus() -> None:
    (row,) = look(Seen(nodes=[node()]))["node"]
    assert (row["pool"], row["model"], row["gpus"], row["capacity_type"]) == (
        "h100",
        "NVIDIA-H100-80GB-HBM3",
        8,
        "spot",
    )
    assert (row["cpu_milli"], row["memory_mib"], row["is_ready"], row["is_schedulable"]) == (
        96_000,
        2_097_152,
        True,
        True,
    )
    assert look(Seen(nodes=[node("a"), node("b")]))["node_pool"][0]["nodes"] == 2
    assert provider_of([node()]) == ("aws", "r1")


@pytest.mark.parametrize(
    ("status", "ready"),
    [("True", True), ("False", False), ("Unknown", False)],
    ids=["ready", "not ready", "not heard of"],
)
def test_a_node_that_is_not_heard_of_is_not_ready(status: str, *, ready: bool) -> None:
    conditions = {"capacity": {}, "conditions": [{"type": "Ready", "status": status}]}
    (row,) = look(Seen(nodes=[node(status=conditions, spec={"unschedulable": True})]))["node"]
    assert (row["is_ready"], row["is_schedulable"]) == (ready, False)


def test_a_node_that_says_nothing_gives_nulls_and_no_zeros() -> None:
    (row,) = look(Seen(nodes=[{"metadata": {"name": "bare"}}]))["node"]
    assert [row[name] for name in ("gpus", "model", "cpu_milli", "is_ready", "capacity_type")] == [None] * 5


@pytest.mark.parametrize(
    ("resources", "more", "gpus"),
    [
        ({"nvidia.com/gpu": "2"}, {}, 2.0),
        ({"cpu": "4"}, {}, 0.0),
        ({"nvidia.com/gpu": "0"}, {}, 0.0),
        ({"nvidia.com/mig-3g.40gb": "1"}, {}, 3 / 7),
        ({"nvidia.com/mig-1g.10gb.me": "7"}, {}, 1.0),
        ({"nvidia.com/gpu.shared": "1"}, {}, 0.25),
        ({"nvidia.com/gpu": "1"}, {"initContainers": [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}]}, 4.0),
        (
            {"nvidia.com/gpu": "1"},
            {"initContainers": [{"restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": "4"}}}]},
            5.0,
        ),
        ({"nvidia.com/gpu": "nonsense"}, {}, 0.0),
    ],
    ids=["whole", "none", "zero", "MIG", "seven small MIG devices", "shared", "init container", "sidecar", "nonsense"],
)  # fmt: skip
def test_a_pod_asks_for_gpus_as_the_scheduler_counts(
    resources: dict[str, str], more: dict[str, Any], gpus: float
) -> None:
    assert gpus_asked(pod("p", resources, **more), 4.0) == pytest.approx(gpus)


def test_demand_is_what_runs_and_what_waits_by_workspace() -> None:
    pods = [
        pod("runs", {"nvidia.com/gpu": "2"}),
        pod("starting", {"nvidia.com/gpu": "1"}, phase="Pending"),
        pod("waits", {"nvidia.com/gpu": "8"}, node=None, phase="Pending"),
        pod("done", {"nvidia.com/gpu": "4"}, phase="Succeeded"),
        pod("died", {"nvidia.com/gpu": "4"}, phase="Failed"),
        pod("plain", {"cpu": "1"}),
    ]
    (row,) = look(Seen([node()], pods, [TEAM], [GRANT]))["demand_sample"]
    assert (row["workspace"], row["running_gpus"], row["pending_gpus"]) == ("research", 3.0, 8.0)
    assert (row["running_jobs"], row["pending_jobs"], row["capacity_gpus"]) == (2.0, 1.0, 16.0)


def test_a_workspace_whose_pods_are_gone_is_at_zero_and_a_namespace_without_label_stands_for_itself() -> None:
    rows = look(
        Seen([], [pod("p", {"nvidia.com/gpu": "1"})], [named("team")], []), Known(workspaces=frozenset({"old"}))
    )
    assert [(row["workspace"], row["running_gpus"]) for row in rows["demand_sample"]] == [("old", 0.0), ("team", 1.0)]
    assert "workspace_member" not in rows


def test_pods_that_could_not_be_listed_are_unknown_and_not_zero() -> None:
    assert "demand_sample" not in look(Seen([node()], None, [TEAM], [GRANT]))


def test_a_shared_gpu_of_unknown_replicas_is_rejected_and_counted() -> None:
    bare = {"metadata": {"name": "n1"}}
    _, troubles = frames_of(Seen([bare], [pod("p", {"nvidia.com/gpu.shared": "1"})], [TEAM], []), Known(), "east", NOW)
    assert [(trouble.kind, trouble.row_count) for trouble in troubles] == [("rejected", 1)]


def test_several_quotas_of_a_namespace_hold_at_once_and_namespaces_of_a_workspace_add_up() -> None:
    other = named("team-b", **{"gpusteward.dev/workspace": "research"})
    tighter = {**named("tight", "team"), "spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}
    second = {**named("gpus", "team-b"), "spec": {"hard": {"requests.nvidia.com/gpu": "3"}}}
    silent = {**named("cpus", "team"), "spec": {"hard": {"requests.cpu": "4"}}}
    (row,) = look(Seen([], [], [TEAM, other], [GRANT, tighter, second, silent]))["quota"]
    assert (row["workspace"], row["gpus"], row["starts_at"]) == ("research", 7.0, datetime(2026, 3, 1, tzinfo=UTC))


def members(rows: Sequence[tuple[str, str, datetime, datetime | None]]) -> pl.DataFrame:
    names = ("namespace", "workspace", "starts_at", "ends_at")
    return pl.DataFrame(
        [{"cluster": "east", **dict(zip(names, row, strict=True))} for row in rows], schema=WORKSPACE_MEMBER.schema()
    )


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        ([], [("a", "x")], [("a", "x", "born", None)]),
        ([("a", "x", "born", None)], [("a", "x")], []),
        ([("a", "x", "born", None)], [("a", "y")], [("a", "x", "born", "now"), ("a", "y", "now", None)]),
        ([("a", "x", "born", None)], [], [("a", "x", "born", "now")]),
        ([("a", "x", "born", "before")], [("a", "x")], [("a", "x", "now", None)]),
        ([("a", "x", "born", "before")], [], []),
    ],
    ids=["new", "as it was", "moved", "gone", "came back", "still gone"],
)
def test_intervals_follow_what_is_wanted(
    known: list[tuple[str, str, str, str | None]],
    wanted: list[tuple[str, str]],
    expected: list[tuple[str, str, str, str | None]],
) -> None:
    times = {"born": NOW - timedelta(days=2), "before": NOW - timedelta(days=1), "now": NOW}
    moment: Callable[[str | None], datetime | None] = lambda word: None if word is None else times[word]  # noqa: E731 - for two lines
    stands = members([(one, two, times[start], moment(end)) for one, two, start, end in known])
    now_wanted = members([(one, two, times["born"], None) for one, two in wanted])
    made = changes(stands, now_wanted, ("cluster", "namespace"), NOW)
    assert made.rows() == [("east", one, two, times[start], moment(end)) for one, two, start, end in expected]


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8.0), ("500m", 0.5), ("1Ki", 1024.0), ("2.5G", 2.5e9), ("1e3", 1000.0), (4, 4.0), ("", None), ("x", None)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_writes_them(text: object, number: float | None) -> None:
    assert quantity(text) == number


# The API server


class Api:
    """Lists by path, paged; `faults` are answered first, one a request."""

    def __init__(
        self, lists: Mapping[str, list[dict[str, object]]], faults: Mapping[str, list[Answer]] | None = None
    ) -> None:
        self.lists, self.faults = dict(lists), {path: list(answers) for path, answers in (faults or {}).items()}
        self.asked: list[str] = []
        self.tokens: list[str | None] = []

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        self.asked.append(path)
        if self.faults.get(path):
            return self.faults[path].pop(0)
        items = self.lists.get(path, [])
        start, limit = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
        rest = {"continue": str(start + limit)} if start + limit < len(items) else {}
        return 200, {"items": items[start : start + limit], "metadata": {"resourceVersion": "7", **rest}}


@contextmanager
def serving(api: Api, folder: Path) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            api.tokens.append(self.headers.get("Authorization"))
            status, body = api.answer(parts.path, parse_qs(parts.query))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "east",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "s3cret"}}],
        "contexts": [{"name": "east", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    (folder / "config").write_text(json.dumps(config))
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The library reads the variable when it is imported; its module variable is the only seam it has.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    return tmp_path


def lists(**more: list[dict[str, object]]) -> dict[str, list[dict[str, object]]]:
    given = {
        "nodes": [node()],
        "pods": [pod("p", {"nvidia.com/gpu": "2"})],
        "namespaces": [TEAM],
        "resourcequotas": [GRANT],
    }
    return {f"/api/v1/{kind}": items for kind, items in {**given, **more}.items()}


def collect(context: str | None = "east", known: Callable[[], Known] = Known) -> Batch:
    source = ClusterSource(FixedClock(NOW), "east", context, known)
    try:
        (batch,) = source.collect(None, NOW)
        return batch
    finally:
        source.close()


@pytest.mark.enable_socket
def test_one_look_gives_nodes_demand_members_and_quotas(kubeconfig: Path) -> None:
    api = Api(lists())
    with serving(api, kubeconfig):
        batch = collect().checked()
    assert set(batch.frames) == {"cluster", "node", "node_pool", "workspace_member", "quota", "demand_sample"}
    assert batch.frames["cluster"].row(0, named=True)["provider"] == "aws"
    assert (batch.read_until, batch.troubles) == (NOW, ())
    assert set(api.tokens) == {"Bearer s3cret"}


@pytest.mark.enable_socket
def test_lists_are_read_page_by_page_and_begun_anew_where_they_expire(kubeconfig: Path) -> None:
    pods = [pod(f"p{n}", {"nvidia.com/gpu": "1"}) for n in range(1203)]
    gone: Answer = (410, {"kind": "Status", "code": 410, "reason": "Expired"})
    api = Api(lists(pods=pods))
    with serving(api, kubeconfig):
        whole = collect()
        api.faults = {"/api/v1/pods": [api.answer("/api/v1/pods", {"limit": ["500"]}), gone]}
        expired = collect()
    for batch in (whole, expired):
        assert batch.frames["demand_sample"].get_column("running_gpus").to_list() == [1203.0]
    assert api.asked.count("/api/v1/pods") == 3 + 1 + 2 + 3


@pytest.mark.enable_socket
def test_a_list_that_always_expires_is_a_failure(kubeconfig: Path) -> None:
    with (
        serving(Api(lists(), {"/api/v1/pods": [(410, {})] * 9}), kubeconfig),
        pytest.raises(SourceFailed, match="expired"),
    ):
        collect()


@pytest.mark.enable_socket
def test_a_kind_that_may_not_be_listed_is_told_and_the_rest_goes_on(kubeconfig: Path) -> None:
    with serving(Api(lists(), {"/api/v1/pods": [(403, {"reason": "Forbidden"})]}), kubeconfig):
        batch = collect()
    (trouble,) = batch.troubles
    assert (trouble.kind, trouble.place) == ("failed", "/api/v1/pods")
    assert "grant get, list and watch on pods" in trouble.reason
    assert "node" in batch.frames
    assert "demand_sample" not in batch.frames
    assert batch.read_until is None


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "fault", [(500, {}), (401, {}), (200, b'{"items": [{"metadata'), (200, b"<html>"), (200, {"items": None})],
    ids=["500", "401", "truncated", "HTML", "no list"],
)  # fmt: skip
def test_a_server_that_does_not_answer_as_kubernetes_does_is_a_failure(kubeconfig: Path, fault: Answer) -> None:
    with (
        serving(Api(lists(), {"/api/v1/nodes": [fault]}), kubeconfig),
        pytest.raises(SourceFailed, match="cluster east"),
    ):
        collect()


@pytest.mark.enable_socket
def test_a_cluster_that_is_down_fails_and_a_context_that_is_not_there_is_unavailable(kubeconfig: Path) -> None:
    with serving(Api(lists()), kubeconfig):
        pass
    with pytest.raises(SourceFailed, match="cluster east"):
        collect()
    with pytest.raises(SourceUnavailable, match="nowhere"):
        collect("nowhere")


def test_without_any_configuration_the_source_is_not_there(kubeconfig: Path) -> None:
    assert not (kubeconfig / "config").exists()
    with pytest.raises(SourceUnavailable, match="no kubeconfig"):
        collect(None)


@pytest.mark.enable_socket
def test_looks_before_and_after_a_restart_leave_one_interval_and_close_what_is_gone(
    kubeconfig: Path, clock: FixedClock
) -> None:
    from steward.compose import known_of  # noqa: PLC0415 - the composition is what keeps the memory

    api = Api(lists())
    with Store.open(None, clock=clock) as store, serving(api, kubeconfig):
        for _ in range(2):
            store.append(collect(known=lambda: known_of(store, "east")))
        assert store.read("workspace_member").get_column("ends_at").to_list() == [None]
        api.lists |= {"/api/v1/namespaces": [], "/api/v1/pods": [], "/api/v1/resourcequotas": []}
        store.append(collect(known=lambda: known_of(store, "east")))
        assert store.read("workspace_member").get_column("ends_at").to_list() == [NOW]
        assert store.read("quota").get_column("ends_at").to_list() == [NOW]
        assert store.read("demand_sample").get_column("running_gpus").to_list() == [0.0]
