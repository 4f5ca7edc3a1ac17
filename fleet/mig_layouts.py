"""MIG layouts by name: what each name of the MIG manager's own configuration makes of a board, and the slots it gives.

A layout cuts every GPU of a node alike. Its name is what is written on the node; `all-1g.10gb` is as many devices of
one profile as a board holds, `all-balanced` a mix of sizes, `all-disabled` whole GPUs. Names of a site's own are given
as `further`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fleet.mig_geometry import Board, Profile, is_possible

WHOLE = "all-disabled"
BALANCED = "all-balanced"
WHOLE_SLOT = "nvidia.com/gpu"
SLOT_PREFIX = "nvidia.com/mig-"

Devices = Mapping[str, int]
_NONE: Mapping[str, Devices] = MappingProxyType({})


def standard_layouts(board: Board) -> dict[str, Devices]:
    """Return the layouts that every MIG manager knows for a board: all of one profile, a balanced mix, and none."""
    uniform = {f"all-{profile.name.replace('+', '.')}": {profile.name: profile.most} for profile in board.profiles}
    return {WHOLE: {}, **uniform, BALANCED: balanced(board)}


def balanced(board: Board) -> dict[str, int]:
    """Return the mix of `all-balanced`: two devices of one slot, one of two, and one of three where there are seven."""
    sizes = (1, 1, 2) if board.compute_slots < 7 else (1, 1, 2, 3)  # noqa: PLR2004 - A30 and RTX PRO 6000 have four
    found: dict[str, int] = {}
    for size in sizes:
        profile = _least(board, size)
        if profile is not None:
            found[profile.name] = found.get(profile.name, 0) + 1
    return found


def devices_of(board: Board, layout: str, further: Mapping[str, Devices] = _NONE) -> Devices | None:
    """Return what a layout cuts each GPU of a board into ({}: it stays whole); None where there is none such.

    A name of `further` that is not possible on the board is none such, too.
    """
    given = further.get(layout)
    if given is not None:
        return given if is_possible(board, given) else None
    return standard_layouts(board).get(layout)


def slot_name(profile: str) -> str:
    """Return the resource under which a node gives out devices of a profile."""
    return f"{SLOT_PREFIX}{profile.removeprefix('mig-').replace('+', '.')}"


def slots_of(devices: Devices, gpus: int) -> dict[str, int]:
    """Return what a node with `gpus` GPUs that are cut alike can give out, by resource."""
    if not devices:
        return {WHOLE_SLOT: gpus}
    return {slot_name(profile): count * gpus for profile, count in sorted(devices.items())}


def _least(board: Board, compute_slices: int) -> Profile | None:
    fitting = [each for each in board.profiles if each.is_plain and each.compute_slices == compute_slices]
    return min(fitting, key=lambda each: (each.memory_gib, each.name), default=None)
