"""How a page reaches the store: the composition provides it, the page asks for it.

Streamlit runs a page as a script, afresh for every visitor and every click, and passes it no arguments; what a
script is to share with the process around it can only stand in a module. So this module is the one seam of the
house that remembers something: `provide` is called once, before the server starts, in the same process.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import ibis
import polars as pl

from fleet.clock import Clock, SystemClock
from fleet.errors import BadConfig


class Engine(Protocol):
    """Where questions are run: tables as Ibis expressions, answers as polars frames."""

    def table(self, name: str) -> ibis.Table:
        """Return one of the house's tables."""
        ...

    def run(self, expression: ibis.Table) -> pl.DataFrame:
        """Return the rows of an expression; times are aware UTC."""
        ...


class Session(Protocol):
    """A handle on the store for one thread."""

    @property
    def engine(self) -> Engine:
        """Return where questions are run."""
        ...

    def close(self) -> None:
        """Give the handle back."""
        ...


class Library(Protocol):
    """What the composition provides: it hands each page run a session of its own."""

    def session(self) -> Session:
        """Return a handle for the calling thread."""
        ...


class Counter(Protocol):
    """Where a page asks for the house's reports and hands in what a person orders."""

    def report(self, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Return the body of a report; raises `BadInput` where there is nothing to tell of."""
        ...

    def admits(self, token: str) -> bool:
        """Return whether who holds this token may give orders, by the same rule as the API."""
        ...

    def name_of(self, token: str) -> str | None:
        """Return whose token this is; None where it is nobody's own, and a visitor says a name."""
        ...

    def operate(self, token: str, who: str, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Carry out an order in a person's name and return its report; raises `BadInput` where the token is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What a page has while it draws: where to ask, and what time it is."""

    engine: Engine
    clock: Clock


_provided: dict[str, tuple[Library, Clock]] = {}
_counters: list[Counter] = []


def provide(store: Library, clock: Clock | None = None, counter: Counter | None = None) -> None:
    """Give the pages of this process their store, their clock, and where reports and orders go."""
    _provided["store"] = (store, SystemClock() if clock is None else clock)
    _counters[:] = [] if counter is None else [counter]


def counter() -> Counter:
    """Return where reports and orders go; raises `BadConfig` where nobody provided it."""
    if not _counters:
        message = "this page was started without a desk: start it with 'steward serve', not with streamlit itself"
        raise BadConfig(message)
    return _counters[0]


def withdraw() -> None:
    """Take the store back, before it is closed."""
    _provided.clear()
    _counters.clear()


@contextmanager
def current() -> Iterator[Desk]:
    """Open a session on the provided store; raises `BadConfig` where nobody provided one."""
    if "store" not in _provided:
        message = "this page was started without a store: start it with 'steward serve', not with streamlit itself"
        raise BadConfig(message)
    store, clock = _provided["store"]
    session = store.session()
    try:
        yield Desk(session.engine, clock)
    finally:
        session.close()
