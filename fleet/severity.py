"""How bad something is: a word that needs no library, so that what only names it starts quickly."""

from enum import StrEnum


class Severity(StrEnum):
    """How bad a verdict is, mildest first; `UNKNOWN` is neither good nor bad."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"
