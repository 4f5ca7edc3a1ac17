"""The channels by which owners are told: a Slack-compatible webhook, mail, and the cluster's own events."""

import json
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from email.message import EmailMessage
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import urllib3

from fleet.errors import BadConfig, SourceFailed
from steward.notify import Channel, Herald, News, Outbox, message_of
from steward.notify_settings import MailSettings, NotifySettings

_TIMEOUT_S = 10.0


class Mailer(Protocol):
    """The part of a mail connection that is used."""

    def send_message(self, message: EmailMessage) -> Mapping[str, object] | None:
        """Send one message and return those of several to whom it could not be sent, with the reasons."""
        ...


class WebhookChannel:
    """A Slack-compatible webhook: one POST of `{"text": ...}` a workspace."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        """Post to `url`."""
        self._url = url
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(total=_TIMEOUT_S))

    def tell(self, news: Sequence[News]) -> None:
        """Post the news."""
        _, text = message_of(news)
        body = json.dumps({"text": text}).encode()
        try:
            answer = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={"Content-Type": "application/json"},
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            message = f"the webhook did not answer: {type(error).__name__}"  # its address is a secret
            raise SourceFailed(message) from error
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            message = f"the webhook answered {answer.status}"
            raise SourceFailed(message)


class MailChannel:
    """Mail to the owners of a workspace, and to those who always get it."""

    name = "mail"

    def __init__(
        self,
        settings: MailSettings,
        owners: Mapping[str, Sequence[str]],
        connect: Callable[[], AbstractContextManager[Mailer]],
    ) -> None:
        """Send through what `connect` opens."""
        self._settings, self._owners, self._connect = settings, owners, connect

    def tell(self, news: Sequence[News]) -> str | None:
        """Send one mail and return to whom it could not be sent where it was sent to others."""
        refused: Mapping[str, object] | None = None
        is_sent = False
        try:
            message = self._message(news)
            with self._connect() as connection:
                refused = connection.send_message(message)
                is_sent = True
        except (OSError, smtplib.SMTPException, ValueError) as error:  # ValueError: an address that is none
            if not is_sent:  # else the server only said good-bye badly
                failure = f"mail by {self._settings.host}: {error}"
                raise SourceFailed(failure) from error
        if not refused:
            return None
        return f"mail by {self._settings.host} was not taken for {', '.join(sorted(refused))}"

    def _message(self, news: Sequence[News]) -> EmailMessage:
        message = EmailMessage()
        subject, text = message_of(news)
        message["Subject"] = " ".join(subject.split())
        message["From"] = self._settings.sender
        owners = self._owners.get(news[0].move.workspace or "", ())
        message["To"] = ", ".join(dict.fromkeys((*self._settings.to, *owners)))
        message.set_content(text)
        return message


class ClusterChannel:
    """Events and annotations at the targets themselves, each cluster by its own herald."""

    name = "kubernetes"

    def __init__(self, heralds: Mapping[str, Herald]) -> None:
        """Announce by the herald of the move's cluster; a cluster without one is passed over."""
        self._heralds = heralds

    def tell(self, news: Sequence[News]) -> None:
        """Announce each move at its target."""
        for each in news:
            herald = self._heralds.get(each.move.cluster)
            if herald is not None:
                herald.announce(each.move, each.text())


def open_outbox(settings: NotifySettings, heralds: Mapping[str, Herald]) -> Outbox:
    """Return the channels that the settings name; the log is always one of them."""
    slow: list[Channel] = []
    url = settings.webhook
    if settings.webhook_file is not None:
        url = _read(settings.webhook_file, "notify.webhook_file")
    if url is not None:
        slow.append(WebhookChannel(url))
    if settings.mail.host is not None:
        slow.append(MailChannel(settings.mail, settings.owners, mail_server(settings.mail)))
    if settings.events and heralds:
        slow.append(ClusterChannel(heralds))
    return Outbox(slow=tuple(slow))


def mail_server(settings: MailSettings, timeout_s: float = _TIMEOUT_S) -> Callable[[], AbstractContextManager[Mailer]]:
    """Return what opens a connection to a mail server, secured and signed in as the settings say, or not at all."""

    def connect() -> smtplib.SMTP:
        host, port = settings.host or "", settings.port
        with ExitStack() as until_ready:
            if settings.security == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(
                    host, port, timeout=timeout_s, context=ssl.create_default_context()
                )
            else:
                server = smtplib.SMTP(host, port, timeout=timeout_s)
            until_ready.callback(server.close)
            if settings.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if settings.user is not None and settings.password_file is not None:
                server.login(settings.user, _read(settings.password_file, "notify.mail.password_file"))
            until_ready.pop_all()
        return server

    return connect


def _read(path: Path, field: str) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{field}: {path} can't be read: {error}"
        raise BadConfig(message, place=str(path), field=field) from error
