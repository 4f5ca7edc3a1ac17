"""Read one kernel message: the XID or SXid that it tells, in every way the drivers have written it.

Pure; where the message came from and when is `kernel_records`' part.
"""

import re
from dataclasses import dataclass

OFF_THE_BUS = 79
CODE_MAX = 2**31 - 1
TEXT_MAX = 8192
"""Characters of a message that are looked at; the kernel writes no longer ones."""

_FULL = r"(?P<domain>[0-9a-fA-F]{4,8}):(?P<bus>[0-9a-fA-F]{2}):(?P<device>[0-9a-fA-F]{2})(?:\.[0-7])?"
# The first drivers wrote no domain, and four digits of bus.
_PCI = _FULL.replace("{4,8}):", "{4,8}):)?", 1).replace("(?P<domain>", "(?:(?P<domain>", 1).replace("{2})", "{2,4})", 1)
_PLACE = rf"\(\s*(?:PCI:)?\s*{_PCI}(?:\s+GPU-I:\s*(?P<gi>\d{{1,10}}))?(?:\s+GPU-CI:\s*(?P<ci>\d{{1,10}}))?\s*\)"
_XID = re.compile(rf"NVRM:\s*Xid\s*{_PLACE}\s*:?\s*(?P<code>\d{{1,10}})\b")
_SXID = re.compile(rf"(?:nvidia-nvswitch\d*:?\s*)?\bSXid\s*{_PLACE}\s*:?\s*(?P<code>\d{{1,10}})\b")
_FALLEN = re.compile(r"NVRM:.*\bfallen off the bus\b", re.IGNORECASE)
_FULL_PCI = re.compile(_FULL)
_INSTALLED = re.compile(r"NVRM: The NVIDIA GPU\s")
_IDENTITY = re.compile(rf"NVRM: GPU at (?:PCI:)?{_PCI}: (?P<uuid>GPU-[0-9a-fA-F-]{{36}})")
_PID = re.compile(r"\bpid='?(?P<pid>\d{1,10})\b")
_START = re.compile(r"NVRM:|nvidia-nvswitch\d*:|\bSXid\b|Linux version ")


@dataclass(frozen=True, slots=True)
class Told:
    """What one message tells. `kind`: xid or sxid; `pci`: domain:bus:device in lower case."""

    kind: str
    code: int
    pci: str | None
    text: str
    gpu_instance: int | None = None
    compute_instance: int | None = None
    pid: int | None = None


def read_message(text: str) -> Told | None:
    """Return the XID or SXid in a message, None where it tells none.

    A GPU that has fallen off the bus is XID 79, with or without the number beside it.
    """
    text = text[:TEXT_MAX]
    for kind, pattern in (("xid", _XID), ("sxid", _SXID)):
        found = pattern.search(text)
        if found is not None:
            code = int(found["code"])
            if code > CODE_MAX:
                return None
            text = text[found.start() :].strip()
            return Told(kind, code, _address(found), text, _number(found["gi"]), _number(found["ci"]), _pid(text))
    fallen = _FALLEN.search(text)
    if fallen is None:
        return None
    place = _FULL_PCI.search(text, fallen.start())
    return Told("xid", OFF_THE_BUS, None if place is None else _address(place), text[fallen.start() :].strip())


def read_installed(text: str) -> str | None:
    """Return the address in the first line of "The NVIDIA GPU ADDRESS (PCI ID: ...) installed in this system ..."."""
    start = _INSTALLED.search(text)
    place = None if start is None else _FULL_PCI.search(text, start.end())
    return None if place is None else _address(place)


def read_identity(text: str) -> tuple[str, str] | None:
    """Return address and UUID where the driver says which GPU it means, as it does before a GPU's first XID."""
    found = _IDENTITY.search(text)
    return None if found is None else (_address(found), found["uuid"])


def starts_at(line: str) -> int:
    """Return where in a line of text the kernel's own message begins; its length where none of ours is in it."""
    found = _START.search(line)
    return len(line) if found is None else found.start()


def pci_address(written: str) -> str | None:
    """Return domain:bus:device in lower case from any way of writing it, None where there is none in it."""
    found = _FULL_PCI.search(written)
    return None if found is None else _address(found)


def _address(found: re.Match[str]) -> str:
    domain, bus = found["domain"] or "0", found["bus"]
    return f"{int(domain, 16):04x}:{int(bus, 16):02x}:{found['device'].lower()}"


def _number(text: str | None) -> int | None:
    return None if text is None or int(text) > CODE_MAX else int(text)


def _pid(text: str) -> int | None:
    found = _PID.search(text)
    return None if found is None else int(found["pid"])
