"""The door for writing: what the server's answers become, what is asked again, and what is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actions.kube import KubeApi
from actions.kube_port import NODES, PODS, Api, Resource, version_in
from fleet.errors import MoveRefused, SourceFailed, SourceUnavailable, StaleState
from tests.actions.ground import Ground
from tests.kube.answers import Object
from tests.kube.faults import Fault
from tests.kube.server import write_kubeconfig

pytestmark = pytest.mark.enable_socket
AS_ADMIN = True  # config maps and pods are written here, which the engine never does
MAPS = Resource("v1", "configmaps", "ConfigMap")


def make(ground: Ground, name: str = "one", **data: str) -> Object:
    body = {"metadata": {"name": name}, "data": data}
    return ground.api.create(MAPS.path(namespace=ground.arrange.namespace), body, is_dry_run=False)


def path(ground: Ground, name: str = "one") -> str:
    return MAPS.path(name, ground.arrange.namespace)


def writes(ground: Ground, verb: str) -> int:
    return sum(each.startswith(verb) and "fieldManager=gpu-steward" in each for each in ground.memory().asked)


def test_a_dry_run_is_checked_and_changes_nothing(ground: Ground) -> None:
    api, space = ground.api, MAPS.path(namespace=ground.arrange.namespace)
    api.create(space, {"metadata": {"name": "one"}}, is_dry_run=True)
    with pytest.raises(StaleState):
        api.get(path(ground))
    made = make(ground, key="old")
    changed = api.patch(path(ground), {"data": {"key": "new"}}, is_dry_run=True)
    assert changed["data"] == {"key": "new"}
    api.delete(path(ground), is_dry_run=True)
    assert api.get(path(ground))["data"] == {"key": "old"}
    assert version_in(api.get(path(ground))) == version_in(made)
    with pytest.raises(StaleState):
        api.delete(path(ground, "two"), is_dry_run=True)


@pytest.mark.parametrize("how", ["merge", "json", "apply"])
def test_a_patch_on_a_version_that_is_past_changes_nothing(ground: Ground, how: str) -> None:
    past = version_in(make(ground, key="old"))
    ground.client.patch(path(ground), {"data": {"key": "theirs"}})
    body: object = {"data": {"key": "ours"}}
    if how == "json":
        body = [{"op": "replace", "path": "/data/key", "value": "ours"}]
    if how == "apply":
        body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "ours"}}
    with pytest.raises(StaleState, match="409"):
        ground.api.patch(path(ground), body, is_dry_run=False, how=how, version=past, is_forced=how == "apply")  # type: ignore[arg-type] # parametrized text
    assert ground.api.get(path(ground))["data"] == {"key": "theirs"}


def test_an_object_is_deleted_only_if_it_is_still_that_one(ground: Ground) -> None:
    old = make(ground)
    with pytest.raises(StaleState):
        ground.api.delete(path(ground), is_dry_run=False, uid="another")
    ground.client.patch(path(ground), {"data": {"key": "theirs"}})
    with pytest.raises(StaleState):
        ground.api.delete(path(ground), is_dry_run=False, version=version_in(old))
    ground.api.delete(path(ground), is_dry_run=False, uid=old["metadata"]["uid"])
    with pytest.raises(StaleState, match="404"):
        ground.api.get(path(ground))


def test_a_field_that_another_applies_is_refused_and_taken_only_by_force(ground: Ground) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"key": "theirs"}}
    ground.client.patch(path(ground), body, "application/apply-patch+yaml", fieldManager="helm")
    ours = {**body, "data": {"key": "ours"}}
    with pytest.raises(MoveRefused, match=r"conflict.*helm"):
        ground.api.patch(path(ground), ours, is_dry_run=False, how="apply")
    assert ground.api.get(path(ground))["data"] == {"key": "theirs"}
    ground.api.patch(path(ground), ours, is_dry_run=False, how="apply", is_forced=True)
    assert ground.api.get(path(ground))["data"] == {"key": "ours"}


def test_what_the_server_finds_invalid_is_refused_in_its_words(ground: Ground) -> None:
    with pytest.raises(MoveRefused, match="422"):
        ground.api.create(PODS.path(namespace=ground.arrange.namespace), {"metadata": {"name": "p"}}, is_dry_run=False)
    make(ground)
    with pytest.raises(MoveRefused):
        ground.api.patch(path(ground), [{"op": "remove", "path": "/data/none"}], is_dry_run=False, how="json")


def test_kinds_are_found_by_group_or_by_version_and_unknown_ones_are_none(ground: Ground) -> None:
    found = ground.api.find("resource.k8s.io", "DeviceTaintRule")
    assert found is not None
    assert (found.api_version, found.plural, found.is_namespaced) == (
        "resource.k8s.io/v1beta2", "devicetaintrules", False,
    )  # fmt: skip
    assert ground.api.find("apps/v1", "Deployment") == Resource("apps/v1", "deployments", "Deployment")
    assert ground.api.find("v1", "Node") == NODES
    for version, kind in (("nowhere.test", "Thing"), ("apps/v1", "Thing"), ("apps/v9", "Deployment")):
        assert ground.api.find(version, kind) is None


def test_a_list_comes_whole_in_pages_and_each_of_it_says_what_it_is(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actions.kube._PAGE", 2)
    for number in range(5):
        body = {"metadata": {"name": f"m{number}", "labels": {"of": "test"}}}
        ground.client.create(MAPS.path(namespace=ground.arrange.namespace), body)
    found = ground.api.list_all(MAPS, ground.arrange.namespace, labels="of=test")
    assert [each["metadata"]["name"] for each in found] == [f"m{number}" for number in range(5)]
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("v1", "ConfigMap")}


def test_a_list_whose_pages_are_forgotten_is_begun_anew(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actions.kube._PAGE", 2)
    for number in range(5):
        make(ground, f"m{number}")
    faults = ground.memory().faults
    faults.add(Fault("continue=", status=410))
    assert len(ground.api.list_all(MAPS, ground.arrange.namespace)) == 5
    faults.add(Fault("continue=", status=410, times=3))
    with pytest.raises(SourceFailed, match="expired"):
        ground.api.list_all(MAPS, ground.arrange.namespace)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, MoveRefused), (401, SourceFailed), (403, MoveRefused), (404, StaleState), (405, MoveRefused),
     (408, SourceFailed), (409, StaleState), (410, StaleState), (422, MoveRefused), (500, SourceFailed),
     (502, SourceFailed), (503, SourceFailed), (504, SourceFailed)],
)  # fmt: skip
def test_a_write_is_sent_once_and_its_answer_has_one_meaning(
    ground: Ground, status: int, expected: type[Exception]
) -> None:
    make(ground, key="old")
    ground.memory().faults.add(Fault("PATCH", status=status, times=9))
    with pytest.raises(expected, match="on purpose"):
        ground.api.patch(path(ground), {"data": {"key": "new"}}, is_dry_run=False)
    assert writes(ground, "PATCH") == 1
    assert ground.waits == []


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 503, "retry_after": "3"}], ids=["429", "503"])
def test_a_write_that_was_turned_away_at_the_door_is_sent_again(ground: Ground, fault: dict[str, object]) -> None:
    make(ground, key="old")
    ground.memory().faults.add(Fault("PATCH", times=2, **fault))  # type: ignore[arg-type] # parametrized
    ground.api.patch(path(ground), {"data": {"key": "new"}}, is_dry_run=False)
    assert (ground.api.get(path(ground))["data"], len(ground.waits)) == ({"key": "new"}, 2)
    assert all(wait >= (3 if "retry_after" in fault else 0) for wait in ground.waits)


def test_a_server_that_keeps_turning_us_away_is_no_answer(ground: Ground) -> None:
    ground.memory().faults.add(Fault("GET /api/v1/nodes", status=429, times=99, retry_after="60"))
    with pytest.raises(SourceFailed, match="429"):
        ground.api.list_all(NODES)
    assert len(ground.waits) == 3
    assert max(ground.waits) <= 10


READS: list[Callable[[Api, str], object]] = [
    lambda api, where: api.get(where),
    lambda api, where: api.patch(where, {"data": {"key": "new"}}, is_dry_run=True),
    lambda api, where: api.delete(where, is_dry_run=True),
]


@pytest.mark.parametrize("ask", READS, ids=["get", "dry patch", "dry delete"])
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 504}, {"keep": 5}], ids=["500", "504", "cut off"])
def test_what_changes_nothing_is_asked_again(
    ground: Ground, ask: Callable[[Api, str], object], fault: dict[str, int]
) -> None:
    make(ground, key="old")
    ground.memory().faults.add(Fault("/configmaps/one", times=2, **fault))  # type: ignore[arg-type] # parametrized
    ask(ground.api, path(ground))
    assert len(ground.waits) == 2
    assert ground.api.get(path(ground))["data"] == {"key": "old"}


@pytest.mark.parametrize("is_honest_length", [False, True], ids=["broken off", "cut in transit"])
def test_a_write_whose_answer_is_cut_off_is_not_sent_again(ground: Ground, *, is_honest_length: bool) -> None:
    make(ground, key="old")
    ground.memory().faults.add(Fault("PATCH", keep=5, is_honest_length=is_honest_length))
    with pytest.raises(SourceFailed):
        ground.api.patch(path(ground), {"data": {"key": "new"}}, is_dry_run=False)
    assert writes(ground, "PATCH") == 1
    assert ground.api.get(path(ground))["data"] == {"key": "new"}, "no answer is no proof that nothing happened"


def test_a_server_that_is_not_there_is_no_answer_even_to_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    write_kubeconfig(tmp_path / "config", [("east", "http://127.0.0.1:1")])  # where nobody listens
    waits: list[float] = []
    with pytest.raises(SourceFailed, match="does not answer"):
        KubeApi("east", None, waits.append).patch(NODES.path("n"), {}, is_dry_run=False)
    assert len(waits) == 3, "nothing was sent, so it may be tried again"


def test_credentials_that_ran_out_are_read_afresh(ground: Ground) -> None:
    ground.memory().faults.add(Fault("GET /api/v1/nodes", status=401))
    with pytest.raises(SourceFailed, match="401"):
        ground.api.list_all(NODES)
    assert ground.api.list_all(NODES) == []


def test_a_context_that_there_is_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    write_kubeconfig(tmp_path / "config", [("east", "http://127.0.0.1:1")])
    with pytest.raises(SourceUnavailable, match="context nowhere"):
        KubeApi("east", "nowhere").get(NODES.path("n"))


def test_every_write_names_us_and_is_checked_field_by_field(ground: Ground) -> None:
    made = make(ground, key="old")
    ground.api.patch(path(ground), {"data": {"key": "new"}}, is_dry_run=False)
    managers = {each["manager"] for each in ground.api.get(path(ground))["metadata"]["managedFields"]}
    assert managers == {"gpu-steward"}
    assert made["metadata"]["name"] == "one"
    if ground.server is not None:
        assert all("fieldValidation=Strict" in each for each in ground.server.asked if "gpu-steward" in each)
        return
    with pytest.raises(MoveRefused, match="unknown field"):
        ground.api.patch(path(ground), {"nonsense": 1}, is_dry_run=False)
