"""From a process to its pod: every spelling of cgroups on nodes of Kubernetes, and the names of its log files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.cgroup import NamesOnNode, PodName, ProcessPlace, parse_cgroup, read_names

UID = "8d7c4a1e-0b3f-4e55-9c1a-2f6b7d8e9a01"
SYSTEMD_UID = UID.replace("-", "_")
STATIC_UID = "b5a1e7c09d3f4a62811c0e9f7d6b5a43"
ID, OTHER_ID = "3f" * 32, "9c" * 32
IN_POD = ProcessPlace(UID, ID)

SPELLINGS = {
    "v1 cgroupfs containerd": (f"11:memory:/kubepods/burstable/pod{UID}/{ID}", IN_POD),
    "v1 cgroupfs guaranteed": (f"4:cpu,cpuacct:/kubepods/pod{UID}/{ID}", IN_POD),
    "v1 systemd docker": (
        f"3:devices:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD_UID}.slice/docker-{ID}.scope",
        IN_POD,
    ),
    "v1 named hierarchy": (f"1:name=systemd:/kubepods/besteffort/pod{UID}/{ID}", IN_POD),
    "v2 systemd containerd": (
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope",
        IN_POD,
    ),
    "v2 systemd guaranteed": (
        f"0::/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope",
        IN_POD,
    ),
    "v2 systemd CRI-O": (f"0::/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/crio-{ID}.scope", IN_POD),
    "v2 CRI-O with a group inside": (
        f"0::/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/crio-{ID}.scope/container",
        IN_POD,
    ),
    "v2 cgroupfs CRI-O": (f"0::/kubepods/burstable/pod{UID}/crio-{ID}", IN_POD),
    "containerd by cgroupfs on a kubelet by systemd": (
        f"0::/system.slice/containerd.service/kubepods-burstable-pod{SYSTEMD_UID}.slice:cri-containerd:{ID}",
        IN_POD,
    ),
    "seen from another cgroup namespace": (
        f"0::/../../kubepods-besteffort-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope",
        IN_POD,
    ),
    "seen from the same slice": (f"0::/../kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope", IN_POD),
    "a node in a container": (
        f"0::/docker/{OTHER_ID}/kubelet.slice/kubelet-kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope",
        IN_POD,
    ),
    "an old node in a container": (f"5:cpu:/docker/{OTHER_ID}/kubelet/kubepods/pod{UID}/{ID}", IN_POD),
    "systemd inside of the container": (
        f"0::/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope/system.slice/job.service",
        IN_POD,
    ),
    "a container inside of the container": (f"0::/kubepods/pod{UID}/{ID}/docker/{OTHER_ID}", IN_POD),
    "a static pod": (f"0::/kubepods/pod{STATIC_UID}/{ID}", ProcessPlace(STATIC_UID, ID)),
    "a static pod by systemd": (
        f"0::/kubepods.slice/kubepods-pod{STATIC_UID}.slice/cri-containerd-{ID}.scope",
        ProcessPlace(STATIC_UID, ID),
    ),
    "a pod without a container": (
        f"0::/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice",
        ProcessPlace(UID, None),
    ),
    "docker without Kubernetes": (f"0::/system.slice/docker-{ID}.scope", ProcessPlace(None, ID)),
    "podman": (f"0::/machine.slice/libpod-{ID}.scope/container", ProcessPlace(None, ID)),
    "a service of the host": ("0::/system.slice/nvidia-persistenced.service", ProcessPlace(None, None)),
    "the root": ("0::/", ProcessPlace(None, None)),
    "a user's session": ("0::/user.slice/user-1000.slice/session-3.scope", ProcessPlace(None, None)),
    "a unit that only begins like a pod": ("0::/system.slice/podman-1.service", ProcessPlace(None, None)),
    "a UID of mixed dashes": (f"0::/kubepods/pod{UID.replace('-', '_', 1)}/x", ProcessPlace(None, None)),
    "nothing": ("", ProcessPlace(None, None)),
    "no path": ("0", ProcessPlace(None, None)),
}


@pytest.mark.parametrize(("text", "place"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_path_tells_pod_and_container(text: str, place: ProcessPlace) -> None:
    assert parse_cgroup(text) == parse_cgroup(text + "\n") == place


def test_the_line_that_tells_most_counts_wherever_it_stands() -> None:
    lines = [
        "12:pids:/system.slice",
        f"0::/system.slice/docker-{OTHER_ID}.scope",
        f"3:cpu:/kubepods/pod{UID}/{ID}",
        "2:x:/",
    ]
    assert parse_cgroup("\n".join(lines)) == parse_cgroup("\n".join(reversed(lines))) == IN_POD


def test_a_path_with_colons_in_it_is_read_to_its_end() -> None:
    assert parse_cgroup(f"0::/a:b/kubepods/pod{UID}/{ID}") == IN_POD


@given(st.text())
def test_no_text_ends_the_reading(text: str) -> None:
    place = parse_cgroup(text)
    assert place.pod_uid is None or len(place.pod_uid) in {32, 36}


def test_log_files_tell_the_names() -> None:
    names = read_names(
        [f"trainer-0_team-a_main_step-{ID}.log", "README", f"no-namespace-{OTHER_ID}.log"],
        [f"team-a_trainer-0_{UID}", "lost+found", f"kube-system_etcd-n1_{STATIC_UID}"],
    )
    assert names.of(ProcessPlace(UID, ID)) == PodName("team-a", "trainer-0", "main_step")
    assert names.of(ProcessPlace(UID, OTHER_ID)) == PodName("team-a", "trainer-0")
    assert names.of(ProcessPlace(STATIC_UID, None)) == PodName("kube-system", "etcd-n1")
    assert names.of(ProcessPlace(None, OTHER_ID)) is None
    assert NamesOnNode().of(IN_POD) is None
