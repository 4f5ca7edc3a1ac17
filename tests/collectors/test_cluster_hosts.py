"""What pods ask of their host, and their labels, come with their rows."""

import msgspec

from collectors.cluster_gpus import asked_of_host
from collectors.cluster_objects import Pod
from collectors.cluster_pods import pod_facts


def pod(*containers: dict[str, object], init: tuple[dict[str, object], ...] = ()) -> Pod:
    body = {
        "metadata": {"name": "p", "namespace": "team", "uid": "u", "labels": {"app": "web"}},
        "spec": {"containers": list(containers), "initContainers": list(init)},
        "status": {"phase": "Running"},
    }
    return msgspec.convert(body, Pod)


def container(**requests: str) -> dict[str, object]:
    return {"name": "c", "resources": {"requests": requests}}


def test_requests_of_containers_are_added_and_those_before_them_are_not() -> None:
    one, other = container(cpu="500m", memory="1Gi"), container(cpu="2", memory="512Mi")
    assert asked_of_host(pod(one, other).spec) == (2500, 1536)
    assert asked_of_host(pod(one, init=(container(cpu="4", memory="256Mi"),)).spec) == (4000, 1024)


def test_limits_speak_where_requests_say_nothing_and_nothing_is_unknown() -> None:
    limited: dict[str, object] = {"name": "c", "resources": {"limits": {"cpu": "3"}}}
    assert asked_of_host(pod(limited).spec) == (3000, None)
    assert asked_of_host(pod({"name": "c"}).spec) == (None, None)
    assert asked_of_host(pod(container(cpu="much")).spec) == (None, None)


def test_a_pods_row_knows_its_host_and_its_labels() -> None:
    facts = pod_facts(pod(container(**{"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"})))
    assert facts is not None
    assert (facts.cpu_milli, facts.memory_mib, facts.labels) == (8000, 65536, {"app": "web"})
