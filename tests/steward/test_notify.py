"""How owners are told: one message a workspace, tried again, a webhook and mail as they go over the wire."""

import json
import smtplib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Self

import pytest

from fleet.errors import BadConfig, BadInput, SourceFailed, StaleState
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef
from steward.channels import ClusterChannel, MailChannel, WebhookChannel, open_outbox
from steward.config import load_settings
from steward.notify import LogChannel, News, Outbox, message_of
from steward.notify_settings import MailSettings, NotifySettings

pytestmark = pytest.mark.enable_socket


def news(name: str = "train", workspace: str | None = "research", cluster: str = "c1") -> News:
    move = Move(
        f"m-{name}", MoveKind.SUSPEND_WORKLOAD, cluster, ObjectRef("Job", "team", name), "idle", "it idles",
        workspace=workspace,
    )  # fmt: skip
    return News(f"content-{name}", "p1", move, "it is made at noon where nobody refuses")


class Recorder:
    """A channel that fails as often as it is told to."""

    def __init__(self, fails: int = 0, error: Exception | None = None) -> None:
        self.name = "ears"
        self.fails = fails
        self.error = error or SourceFailed("no answer")
        self.told: list[Sequence[News]] = []

    def tell(self, news: Sequence[News]) -> None:
        if self.fails > 0:
            self.fails -= 1
            raise self.error
        self.told.append(news)


def test_each_workspace_gets_one_message_with_all_its_moves() -> None:
    ears = Recorder()
    outbox = Outbox(quick=(ears,))
    outbox.send("ears", [news("a"), news("b"), news("c", "vision"), news("d", None)])
    assert [[each.move.target.name for each in told] for told in ears.told] == [["a", "b"], ["c"], ["d"]]
    assert [told.error for told in outbox.collect()] == [None] * 3
    assert outbox.collect() == []


@pytest.mark.parametrize(("fails", "is_told"), [(0, True), (2, True), (3, False)])
def test_a_slow_channel_is_tried_three_times_in_a_thread_of_its_own(fails: int, *, is_told: bool) -> None:
    ears, waits = Recorder(fails), list[float]()
    outbox = Outbox(quick=(), slow=(ears,), sleep=waits.append)
    outbox.send("ears", [news()])
    outbox.flush(5)
    (told,) = outbox.collect()
    assert (told.error is None) == is_told
    assert len(waits) == min(fails, 2)


def test_what_is_on_its_way_is_not_sent_twice_and_what_failed_may_be_sent_again() -> None:
    is_free, ears = threading.Event(), Recorder(3)

    def sleep(_seconds: float) -> None:
        is_free.wait(5)

    outbox = Outbox(quick=(), slow=(ears,), sleep=sleep)
    outbox.send("ears", [news()])
    outbox.send("ears", [news()])
    is_free.set()
    outbox.flush(5)
    assert [told.error for told in outbox.collect()] == ["no answer"]
    outbox.send("ears", [news()])
    outbox.flush(5)
    assert [told.error for told in outbox.collect()] == [None]


def test_what_can_never_get_through_is_not_tried_again_and_ends_nothing() -> None:
    ears = Recorder(1, StaleState("the target is gone"))
    outbox = Outbox(quick=(), slow=(ears,), sleep=lambda _s: None)
    outbox.send("ears", [news("a")])
    outbox.send("ears", [news("b", "vision")])
    outbox.flush(5)
    assert [told.error for told in outbox.collect()] == ["the target is gone", None]


def test_a_message_says_what_why_what_happens_next_and_how_to_answer() -> None:
    subject, text = message_of([news(str(number)) for number in range(25)])
    assert subject == "GPU Steward: 25 moves proposed for workspace research"
    assert "suspend_workload Job/team/0 in c1: it idles; it is made at noon where nobody refuses (id m-0)" in text
    assert "and 5 more" in text
    assert "steward refuse ID" in text


@contextmanager
def webhook(status: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    posted: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", posted
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_gets_slacks_json() -> None:
    with webhook(200) as (url, posted):
        WebhookChannel(url).tell([news()])
    assert [list(each) for each in posted] == [["text"]]
    assert "Job/team/train" in posted[0]["text"]


def test_a_webhook_that_refuses_or_is_gone_fails_and_its_address_stays_a_secret() -> None:
    with webhook(404) as (url, _posted), pytest.raises(SourceFailed, match="answered 404"):
        WebhookChannel(url).tell([news()])
    with pytest.raises(SourceFailed) as caught:
        WebhookChannel(url).tell([news()])
    assert "hook" not in str(caught.value).removeprefix("the webhook")


class Mailbox:
    """A mail connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[EmailMessage] = []
        self.is_down = False

    def __enter__(self) -> Self:
        if self.is_down:
            raise smtplib.SMTPServerDisconnected
        return self

    def __exit__(self, *_error: object) -> None:
        """Close nothing."""

    def send_message(self, message: EmailMessage) -> None:
        self.sent.append(message)


def test_mail_goes_to_the_owners_of_the_workspace_and_to_those_who_always_get_it() -> None:
    box = Mailbox()
    settings = MailSettings("mail.example", to=("ops@example.org",))
    channel = MailChannel(settings, {"research": ("ann@example.org", "ops@example.org")}, lambda: box)
    channel.tell([news()])
    channel.tell([news(workspace="vision")])
    assert [message["To"] for message in box.sent] == ["ops@example.org, ann@example.org", "ops@example.org"]
    assert "Job/team/train" in box.sent[0].get_content()
    box.is_down = True
    with pytest.raises(SourceFailed, match=r"mail by mail\.example"):
        channel.tell([news()])


def test_the_cluster_of_a_move_announces_it_and_others_do_not() -> None:
    said: list[str] = []

    class Herald:
        def announce(self, move: Move, text: str) -> None:
            said.append(f"{move.target.name}: {text}")

    ClusterChannel({"c1": Herald()}).tell([news(), news("serve", cluster="c2")])
    assert len(said) == 1
    assert said[0].startswith("train: suspend_workload")


def test_the_log_is_always_told_and_settings_add_to_it(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/secret\n")
    full = NotifySettings(webhook_file=tmp_path / "hook", mail=MailSettings("mail.example", to=("a@b",)), events=True)
    assert open_outbox(NotifySettings(), {}).names() == ("log",)
    assert open_outbox(full, {}).names() == ("log", "webhook", "mail")
    assert LogChannel().name == "log"
    with pytest.raises(BadConfig, match="webhook_file"):
        open_outbox(NotifySettings(webhook_file=tmp_path / "gone"), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('webhook = "hooks.example"', "not an http"),
        ('[notify.mail]\nhost = "m"', "nobody to write to"),
        ('[notify.mail]\nsecurity = "some"', "starttls, tls, none"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f"[notify]\n{text}\n")
    with pytest.raises(BadInput, match=words):
        load_settings(tmp_path / "s.toml", {})
