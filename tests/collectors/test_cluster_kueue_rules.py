"""What a Kueue that rules says of its queues and jobs is what the tables tell."""

from datetime import UTC, datetime

import polars as pl
import pytest

from collectors.cluster_source import ClusterSource, Pace
from fleet.clock import SystemClock
from steward.compose import known_of
from store.store import Store
from tests.kube.engines import Arena
from tests.kube.queues import Queues, until

pytestmark = pytest.mark.enable_socket
PACE = Pace(patience_s=20, between_s=600)


def test_a_queue_and_its_jobs_are_told_as_kueue_rules_them(work: Arena) -> None:
    queues = Queues(work).need_kueue()
    queues.add("lab", 4)
    runs = queues.submit("lab", 3, "runs")
    queues.until_admitted(runs)
    waits = queues.submit("lab", 2, "waits")
    workloads = {name: queues.workload(job)["metadata"]["uid"] for name, job in (("runs", runs), ("waits", waits))}
    until(lambda: (queues.used("lab"), queues.pending("lab")) == ("3", 1))
    with Store.open(None, clock=SystemClock()) as store:
        source = ClusterSource(SystemClock(), "east", None, lambda: known_of(store, "east"), PACE)
        for batch in source.collect(None, datetime.now(UTC)):
            store.append(batch)
        source.close()
        told = store.read("queue").filter(pl.col("queue") == work.name("lab")).to_dicts()
        jobs = {row["job_id"].rpartition("/")[2]: row for row in store.read("job").to_dicts()}
    assert len(told) == 1
    queue = told[0]
    assert (queue["flavor"], queue["workspace"], queue["pool"]) == (queues.flavor, work.name("lab"), work.name("pool"))
    assert (queue["nominal_gpus"], queue["used_gpus"], queue["reserved_gpus"]) == (4.0, 3.0, 3.0)
    assert (queue["pending_jobs"], queue["admitted_jobs"], queue["is_active"]) == (1, 1, True)
    found = {name: jobs[uid] for name, uid in workloads.items()}
    assert [(found[name]["gpus"], found[name]["status"]) for name in ("runs", "waits")] == [
        (3.0, "running"), (2.0, "pending"),
    ]  # fmt: skip
    assert found["runs"]["started_at"] is not None
    assert found["waits"]["started_at"] is None
