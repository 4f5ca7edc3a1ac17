"""What fills the pages' counter: the desk, with the API's own rule of who may order."""

from collections.abc import Mapping

from api.guard import Denied, admit
from api.port import Desk
from fleet.errors import BadInput

ORDERS = ("plan", "apply", "approve", "refuse", "undo", "brake")


class PageCounter:
    """Reports for every visitor, orders for who holds the API's token; each order is checked again by itself."""

    def __init__(self, desk: Desk, token: str | None) -> None:
        """Answer from `desk`; without a token no page gives orders."""
        self._desk = desk
        self._token = token

    def report(self, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Return the body of a report."""
        return self._desk.report(name, {key: str(value) for key, value in parameters.items() if value is not None})

    def admits(self, token: str) -> bool:
        """Return whether the API would let this token in."""
        if self._token is None or not token:
            return False
        try:
            admit(self._token, f"Bearer {token}", None)
        except Denied:
            return False
        return True

    def operate(self, token: str, who: str, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Carry out one of the orders that pages may give, in the name of `who`."""
        if not self.admits(token):
            message = "this token does not let you give orders; sign in again"
            raise BadInput(message, field="token")
        if name not in ORDERS:
            message = f"a page can't order {name}; it can {', '.join(ORDERS)}"
            raise BadInput(message, field="name")
        if not who.strip():
            message = "who: an order needs a name"
            raise BadInput(message, field="who")
        return self._desk.operate(name, {**parameters, "who": who.strip()})
