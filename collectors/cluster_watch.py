"""One kind of objects, listed once and followed from there: list by pages, then watch from where the list was.

A watch may end at any time; the next one goes on from the newest resource version seen (an object's or a bookmark's).
Where the server no longer knows that version (410 Gone, as status or as an event) the kind is listed anew, and what is
missing from the new list was deleted while nobody looked. Nothing here waits or makes connections: `Server` does.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

import msgspec

from collectors.cluster_objects import Meta, Part
from fleet.errors import SourceFailed

JSON = "application/json"
PAGE_SIZE = 500
_LISTS = 3  # tries to list a kind whose list expires while it is paged through
_PAGE_TRIES = 2  # a body that breaks off is asked for once more
_ROUNDS = 20  # watches in one look, at most
_CUTS = 3  # of them, how many may be cut off without having told anything
_BOOKMARK = "BOOKMARK"
_T = TypeVar("_T", bound="HasMeta")
_F = TypeVar("_F")


class Refused(SourceFailed):
    """The server answered, and said no; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        """Keep the status beside the words."""
        super().__init__(message)
        self.status = status


class Server(Protocol):
    """An API server that is asked for JSON; raises `Refused`, or `SourceFailed` where it does not answer."""

    def get(self, path: str, query: Mapping[str, str], accept: str = JSON) -> bytes:
        """Return the body of an answer."""
        ...

    def stream(self, path: str, query: Mapping[str, str]) -> AbstractContextManager[Iterator[bytes]]:
        """Open a watch and give its lines; one that is cut off ends with `SourceFailed`."""
        ...

    def now(self) -> datetime:
        """Return the moment of the last answer by the server's own clock."""
        ...


class HasMeta(Protocol):
    """Any object of Kubernetes."""

    @property
    def metadata(self) -> Meta:
        """Return what it says of itself."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects: its plural name, its API group ("" = core), where it is listed, and what narrows the list."""

    name: str
    group: str
    path: str
    narrow: Mapping[str, str]


class Page(msgspec.Struct):
    """A page of a list; its objects are decoded one by one, so that a bad one spoils no other."""

    class ListMeta(Part, frozen=True):
        """Where a list stands."""

        resource_version: str = ""
        next_token: str | None = msgspec.field(name="continue", default=None)

    items: list[msgspec.Raw]
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class _Told(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 500
    message: str = ""


class _VersionOnly(Part, frozen=True):
    resource_version: str = ""


class _AnyObject(msgspec.Struct):
    metadata: _VersionOnly = msgspec.field(default_factory=_VersionOnly)


_PAGES = msgspec.json.Decoder(Page)
_TOLD = msgspec.json.Decoder(_Told)


class _Expired(Exception):  # a word between functions of this file
    """The server no longer knows the version that was asked for."""


class Follower(Generic[_T, _F]):
    """What there is of one kind, by UID, as facts that `reduce` makes of each object (None: not worth keeping).

    `gone` holds the facts of what was deleted since `settle` was last called, and `rejected` why objects could not be
    understood; `is_behind` tells that more is to come than one look can bear.
    """

    def __init__(self, kind: Kind, of: type[_T], reduce: Callable[[_T], _F | None], watch_s: int) -> None:
        self.kind = kind
        self.items: dict[str, _F] = {}
        self.gone: dict[str, _F] = {}
        self.is_behind = False
        self.rejected: list[str] = []
        self._decoder = msgspec.json.Decoder(of)
        self._reduce = reduce
        self._watch_s = watch_s
        self._version: str | None = None

    def look(self, server: Server) -> None:
        """Bring `items` and `gone` up to what the server has now.

        Raises `Refused` or `SourceFailed`; what was learnt before that is kept, and the next look goes on from it.
        """
        self.is_behind = False
        if self._version is not None:
            try:
                self._follow(server)
            except _Expired:
                self._version = None
            else:
                return
        self._list(server)

    def forget(self) -> None:
        """Forget everything: this kind can't be read any more, and when it can, it is listed anew."""
        self.items, self._version = {}, None

    def settle(self) -> None:
        """Let go of what is gone: it was taken."""
        self.gone = {}

    def _list(self, server: Server) -> None:
        for _ in range(_LISTS):
            try:
                found, version = self._pages(server)
            except _Expired:
                continue
            self.gone.update({uid: facts for uid, facts in self.items.items() if uid not in found})
            self.items, self._version = found, version
            return
        message = f"{self.kind.path}: the list expired {_LISTS} times while it was read"
        raise SourceFailed(message)

    def _pages(self, server: Server) -> tuple[dict[str, _F], str]:
        found: dict[str, _F] = {}
        query = {**self.kind.narrow, "limit": str(PAGE_SIZE)}
        while True:
            page = self._page(server, query)
            for raw in page.items:
                self._take(raw, found)
            if not page.metadata.next_token:
                return found, page.metadata.resource_version
            query = {**query, "continue": page.metadata.next_token}

    def _page(self, server: Server, query: Mapping[str, str]) -> Page:
        message = ""
        for _ in range(_PAGE_TRIES):
            try:
                return _PAGES.decode(server.get(self.kind.path, query))
            except Refused as error:
                if error.status == HTTPStatus.GONE:
                    raise _Expired from error
                raise
            except msgspec.DecodeError as error:
                message = f"{self.kind.path}: not a list as Kubernetes answers it: {error}"
        raise SourceFailed(message)

    def _take(self, raw: msgspec.Raw, into: dict[str, _F]) -> tuple[str, str] | None:
        """Keep what matters of an object; return its UID and version, or None where it can't be understood."""
        try:
            each = self._decoder.decode(raw)
        except msgspec.DecodeError as error:
            self.rejected.append(f"{error}")
            return None
        meta = each.metadata
        uid = meta.uid or f"{meta.namespace}/{meta.name}"
        facts = self._reduce(each)
        if facts is None:
            into.pop(uid, None)
        else:
            into[uid] = facts
        return uid, meta.resource_version

    def _follow(self, server: Server) -> None:
        """Watch until what was there when the look began has been told, or the server says that nothing more comes."""
        target = self._newest(server)
        cuts = 0
        why = "it ended without a word"
        for _ in range(_ROUNDS):
            before = self._version
            if target is not None and self._is_at(target):
                return
            try:
                if self._watch(server, target):
                    return
            except Refused:
                raise
            except SourceFailed as error:
                why = str(error)
            cuts += self._version == before
            if cuts > _CUTS:
                message = f"{self.kind.path}: no watch lasts: {why}"
                raise SourceFailed(message)
        self.is_behind = True

    def _newest(self, server: Server) -> int | None:
        """Return the version that the server is at; None where versions are no numbers that could be compared."""
        version = self._page(server, {**self.kind.narrow, "limit": "1"}).metadata.resource_version
        return int(version) if version.isdecimal() else None

    def _watch(self, server: Server, target: int | None) -> bool:
        """Read one watch up to `target`; return whether the server told that there is nothing to tell."""
        query = {
            **self.kind.narrow,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(self._watch_s),
        }
        told: list[str] = []
        try:
            with server.stream(self.kind.path, query) as lines:
                for line in lines:
                    told.append(self._hear(line))
                    if target is not None and self._is_at(target):
                        return False
        except Refused as error:
            if error.status == HTTPStatus.GONE:
                raise _Expired from error
            raise
        except msgspec.DecodeError as error:  # cut off in the middle of a line: the next watch tells it again
            message = f"{self.kind.path}: the watch was cut off: {error}"
            raise SourceFailed(message) from error
        return set(told) == {_BOOKMARK}

    def _is_at(self, target: int) -> bool:
        return self._version is not None and self._version.isdecimal() and int(self._version) >= target

    def _hear(self, line: bytes) -> str:
        """Take in one event and return its type."""
        event = _TOLD.decode(line)
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Status)
            if status.code == HTTPStatus.GONE:
                raise _Expired
            message = f"{self.kind.path}: the watch ended: {status.code} {status.message}"
            raise Refused(message, status.code)
        if event.type == _BOOKMARK:
            self._go_on_from(event.object)
        elif event.type == "DELETED":
            self._lose(event.object)
        else:
            known = self._take(event.object, self.items)
            self._go_on_from(event.object) if known is None else self._set(known[1])
        return event.type

    def _lose(self, raw: msgspec.Raw) -> None:
        last: dict[str, _F] = {}
        known = self._take(raw, last)
        if known is None:
            self._go_on_from(raw)
            return
        before = self.items.pop(known[0], None)
        facts = last.get(known[0], before)
        if facts is not None:
            self.gone[known[0]] = facts
        self._set(known[1])

    def _go_on_from(self, raw: msgspec.Raw) -> None:
        self._set(msgspec.json.decode(raw, type=_AnyObject).metadata.resource_version)

    def _set(self, version: str) -> None:
        if version:
            self._version = version
