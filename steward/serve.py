"""One process, one port: the turn in the background, the API, the metrics and the pages over one open store."""

import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from threading import Event, Thread

import streamlit
import uvicorn
from anyio import to_thread
from starlette.routing import Route
from starlette.types import ASGIApp
from streamlit import config

import dashboards
from api.app import create_app
from api.port import Desk, Ingest
from dashboards.port import Library, provide
from dashboards.theme import OPTIONS
from fleet.bounds import require_between
from fleet.errors import BadInput
from steward.page_counter import PageCounter

LoopTask = Callable[[Event], None]
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8787

# Route and not Mount: a mount would answer /metrics by sending Prometheus on to /metrics/, and both would cut the
# path that the API looks at. Everything that is not listed here belongs to the pages.
_API_PATHS = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/{rest:path}",
    "/api/v1/write",
    "/allocation",
    "/allocation/{rest:path}",
)
_GRACE_S = 5


def build_asgi(
    desk: Desk,
    store: Library,
    token: str | None,
    loop_task: LoopTask | None = None,
    ingest: Ingest | None = None,
    *,
    people: Mapping[str, str] | None = None,
) -> ASGIApp:
    """Return one ASGI application that serves the API over `desk` and the pages over `store`.

    `loop_task` runs in a thread from start-up to shut-down; it returns soon after its event is set, and shut-down
    waits for that, so that the store can be closed afterwards.
    """
    for name, value in OPTIONS.items():
        config.set_option(name, value)
    provide(store, counter=PageCounter(desk, token, people))
    api = create_app(desk, token, ingest, people)
    script = Path(dashboards.__path__[0]) / "app.py"
    return streamlit.App(
        script, routes=[Route(path, api) for path in _API_PATHS], lifespan=lambda _app: _background(loop_task)
    )


def serve(
    asgi: ASGIApp,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was asked and return.

    Call it from the main thread, and once: Streamlit allows one server in the life of a process. `on_ready` is told
    the address once the port is ours; 0 takes any free port. Raises `BadInput` where the address can't be had.
    """
    with listen(host, port) as listener, _signals_kept():
        server = make_server(asgi)
        if on_ready is not None:
            on_ready(address_of(listener))
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that holds the address, or raise `BadInput` where it can't be had."""
    require_between("port", port, 0, 65535)  # the resolver takes a greater one modulo 65536
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        message = f"can't listen on {host}:{port}: {error}; choose another with --host and --port"
        raise BadInput(message, field="port") from error


def address_of(listener: socket.socket) -> str:
    """Return the URL that a listening socket is reached by."""
    host, number = listener.getsockname()[:2]
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


def make_server(asgi: ASGIApp) -> uvicorn.Server:
    """Return the server, quiet but for warnings: standard output belongs to data."""
    settings = uvicorn.Config(
        asgi,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="websockets-sansio",  # the older adapter rests on what websockets has deprecated
        timeout_graceful_shutdown=_GRACE_S,  # a page's web socket would otherwise stay open for ever
    )
    return uvicorn.Server(settings)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Swallow the signal that uvicorn stopped for: it raises it once more at its end, and the store is still open."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _background(loop_task: LoopTask | None) -> AbstractAsyncContextManager[None]:
    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        if loop_task is None:
            yield
            return
        is_stopping = Event()
        # A daemon, so that a second Ctrl-C ends the process although the turn is still at work.
        thread = Thread(target=loop_task, args=(is_stopping,), name="steward-loop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_stopping.set()
            await to_thread.run_sync(thread.join)

    return run()
