"""A Prometheus of our own that lives by a clock of ours, remembers what was scraped, and fails as it is told."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

_QUERY = re.compile(r'\{__name__=~"([^"]*)"\}\[(\d+)ms\]')


@dataclass
class Scraped:
    """One series: its labels, and a value at each moment."""

    labels: dict[str, str]
    pairs: list[tuple[datetime, float]]


@dataclass
class Question:
    """What was asked: metric names, start (exclusive) and end (inclusive)."""

    names: frozenset[str]
    start: datetime
    end: datetime


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    cut_after: int | None = None
    hold_s: float = 0.0


# Gives another answer than the good one, or None for the good one.
Fault = Callable[[Question, bytes], Answer | None]


def never(_question: Question, _good: bytes) -> None:
    """Let everything go well."""


@dataclass
class History:
    """Its series, its own clock, and its faults; `samples_max` is what one query may load."""

    series: list[Scraped]
    now: Callable[[], datetime]
    fault: Fault = never
    samples_max: int = 10**9
    questions: list[Question] = field(default_factory=list)

    def answer(self, question: Question) -> Answer:
        self.questions.append(question)
        last = min(question.end, self.now())
        result, count = [], 0
        for each in self.series:
            if each.labels["__name__"] not in question.names:
                continue
            pairs = [[ts.timestamp(), f"{value:g}"] for ts, value in each.pairs if question.start < ts <= last]
            count += len(pairs)
            if pairs:
                result.append({"metric": each.labels, "values": pairs})
        if count > self.samples_max:
            text = "query processing would load too many samples into memory in query execution"
            return Answer(422, json.dumps({"status": "error", "errorType": "execution", "error": text}).encode())
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        return self.fault(question, body) or Answer(200, body)


@contextmanager
def serving(history: History, port: int = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            match = _QUERY.fullmatch(form["query"][0])
            assert match is not None, form
            end = datetime.fromtimestamp(float(form["time"][0]), history.now().tzinfo)
            start = end - timedelta(milliseconds=int(match[2]))
            answer = history.answer(Question(frozenset(match[1].split("|")), start, end))
            if answer.hold_s:
                threading.Event().wait(answer.hold_s)
            try:
                self.send_response_only(answer.status)
                self.send_header("Date", format_datetime(history.now(), usegmt=True))
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: answer.cut_after])
            except OSError:  # the one who asked has gone
                pass
            self.close_connection = answer.cut_after is not None

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def every(step: timedelta, start: datetime, end: datetime) -> Sequence[datetime]:
    return [start + step * number for number in range(int((end - start) / step) + 1)]
