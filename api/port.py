"""What the API asks of the house behind it; the roof fills it."""

from collections.abc import Callable, Mapping
from typing import Protocol

# Stores the compressed body of one remote-write request before it returns, called from several threads at once; raises
# `BadInput` for what will never be taken, `Overloaded` or a `StoreError` for what may be sent again.
Ingest = Callable[[bytes], object]


class Desk(Protocol):
    """Where questions are answered and orders are taken.

    Every method may be called from several threads at once. What the mappings hold is ready for JSON: text, finite
    numbers, booleans, None, lists and mappings of them.
    """

    def report(self, name: str, parameters: Mapping[str, str]) -> Mapping[str, object]:
        """Answer one named question without changing anything; raise `BadInput` for an unknown name or parameter."""
        ...

    def operate(self, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Carry out one named operation; raise `BadInput`, `StoreBusy` or an `ActionError` where it can't be done."""
        ...

    def metrics(self) -> str:
        """Return the state of the house in the Prometheus text format (see `api.exposition`)."""
        ...

    def health(self) -> Mapping[str, object]:
        """Return `ok` (bool), `reasons` (list of text) and, where starting takes a while, `is_ready` (bool)."""
        ...
