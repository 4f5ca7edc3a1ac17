"""Fencing one GPU in Kubernetes, so that no new pod gets it while its neighbours go on.

Where a driver publishes the GPU as a device (dynamic resource allocation), a DeviceTaintRule keeps new claims off that
very device. Elsewhere the node's annotation names the GPU, for a device plugin that takes it out; where the node does
not say that it has one, its NoSchedule taint keeps all new pods off it, since nothing less would be sure. Which of them
it will be stands in the plan, and no other is taken than the one that was planned.
"""

from collections.abc import Callable, Iterable, Sequence

from actions.fence_means import DEVICE_RULE, FENCED, MEANS, NODE_TAINT
from actions.fields import OUR_NAME
from actions.kube_nodes import read_node, write_patch
from actions.kube_port import OURS, Api, Change, Object, Reader, Resource, labels_of
from actions.kube_state import Devices, fenced_in, narrowest_of, taints_of
from fleet.errors import ActionError, MoveRefused, SourceFailed, StaleState
from fleet.move import Move, MoveKind

DRA = "resource.k8s.io"
_GPU = OURS + "gpu"
_MANAGED_BY = "app.kubernetes.io/managed-by"


def change_gpu(api: Api, move: Move, seen: Object | None = None) -> Change:
    """Prepare the fencing of a GPU, or its end; its node as it was just `seen` where it was."""
    node = read_node(api, move, seen)
    if len(move.gpu_uuids) != 1:
        message = f"{move.kind.value} takes one GPU, not {len(move.gpu_uuids)}"
        raise MoveRefused(message)
    uuid = move.gpu_uuids[0]
    rules = device_rules(api)
    ours = [] if rules is None else [each for each in rule_objects(api, rules) if labels_of(each).get(_GPU) == uuid]
    is_fenced = bool(ours) or uuid in fenced_in(node)
    is_wanted = move.kind is MoveKind.FENCE_GPU
    if is_fenced == is_wanted:
        message = f"GPU {uuid} is {'fenced already' if is_fenced else 'not fenced'}"
        raise MoveRefused(message)
    prior: dict[str, str | int | float | bool | None] = {"is_fenced": is_fenced}
    if not is_wanted and rules is not None and ours:
        return Change(prior, _remove(api, rules, ours))
    devices = [] if rules is None or not is_wanted else devices_of(api, move.target.name, uuid)
    if is_wanted:
        _require_planned(narrowest_of(node, is_published=bool(devices)), move)
    if rules is not None and move.arguments.get(MEANS) == DEVICE_RULE:
        return Change(prior, _add(api, rules, [_rule(rules, device, move) for device in devices]))
    return Change(prior, write_patch(api, node, _annotated(node, uuid, move)))


def _require_planned(means: str, move: Move) -> None:
    planned = move.arguments.get(MEANS)
    if planned != means:
        said = f"was planned by {planned}" if planned is not None else "its plan does not say by which means"
        message = f"GPU {move.gpu_uuids[0]} would be fenced by {means}, and {said}; plan again"
        raise StaleState(message)


def device_rules(api: Reader) -> Resource | None:
    """Return where rules that taint devices live, None where the server has none (before 1.33, or switched off)."""
    return api.find(DRA, "DeviceTaintRule")


def rule_objects(api: Reader, rules: Resource) -> list[Object]:
    """Return the device rules that we made."""
    return api.list_all(rules, labels=f"{_MANAGED_BY}={OUR_NAME}")


def look_at_devices(api: Reader, node: str = "") -> Devices:
    """Return which GPUs of a node, or of all, can be tainted as devices, and which of all are."""
    rules = device_rules(api)
    if rules is None:
        return Devices()
    fenced = frozenset(uuid for each in rule_objects(api, rules) if (uuid := labels_of(each).get(_GPU)) is not None)
    published = [_uuids(device) for spec in _published(api, node) for device in spec.get("devices") or ()]
    return Devices(frozenset().union(*published), fenced)


def devices_of(api: Reader, node: str, uuid: str) -> list[Object]:
    """Return driver, pool and name of the devices that are this GPU, or are cut out of it."""
    return [
        {"driver": spec["driver"], "pool": spec["pool"]["name"], "device": device["name"]}
        for spec in _published(api, node)
        for device in spec.get("devices") or ()
        if uuid in _uuids(device)
    ]


def _published(api: Reader, node: str) -> Iterable[Object]:
    slices = api.find(DRA, "ResourceSlice")
    if slices is None:
        return []
    return [each["spec"] for each in api.list_all(slices, fields=f"spec.nodeName={node}" if node else "")]


def _uuids(device: Object) -> set[str]:
    """Return the UUIDs that a device bears, its own and its parent's; attribute names may carry the driver's domain."""
    attributes = (device.get("basic") or device).get("attributes") or {}
    names = {name: name.rpartition("/")[2] for name in attributes}
    return {attributes[name].get("string", "") for name, last in names.items() if last in {"uuid", "parentUUID"}}


def _rule(rules: Resource, device: Object, move: Move) -> Object:
    """Return the rule for one device; the GPU and the device name it, so that a second one can't be made."""
    uuid = move.gpu_uuids[0]
    name = f"{OUR_NAME}-{uuid}-{device['device']}".lower().replace("_", "-").replace("/", "-")
    return {
        "apiVersion": rules.api_version, "kind": rules.kind,
        "metadata": {"name": name, "labels": {_MANAGED_BY: OUR_NAME, _GPU: uuid}},
        "spec": {"deviceSelector": device, "taint": {"key": FENCED, "value": "gpu", "effect": "NoSchedule"}},
    }  # fmt: skip


def _add(api: Api, rules: Resource, wanted: Sequence[Object]) -> Callable[..., None]:
    def write(*, is_dry_run: bool) -> None:
        made: list[Object] = []
        for each in wanted:
            try:
                made.append(api.create(rules.path(), each, is_dry_run=is_dry_run))
            except (ActionError, SourceFailed):
                if not is_dry_run:
                    _remove(api, rules, made)(is_dry_run=False)  # a GPU is fenced whole or not at all
                raise

    return write


def _remove(api: Api, rules: Resource, ours: Sequence[Object]) -> Callable[..., None]:
    def write(*, is_dry_run: bool) -> None:
        for each in ours:
            meta = each["metadata"]
            try:
                api.delete(rules.path(meta["name"]), is_dry_run=is_dry_run, uid=meta["uid"])
            except StaleState:
                continue  # it is gone already

    return write


def _annotated(node: Object, uuid: str, move: Move) -> Object:
    """Return the patch of a node's annotation, and of its taint where nothing else would keep pods off the GPU."""
    left = fenced_in(node) | {uuid} if move.kind is MoveKind.FENCE_GPU else fenced_in(node) - {uuid}
    patch: Object = {"metadata": {"annotations": {FENCED: ",".join(sorted(left)) or None}}}
    before = taints_of(node)
    others = [each for each in before if each["key"] != FENCED]
    had_taint = len(others) != len(before)  # of another GPU, for which it stays
    needs_taint = bool(left) and (had_taint or move.arguments.get(MEANS) == NODE_TAINT)
    after = [*others, *([{"key": FENCED, "value": "gpu", "effect": "NoSchedule"}] if needs_taint else [])]
    if after != before:
        patch["spec"] = {"taints": after or None}
    return patch
