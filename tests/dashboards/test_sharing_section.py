"""The section of nodes that could be cut or shared otherwise, drawn from the latest turn's verdicts."""

from collections.abc import Iterator
from datetime import timedelta
from types import MappingProxyType

import pytest

from dashboards.scope import find_scope
from dashboards.sharing_section import find_otherwise
from fleet.verdict import Severity, Verdict, verdict_frame
from store.store import Store
from tests.dashboards.conftest import END, opened
from tests.dashboards.test_workloads_page import drawn, fill

_SHARE = {
    "sharing": "shared-4", "replicas": 4, "gain_gpus": 5.0, "pods": 3, "gpus": 4, "memory_needed_mib": 24_000.0,
    "memory_mib": 40_000, "activity_needed": 0.8,
}  # fmt: skip
_CUT = {"layout": "all-3g.40gb", "layout_now": "all-1g.10gb", "gain_gpus": 7.5, "waiting": {"3g.40gb": 9}}


def told(node: str, action: str, evidence: dict[str, object], topic: str = "packing") -> Verdict:
    return Verdict(END, topic, "node", node, "unfit", Severity.INFO, "r", MappingProxyType(evidence), cluster="east",
                   node=node, action=action, until=END)  # fmt: skip


@pytest.fixture
def fleet() -> Iterator[Store]:
    yield from opened(fill, END)


def test_nodes_are_shown_with_what_they_could_become_and_why(fleet: Store) -> None:
    verdicts = [
        told("n1", "share", _SHARE), told("n2", "reslice", _CUT), told("n3", "defragment", {}),
        told("n4", "share", _SHARE, topic="idle"),
    ]  # fmt: skip
    fleet.append_stored("verdict", verdict_frame(verdicts))
    (table,) = [each.value for each in drawn().dataframe if "becomes" in each.value.columns]
    assert table.to_dict("list") == {
        "node": ["n2", "n1"],
        "cluster": ["east", "east"],
        "now": ["all-1g.10gb", "whole GPUs"],
        "becomes": ["all-3g.40gb", "shared-4, 4 pods a GPU"],
        "gain": [7.5, 5.0],
        "because": [
            'waiting: {"3g.40gb": 9}',
            "3 pods on 4 GPUs; the largest together peak at 24,000 of 40,000 MiB and 80% activity",
        ],
    }


def test_nothing_to_show_is_told(fleet: Store) -> None:
    page = drawn()
    assert any("or it is not surely safe" in each.value for each in page.caption)
    scope = find_scope(fleet.engine, timedelta(days=1), "elsewhere")
    assert scope is not None
    assert find_otherwise(fleet.engine, scope) == []
