"""Who may come in: a bearer token, or, where none is set, this machine only."""

import hmac
from http import HTTPStatus
from urllib.parse import urlsplit

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class Denied(Exception):
    """A caller that may not come in: the HTTP status and the reason that it is told."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.status = status
        self.reason = reason


def admit(token: str | None, authorization: str | None, host: str | None) -> None:
    """Return where the caller may come in, else raise `Denied`.

    With a token only the token counts. Without one the request must be addressed to this machine by a loopback
    name: a web page of a stranger that rebinds its own name to 127.0.0.1 still sends that name in `Host`.
    """
    if token is None:
        if urlsplit(f"//{host or ''}").hostname not in _HERE:
            reason = "no token is set, so only requests addressed to localhost are answered; set a token to open up"
            raise Denied(HTTPStatus.FORBIDDEN, reason)
        return
    scheme, _, given = (authorization or "").partition(" ")
    is_right = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        reason = "this needs the header 'Authorization: Bearer TOKEN' with the token that the server was started with"
        raise Denied(HTTPStatus.UNAUTHORIZED, reason)
