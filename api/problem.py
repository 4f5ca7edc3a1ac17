"""Errors on the wire: our exception tree as RFC 9457 problems, and back again."""

from collections.abc import Mapping
from http import HTTPStatus

from fleet.errors import (
    ActionError,
    BadConfig,
    BadFrame,
    BadInput,
    BadTrace,
    MoveRefused,
    NotAStore,
    SourceFailed,
    SourceUnavailable,
    StaleState,
    StewardError,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreTooNew,
)

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:gpusteward:problem:"

# From the particular to the general: the first class that an error belongs to decides.
_STATUS: tuple[tuple[type[StewardError], HTTPStatus], ...] = (
    (BadInput, HTTPStatus.UNPROCESSABLE_ENTITY),
    (SourceFailed, HTTPStatus.BAD_GATEWAY),
    (StoreBusy, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (MoveRefused, HTTPStatus.CONFLICT),
    (StaleState, HTTPStatus.CONFLICT),
    (StewardError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_BY_NAME: dict[str, type[StewardError]] = {
    error.__name__: error
    for error in (
        StewardError, BadInput, BadConfig, BadFrame, BadTrace, SourceFailed, SourceUnavailable, StoreError, StoreBusy,
        StoreTooNew, NotAStore, StoreFull, ActionError, MoveRefused, StaleState,
    )
}  # fmt: skip


def problem(status: int, detail: str, instance: str, kind: str | None = None, **more: object) -> dict[str, object]:
    """Return the members of a problem; `kind` is the name of one of our errors, None where the status says it all."""
    body: dict[str, object] = {
        "type": "about:blank" if kind is None else _PREFIX + kind,
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": instance,
    }
    body.update((name, value) for name, value in more.items() if value is not None)
    return body


def problem_of(error: StewardError, instance: str) -> dict[str, object]:
    """Return one of our errors as a problem, with the field and the place where the error names them."""
    status = next(status for family, status in _STATUS if isinstance(error, family))
    where: dict[str, object] = {}
    if isinstance(error, BadInput):
        where = {"field": error.field, "place": error.place}
    return problem(status, str(error), instance, type(error).__name__, **where)


def error_of(body: Mapping[str, object]) -> StewardError:
    """Return the error that a problem stands for, in the server's words; an unknown kind becomes `StewardError`."""
    family = _BY_NAME.get(str(body.get("type", "")).removeprefix(_PREFIX), StewardError)
    detail = str(body.get("detail") or body.get("title") or "the server gave no reason")
    if issubclass(family, BadInput):
        return family(detail, place=_text(body.get("place")), field=_text(body.get("field")))
    return family(detail)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
