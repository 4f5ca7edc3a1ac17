"""Say what smaller part of a GPU would do for the work that runs on it: a MIG profile, else a share of its time."""

from dataclasses import dataclass

from fleet.mig_geometry import board_of, part_of, smallest_profile

_MOST_SHARERS = 4


@dataclass(frozen=True, slots=True)
class Size:
    """A smaller device: `way` is "mig" or "time_slicing", `name` the profile or "1/n", `part` of a whole GPU."""

    way: str
    name: str
    part: float


def smaller_size(
    model: str | None, total_mib: int | None, memory_mib: float | None, activity: float | None
) -> Size | None:
    """Return the smallest device that holds `memory_mib` and keeps `activity` (of the whole GPU), margins included.

    None where the whole GPU is needed, or where one of the numbers is not known: what was not measured fits nowhere.
    """
    if memory_mib is None or activity is None:
        return None
    board = board_of(model, total_mib)
    if board is not None:
        profile = smallest_profile(board, memory_mib, activity)
        return None if profile is None else Size("mig", profile.name, part_of(board, profile))
    if total_mib is None or total_mib <= 0:
        return None
    need = max(activity, memory_mib / total_mib)
    sharers = _MOST_SHARERS if need <= 0 else min(_MOST_SHARERS, int(1 / need))
    return Size("time_slicing", f"1/{sharers}", 1 / sharers) if sharers > 1 else None
