"""Refusals in the words of Kubernetes: a `Status` object with code, reason, message and what it is about."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
UNKNOWN_PATH = "the server could not find the requested resource"
STALE = "the object has been modified; please apply your changes to the latest version and try again"


class Refusal(Exception):
    """An answer that is no success; `about` names the object, `is_text` is how a path that is nothing is answered."""

    def __init__(
        self,
        code: int,
        message: str,
        reason: str | None = None,
        causes: list[Object] | None = None,
        *,
        about: Object | None = None,
        is_text: bool = False,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.is_text = code, message, is_text
        self.reason = _REASONS.get(code, "Unknown") if reason is None else reason
        self.causes = causes or []
        self.about = about or {}

    def status(self) -> Object:
        told = {**self.about, **({"causes": self.causes} if self.causes else {})}
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            **({"reason": self.reason} if self.reason else {}), **({"details": told} if told else {}),
            "code": self.code,
        }  # fmt: skip


@dataclass(frozen=True)
class Wrong:
    """What is wrong with one field."""

    field: str
    reason: str
    message: str

    @property
    def text(self) -> str:
        return f"{self.field}: {self.message}"

    def cause(self) -> Object:
        return {"reason": self.reason, "message": self.message, "field": self.field}


def required(field: str, why: str = "") -> Wrong:
    return Wrong(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def bad(field: str, value: object, why: str) -> Wrong:
    return Wrong(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")


def unsupported(field: str, value: object, known: Iterable[str]) -> Wrong:
    words = ", ".join(f'"{each}"' for each in known)
    return Wrong(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {words}")


def barred(field: str, why: str) -> Wrong:
    return Wrong(field, "FieldValueForbidden", f"Forbidden: {why}")


def immutable(field: str, value: object) -> Wrong:
    return bad(field, value, "field is immutable")


def invalid(kind: str, name: str, wrongs: Sequence[Wrong]) -> Refusal:
    """Return the refusal of an object with wrong fields; `kind` as `Deployment.apps`."""
    text = ", ".join(each.text for each in wrongs)
    word, _, group = kind.partition(".")
    return Refusal(
        422,
        f'{kind} "{name}" is invalid: {text if len(wrongs) == 1 else f"[{text}]"}',
        causes=[each.cause() for each in wrongs],
        about=about(name, group, word),
    )


def about(name: str, group: str, kind: str) -> Object:
    """Return the details that name an object."""
    named = {"name": name, "group": group, "kind": kind}
    return {word: value for word, value in named.items() if value}


def _shown(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
