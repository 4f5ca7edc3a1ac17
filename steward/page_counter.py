"""What fills the pages' counter: the desk, with the API's own rule of who may order."""

from collections.abc import Mapping

from api.guard import Denied, admit
from api.port import Desk
from fleet.errors import BadInput

ORDERS = ("plan", "apply", "approve", "refuse", "undo", "brake")


class PageCounter:
    """Reports for every visitor, orders for who holds the API's token; each order is checked again by itself."""

    def __init__(self, desk: Desk, token: str | None, people: Mapping[str, str] | None = None) -> None:
        """Answer from `desk`; `people` gives names by tokens of their own. Without any token no page gives orders."""
        self._desk = desk
        self._token = token
        self._people = people or {}

    def report(self, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Return the body of a report."""
        return self._desk.report(name, {key: str(value) for key, value in parameters.items() if value is not None})

    def admits(self, token: str) -> bool:
        """Return whether the API would let this token in."""
        if not token:
            return False
        try:
            admit(self._token, f"Bearer {token}", None, self._people)
        except Denied:
            return False
        return True

    def name_of(self, token: str) -> str | None:
        """Return whose token this is; None where it is nobody's own."""
        return admit(self._token, f"Bearer {token}", None, self._people) if self.admits(token) else None

    def operate(self, token: str, who: str, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Carry out one of the orders that pages may give, in the token's own name, else in the name of `who`."""
        if not self.admits(token):
            message = "this token does not let you give orders; sign in again"
            raise BadInput(message, field="token")
        if name not in ORDERS:
            message = f"a page can't order {name}; it can {', '.join(ORDERS)}"
            raise BadInput(message, field="name")
        name_of_own = self.name_of(token)
        if name_of_own is None and not who.strip():
            message = "who: an order needs a name"
            raise BadInput(message, field="who")
        voice = {"who": name_of_own or who.strip(), "is_proven": name_of_own is not None}
        return self._desk.operate(name, {**parameters, **voice})
