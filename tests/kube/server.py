"""An API server of Kubernetes in memory, over HTTP on 127.0.0.1, with the real one's rules and faults on purpose."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tests.kube.access import User, user_of
from tests.kube.answers import Object, Refusal
from tests.kube.faults import Fault, Faults
from tests.kube.routes import Request, Target, answer, authorize, shown, target_of, test_of
from tests.kube.storage import Change, Test
from tests.kube.verbs import Api

_BOOKMARK_EVERY_S, _BOOKMARK_BEFORE_END_S, _WATCH_S = 60.0, 2.0, 1800.0


def _system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class KubeServer:
    """A running server: its API for arranging, its faults, and what it was asked (`GET /path?query`).

    `bookmark_s` says when a watch's first bookmark comes; None = as the real server: two seconds before its end.
    """

    clock: Callable[[], datetime] = _system_clock
    bookmark_s: float | None = 0.02
    api: Api = field(init=False)
    faults: Faults = field(default_factory=Faults)
    asked: list[str] = field(default_factory=list)
    askers: list[str] = field(default_factory=list)  # the user agent of each
    tokens: set[str | None] = field(default_factory=set)
    issued: dict[str, User] = field(default_factory=dict)  # whose the tokens are that this server made
    url: str = ""
    settle: Callable[[], None] = lambda: None  # what the cluster's controllers do after each write

    def __post_init__(self) -> None:
        self.api = Api(self.clock)
        for name in ("default", "kube-system"):
            self.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def seed(self, each: Object) -> Object:
        """Store an object as it is, status included, without the rules of creation."""
        group, _, version = each["apiVersion"].rpartition("/")
        kind = next(kind for kind in self.api.kinds.all if (kind.group, kind.name) == (group, each["kind"]))
        assert version in kind.versions
        meta = each["metadata"]
        own = {"uid": f"{kind.plural}-{meta.get('namespace', '')}-{meta['name']}"}
        own |= {"creationTimestamp": self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")}
        key = (kind.key, meta.get("namespace", "") if kind.is_namespaced else "", meta["name"])
        return self.api.storage.put(key, {**each, "metadata": {**own, **meta}})

    def serve(self, port: int = 0) -> "Running":
        """Begin to answer."""
        return Running(self, port)


class Running:
    """A server that answers until it is closed; connections that are open then are cut."""

    def __init__(self, server: KubeServer, port: int = 0) -> None:
        self._open: set[socket.socket] = set()
        handler = type("Handler", (_Handler,), {"kube": server, "open_sockets": self._open})
        self._http = _Http(("127.0.0.1", port), handler)
        self.port = self._http.server_port
        server.url = f"http://127.0.0.1:{self.port}"
        self._server = server
        server.faults.stop.clear()
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.faults.stop.set()
        with self._server.api.storage.changed:
            self._server.api.storage.changed.notify_all()
        self._http.shutdown()
        self._thread.join()
        for each in list(self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed already
        self._http.server_close()


@contextmanager
def serving(server: KubeServer, kubeconfig: Path | None = None, context: str = "east") -> Iterator[KubeServer]:
    """Serve while the block runs; a kubeconfig is written where one is wanted."""
    running = server.serve()
    if kubeconfig is not None:
        write_kubeconfig(kubeconfig, [(context, server.url)])
    try:
        yield server
    finally:
        running.close()


def write_kubeconfig(path: Path, contexts: Sequence[tuple[str, str]]) -> None:
    """Write a kubeconfig with a context, a cluster and a user for each address; the first is the current one."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": contexts[0][0],
        "clusters": [{"name": name, "cluster": {"server": url}} for name, url in contexts],
        "users": [{"name": name, "user": {"token": "s3cret"}} for name, _ in contexts],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name, _ in contexts],
    }  # fmt: skip
    path.write_text(json.dumps(config))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    kube: KubeServer
    open_sockets: set[socket.socket]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16

    def setup(self) -> None:
        super().setup()
        self.open_sockets.add(self.connection)

    def finish(self) -> None:
        self.open_sockets.discard(self.connection)
        try:
            super().finish()
        except OSError:
            return  # the other side has gone

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the library wants them

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002 - the server's own clock tells
        return format_datetime(self.kube.clock(), usegmt=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        line = f"{self.command} {self.path}"
        self.kube.asked.append(line)
        self.kube.askers.append(self.headers.get("User-Agent", ""))
        self.kube.tokens.add(self.headers.get("Authorization"))
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.kube.faults.take(line)
        if fault is not None and fault.delay_s:
            self.kube.faults.stop.wait(fault.delay_s)
        try:
            request = self._read(content)
            _refuse_on_purpose(fault)
            if request.is_watch:
                self._watch(request)
                return
            status, body = answer(self.kube.api, request)
            if self.command != "GET":
                with self.kube.api.storage.changed:
                    self.kube.settle()
        except Refusal as error:
            if error.is_text:
                self._send(error.code, f"{error.message}\n".encode(), fault, "text/plain; charset=utf-8")
                return
            status, body = error.code, error.status()
        self._send(status, msgspec.json.encode(body), fault)

    def _read(self, content: bytes) -> Request:
        parts = urlsplit(self.path)
        try:
            body = json.loads(content) if content else None
        except ValueError as error:
            raise Refusal(400, f"the body is no JSON: {error}") from error
        return Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            body,
            self.headers.get("Content-Type", ""),
            self.headers.get("Accept", ""),
            self.headers.get("User-Agent", ""),
            user_of(self.headers, self.kube.issued),
            self.kube.issued,
        )

    def _send(self, status: int, content: bytes, fault: Fault | None, kind: str = "application/json") -> None:
        if fault is not None and fault.body is not None:
            content = fault.body
        sent = content if fault is None or fault.keep is None else content[: fault.keep]
        is_short = len(sent) < len(content)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        length = len(sent) if fault is not None and fault.is_honest_length else len(content)
        self.send_header("Content-Length", str(length))
        if fault is not None and fault.retry_after is not None:
            self.send_header("Retry-After", fault.retry_after)
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()
        self.close_connection = is_short or self.close_connection

    # Watches

    def _watch(self, request: Request) -> None:
        target = target_of(self.kube.api, request.path)
        if target is None:
            raise Refusal(404, "404 page not found", is_text=True)
        authorize(self.kube.api, target, request)
        test = test_of(target, request.query)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        faults = self.kube.faults
        for sent, event in enumerate(self._events(target, test, request)):
            content = msgspec.json.encode(event) + b"\n"
            is_last = faults.cut_after is not None and sent >= faults.cut_after
            if is_last and not faults.is_cut_mid_line:
                break
            self._chunk(content[: len(content) // 2] if is_last else content)
            if is_last:
                break
        else:
            self._chunk(b"")
            return
        self.close_connection = True  # without the chunk that ends it: the other side sees it break off

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def _events(self, target: Target, test: Test, request: Request) -> Iterator[Object]:
        api, version = self.kube.api, request.query.get("resourceVersion", "")
        seen = int(version or 0)
        if seen == 0:
            items, seen, *_ = api.storage.page(target.kind.key, target.namespace, test, 0, "")
            yield from ({"type": "ADDED", "object": shown(target, each, request.accept)} for each in items)
        ends_at = time.monotonic() + float(request.query.get("timeoutSeconds") or _WATCH_S)
        wants_bookmarks = request.query.get("allowWatchBookmarks") in {"1", "true"}
        bookmark_at = self._first_bookmark(ends_at) if wants_bookmarks else float("inf")
        generation = self.kube.faults.generation
        while True:
            try:
                changes = list(api.storage.since(seen, target.kind.key, target.namespace))
            except Refusal as error:
                yield {"type": "ERROR", "object": error.status()}
                return
            for change in changes:
                seen = change.revision
                event = _event(change, test)
                if event is not None:
                    yield {"type": event[0], "object": shown(target, event[1], request.accept)}
            now = time.monotonic()
            if now >= ends_at or self.kube.faults.stop.is_set() or generation != self.kube.faults.generation:
                return
            if now >= bookmark_at and not changes:
                bookmark_at = now + _BOOKMARK_EVERY_S
                with api.storage.changed:
                    if list(api.storage.since(seen, target.kind.key, target.namespace)):
                        continue
                    seen = api.storage.revision
                meta = {"resourceVersion": str(seen), "creationTimestamp": None}
                kind = {"kind": target.kind.name, "apiVersion": target.kind.api_version(target.version)}
                yield {"type": "BOOKMARK", "object": {**kind, "metadata": meta}}
            with api.storage.changed:
                if not list(api.storage.since(seen, target.kind.key, target.namespace)):
                    api.storage.changed.wait(max(0.001, min(ends_at, bookmark_at, now + 0.25) - now))

    def _first_bookmark(self, ends_at: float) -> float:
        if self.kube.bookmark_s is not None:
            return time.monotonic() + self.kube.bookmark_s
        early = ends_at - _BOOKMARK_BEFORE_END_S
        now = time.monotonic()
        return min(early, now + _BOOKMARK_EVERY_S) if early > now else now + _BOOKMARK_EVERY_S


def _refuse_on_purpose(fault: Fault | None) -> None:
    if fault is not None and fault.status is not None:
        raise Refusal(fault.status, "a fault on purpose")


def _event(change: Change, test: Test) -> tuple[str, Object] | None:
    """Return how a change looks through a selector: what no longer matches was deleted, as far as that watch knows."""
    was = change.before is not None and test(change.before)
    if change.after is not None and test(change.after):
        return ("MODIFIED" if was else "ADDED"), change.after
    if was and change.before is not None:
        last = change.after or change.before
        return "DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(change.revision)}}
    return None
