"""The agent's own HTTP server: `/metrics` for Prometheus and `/healthz` for the kubelet, and nothing else."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from collectors.exposition import CONTENT_TYPE
from fleet.errors import BadInput

_PORT_MAX = 65535
_PLAIN = "text/plain; charset=utf-8"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], render: Callable[[], str], is_well: Callable[[], bool]) -> None:
        self.render, self.is_well = render, is_well
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # a scraper that says nothing holds a thread no longer
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE, self.server.render())
        elif path == "/healthz":
            is_well = self.server.is_well()
            self._answer(200 if is_well else 503, _PLAIN, "ok\n" if is_well else "no turn ended lately\n")
        else:
            self._answer(404, _PLAIN, "there are /metrics and /healthz\n")

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is not news."""

    def _answer(self, status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `:PORT` (all addresses) or `[IPv6]:PORT`, or raise `BadInput`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        message = f"listen: {text!r} is not an address to listen at, as in :9400 or 127.0.0.1:9400"
        raise BadInput(message, field="listen")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - that is what no host means


@contextmanager
def serving_metrics(
    address: tuple[str, int], render: Callable[[], str], is_well: Callable[[], bool] = lambda: True
) -> Iterator[int]:
    """Serve in a thread of its own while inside; gives the port. Raises `BadInput` where it can't listen there."""
    try:
        server = _Server(address, render, is_well)
    except OSError as error:
        message = f"listen: can't listen at {address[0]}:{address[1]}: {error.strerror}"
        raise BadInput(message, field="listen") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="agent-http")
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
