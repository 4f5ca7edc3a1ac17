"""Workspaces are made, changed, watched and deleted on a server as moves that are recorded and can be taken back."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fleet.clock import SystemClock
from fleet.errors import BadInput
from steward.acting import act
from steward.cli import app
from steward.compose import House
from steward.config import Settings
from steward.cycle import make_plans
from steward.desk import HouseDesk
from steward.manifest_file import read_manifests
from steward.workspaces import desired_of
from store.store import Store
from tests.kube.answers import Object
from tests.kube.engines import Arena, meant

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def house(work: Arena) -> Iterator[House]:
    clock = SystemClock()
    with Store.open(None, clock=clock) as store:
        yield House(Settings(), store, clock, (), (work.cluster,))


@pytest.fixture
def desk(house: House) -> HouseDesk:
    return HouseDesk(house)


def manifest(work: Arena, gpus: int = 4, **spec: object) -> Object:
    names = [f"{work.namespace}-a", f"{work.namespace}-b"]
    work.made += [path for name in names if (path := f"/api/v1/namespaces/{name}") not in work.made]
    whole = {
        "namespaces": [{"name": name} for name in names],
        "quotas": [{"pool": work.name("pool"), "gpus": gpus}],
        "limits": {"pods": "50"},
        "roles": [{"role": "Editor", "users": ["bob"]}],
        **spec,
    }
    meta = {"name": work.name("lab")}
    return {"apiVersion": "gpusteward.dev/v1alpha1", "kind": "Workspace", "metadata": meta, "spec": whole}


def flavor(work: Arena) -> None:
    labels = {"karpenter.sh/nodepool": work.name("pool")}
    work.put("kueue.x-k8s.io", "ResourceFlavor", work.name("f"), spec={"nodeLabels": labels})
    work.made.append(work.resource("kueue.x-k8s.io", "ClusterQueue").path(work.name("lab")))


def apply(desk: HouseDesk, *manifests: Object, yes: bool = True) -> dict[str, Any]:
    return desk.operate("workspace_apply", {"manifests": list(manifests), "yes": yes, "who": "ann"})


def ask(desk: HouseDesk, question: str, /, **given: object) -> dict[str, Any]:
    return desk.report(question, given)


def order(desk: HouseDesk, wanted: str, /, **given: object) -> dict[str, Any]:
    return desk.operate(wanted, {"who": "ann", **given})


def space(work: Arena, name: str = "a") -> Object:
    return work.client.get(f"/api/v1/namespaces/{work.namespace}-{name}")


def standing(work: Arena) -> list[Object]:
    """Return what stands of the workspace, as it is meant."""
    queues = work.see("kueue.x-k8s.io", "ClusterQueue", work.name("lab"))
    inside = [
        work.see(group, kind, name, f"{work.namespace}-{letter}")
        for letter in ("a", "b")
        for group, kind, name in (
            ("v1", "ResourceQuota", "gpu-steward"),
            ("networking.k8s.io/v1", "NetworkPolicy", "gpu-steward-isolation"),
            ("rbac.authorization.k8s.io/v1", "RoleBinding", "gpu-steward-editor"),
            ("kueue.x-k8s.io", "LocalQueue", work.name("lab")),
        )
    ]
    return [meant(each) for each in (queues, *inside)]


def test_a_rehearsal_shows_every_move_and_changes_neither_cluster_nor_store(
    work: Arena, house: House, desk: HouseDesk
) -> None:
    answer = apply(desk, manifest(work), yes=False)
    assert answer["exitCode"] == 0
    assert {each["stage"] for each in answer["items"]} == {"would be made"}
    assert not desired_of(house.store)
    assert house.store.read("move").is_empty()
    with pytest.raises(Exception, match="not found"):
        space(work)


def test_a_workspace_is_made_changed_taken_back_and_deleted(work: Arena, house: House, desk: HouseDesk) -> None:
    flavor(work)
    made = apply(desk, manifest(work, 4))
    assert made["exitCode"] == 0, made
    first = standing(work)
    assert ask(desk, "workspace_drift")["items"] == []
    quota = next(each for each in work.cluster.observe().quotas if each.workspace == work.name("lab"))
    assert (quota.gpus, quota.pool) == (4.0, work.name("pool"))
    changed = apply(desk, manifest(work, 6, limits={"pods": "60"}))
    assert changed["summary"]["made"] == 3
    plan_id = next(note for note in changed["notes"] if note.startswith("take it back")).rsplit(" ", 1)[1]
    assert standing(work) != first
    assert desk.operate("undo", {"what": plan_id, "yes": True})["exitCode"] == 0
    assert standing(work) == first
    name = {"name": work.name("lab")}
    assert ask(desk, "workspace_drift", **name)["items"] == []
    gone = order(desk, "workspace_delete", **name, yes=True)
    assert gone["exitCode"] == 0, gone
    assert not [each for each in work.cluster.observe().objects if each.owner == work.name("lab")]
    assert ask(desk, "workspaces")["items"][0]["state"] == "to be deleted"
    assert house.store.read("outcome").filter(~house.store.read("outcome")["is_dry_run"]).height > 20


def test_drift_is_shown_planned_in_the_turn_and_set_right(work: Arena, house: House, desk: HouseDesk) -> None:
    flavor(work)
    apply(desk, manifest(work))
    first = standing(work)
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{work.namespace}-a/rolebindings/gpu-steward-editor"
    for _ in range(2):  # the same harm on the same day is seen and set right again
        work.client.patch(
            path, {"subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]}
        )
        work.drop(f"/apis/networking.k8s.io/v1/namespaces/{work.namespace}-b/networkpolicies/gpu-steward-isolation")
        drift = ask(desk, "workspace_drift", name=work.name("lab"))
        assert drift["exitCode"] == 1
        assert {(each["object"].split("/")[0], each["state"]) for each in drift["items"]} == {
            ("RoleBinding", "differs"),
            ("NetworkPolicy", "missing"),
        }
        (planned,) = make_plans(house, (), house.clock.now())
        assert {each.target.kind for each in planned.moves if each.workspace == work.name("lab")} == {
            "RoleBinding",
            "NetworkPolicy",
        }
        assert apply(desk, manifest(work))["exitCode"] == 0
        assert standing(work) == first


def test_where_the_rule_is_auto_the_turn_itself_sets_drift_right(work: Arena, house: House, desk: HouseDesk) -> None:
    assert apply(desk, manifest(work, quotas=[]))["exitCode"] == 0
    path = f"/apis/networking.k8s.io/v1/namespaces/{work.namespace}-b/networkpolicies/gpu-steward-isolation"
    work.drop(path)
    for mode, is_back in (("observe", False), ("propose", False), ("auto", True)):
        settings = Settings.model_validate({"actions": {"modes": {"workspace": mode}}})
        under = replace(house, settings=settings)
        act(under, make_plans(under, (), house.clock.now()), house.clock.now())
        found = [each for each in work.cluster.observe().objects if each.ref.kind == "NetworkPolicy"]
        assert (f"{work.namespace}-b" in {each.ref.namespace for each in found}) is is_back


def test_a_namespace_with_pods_stays_when_its_workspace_is_deleted_without_force(work: Arena, desk: HouseDesk) -> None:
    flavor(work)
    apply(desk, manifest(work))
    pod = {"containers": [{"name": "m", "image": "none"}], "schedulerName": "steward-test"}
    here = f"{work.namespace}-a"
    work.put("v1", "Pod", "p", metadata={"namespace": here}, spec=pod)
    told = {"name": work.name("lab"), "yes": True}
    refused = order(desk, "workspace_delete", **told)
    assert refused["exitCode"] == 1
    assert any("pods run in namespace" in str(each["detail"]) for each in refused["items"])
    assert space(work)["metadata"].get("deletionTimestamp") is None
    work.see("networking.k8s.io/v1", "NetworkPolicy", "gpu-steward-isolation", here)
    work.see("kueue.x-k8s.io", "ClusterQueue", work.name("lab"))
    assert order(desk, "workspace_delete", **told, force=True)["exitCode"] == 0
    assert not [each for each in work.cluster.observe().objects if each.owner == work.name("lab")]


def test_an_adopted_namespace_survives_its_workspace_as_it_was_before(work: Arena, desk: HouseDesk) -> None:
    path = f"/api/v1/namespaces/{work.namespace}"
    work.client.patch(path, {"metadata": {"labels": {"team": "blue"}, "annotations": {"note": "kept"}}})
    before = meant(work.client.get(path))
    plain = manifest(work, quotas=[], namespaces=[{"name": work.namespace}])
    refused = apply(desk, plain)
    assert any("say adopt: true" in note for note in refused["notes"])
    assert meant(work.client.get(path)) == before
    assert apply(desk, manifest(work, quotas=[], namespaces=[{"name": work.namespace, "adopt": True}]))["exitCode"] == 0
    assert meant(work.client.get(path)) != before
    assert order(desk, "workspace_delete", name=work.name("lab"), yes=True)["exitCode"] == 0
    assert meant(work.client.get(path)) == before


def test_two_workspaces_can_not_want_the_same_namespace_nor_the_same_name_twice(work: Arena, desk: HouseDesk) -> None:
    one = manifest(work)
    other = {**one, "metadata": {"name": work.name("other")}}
    with pytest.raises(BadInput, match="both want it"):
        apply(desk, one, other, yes=False)
    with pytest.raises(BadInput, match="stands in two of the given"):
        apply(desk, one, one, yes=False)
    apart = [{**each, "spec": {**each["spec"], "clusters": [where]}} for each, where in ((one, "c1"), (other, "c2"))]
    assert apply(desk, *apart, yes=False)["exitCode"] == 0
    with pytest.raises(BadInput, match="no manifest to apply"):
        desk.operate("workspace_apply", {"manifests": []})
    with pytest.raises(BadInput, match="there is no workspace 'nobody'"):
        ask(desk, "workspace", name="nobody")


def test_the_brake_stops_a_workspace_too(tmp_path: Path, work: Arena) -> None:
    clock = SystemClock()
    with Store.open(tmp_path / "s.duckdb", clock=clock) as store:
        desk = HouseDesk(House(Settings(), store, clock, (), (work.cluster,)))
        desk.operate("brake", {"order": "on", "reason": "a test"})
        answer = apply(desk, manifest(work))
    assert answer["summary"]["made"] == 0
    assert all("kill switch" in str(each["detail"]) for each in answer["items"])


def test_without_a_cluster_the_manifest_is_kept_and_said_so() -> None:
    clock = SystemClock()
    with Store.open(None, clock=clock) as store:
        desk = HouseDesk(House(Settings(), store, clock))
        spec = {"namespaces": [{"name": "lab-a"}]}
        lab = {"apiVersion": "gpusteward.dev/v1alpha1", "kind": "Workspace", "metadata": {"name": "lab"}, "spec": spec}
        answer = apply(desk, lab)
        assert any("no cluster that can be moved" in note for note in answer["notes"])
        assert ask(desk, "workspace_export")["items"] == [lab]
        assert ask(desk, "workspace", name="lab")["summary"]["manifest"] == lab


def test_what_is_exported_can_be_applied_again_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    run = CliRunner()
    store = ["--store", str(tmp_path / "s.duckdb"), "workspace"]
    made = run.invoke(app, [*store, "create", "lab", "--namespace", "lab-a", "--gpus", "3", "--editor", "bob", "--yes"])
    assert made.exit_code == 0, made.output
    text = run.invoke(app, [*store, "export"]).output
    (tmp_path / "lab.yaml").write_text(text)
    assert yaml.safe_load(text)["spec"]["quotas"] == [{"gpus": 3}]
    again = run.invoke(app, [*store, "apply", "-f", str(tmp_path / "lab.yaml"), "--yes", "-o", "json"])
    assert (again.exit_code, json.loads(again.output)["summary"]["moves"]) == (0, 0)
    assert "lab-a" in run.invoke(app, [*store, "list"]).output
    gone = run.invoke(app, [*store, "delete", "lab", "--yes"])
    assert gone.exit_code == 0
    assert "to be deleted" in run.invoke(app, [*store, "show", "lab"]).output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "can't be read as manifests"),
        ("", "there is no manifest in it"),
        ("---\n---\n", "there is no manifest in it"),
        ("kind: a\nkind: b\n", ":1: kind stands there twice"),
        ("spec:\n  x: 1\n  x: 2\n", ":2: x stands there twice"),
        ("!!python/object/apply:os.getcwd []", "can't be read as manifests"),
    ],
)
def test_a_file_that_is_no_list_of_manifests_is_told_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=complaint):
        read_manifests(file)
    with pytest.raises(BadInput, match="can't be read"):
        read_manifests(tmp_path / "nowhere.yaml")


def test_each_document_of_a_file_is_named_by_the_line_it_begins_at(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("kind: a\n---\n# nothing\n---\n\nkind: b\n")
    assert read_manifests(file) == ([{"kind": "a"}, {"kind": "b"}], [f"{file}:1", f"{file}:6"])


def test_the_example_in_deploy_is_a_manifest_that_is_read() -> None:
    from fleet.workspace_manifest import workspace_from  # noqa: PLC0415 - beside the one test that reads it

    documents, places = read_manifests(Path(__file__).parents[2] / "deploy" / "examples" / "workspace.yaml")
    assert workspace_from(documents[0], places[0]).name == "research"
