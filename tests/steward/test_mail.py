"""Mail to a real server on this machine: sent where it may be, and failed with a reason wherever it may not."""

import gc
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actions.approval_policy import ApprovalPolicy, Graces
from actions.policy import ActionPolicy, Budget, Modes
from fleet.errors import SourceFailed
from steward.acting import act, record_told
from steward.channels import MailChannel, mail_server
from steward.config import load_settings
from steward.notify import News, Outbox
from steward.notify_settings import MailSettings
from tests.steward.action_house import SETTINGS, fenced, fences, later, opened
from tests.steward.mail_box import certificate, mail_box, scripted
from tests.steward.test_notify import news

pytestmark = pytest.mark.enable_socket
OFFERS = "250-localhost\r\n250 STARTTLS"


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    yield
    gc.collect()  # a socket that nobody closed is a warning, and so an error


def channel(
    port: int, tmp_path: Path, password: str | None = None, timeout_s: float = 5.0, **more: object
) -> MailChannel:
    plain = MailSettings("localhost", port, "none", to=("ops@example.org",))
    if password is not None:
        (tmp_path / "password").write_text(f"{password}\n")
        more |= {"user": "steward", "password_file": tmp_path / "password"}
    told = replace(plain, **more)  # type: ignore[arg-type] # fields
    return MailChannel(told, {"research": ("ann@example.org",)}, mail_server(told, timeout_s))


def why_not(tried: MailChannel) -> str:
    with pytest.raises(SourceFailed, match="mail by localhost") as caught:
        tried.tell([news()])
    return str(caught.value)


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Give a server's side of secured connections, whose certificate is trusted here."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    cert, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    return context


def test_mail_arrives_at_its_owners(tmp_path: Path, secured: ssl.SSLContext) -> None:
    with mail_box(secured, with_auth=True) as box:
        assert channel(box.port, tmp_path, "right", security="starttls").tell([news()]) is None
    ((to, text),) = box.taken
    assert to == ["ops@example.org", "ann@example.org"]
    assert "Subject: GPU Steward: 1 move proposed for workspace research" in text
    assert (box.is_tls, box.sign_ins) == ([True], ["steward"])


def test_a_wrong_password_sends_nothing(tmp_path: Path, secured: ssl.SSLContext) -> None:
    with mail_box(secured, with_auth=True) as box:
        reason = why_not(channel(box.port, tmp_path, "wrong", security="starttls"))
    assert "535" in reason
    assert "wrong" not in reason
    assert (box.taken, box.sign_ins[:1]) == ([], ["steward"])


def test_a_server_that_wants_to_know_who_it_is_takes_nothing_from_nobody(
    tmp_path: Path, secured: ssl.SSLContext
) -> None:
    with mail_box(secured, with_auth=True) as box:
        assert "530" in why_not(channel(box.port, tmp_path, security="starttls"))
        assert "530" in why_not(channel(box.port, tmp_path)), "nor before the connection is secured"
    assert box.taken == []


def test_without_starttls_no_password_and_no_word_goes_over_the_wire(tmp_path: Path) -> None:
    with mail_box() as box:
        assert "STARTTLS extension not supported" in why_not(channel(box.port, tmp_path, "right", security="starttls"))
    assert (box.taken, box.sign_ins) == ([], [])


def test_a_refused_starttls_is_not_gone_on_without(tmp_path: Path) -> None:
    with scripted("220 localhost", OFFERS, "454 TLS not available", None) as (port, said):
        assert "454" in why_not(channel(port, tmp_path, "right", security="starttls"))
    assert [line.partition(" ")[0].upper() for line in said] == ["EHLO", "STARTTLS"]


def test_a_certificate_that_nobody_trusts_gets_no_password_and_no_word(
    tmp_path: Path, secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with mail_box(secured, with_auth=True) as box:
        reason = why_not(channel(box.port, tmp_path, "right", security="starttls"))
    assert "certificate verify failed" in reason
    assert (box.taken, box.sign_ins) == ([], [])


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((None,), "timed out"),
        (("220 localhost", None), "timed out"),
        (("220 localhost", "250 localhost", "250 OK", "250 OK", "250 OK", None), "timed out"),
        (("421 too busy", None), "421"),
        (("220 localhost", "250 localhost", "550 not from you", "250 OK", None), "550"),
        (("220 localhost", "250 localhost", "250 OK", "550 nobody", "550 nobody", "250 OK", None), "550"),
        (("220 localhost", "250 localhost"), "closed"),
        (("nonsense", None), "mail by localhost"),
    ],
    ids=["silent", "silent after the greeting", "silent before the text", "busy", "sender", "all recipients", "gone",
         "no mail server"],
)  # fmt: skip
def test_a_server_that_fails_at_any_step_is_left_with_the_reason_in_time(
    answers: tuple[str | None, ...], words: str, tmp_path: Path
) -> None:
    begun = time.monotonic()
    with scripted(*answers) as (port, _said):
        assert words in why_not(channel(port, tmp_path, timeout_s=0.2))
    assert time.monotonic() - begun < 1.5


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "refused" in why_not(channel(port, tmp_path)).lower()


def test_who_is_not_known_there_is_named_and_the_others_are_told(tmp_path: Path) -> None:
    with mail_box() as box:
        box.refuses = ("ann@example.org",)
        assert channel(box.port, tmp_path).tell([news()]) == "mail by localhost was not taken for ann@example.org"
    assert [to for to, _ in box.taken] == [["ops@example.org"]]


def test_a_server_that_says_good_bye_badly_has_taken_the_mail(tmp_path: Path) -> None:
    script = ("220 localhost", "250 localhost", *("250 OK",) * 3, "354 go on")
    with scripted(*script, *("250 taken",) * 40) as (port, said):
        channel(port, tmp_path, timeout_s=0.2).tell([news()])
    assert any(line.startswith("Subject:") for line in said)


@pytest.mark.parametrize(
    ("name", "to"), [("lab\r\nBcc: eve@example.org", ("ops@example.org",)), ("lab", ("ops@example.org\nBcc: eve@x",))]
)
def test_no_name_and_no_address_adds_a_recipient(name: str, to: tuple[str, ...], tmp_path: Path) -> None:
    with mail_box() as box:
        tried = channel(box.port, tmp_path, to=to)
        try:
            tried.tell([news(workspace=name)])
        except SourceFailed as error:
            assert "linefeed" in str(error) or "newline" in str(error)  # noqa: PT017 - either is right
    assert all(
        "eve@example.org" not in to and "\r\nBcc:" not in text.partition("\r\n\r\n")[0] for to, text in box.taken
    )


AUTO = ActionPolicy(
    modes=Modes(fence="auto"),
    budget=Budget(max_share_of_pool=1.0, max_share_of_nodes_per_turn=1.0),
    approval=ApprovalPolicy(grace_s=Graces(fence=300)),
)


def test_no_mail_that_fails_stops_a_move_or_is_taken_for_told(tmp_path: Path) -> None:
    (tmp_path / "steward.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "steward.toml", {})
    with scripted("220 localhost", "554 go away", None) as (port, _said):
        mail = Outbox(slow=(channel(port, tmp_path, timeout_s=0.2),), sleep=lambda _s: None)
        with opened(settings, tmp_path, AUTO, outbox=mail) as (house, desk, clock):
            act(house, [fences(house, 2)], clock.now())
            mail.flush(10)
            record_told(house, clock.now())
            told = house.store.read("approval")
            assert set(told.filter(told["step"] == "notified").get_column("who")) == {"log"}, "never by mail"
            failed = house.store.read("source_failure")
            assert failed.filter(failed["source"] == "notify").get_column("place").unique().to_list() == ["notify mail"]
            act(house, [fences(house, 2)], later(desk, clock, minutes=6))
            assert fenced(house) == 2, "the move is made all the same"
            mail.flush(10)


class Odd:
    """A channel that fails as nobody foresaw, once."""

    name = "odd"

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, news: "list[News]") -> None:
        self.told.append(news[0].content)
        if len(self.told) == 1:
            raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_news_that_failed_as_nobody_foresaw_is_told_again_and_holds_up_none_after_it() -> None:
    odd = Odd()
    outbox = Outbox(quick=(), slow=(odd,), sleep=lambda _s: None)  # type: ignore[arg-type] # narrower news
    outbox.send("odd", [news()])
    outbox.flush(5)
    (told,) = outbox.collect()
    assert told.error is not None
    assert "nobody foresaw" in told.error
    outbox.send("odd", [news(), news("other", "vision")])
    outbox.flush(5)
    assert [each.error for each in outbox.collect()] == [None, None]
