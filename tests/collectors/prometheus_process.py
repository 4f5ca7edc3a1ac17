"""Debian's real Prometheus as a child process, and blocks made with promtool."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def make_blocks(lines: Iterable[str], folder: Path, data: Path) -> None:
    """Write OpenMetrics text (without its end) into blocks of a database."""
    text = folder / "metrics.txt"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    subprocess.run(  # noqa: S603 - a program of the system and our own file
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)],  # noqa: S607 - found on the PATH
        check=True,
        capture_output=True,
    )


@contextmanager
def prometheus(
    folder: Path, config: object = None, *, port: int | None = None, data: Path | None = None, flags: Iterable[str] = ()
) -> Iterator[str]:
    """Run a server while inside, and give its address; `config` is written as JSON, which YAML holds."""
    file = folder / "prometheus.yml"
    file.write_text(json.dumps({"scrape_configs": []} if config is None else config))
    chosen = free_port() if port is None else port
    with subprocess.Popen(  # noqa: S603 - a program of the system and our own settings
        ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={data or folder / 'data'}",  # noqa: S607 - as above
         f"--web.listen-address=127.0.0.1:{chosen}", "--storage.tsdb.retention.time=100y", *flags],
        stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            with requests.Session() as session:
                retry = Retry(total=None, connect=100, status=100, status_forcelist=[503], backoff_factor=0.05)
                session.mount("http://", HTTPAdapter(max_retries=retry))
                session.get(f"http://127.0.0.1:{chosen}/-/ready", timeout=10)
            yield f"http://127.0.0.1:{chosen}"
        finally:
            server.terminate()


def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Look every twentieth of a second until it is so; another process needs its time."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
