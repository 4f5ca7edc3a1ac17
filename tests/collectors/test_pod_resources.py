"""The kubelet's pod-resources API over a real gRPC server on a unix socket."""

from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.pod_resources import Assigned, PodResources, decode_allocatable, decode_assigned
from fleet.errors import SourceFailed, SourceUnavailable
from tests.collectors.kubelet_server import KubeletServer, claimed, devices, field, pod

TRAINER = pod("team", "trainer-0", {"main": [devices("nvidia.com/gpu", "GPU-a", "GPU-b::3")], "log": []})


def test_what_the_kubelet_gave_is_read_by_pod_and_container(tmp_path: Path) -> None:
    kubelet, socket = KubeletServer(), tmp_path / "kubelet.sock"
    kubelet.list_pods(
        TRAINER,
        pod("kube-system", "dns", {"dns": []}),
        pod("team", "server", {"web": [devices("nvidia.com/mig-1g.10gb", "MIG-1"), devices("rdma/hca", "mlx5_0")]}),
        pod("team", "claims", {"main": []}, [claimed("gpu.nvidia.com", "gpu-0", "gpu-3")]),
    )
    kubelet.offer(devices("nvidia.com/gpu", "GPU-a"), devices("nvidia.com/mig-1g.10gb", "MIG-1", "MIG-2"))
    resources = PodResources(socket)
    with kubelet.at(socket):
        assert resources.assigned() == (
            Assigned("team", "trainer-0", "main", "nvidia.com/gpu", "GPU-a"),
            Assigned("team", "trainer-0", "main", "nvidia.com/gpu", "GPU-b::3"),
            Assigned("team", "server", "web", "nvidia.com/mig-1g.10gb", "MIG-1"),
            Assigned("team", "server", "web", "rdma/hca", "mlx5_0"),
            Assigned("team", "claims", "main", "gpu.nvidia.com", "gpu-0"),
            Assigned("team", "claims", "main", "gpu.nvidia.com", "gpu-3"),
        )
        assert resources.allocatable() == {"GPU-a", "MIG-1", "MIG-2"}
        resources.close()


def test_an_empty_answer_is_a_node_on_which_nothing_was_given(tmp_path: Path) -> None:
    with KubeletServer().at(tmp_path / "k.sock"):
        resources = PodResources(tmp_path / "k.sock")
        assert resources.assigned() == ()
        assert resources.allocatable() == frozenset()
        resources.close()


def test_a_node_without_a_socket_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"there is no socket .*nowhere\.sock"):
        PodResources(tmp_path / "nowhere.sock").assigned()


def test_a_refusal_is_a_failure_in_the_kubelets_words(tmp_path: Path) -> None:
    kubelet = KubeletServer()
    kubelet.refuses = grpc.StatusCode.RESOURCE_EXHAUSTED
    with kubelet.at(tmp_path / "k.sock"), pytest.raises(SourceFailed, match="RESOURCE_EXHAUSTED: not now"):
        PodResources(tmp_path / "k.sock").assigned()


def test_a_socket_at_which_nobody_listens_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "k.sock").touch()
    with pytest.raises(SourceFailed, match="DEADLINE_EXCEEDED"):
        PodResources(tmp_path / "k.sock", deadline_s=0.2).assigned()


def test_a_kubelet_that_was_restarted_is_asked_again(tmp_path: Path) -> None:
    kubelet, socket = KubeletServer(), tmp_path / "k.sock"
    kubelet.list_pods(TRAINER)
    resources = PodResources(socket)
    with kubelet.at(socket):
        first = resources.assigned()
    with pytest.raises(SourceFailed):
        PodResources(socket, deadline_s=0.2).assigned()
    with kubelet.at(socket):
        assert resources.assigned() == first
        resources.close()


def test_an_answer_that_is_cut_off_is_a_failure_and_not_fewer_pods(tmp_path: Path) -> None:
    kubelet = KubeletServer()
    kubelet.listed = (field(1, TRAINER))[:-9]
    with kubelet.at(tmp_path / "k.sock"), pytest.raises(SourceFailed, match="can't be read: it ends in the middle"):
        PodResources(tmp_path / "k.sock").assigned()


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused(message: bytes) -> None:
    for decode in (decode_assigned, decode_allocatable):
        try:
            found = decode(message)
        except ValueError:
            continue
        assert isinstance(found, (tuple, frozenset))


@given(st.integers(0, len(TRAINER)))
def test_a_pod_that_ends_early_is_refused_unless_a_field_ends_there(length: int) -> None:
    whole = decode_assigned(field(1, TRAINER))
    try:
        cut = decode_assigned(field(1, TRAINER[:length]))
    except ValueError:
        return
    assert len(cut) <= len(whole)


@pytest.mark.parametrize("extra", [field(99, 5), field(98, b"later"), b"\xb9\x03" + b"x" * 8, b"\xbd\x03" + b"x" * 4])
def test_fields_of_later_kubelets_are_passed_over(extra: bytes) -> None:
    assert decode_assigned(extra + field(1, TRAINER + extra)) == decode_assigned(field(1, TRAINER))


@pytest.mark.parametrize("message", [b"\x0b\x01", b"\x80" * 11, b"\x0a\xff"], ids=["group", "endless", "short"])
def test_what_is_not_the_wire_form_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"byte|middle|end"):
        decode_assigned(message)
