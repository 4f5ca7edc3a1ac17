"""What most of a GPU's peers have: those of its node, and those of its model in its pool."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from analytics.health_policy import HealthPolicy
from analytics.health_values import Event, Peers, Signs

_Key = tuple[object, ...]
_Common = TypeVar("_Common", int, str)


def peers_of(signs: Sequence[Signs], events: Iterable[Event], policy: HealthPolicy) -> Mapping[str, Peers]:
    """Return the peers of each GPU, by its UUID."""
    links = _common(signs, _of_node, lambda sign: sign.nvlink_active_lately, policy)
    widths = _common(signs, _of_pool, lambda sign: sign.pcie_width_lately, policy)
    drivers = _common(signs, _of_pool, lambda sign: sign.driver, policy)
    vbioses = _common(signs, _of_pool, lambda sign: sign.vbios, policy)
    node_widths = _common(signs, _of_node, lambda sign: sign.pcie_width_lately, policy)
    heard, codes, arrivals = _heard(signs), _codes(events), _arrivals(signs)
    return {
        sign.uuid: Peers(
            _last_of_others(heard[sign.cluster, sign.node], sign),
            _codes_of_others(codes.get((sign.cluster, sign.node), {}), sign),
            links.get(_of_node(sign)),
            widths.get(_of_pool(sign)),
            node_widths.get(_of_node(sign)),
            drivers.get(_of_pool(sign)),
            vbioses.get(_of_pool(sign)),
            _arrival_of_another(arrivals, sign),
        )
        for sign in signs
    }


def _of_node(sign: Signs) -> _Key:
    return sign.cluster, sign.node, sign.model


def _of_pool(sign: Signs) -> _Key:
    return sign.cluster, sign.pool, sign.model


def _common(
    signs: Sequence[Signs], key: Callable[[Signs], _Key], value: Callable[[Signs], _Common | None], policy: HealthPolicy
) -> dict[_Key, _Common]:
    """Return what most GPUs of each group have; nothing where few are known, or where they do not agree."""
    counts: dict[_Key, Counter[_Common]] = {}
    for sign in signs:
        found = value(sign)
        if found is not None and sign.model is not None:
            counts.setdefault(key(sign), Counter())[found] += 1
    common = {}
    for group, counted in counts.items():
        (most, count), *_ = counted.most_common(1)
        # One that differs is compared with the others, so it does not count against them.
        if count >= policy.peers_min and count >= policy.peers_share * counted.total():
            common[group] = most
    return common


def _heard(signs: Sequence[Signs]) -> dict[_Key, list[tuple[datetime, str]]]:
    """Return the two GPUs of each node that were heard of last, with the moment."""
    heard: dict[_Key, list[tuple[datetime, str]]] = {(sign.cluster, sign.node): [] for sign in signs}
    for sign in signs:
        if sign.last_sample_at is not None:
            heard[sign.cluster, sign.node].append((sign.last_sample_at, sign.uuid))
    return {node: sorted(told, reverse=True)[:2] for node, told in heard.items()}


def _arrivals(signs: Sequence[Signs]) -> dict[_Key, tuple[datetime, str]]:
    """Return when the newest board at each PCI address of a node was first seen, and which it is."""
    newest: dict[_Key, tuple[datetime, str]] = {}
    for sign in signs:
        if sign.pci_address is not None and sign.first_seen_at is not None:
            key, came = (sign.cluster, sign.node, sign.pci_address), (sign.first_seen_at, sign.uuid)
            newest[key] = max(newest.get(key, came), came)
    return newest


def _arrival_of_another(arrivals: Mapping[_Key, tuple[datetime, str]], sign: Signs) -> datetime | None:
    came = arrivals.get((sign.cluster, sign.node, sign.pci_address))
    return None if came is None or came[1] == sign.uuid else came[0]


def _last_of_others(told: list[tuple[datetime, str]], sign: Signs) -> datetime | None:
    return next((moment for moment, uuid in told if uuid != sign.uuid), None)


def _codes(events: Iterable[Event]) -> dict[_Key, dict[int, set[str]]]:
    """Return by node which XIDs there were, with the GPUs that had them."""
    codes: dict[_Key, dict[int, set[str]]] = {}
    for event in events:
        if event.kind == "xid" and event.code is not None and event.gpu_uuid is not None:
            codes.setdefault((event.cluster, event.node), {}).setdefault(event.code, set()).add(event.gpu_uuid)
    return codes


def _codes_of_others(codes: Mapping[int, set[str]], sign: Signs) -> frozenset[int]:
    return frozenset(code for code, uuids in codes.items() if len(uuids) > 1 or sign.uuid not in uuids)
