"""A server of our own that answers as it is told to: one answer a request, the last one for ever."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

JSON = "application/json"


@dataclass
class Reply:
    """One answer; `hang_up_after` closes the connection after so many bytes of the body."""

    body: bytes
    status: int = 200
    hang_up_after: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Fake:
    url: str
    asked: list[dict[str, str]]
    headers: list[dict[str, str]]


def matrix(series: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, str]]]], **more: object) -> Reply:
    result = [{"metric": dict(labels), "values": [list(pair) for pair in pairs]} for labels, pairs in series]
    body = {"status": "success", "data": {"resultType": "matrix", "result": result}, **more}
    return Reply(json.dumps(body).encode())


def error(status: int, text: str) -> Reply:
    return Reply(json.dumps({"status": "error", "errorType": "execution", "error": text}).encode(), status)


@contextmanager
def serving(replies: Sequence[Reply]) -> Iterator[Fake]:
    asked: list[dict[str, str]] = []
    headers: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            reply = replies[min(len(asked), len(replies) - 1)]
            asked.append({name: values[0] for name, values in parse_qs(body).items()})
            headers.append(dict(self.headers))
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": JSON, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.hang_up_after])
            self.close_connection = reply.hang_up_after is not None

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Fake(f"http://127.0.0.1:{server.server_port}", asked, headers)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
