"""Who may come in: a bearer token, or, where none is set, this machine only."""

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import urlsplit

_NOBODY: Mapping[str, str] = MappingProxyType({})
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class Denied(Exception):
    """A caller that may not come in: the HTTP status and the reason that it is told."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.status = status
        self.reason = reason


def admit(
    token: str | None, authorization: str | None, host: str | None, people: Mapping[str, str] = _NOBODY
) -> str | None:
    """Return who the caller is where a token of their own says it, None where they may come in unnamed.

    Raises `Denied` where they may not. `people` gives names by token. With a token only tokens count. Without one the
    request must be addressed to this machine by a loopback name: a web page of a stranger that rebinds its own name to
    127.0.0.1 still sends that name in `Host`.
    """
    scheme, _, given = (authorization or "").partition(" ")
    told = given.strip().encode() if scheme.lower() == "bearer" else b""
    # every token is compared, so that the time it takes tells nothing
    names = [name for known, name in people.items() if hmac.compare_digest(told, known.encode())]
    if names:
        return names[0]
    if token is None:
        if urlsplit(f"//{host or ''}").hostname not in _HERE:
            reason = "no token is set, so only requests addressed to localhost are answered; set a token to open up"
            raise Denied(HTTPStatus.FORBIDDEN, reason)
        return None
    if not hmac.compare_digest(told, token.encode()):
        reason = "this needs the header 'Authorization: Bearer TOKEN' with the token that the server was started with"
        raise Denied(HTTPStatus.UNAUTHORIZED, reason)
    return None
