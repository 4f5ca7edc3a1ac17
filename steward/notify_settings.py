"""Settings of the news that owners get: `[notify]`."""

from dataclasses import dataclass, field
from pathlib import Path

from fleet.bounds import require_between
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class MailSettings:
    """`[notify.mail]`: a mail server; off where there is no host. `security` is starttls, tls or none."""

    host: str | None = None
    port: int = 587
    security: str = "starttls"
    user: str | None = None
    password_file: Path | None = None
    sender: str = "gpu-steward@localhost"
    to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_between("notify.mail.port", self.port, 1, 65535)
        if self.security not in {"starttls", "tls", "none"}:
            message = f"notify.mail.security: {self.security!r} is not one of starttls, tls, none"
            raise BadInput(message, field="notify.mail.security")
        if self.host is not None and not self.to:
            message = "notify.mail.to: a mail server is named and nobody to write to"
            raise BadInput(message, field="notify.mail.to")


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """`[notify]`: where proposals are told, beside the log.

    `webhook` takes Slack's JSON (or stands in `webhook_file`, since such an address is a secret); `owners` gives the
    mail addresses of a workspace's owners; `events` writes a Kubernetes event and an annotation on the target.
    """

    webhook: str | None = None
    webhook_file: Path | None = None
    mail: MailSettings = field(default_factory=MailSettings)
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    events: bool = False

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            message = "notify.webhook: this is not an http or https address"
            raise BadInput(message, field="notify.webhook")
