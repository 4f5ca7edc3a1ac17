"""Read the lines of a kernel log, however it was written down: who wrote a message, when, and what it says.

Forms: records of `/dev/kmsg`, journald's JSON and export forms, and text of `dmesg` and `journalctl` with the times
of `-T`, ISO, syslog, seconds since 1970 or seconds since boot. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from collectors.kernel_lines import TEXT_MAX, starts_at

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_KMSG = re.compile(r"(\d{1,10}),(\d{1,19}),(\d{1,19}),[^;]*;(.*)", re.DOTALL)
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_FIELD = re.compile(r"([A-Z_][A-Z0-9_]*)=(.*)")
_PRIORITY = re.compile(r"\s*<(\d{1,4})>")
_FACILITY = re.compile(r"\s*([a-z]+[0-9]?)\s*:\s*[a-z]+\s*: ")
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s?(?:(Z|UTC)|([+-])(\d\d):?(\d\d))?"
)
_CTIME = re.compile(rf"({'|'.join(_MONTHS)})\s+(\d{{1,2}}) (\d\d):(\d\d):(\d\d)(?:\.(\d{{1,9}}))?(?: (\d{{4}}))?")
_UNIX = re.compile(r"(?:^|\s)(\d{9,10})\.(\d{6,9})\b")
_SINCE_BOOT = re.compile(r"\[\s*(\d{1,10})\.(\d{3,9})\]")
_HOST = re.compile(r"(?:\s|^)([A-Za-z0-9][\w.-]*) kernel:")
_KERNEL = "kern"
_FIRST_FIELDS = frozenset({"__CURSOR", "__REALTIME_TIMESTAMP", "MESSAGE"})


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a log.

    `ts` where the record has a time of its own; `since_boot_s` where it counts from the boot. `is_kernel` is False
    where the record says that a program wrote it, which any privileged one may.
    """

    text: str
    ts: datetime | None = None
    since_boot_s: float | None = None
    sequence: int | None = None
    host: str | None = None
    boot_id: str | None = None
    cursor: str | None = None
    is_kernel: bool = True


def read_kmsg(record: str) -> Record | None:
    """Return a record of `/dev/kmsg`, None where it is not one; continuation lines with its fields are left out."""
    found = _KMSG.match(record.partition("\n")[0][:TEXT_MAX])
    if found is None:
        return None
    priority, sequence, microseconds, text = found.groups()
    text = _ESCAPED.sub(lambda each: chr(int(each[1], 16)), text)
    return Record(text, None, int(microseconds) / 1e6, int(sequence), is_kernel=int(priority) >> 3 == 0)


def read_journal(line: str) -> Record | None:
    """Return an entry of `journalctl -o json`, None where the line is not one."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _entry({name: _plain(value) for name, value in entry.items()}) if isinstance(entry, dict) else None


def read_text(line: str, now: datetime) -> Record:
    """Return a line of text; a time without a year is the last such before `now`, one without a zone is UTC."""
    line = line[:TEXT_MAX].rstrip("\r\n")
    start = starts_at(line)
    head, text = line[:start], line[start:]
    host, since = _HOST.search(head), _SINCE_BOOT.search(head)
    return Record(
        text,
        _moment(head, now),
        None if since is None else float(f"{since[1]}.{since[2]}"),
        host=None if host is None else host[1],
        is_kernel=_is_kernel(head),
    )


def read_lines(lines: Iterable[str], now: datetime) -> Iterator[Record]:
    """Yield the records in the lines of a log in whatever form; what is no record by itself is left out."""
    fields: dict[str, str] = {}
    for line in lines:
        bare = line[:TEXT_MAX].strip("\r\n")
        field = _FIELD.fullmatch(bare)
        if field is not None and (fields or field[1] in _FIRST_FIELDS):
            fields[field[1]] = field[2]
            continue
        if fields:
            yield _entry(fields)
            fields = {}
        if bare.startswith("{"):
            yield read_journal(line) or read_text(bare, now)
        elif bare:
            yield read_kmsg(bare) or read_text(bare, now)
    if fields:
        yield _entry(fields)


def _plain(value: object) -> str:
    """Return a journal field as text: journald writes bytes that are no UTF-8 as numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, int) and 0 <= item < 256 for item in value):  # noqa: PLR2004 - a byte
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, list) and value:
        return _plain(value[0])
    return ""


def _entry(fields: dict[str, str]) -> Record:
    microseconds = _whole(fields.get("_SOURCE_REALTIME_TIMESTAMP")) or _whole(fields.get("__REALTIME_TIMESTAMP"))
    monotonic = _whole(fields.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    facility, transport = fields.get("SYSLOG_FACILITY", "0"), fields.get("_TRANSPORT", "kernel")
    return Record(
        fields.get("MESSAGE", "")[:TEXT_MAX],
        None if microseconds is None else _after_epoch(microseconds / 1e6),
        None if monotonic is None else monotonic / 1e6,
        host=fields.get("_HOSTNAME"),
        boot_id=fields.get("_BOOT_ID"),
        cursor=fields.get("__CURSOR"),
        is_kernel=facility == "0" and transport == "kernel",
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,19}", text) else None


def _after_epoch(seconds: float) -> datetime | None:
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _is_kernel(head: str) -> bool:
    priority = _PRIORITY.match(head)
    if priority is not None:
        return int(priority[1]) >> 3 == 0
    facility = _FACILITY.match(head)
    return facility is None or facility[1] == _KERNEL


def _moment(head: str, now: datetime) -> datetime | None:
    try:
        return _iso(head) or _ctime(head, now) or _unix(head)
    except (ValueError, OverflowError):
        return None  # a 31st of February is no time


def _iso(head: str) -> datetime | None:
    found = _ISO.search(head)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(each) for each in found.groups()[:6])
    zone = UTC if found[9] is None else timezone(_offset(found[9], int(found[10]), int(found[11])))
    return datetime(year, month, day, hour, minute, second, _microseconds(found[7]), tzinfo=zone).astimezone(UTC)


def _ctime(head: str, now: datetime) -> datetime | None:
    found = _CTIME.search(head)
    if found is None:
        return None
    month = _MONTHS.index(found[1]) + 1
    day, hour, minute, second = (int(each) for each in found.groups()[1:5])
    fraction = _microseconds(found[6])
    if found[7] is not None:
        return datetime(int(found[7]), month, day, hour, minute, second, fraction, tzinfo=UTC)
    for year in range(now.year + 1, now.year - 5, -1):  # a 29th of February may be four years back
        try:
            moment = datetime(year, month, day, hour, minute, second, fraction, tzinfo=UTC)
        except ValueError:
            continue
        if moment <= now + timedelta(days=1):
            return moment
    return None


def _unix(head: str) -> datetime | None:
    found = _UNIX.search(head)
    return None if found is None else _EPOCH + timedelta(seconds=int(found[1]), microseconds=_microseconds(found[2]))


def _microseconds(digits: str | None) -> int:
    return 0 if digits is None else int(digits[:6].ljust(6, "0"))


def _offset(sign: str, hours: int, minutes: int) -> timedelta:
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if sign == "-" else offset
