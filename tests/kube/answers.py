"""Refusals in the words of Kubernetes: a `Status` object with code, reason and message."""

from typing import Any

Object = dict[str, Any]  # an object of the API, as JSON has it

_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, message: str, reason: str | None = None, causes: list[Object] | None = None) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or _REASONS.get(code, "Unknown")
        self.causes = causes or []

    def status(self) -> Object:
        details = {"details": {"causes": self.causes}} if self.causes else {}
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.code, **details,
        }  # fmt: skip


def not_found(plural: str, name: str) -> Refusal:
    return Refusal(404, f'{plural} "{name}" not found')
