"""What is stored: objects by key, one revision for all, the changes since the last compaction, lists as they were."""

import base64
import bisect
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.kube.answers import Object, Refusal

Key = tuple[str, str, str]  # kind's key, namespace ("" = none), name
Test = Callable[[Object], bool]
_HISTORY = 100_000
_LISTS_KEPT = 50


@dataclass(frozen=True)
class Change:
    """One change: the object before and after it; None = it was not there."""

    revision: int
    kind: str
    namespace: str
    before: Object | None
    after: Object | None


@dataclass
class Storage:
    """The objects, and a condition that is told of each change. Stored objects are never changed, only replaced."""

    objects: dict[Key, Object] = field(default_factory=dict)
    revision: int = 1
    compacted: int = 0
    changes: list[Change] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    _lists: OrderedDict[int, tuple[int, list[Object]]] = field(default_factory=OrderedDict)
    _lists_made: int = 0

    def get(self, key: Key) -> Object | None:
        return self.objects.get(key)

    def put(self, key: Key, made: Object) -> Object:
        """Store an object under the next revision and return it as stored."""
        with self.changed:
            self.revision += 1
            stored = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self.revision)}}
            self._note(Change(self.revision, key[0], key[1], self.objects.get(key), stored))
            self.objects[key] = stored
            return stored

    def drop(self, key: Key) -> Object:
        """Remove an object; return it as its last event tells of it, with the revision of its removal."""
        with self.changed:
            before = self.objects.pop(key)
            self.revision += 1
            self._note(Change(self.revision, key[0], key[1], before, None))
            return {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.revision)}}

    def compact(self) -> None:
        """Forget the past: watches from before now, and lists that were begun before now, are gone."""
        with self.changed:
            self.compacted = self.revision
            self.changes.clear()
            self._lists.clear()

    def page(
        self, kind: str, namespace: str, test: Test, limit: int, token: str
    ) -> tuple[list[Object], int, str, int | None]:
        """Return a page of a list, its revision, the token of the next page, and how many come after."""
        with self.changed:
            if token:
                number, start = self._read(token)
                if number not in self._lists:
                    text = "The provided continue parameter is too old to display a consistent list result."
                    raise Refusal(410, text)
                revision, whole = self._lists[number]
            else:
                keys = sorted(key for key in self.objects if key[0] == kind and namespace in {"", key[1]})
                whole = [each for key in keys if test(each := self.objects[key])]
                number, start, revision = self._lists_made, 0, self.revision
            left = len(whole) - start - limit
            if not limit or left <= 0:
                return whole[start:], revision, "", None
            if not token:
                self._keep(number, (revision, whole))
            text = json.dumps({"list": number, "at": start + limit})
            return whole[start : start + limit], revision, base64.urlsafe_b64encode(text.encode()).decode(), left

    def since(self, revision: int, kind: str, namespace: str) -> Iterator[Change]:
        """Return the changes after a revision; one from before the last compaction is refused."""
        with self.changed:
            if revision < self.compacted:
                raise Refusal(410, f"too old resource version: {revision} ({self.compacted})")
            start = bisect.bisect_right(self.changes, revision, key=lambda each: each.revision)
            found = self.changes[start:]
        return (each for each in found if each.kind == kind and namespace in {"", each.namespace})

    def _keep(self, number: int, made: tuple[int, list[Object]]) -> None:
        self._lists[number] = made
        self._lists_made += 1
        if len(self._lists) > _LISTS_KEPT:
            self._lists.popitem(last=False)

    def _read(self, token: str) -> tuple[int, int]:
        try:
            read = json.loads(base64.urlsafe_b64decode(token))
            return int(read["list"]), int(read["at"])
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(400, "continue key is not valid") from error

    def _note(self, change: Change) -> None:
        self.changes.append(change)
        if len(self.changes) > 2 * _HISTORY:
            del self.changes[:_HISTORY]
            self.compacted = self.changes[0].revision - 1
        self.changed.notify_all()
