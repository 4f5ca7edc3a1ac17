"""Captures: read what nvidia-smi wrote on some node into a neutral value, whole or not at all.

Two forms are read: the XML of `nvidia-smi -q -x`, and the text captures of nvidia_gpu_exporter
(https://github.com/utkuozdemir/nvidia_gpu_exporter, MIT), which hold an idle and a load phase.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from collectors.capture_fields import (
    ECC_FIELDS,
    ECC_PLACE_FIELDS,
    GPU_FIELDS,
    PROCESS_FIELDS,
    SLICE_FIELDS,
    Absence,
    Reading,
    parse,
    read,
    read_clock_events,
    read_ecc,
    read_ecc_place,
)
from collectors.capture_tree import REPORT_TITLE, Block, Section, read_blocks, read_indented, read_xml
from fleet.batch import Trouble
from fleet.errors import BadInput, BadTrace, SourceUnavailable

PHASES = ("idle", "load")


@dataclass(frozen=True, slots=True)
class CapturedProcess:
    """One process on a GPU; the instance ids are None outside MIG, `memory_mib` None where it was not told."""

    pid: int
    is_compute: bool
    is_graphics: bool = False
    is_mps: bool = False
    gpu_instance: int | None = None
    compute_instance: int | None = None
    memory_mib: float | None = None


@dataclass(frozen=True, slots=True)
class CapturedSlice:
    """One MIG device; `readings` go by the names of `SLICE_FIELDS`, with `profile` where it was told."""

    uuid: str
    readings: Mapping[str, Reading]


@dataclass(frozen=True, slots=True)
class CapturedGpu:
    """One GPU; `readings` go by the names of `GPU_FIELDS`, `ECC_FIELDS` and `ECC_PLACE_FIELDS`, with `clock_events`.

    `links_up` is one flag for each NVLink, None where the capture does not tell.
    """

    uuid: str | None
    readings: Mapping[str, Reading]
    slices: tuple[CapturedSlice, ...] = ()
    processes: tuple[CapturedProcess, ...] | Absence = Absence.NOT_SUPPORTED
    links_up: tuple[bool, ...] | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """What one capture tells of one node at one moment."""

    path: Path
    driver: str | None
    gpus: tuple[CapturedGpu, ...]
    troubles: tuple[Trouble, ...] = ()


def open_capture(path: Path, phase: str = "idle") -> Capture:
    """Read a capture file; `phase` chooses between "idle" and "load" where a text capture holds both.

    An XML report holds one moment, whatever the phase. Raises `SourceUnavailable` where the file can't be read
    and `BadTrace`, naming the file and the place, where it is cut off or is something else.
    """
    if phase not in PHASES:
        message = f"phase: {phase!r} is neither idle nor load"
        raise BadInput(message, field="phase")
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: can't be read: {error.strerror}"
        raise SourceUnavailable(message) from error
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return _from_xml(start, path)
    if start.startswith(b"####"):
        return _from_text(start, path, phase)
    message = f"{path}, line 1: neither the XML of nvidia-smi -q -x nor a text capture of nvidia_gpu_exporter"
    raise BadTrace(message, place=f"{path}:1")


def _from_xml(content: bytes, path: Path) -> Capture:
    tree = read_xml(content, path)
    gpus = [_gpu(section, "xml", section.attributes.get("id", ""), path) for section in tree.all("gpu")]
    return _capture(tree, gpus, ("driver_version", "attached_gpus"), path)


def _from_text(content: bytes, path: Path, phase: str) -> Capture:
    _, blocks = read_blocks(content, path)
    report = _find_block(blocks, phase, REPORT_TITLE)
    if report is None:
        message = f"{path}: there is no block '{phase} :: {REPORT_TITLE}'"
        raise BadTrace(message, place=f"{path}:{phase} :: {REPORT_TITLE}")
    tree = read_indented(list(report.lines), report.first_line)
    gpus = [
        _gpu(section, "text", section.name.removeprefix("gpu ").upper(), path)
        for section in tree.children
        if re.match(r"gpu [0-9a-f]+:", section.name)
    ]
    gpus = _with_list(gpus, _find_block(blocks, "capabilities", "list (-L)"))
    gpus = _with_links(gpus, _find_block(blocks, "capabilities", "nvlink -s"))
    return _capture(tree, gpus, ("Driver Version", "Attached GPUs"), path)


def _find_block(blocks: Iterable[Block], phase: str, title: str) -> Block | None:
    return next((block for block in blocks if block.phase == phase and block.title == title), None)


def _capture(tree: Section, gpus: list[CapturedGpu], names: tuple[str, str], path: Path) -> Capture:
    driver_name, count_name = names
    driver_text, counted_text = (
        next((section.text for section in tree.all(name)), "") for name in (driver_name, count_name)
    )
    counted = parse(counted_text, "", f"{path}, {count_name}")
    if not gpus and counted != 0:
        message = f"{path}, line {tree.line}: there is no GPU in it"
        raise BadTrace(message, place=f"{path}:{tree.line}")
    gpus, troubles = _distinct(gpus, path)
    if isinstance(counted, float) and counted != len(gpus):
        reason = f"{counted:.0f} GPUs are attached and the capture tells of {len(gpus)}"
        troubles.append(Trouble("failed", f"{path}, {count_name}", reason))
    driver = parse(driver_text, "text", f"{path}, {driver_name}")
    return Capture(path, driver if isinstance(driver, str) else None, tuple(gpus), tuple(troubles))


def _gpu(section: Section, form: str, bus_id: str, path: Path) -> CapturedGpu:
    readings: dict[str, Reading] = {
        name: read(section, field, form, name, str(path)) for name, field in GPU_FIELDS.items()
    }
    readings |= {name: read_ecc(section, form, name, str(path)) for name in ECC_FIELDS}
    readings |= {name: read_ecc_place(section, form, name, str(path)) for name in ECC_PLACE_FIELDS}
    readings["clock_events"] = read_clock_events(section, str(path))
    if bus_id and not isinstance(readings["bus_id"], str):
        readings["bus_id"] = bus_id
    uuid = readings["uuid"]
    return CapturedGpu(
        uuid=uuid if isinstance(uuid, str) else None,
        readings=readings,
        slices=tuple(_slice(part, form, uuid, path) for part in _slice_sections(section, form)),
        processes=_processes(section, form, path),
    )


def _slice_sections(section: Section, form: str) -> list[Section]:
    if form == "xml":
        return [part for holder in section.all("mig_devices") for part in holder.all("mig_device")]
    return [part for part in section.all("MIG Device") if part.children]


def _slice(section: Section, form: str, gpu_uuid: Reading, path: Path) -> CapturedSlice:
    readings = {name: read(section, field, form, name, str(path)) for name, field in SLICE_FIELDS.items()}
    own = readings["uuid"]
    return CapturedSlice(own if isinstance(own, str) else _slice_uuid(gpu_uuid, readings), readings)


def _slice_uuid(gpu_uuid: object, readings: Mapping[str, Reading]) -> str:
    # The name that drivers before R470 gave to MIG devices, which says all that is known of this one.
    ids = (readings["gpu_instance"], readings["compute_instance"])
    return "/".join((f"MIG-{gpu_uuid}", *(f"{part:.0f}" if isinstance(part, float) else "-" for part in ids)))


def _processes(section: Section, form: str, path: Path) -> tuple[CapturedProcess, ...] | Absence:
    holder = next(section.all("processes"), None)
    if holder is None:
        return Absence.FUNCTION_NOT_FOUND
    parts = list(holder.all("process_info")) if form == "xml" else _text_processes(holder)
    if not parts:
        absence = parse(holder.text, "text", str(path)) if holder.text else None
        return absence if isinstance(absence, Absence) else ()
    readings = (
        {name: read(part, field, "xml", name, str(path)) for name, field in PROCESS_FIELDS.items()} for part in parts
    )
    return tuple(_process(reading) for reading in readings)


def _text_processes(holder: Section) -> list[Section]:
    """Return text processes as if they were XML ones: the instance ids stand before the process they belong to."""
    names = {"type": "type", "used gpu memory": "used_memory"}
    found: list[Section] = []
    ids: list[Section] = []
    for child in holder.children:
        if child.name in {"gpu instance id", "compute instance id"}:
            ids.append(Section(child.name.replace(" ", "_"), child.line, child.text))
        elif child.name == "process id":
            inner = [Section(names[part.name], part.line, part.text) for part in child.children if part.name in names]
            found.append(
                Section("process_info", child.line, "", [Section("pid", child.line, child.text), *ids, *inner])
            )
            ids = []
    return found


def _process(readings: Mapping[str, Reading]) -> CapturedProcess:
    numbers = {name: value for name, value in readings.items() if isinstance(value, float)}
    kind = readings["type"]
    kinds = kind.upper().split("+") if isinstance(kind, str) else []
    return CapturedProcess(
        pid=int(numbers.get("pid", 0)),
        is_compute="C" in kinds,
        is_graphics="G" in kinds,
        is_mps="M" in kinds,
        gpu_instance=int(numbers["gpu_instance"]) if "gpu_instance" in numbers else None,
        compute_instance=int(numbers["compute_instance"]) if "compute_instance" in numbers else None,
        memory_mib=numbers.get("memory_mib"),
    )


_LISTED_GPU = re.compile(r"^GPU (?P<index>\d+):")
_LISTED_SLICE = re.compile(r"^\s+MIG (?P<profile>\S+)\s+Device\s+(?P<index>\d+): \(UUID: (?P<uuid>\S+)\)")
_LINK = re.compile(r"^\s+Link \d+: (?P<speed>.+)$")


def _by_gpu(block: Block | None) -> dict[int, list[str]]:
    lines_of: dict[int, list[str]] = {}
    lines: list[str] = []
    for line in block.lines if block is not None else ():
        match = _LISTED_GPU.match(line)
        if match is not None:
            lines = lines_of.setdefault(int(match["index"]), [])
        lines.append(line)
    return lines_of


def _with_list(gpus: list[CapturedGpu], block: Block | None) -> list[CapturedGpu]:
    """Return the GPUs with the MIG UUIDs and profiles that only `nvidia-smi -L` tells."""
    result = []
    listed = _by_gpu(block)
    for index, gpu in enumerate(gpus):
        matches = [match for line in listed.get(index, ()) if (match := _LISTED_SLICE.match(line))]
        told = {float(match["index"]): match for match in matches}
        slices = (_listed_slice(slice_, told) for slice_ in gpu.slices)
        result.append(replace(gpu, slices=tuple(slices)))
    return result


def _listed_slice(slice_: CapturedSlice, told: Mapping[float, re.Match[str]]) -> CapturedSlice:
    index = slice_.readings["index"]
    match = told.get(index) if isinstance(index, float) else None
    if match is None:
        return slice_
    return CapturedSlice(match["uuid"], {**slice_.readings, "profile": match["profile"]})


def _with_links(gpus: list[CapturedGpu], block: Block | None) -> list[CapturedGpu]:
    """Return the GPUs with the state of their NVLinks, which stands outside of the report."""
    listed = _by_gpu(block)
    result = []
    for index, gpu in enumerate(gpus):
        links = [match["speed"] for line in listed.get(index, ()) if (match := _LINK.match(line))]
        states = tuple("inactive" not in speed.casefold() for speed in links)
        result.append(replace(gpu, links_up=states or None))
    return result


def _distinct(gpus: list[CapturedGpu], path: Path) -> tuple[list[CapturedGpu], list[Trouble]]:
    """Give GPUs and MIG devices whose UUID is missing or shared (masked captures) their own, and tell of it."""
    gpu_counts = Counter(gpu.uuid for gpu in gpus)
    named = [gpu if _has_own_uuid(gpu, gpu_counts) else _named_by_place(gpu, index) for index, gpu in enumerate(gpus)]
    slice_counts = Counter(slice_.uuid for gpu in named for slice_ in gpu.slices)
    result = [_with_distinct_slices(gpu, slice_counts) for gpu in named]
    renamed_gpus = [gpu.uuid for before, gpu in zip(gpus, result, strict=True) if before.uuid != gpu.uuid]
    renamed_slices = [slice_.uuid for gpu in named for slice_ in gpu.slices if slice_counts[slice_.uuid] > 1]
    troubles = [
        Trouble("rejected", f"{path}, uuid", f"{kind} have no UUID of their own here; each got one made from {origin}",
                len(renamed), renamed[0])
        for kind, origin, renamed in (
            ("GPUs", "its bus id", renamed_gpus), ("MIG devices", "its GPU and instance ids", renamed_slices),
        )
        if renamed
    ]  # fmt: skip
    return result, troubles


def _has_own_uuid(gpu: CapturedGpu, counts: Mapping[str | None, int]) -> bool:
    # A lost GPU has a UUID, it only can't tell it; inventing one would make a GPU that never was.
    return gpu.readings["uuid"] is Absence.GPU_IS_LOST or (gpu.uuid is not None and counts[gpu.uuid] == 1)


def _named_by_place(gpu: CapturedGpu, index: int) -> CapturedGpu:
    bus_id = gpu.readings["bus_id"]
    place = bus_id if isinstance(bus_id, str) else f"index {index}"
    return replace(gpu, uuid=f"{gpu.uuid or 'GPU-unknown'}@{place}")


def _with_distinct_slices(gpu: CapturedGpu, counts: Mapping[str, int]) -> CapturedGpu:
    slices = (
        replace(slice_, uuid=_slice_uuid(gpu.uuid, slice_.readings)) if counts[slice_.uuid] > 1 else slice_
        for slice_ in gpu.slices
    )
    return replace(gpu, slices=tuple(slices))
