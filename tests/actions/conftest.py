"""What the tests of writing to Kubernetes share: a cluster in memory, and, where it is asked for, a real one."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actions.ground import Ground
from tests.kube.arrange import Arranger
from tests.kube.client import Client, real_cluster
from tests.kube.engines import Arena, arena
from tests.kube.server import KubeServer, serving

KUBE_CONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when the library is imported


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def ground(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    namespace = f"steward-{uuid.uuid4().hex[:8]}"
    if request.param == "real":
        made = Ground(Arranger(Client(real_cluster()), namespace).open())
        yield made
        made.close()
        return
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    with serving(KubeServer(), tmp_path / "config") as server:
        made = Ground(Arranger(Client(str(tmp_path / "config")), namespace).open(), server)
        yield made
        made.close()


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    with arena(request.param, tmp_path, monkeypatch) as made:
        yield made
