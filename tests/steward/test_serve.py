"""The whole server on a loopback port: probes, API, metrics and pages in one process, and a clean end.

Streamlit allows one server in the life of a process, so each one here is a process of its own.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fleet.errors import BadInput
from steward.serve import listen

pytestmark = pytest.mark.enable_socket

PATIENCE_S = 30
# What the server is made of: a desk and a loop of our own, and a store with one row. It tells its address, and then
# how it ended, on standard error.
SERVER = """
import sys
from datetime import UTC, datetime
import polars as pl
from streamlit import config
from fleet.batch import Batch
from fleet.clock import SystemClock
from fleet.errors import BadInput
from steward.serve import build_asgi, serve
from store.store import Store

class Desk:
    def report(self, name, parameters):
        if name == "options":
            return {key: config.get_option(key) for key in parameters}
        raise BadInput(f"there is no report {name}", field="name")
    def operate(self, name, parameters):
        return {"done": name, "parameters": dict(parameters)}
    def metrics(self):
        return "gpusteward_up 1\\n"
    def health(self):
        return {"ok": True, "reasons": steps}

steps = []
def loop(is_stopping):
    steps.append("loop started")
    is_stopping.wait()
    print("loop ended", file=sys.stderr, flush=True)

now = datetime(2026, 3, 2, 12, tzinfo=UTC)
row = {"cluster": "east", "workspace": "research", "ts": now, "running_gpus": 7.0, "capacity_gpus": 856.0}
with Store.open(None, clock=SystemClock()) as store:
    store.append(Batch("replay:queue", {"demand_sample": pl.DataFrame([row])}, now))
    asgi = build_asgi(Desk(), store, "secret", loop, lambda body: steps.append(f"pushed {len(body)}"))
    serve(asgi, "127.0.0.1", 0, on_ready=lambda url: print(url, file=sys.stderr, flush=True))
print("served", file=sys.stderr, flush=True)
"""
TOKEN = {"Authorization": "Bearer secret"}


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the server; its address is told once the socket listens, so nobody has to try and wait."""
    command = [sys.executable, "-W", "error", "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own words
        assert process.stderr is not None
        try:
            yield process, process.stderr.readline().strip()
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as (_, address):
        yield address


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield client


def test_probes_and_metrics_answer_beside_the_pages(http: httpx.Client) -> None:
    assert http.get("/healthz").json()["ok"] is True
    assert http.get("/readyz").status_code == 200
    metrics = http.get("/metrics", follow_redirects=False)
    assert (metrics.status_code, metrics.text) == (200, "gpusteward_up 1\n")


def test_the_pages_answer_on_the_same_port(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.status_code == 200
    assert "<title>Streamlit</title>" in page.text
    assert http.get("/_stcore/health").text == "ok"


def test_the_api_answers_on_the_same_port_to_who_has_the_token(http: httpx.Client) -> None:
    done = http.post("/v1/operations/plan", json={"a": 1}, headers=TOKEN)
    assert done.json() == {"done": "plan", "parameters": {"a": 1}}
    assert http.post("/v1/operations/plan", json={"a": 1}).status_code == 401


def test_an_error_of_ours_is_a_problem_through_the_whole_server(http: httpx.Client) -> None:
    refused = http.get("/v1/reports/unheard", headers=TOKEN)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert refused.json()["detail"] == "there is no report unheard"


def test_what_is_pushed_comes_to_the_door_of_who_has_the_token(http: httpx.Client) -> None:
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
    assert http.post("/api/v1/write", content=b"abc", headers=headers).status_code == 401
    assert http.post("/api/v1/write", content=b"abc", headers={**headers, **TOKEN}).status_code == 204
    assert http.post("/api/v1/write", content=b"abc", headers=TOKEN).status_code == 415
    assert http.get("/healthz").json()["reasons"][-1] == "pushed 3"


def test_the_loop_runs_while_the_server_does(http: httpx.Client) -> None:
    assert http.get("/healthz").json()["reasons"][0] == "loop started"


def test_nothing_is_told_to_others_and_no_files_are_watched(http: httpx.Client) -> None:
    options = {"browser.gatherUsageStats": "", "server.fileWatcherType": "", "client.showErrorDetails": ""}
    assert http.get("/v1/reports/options", params=options, headers=TOKEN).json() == {
        "browser.gatherUsageStats": False,
        "server.fileWatcherType": "none",
        "client.showErrorDetails": "none",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_server_in_order_and_standard_output_stays_empty(number: signal.Signals) -> None:
    with running() as (process, address):
        assert httpx.get(f"{address}/healthz", timeout=PATIENCE_S).status_code == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert output == ""
    assert errors.splitlines() == ["loop ended", "served"]
    assert process.returncode == 0


def test_an_address_that_is_taken_is_told_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(BadInput, match="--port") as caught:
        listen("127.0.0.1", taken.getsockname()[1])
    assert caught.value.field == "port"


@pytest.mark.parametrize(
    ("host", "port"),
    [
        pytest.param("127.0.0.1", 70000, id="no such port"),
        pytest.param("127.0.0.1", -1, id="below every port"),
        pytest.param("256.256.256.256", 0, id="no such host"),
    ],
)
def test_an_address_that_is_none_is_told(host: str, port: int) -> None:
    with pytest.raises(BadInput):
        listen(host, port)


@pytest.mark.browser
def test_a_browser_shows_the_headline_numbers(url: str, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on the PATH")
    picture = tmp_path / "page.png"
    script = Path(__file__).parents[2] / "scripts" / "screenshot"
    command = [sys.executable, str(script), url, str(picture), "--text"]
    shot = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)  # noqa: S603 - our own words
    words = [line for line in shot.stdout.split("\n") if line]
    assert "Fleet overview" in words
    assert words[words.index("GPUs") + 1] == "856"
    assert words[words.index("Healthy") + 1] == "unknown"
    assert picture.read_bytes().startswith(b"\x89PNG")
