"""The settings of the Prometheus source: where the server is, how to get in, how much to ask at once."""

import re
from dataclasses import dataclass

from fleet.bounds import require_positive
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where the server is and how it is read.

    `match` narrows what is read, as label matchers of PromQL (`cluster="east",job="dcgm-exporter"`). The first time
    `backfill_s` seconds are read; every time the last `overlap_s` once more, for samples that came late. A request
    spans `chunk_s` at most, and less where the server finds it too much. The token and the password come from files,
    so that they need not stand in the settings. `tenant` is sent as X-Scope-OrgID (Mimir, Cortex, Loki-like gateways).
    """

    url: str | None = None
    match: str = ""
    backfill_s: float = 86_400.0
    overlap_s: float = 300.0
    chunk_s: float = 3600.0
    timeout_s: float = 60.0
    attempts: int = 4
    max_skew_s: float = 60.0
    tenant: str | None = None
    username: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("backfill_s", "chunk_s", "timeout_s", "attempts"):
            require_positive(name, getattr(self, name))
        if not 0 <= self.overlap_s < self.backfill_s:
            message = f"overlap_s: {self.overlap_s:g} is not between 0 and backfill_s {self.backfill_s:g}"
            raise BadInput(message, field="overlap_s")
        if self.url is not None and not re.match(r"https?://[^/]", self.url):
            message = f"url: {self.url!r} is not an address such as http://prometheus:9090"
            raise BadInput(message, field="url")
        if self.username is not None and self.token_file is not None:
            message = "token_file: give a token or a username with password_file, not both"
            raise BadInput(message, field="token_file")
