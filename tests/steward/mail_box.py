"""A real mail server on this machine, and one that answers as it is told to, for the tests of mail."""

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class MailBox:
    """What a server took: messages as (recipients, text), and who tried to sign in."""

    port: int = 0
    taken: list[tuple[list[str], str]] = field(default_factory=list)
    sign_ins: list[str] = field(default_factory=list)
    is_tls: list[bool] = field(default_factory=list)
    refuses: tuple[str, ...] = ()

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuses:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - likewise
        content = envelope.content
        assert isinstance(content, bytes)
        self.taken.append((list(envelope.rcpt_tos), content.decode()))
        self.is_tls.append(session.ssl is not None)
        return "250 taken"

    def sign_in(self, _server: SMTP, _session: Session, _envelope: Envelope, _way: str, told: object) -> AuthResult:
        assert isinstance(told, LoginPassword)
        self.sign_ins.append(told.login.decode())
        return AuthResult(success=(told.login, told.password) == (b"steward", b"right"), handled=False)


@contextmanager
def mail_box(tls: ssl.SSLContext | None = None, *, with_auth: bool = False) -> Iterator[MailBox]:
    """Serve a mail box on a port of its own; with `tls` it offers STARTTLS and takes nothing before."""
    box = MailBox()
    loop = asyncio.new_event_loop()

    def session() -> SMTP:
        return SMTP(
            box, hostname="localhost", tls_context=tls, require_starttls=tls is not None,
            authenticator=box.sign_in, auth_required=with_auth, loop=loop,
        )  # fmt: skip

    server = loop.run_until_complete(loop.create_server(session, "127.0.0.1", 0))
    box.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield box
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(_end(loop))
        loop.close()


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    left = [each for each in asyncio.all_tasks(loop) if each is not asyncio.current_task()]
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.sleep(0)  # transports close one turn of the loop later


@contextmanager
def scripted(*answers: str | None) -> Iterator[tuple[int, list[str]]]:
    """Answer the lines of a client one by one, the greeting first; None says nothing more until the client leaves."""
    said: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_play, args=(listener, answers, said))
    thread.start()
    try:
        yield listener.getsockname()[1], said
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # it waits for another client
        thread.join()
        listener.close()


def _play(listener: socket.socket, answers: Sequence[str | None], said: list[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            _talk(connection, lines, answers, said)


def _talk(connection: socket.socket, lines: BinaryIO, answers: Sequence[str | None], said: list[str]) -> None:
    for answer in answers:
        if answer is None:
            said.extend(line.decode().strip() for line in lines)
            return
        connection.sendall(answer.encode() + b"\r\n")
        line = lines.readline().decode().strip()
        if not line:
            return
        said.append(line)


def certificate(folder: Path, run: Callable[..., object] = subprocess.run) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate of localhost that nobody has signed, and a server's side that shows it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context
