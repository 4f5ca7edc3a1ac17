"""What a turn spends on workspaces: 1,000 of them, all as declared, all to be made, and one in ten drifted.

The baseline writes and reads each object's body once as JSON and compares it, which no reconciler can do without.

    python benchmarks/workspaces.py [--workspaces N]

Target: 1,000 workspaces as declared in under 2 s.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from controller.workspace import propose_workspaces
from controller.workspace_objects import flavors_of, objects_of
from fleet.state import FleetState, ObjectRef, OwnedObject
from fleet.workspace import Desired, Seat, Share, Space, Workspace

TARGET_S = 2.0
NOW = datetime(2026, 3, 2, tzinfo=UTC)
_CLUSTER, _POOLS = "east", ("h100", "a100", "l4")


def main() -> None:
    """Print the seconds of each case, and their ratio to the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspaces", type=int, default=1000)
    count: int = parser.parse_args().workspaces
    desired = [Desired(_workspace(number)) for number in range(count)]
    ground = _ground()
    whole = _standing(desired, ground)
    drifted = tuple(
        replace(each, body="{}") if place % 10 == 0 and each.owner else each for place, each in enumerate(whole)
    )
    base_s = _seconds(
        lambda: sum(json.loads(json.dumps(json.loads(each.body), sort_keys=True)) != {} for each in whole)
    )
    print(f"{count} workspaces, {len(whole)} objects; baseline {base_s:.2f} s")
    for name, objects in (("as declared", whole), ("all to be made", ground), ("one in ten drifted", drifted)):
        state = FleetState(NOW, objects=tuple(objects))
        drafts = len(propose_workspaces(desired, state, _CLUSTER).drafts)
        taken_s = _seconds(lambda state=state: propose_workspaces(desired, state, _CLUSTER))  # type: ignore[misc] # bound now
        print(f"{name}: {drafts} moves in {taken_s:.2f} s, {taken_s / base_s:.1f} times the baseline")
        if name == "as declared":
            print(f"target {TARGET_S:g} s: {'met' if taken_s < TARGET_S else 'MISSED'}")


def _workspace(number: int) -> Workspace:
    name = f"team-{number:04d}"
    return Workspace(
        name,
        owner=f"{name}@example.org",
        namespaces=tuple(Space(f"{name}-{part}") for part in ("train", "serve", "lab")),
        quotas=(Share(8, pool=_POOLS[number % len(_POOLS)], weight=1.0),),
        limits={"cpu": "64", "memory": "512Gi"},
        defaults={"cpu": "1"},
        seats=(Seat("Owner", (f"{name}@example.org",)), Seat("Editor", (), (name,))),
    )


def _ground() -> tuple[OwnedObject, ...]:
    flavors = tuple(
        OwnedObject(
            _CLUSTER,
            "kueue.x-k8s.io/v1beta2",
            ObjectRef("ResourceFlavor", "", pool),
            json.dumps({"spec": {"nodeLabels": {"karpenter.sh/nodepool": pool}}}),
        )
        for pool in _POOLS
    )
    return (OwnedObject(_CLUSTER, "v1", ObjectRef("Namespace", "", "kube-system"), "{}"), *flavors)


def _standing(desired: Sequence[Desired], ground: Sequence[OwnedObject]) -> tuple[OwnedObject, ...]:
    flavors = flavors_of(ground)
    made = [
        OwnedObject(_CLUSTER, each.api_version, each.ref, each.text, wish.workspace.name, "1")
        for wish in desired
        for each in objects_of(wish.workspace, _CLUSTER, flavors)[0]
    ]
    return (*ground, *made)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
