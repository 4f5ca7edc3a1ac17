"""A source in a child process: a call that never comes back is ended with the child, and the parent goes on.

A driver that hangs holds whoever called it, beyond any timeout of ours. So the child tells what it is about to ask,
and where it is silent for longer than the deadline the parent ends it, says in an event which GPU it hung on, and
starts another child that leaves this GPU alone for a while. Run as a module this file is the child.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

import polars as pl

from fleet.batch import Batch, Trouble
from fleet.bounds import require_between, require_positive
from fleet.clock import Clock
from fleet.errors import BadInput, SourceFailed, SourceUnavailable, StewardError
from fleet.tables import EVENT

Memory = TypeVar("Memory")
Tell = Callable[[str, int | None], None]
_FAILURES = {"SourceFailed": SourceFailed, "SourceUnavailable": SourceUnavailable}


class Probed(Protocol[Memory]):
    """What lives in the child: a source that can be told what to leave alone, and that can hand over its memory."""

    skip: frozenset[int]
    memory: Memory

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        """Yield what there is now."""
        ...

    def close(self) -> None:
        """Let go of what it reads."""
        ...


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """How long the child may be silent, and how long what hung is left alone.

    The deadline is for one GPU; a first hang is followed by `backoff_s`, each further one by twice as long.
    `stuck_max` children that can't be ended, because the driver holds them in the kernel, are the last ones.
    """

    deadline_s: float = 20.0
    start_deadline_s: float = 60.0
    backoff_s: float = 30.0
    backoff_max_s: float = 1800.0
    stuck_max: int = 3

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for field in ("deadline_s", "start_deadline_s", "backoff_s", "backoff_max_s"):
            require_positive(field, getattr(self, field))
        require_between("stuck_max", self.stuck_max, 1, 100)


@dataclass(slots=True)
class _Backoff:
    strikes: int
    until_s: float


@dataclass(frozen=True, slots=True)
class _Message:
    """What the child says: "at" (what it is about to ask), "batch", "failed" or "end"."""

    kind: str
    text: str = ""
    gpu_index: int | None = None
    body: Any = None


class _Child:
    """One child process and the pipe to it."""

    def __init__(self, factory: str, arguments: tuple[object, ...], memory: object) -> None:
        ours, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            # `-c` and not `-m`: the messages are pickled by the name of this module, which must not be __main__.
            command = [sys.executable, "-c", "from collectors.probe import main; main()", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)  # noqa: S603 - our own interpreter and module
        self.connection: Connection = ours
        self.at: _Message = _Message("at", "starting")
        ours.send((factory, arguments, memory))

    def end(self) -> bool:
        """End it whatever it does; return False where the kernel does not let it go."""
        self.connection.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1)
        return self.process.returncode is not None


class ProbedSource(Generic[Memory]):
    """A `Source` whose reading is done in a child process that `factory` (an import path) makes the source in.

    The factory is called there as `factory(tell, *arguments)`; the arguments are pickled. `memory` is what the
    child's source remembered after its last whole reading, and what the next child starts with.
    """

    def __init__(
        self,
        name: str,
        factory: str,
        arguments: tuple[object, ...],
        *,
        clock: Clock,
        cluster: str,
        node: str,
        policy: ProbePolicy = ProbePolicy(),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._factory, self._arguments = name, factory, arguments
        self._clock, self._cluster, self._node = clock, cluster, node
        self._policy, self._monotonic_s = policy, monotonic_s
        self.memory: Memory | None = None
        self.hang_count = 0
        self._child: _Child | None = None
        self._is_answering = False
        self._stuck: list[_Child] = []
        self._backoffs: dict[int | None, _Backoff] = {}
        self._uuids: dict[int, str] = {}

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept."""
        return self._name

    @property
    def child_pid(self) -> int | None:
        """Return the process id of the child, None while there is none."""
        return None if self._child is None else self._child.process.pid

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        """Yield the child's batches; where it hangs on a GPU, an event `probe_hang` and then the batches without it.

        Raises what the source in the child raises, and `SourceFailed` where the child ended twice in a row or is
        not to be started yet.
        """
        self._refuse_too_early()
        if (yield from self._tried(since, until, is_last=False)):
            yield from self._tried(since, until, is_last=True)

    def close(self) -> None:
        """End the child: in its own time where it answers, else at once."""
        child, self._child = self._child, None
        if child is not None:
            with suppress(OSError):
                child.connection.send(None)
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(timeout=self._policy.deadline_s)
            child.end()

    def _tried(self, since: datetime | None, until: datetime, *, is_last: bool) -> Generator[Batch, None, bool]:
        """Yield what there is; return whether it is worth asking again at once, so that there is no gap."""
        try:
            return (yield from self._ask(since, until))
        except (EOFError, OSError) as error:
            if is_last:
                raise self._ended() from error
            self._drop()  # somebody or something ended the child
            return True

    def _ask(self, since: datetime | None, until: datetime) -> Generator[Batch, None, bool]:
        """Yield the child's batches; return whether it hung on a GPU, so that the others can still be read."""
        if self._is_answering:
            self._drop()  # who asked before did not listen to the end, and the rest of that answer is still to come
        child = self._child = self._child or self._start()
        now_s = self._monotonic_s()
        skip = frozenset(
            index for index, backoff in self._backoffs.items() if index is not None and now_s < backoff.until_s
        )
        child.connection.send((since, until, skip))
        self._is_answering = True
        while True:
            is_starting = child.at.text == "starting"
            deadline_s = self._policy.start_deadline_s if is_starting else self._policy.deadline_s
            if not child.connection.poll(deadline_s):
                yield self._hung(child, deadline_s)
                return child.at.gpu_index is not None
            message: _Message = child.connection.recv()
            if message.kind == "at":
                child.at = message
            elif message.kind == "batch":
                yield self._batch(message.body)
            elif message.kind == "failed":
                self._is_answering = False
                raise _FAILURES[message.text](message.body)
            else:
                self._is_answering = False
                self.memory = message.body
                self._backoffs = {index: backoff for index, backoff in self._backoffs.items() if index in skip}
                return False

    def _batch(self, body: tuple[str, dict[str, pl.DataFrame], datetime | None, tuple[Trouble, ...]]) -> Batch:
        batch = Batch(*body)
        if "gpu" in batch.frames:
            told = batch.frames["gpu"].select("gpu_index", "gpu_uuid").drop_nulls()
            self._uuids |= dict(told.iter_rows())
        return batch

    def _start(self) -> _Child:
        self._stuck = [child for child in self._stuck if child.process.poll() is None]
        if len(self._stuck) >= self._policy.stuck_max:
            message = (
                f"{len(self._stuck)} probes of node {self._node} are held by the driver and can't be ended;"
                " the node has to be rebooted"
            )
            raise SourceFailed(message)
        return _Child(self._factory, self._arguments, self.memory)

    def _drop(self) -> None:
        child, self._child, self._is_answering = self._child, None, False
        if child is not None and not child.end():
            self._stuck.append(child)

    def _hung(self, child: _Child, deadline_s: float) -> Batch:
        self._drop()
        self.hang_count += 1
        wait_s = self._back_off(child.at.gpu_index)
        reason = f"{child.at.text}: the driver did not answer within {deadline_s:g} s"
        row = {
            "ts": self._clock.now(), "cluster": self._cluster, "node": self._node,
            "gpu_uuid": None if child.at.gpu_index is None else self._uuids.get(child.at.gpu_index),
            "kind": "probe_hang", "message": reason, "source": self._name,
        }  # fmt: skip
        trouble = Trouble("failed", f"{self._node}, {child.at.text}", f"{reason}; left alone for {wait_s:g} s")
        frame = pl.DataFrame([row], schema_overrides=EVENT.schema("wire") | {"ts": pl.Datetime("us", "UTC")})
        return Batch(self._name, {"event": frame}, None, (trouble,)).checked()

    def _ended(self) -> SourceFailed:
        child = self._child
        self._drop()
        wait_s = self._back_off(None)
        where = "" if child is None else f" while at {child.at.text} (exit status {child.process.returncode})"
        return SourceFailed(f"the probe of node {self._node} ended twice{where}; the next try is in {wait_s:g} s")

    def _back_off(self, index: int | None) -> float:
        """Leave a GPU, or the whole driver (None), alone: twice as long for each time in a row."""
        before = self._backoffs.get(index)
        strikes = 0 if before is None else before.strikes
        wait_s = min(self._policy.backoff_s * 2.0 ** min(strikes, 60), self._policy.backoff_max_s)
        self._backoffs[index] = _Backoff(strikes + 1, self._monotonic_s() + wait_s)
        return wait_s

    def _refuse_too_early(self) -> None:
        backoff = self._backoffs.get(None)
        left_s = 0.0 if backoff is None else backoff.until_s - self._monotonic_s()
        if left_s > 0:
            message = f"the driver of node {self._node} did not answer; the next try is in {left_s:.0f} s"
            raise SourceFailed(message)


def load(path: str) -> Callable[..., Any]:
    """Return the function at an import path `module:name`, or raise `BadInput`."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        message = f"{path!r} is not the import path of a function, as in package.module:function"
        raise BadInput(message, field=path) from error
    if not callable(found):
        message = f"{path!r} can't be called"
        raise BadInput(message, field=path)
    return found  # type: ignore[no-any-return]  # an import path has no type


def main() -> None:
    """Be the child: make the source, then read whenever asked, until the parent closes the pipe."""
    # Ctrl-C goes to the whole group; the parent ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(int(sys.argv[1])) as connection, suppress(EOFError, BrokenPipeError):
        _serve(connection)


def _serve(connection: Connection) -> None:
    def tell(what: str, gpu_index: int | None) -> None:
        connection.send(_Message("at", what, gpu_index))

    factory, arguments, memory = connection.recv()
    try:
        source: Probed[Any] = load(factory)(tell, *arguments)
    except StewardError as error:
        connection.recv()  # the question is answered with why there is nobody to ask
        connection.send(_failed(error))
        return
    if memory is not None:
        source.memory = memory
    while (request := connection.recv()) is not None:
        since, until, source.skip = request
        tell("reading", None)
        try:
            for batch in source.collect(since, until):
                body = (batch.source, dict(batch.frames), batch.read_until, batch.troubles)
                connection.send(_Message("batch", body=body))
        except SourceFailed as error:
            connection.send(_failed(error))
        else:
            connection.send(_Message("end", body=source.memory))
    source.close()


def _failed(error: StewardError) -> _Message:
    kind = "SourceUnavailable" if isinstance(error, SourceUnavailable) else "SourceFailed"
    return _Message("failed", kind, body=str(error))
