"""What `steward xid` answers: a code of the catalogue, all of them, or what a kernel log's lines tell."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from analytics.catalogues import Sxid, decode_sxid, sxids
from analytics.xid import ACTIONS, NEXT_STEPS, Xid, XidOverride, catalogue, decode
from collectors.kernel_lines import Told, read_message
from collectors.kernel_records import Record, read_lines
from fleet.errors import BadInput
from fleet.severity import Severity
from steward.report import Report

ACTION_WORDS = {
    "none": "nothing to do",
    "restart_application": "start the program again; the GPU is well",
    "update_software": "bring driver and firmware to one another",
    "inspect": "look at it; nothing is known to be broken",
    "drain": "take the node out of service and let its work finish",
    "reset_gpu": "take the GPU out of service, let its work finish, reset it",
    "reboot_node": "take the node out of service and reboot it",
    "run_diagnostics": "take the GPU out of service and run the vendor's diagnostics",
    "replace_gpu": "take the GPU out of service and have it replaced",
    "follow_message": "do what the rest of the line asks for",
}
_CODE_MAX = 2**31 - 1
_COLUMNS = ("line", "kind", "code", "pci", "severity", "action", "meaning", "why")
_SEVERITY_OF_FATALITY = {"always_fatal": Severity.CRITICAL, "fatal": Severity.WARNING}


def explain_code(text: str, driver: str | None, overrides: Sequence[XidOverride], *, is_switch: bool) -> Report:
    """Return what one code means; raises `BadInput` for a number that no driver writes."""
    code = int(text[:20])
    if code > _CODE_MAX:
        message = f"{text}: there is no such code"
        raise BadInput(message, field="code")
    if is_switch:
        sxid = decode_sxid(code, None)
        summary = {**_switch_item(sxid, None), "do": ACTION_WORDS[sxid.action], "source": sxid.source}
        return Report("SxidExplanation", None, _told_only(summary))
    xid = decode(code, None, driver, overrides)
    known = catalogue().get(code)
    if known is not None and known.action == "follow_message" and not any(each.code == code for each in overrides):
        xid = replace(known, detail="the rest of the line decides; give the whole line")
    summary = {**_item(xid, None), "do": ACTION_WORDS[xid.action], "source": xid.source}
    return Report("XidExplanation", None, _told_only(summary))


def list_codes(overrides: Sequence[XidOverride], *, is_switch: bool) -> Report:
    """Return the whole catalogue, overrides of the settings in it."""
    if is_switch:
        items = [{"source": sxid.source, **_switch_item(sxid, None)} for sxid in sxids().values()]
        return Report("SxidCatalogue", None, {"codes": len(items)}, items, ("code", "severity", "action", "meaning"))
    codes = {each.code for each in overrides}
    rows = [decode(code, None, None, overrides) if code in codes else known for code, known in catalogue().items()]
    items = [{"source": xid.source, **_item(xid, None)} for xid in rows]
    return Report("XidCatalogue", None, {"codes": len(items)}, items, ("code", "severity", "action", "meaning"))


def explain_log(text: str, driver: str | None, overrides: Sequence[XidOverride]) -> Report:
    """Return every XID and SXid of a log, line by line, and what each device needs by the heaviest of them."""
    items: list[dict[str, object]] = []
    forged = 0
    for number, told, record in _told(text.splitlines()):
        if not record.is_kernel:
            forged += 1
            continue
        if told.kind == "xid":
            item = _item(decode(told.code, told.text, driver, overrides), told)
        else:
            item = _switch_item(decode_sxid(told.code, told.text), told)
        items.append({"line": number, "at": record.ts, **item})
    notes = [f"{pci}: {ACTION_WORDS[action]} ({rule})" for pci, action, rule in _heaviest(items)]
    if forged:
        notes.append(f"{forged} lines were written by a program, not by the kernel, and are left out")
    if not items:
        notes.append("there is no XID or SXid in it")
    return Report("XidLog", None, {"events": len(items)}, items, _COLUMNS, tuple(notes))


def _told(lines: Iterable[str]) -> Iterable[tuple[int, Told, Record]]:
    now = datetime.now(UTC)  # only for the year of times that have none
    for number, line in enumerate(lines, 1):
        for record in read_lines([line], now):
            for part in record.text.split("\n"):
                told = read_message(part)
                if told is not None:
                    yield number, told, record


def _told_only(summary: dict[str, object]) -> dict[str, object]:
    """Return a code's facts without those that only a line can tell."""
    return {name: value for name, value in summary.items() if value is not None}


def _item(xid: Xid, told: Told | None) -> dict[str, object]:
    return {
        "kind": "xid",
        "code": xid.code,
        "pci": None if told is None else told.pci,
        "gpu_instance": None if told is None else told.gpu_instance,
        "pid": None if told is None else told.pid,
        "link": xid.link,
        "severity": xid.severity.value,
        "action": xid.action,
        "scope": xid.scope,
        "meaning": xid.name,
        "why": "; ".join(part for part in (xid.detail, NEXT_STEPS[xid.next]) if part),
    }


def _switch_item(sxid: Sxid, told: Told | None) -> dict[str, object]:
    return {
        "kind": "sxid",
        "code": sxid.code,
        "pci": None if told is None else told.pci,
        "severity": _SEVERITY_OF_FATALITY.get(sxid.fatality, Severity.INFO).value,
        "action": sxid.action,
        "scope": "node",
        "meaning": sxid.name,
        "why": f"{sxid.fatality.replace('_', ' ')}; {NEXT_STEPS[sxid.next]}",
    }


def _heaviest(items: Sequence[dict[str, object]]) -> list[tuple[str, str, str]]:
    """Return by device the heaviest action that its errors ask for, where it is any, and the code that does."""
    worst: dict[str, tuple[str, str]] = {}
    for item in items:
        pci, action = str(item["pci"] or "unknown device"), str(item["action"])
        rule = f"{item['kind']} {item['code']}"
        if action != "none" and (pci not in worst or ACTIONS.index(action) > ACTIONS.index(worst[pci][0])):
            worst[pci] = action, rule
    return [(pci, *found) for pci, found in sorted(worst.items())]
