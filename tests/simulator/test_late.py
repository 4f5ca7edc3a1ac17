"""A late world is lived when it is first looked at, and once."""

from concurrent.futures import ThreadPoolExecutor

from simulator.cluster import SimulatorCluster
from simulator.late import LateWorld
from simulator.source import SimulatorSource
from simulator.spec_file import spec_from
from simulator.step import build
from simulator.world import World


def test_nobody_who_only_names_the_fleet_makes_it_live() -> None:
    def live() -> World:
        raise AssertionError

    world = LateWorld(live)
    assert SimulatorCluster(world).name == SimulatorSource(world).name == "simulator"


def test_all_who_look_share_one_world_lived_once() -> None:
    lived: list[World] = []

    def live() -> World:
        lived.append(build(spec_from({"preset": "default", "gpus": 48, "days": 1.0}, "a test")))
        return lived[-1]

    world = LateWorld(live)
    with ThreadPoolExecutor(4) as pool:
        seen = [each.result() for each in [pool.submit(world) for _ in range(8)]]
    assert len(lived) == 1
    assert all(each is lived[0] for each in seen)
    assert SimulatorCluster(world).observe().nodes
    assert len(lived) == 1
