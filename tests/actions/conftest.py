"""What the tests of writing to Kubernetes share: a cluster in memory, and, where it is asked for, a real one.

We act with the roles in `deploy/` and no others: on a real cluster as a service account that is bound to them, in
memory by holding each request to them. A module that asks for more says `AS_ADMIN = True`.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from actions.fields import OUR_NAME
from tests.actions.ground import Ground
from tests.actions.rights import bound_account, missing
from tests.kube.arrange import Arranger
from tests.kube.client import Client, real_cluster
from tests.kube.server import KubeServer, serving

KUBE_CONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when the library is imported


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def ground(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    namespace, is_admin = f"steward-{uuid.uuid4().hex[:8]}", getattr(request.module, "AS_ADMIN", False)
    if request.param == "real":
        admin = real_cluster()
        arrange = Arranger(Client(admin), namespace).open()
        if not is_admin:
            monkeypatch.setattr(KUBE_CONFIG, str(bound_account(arrange, Path(admin), tmp_path / "config")))
        made = Ground(arrange)
        yield made
        made.close()
        return
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    with serving(KubeServer(), tmp_path / "config") as server:
        made = Ground(Arranger(Client(str(tmp_path / "config")), namespace).open(), server)
        yield made
        made.close()
        ours = [line for line, asker in zip(server.asked, server.askers, strict=True) if asker == OUR_NAME]
        assert is_admin or missing(ours) == set(), "the roles in deploy/ must grant every request that is made"
