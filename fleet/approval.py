"""Who was asked about a move, who answered and what: one row each, nothing is ever changed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Step(StrEnum):
    """One step on the way of a proposal; that it was made or taken back stands in the outcomes."""

    PROPOSED = "proposed"
    NOTIFIED = "notified"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Approval:
    """One row of the table `approval`.

    `content` is the digest of what is done to what, from what: an answer holds for that and for nothing else. `who`
    proposed or answered, or is the channel that carried the news. A proposal says until when it may be answered
    (`expires_at`) and how many persons have to agree (`person_count`); an answer says there how many persons it proves:
    1 where a token of their own told who it was, 0 where the name is only claimed.
    """

    content: str
    move_id: str
    plan_id: str
    ts: datetime
    step: Step
    who: str
    note: str = ""
    expires_at: datetime | None = None
    person_count: int | None = None

    @property
    def is_proven(self) -> bool:
        """Return whether it is proven who answered."""
        return self.step in {Step.APPROVED, Step.REFUSED} and self.person_count == 1
