"""Who gives orders: a visitor signs in with a name and the API's token; until then every page only shows."""

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from dashboards.port import Counter
from fleet.errors import StewardError

_KEY = "signed_in"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who may order, and by which token."""

    who: str
    token: str


def visitor(counter: Counter) -> Visitor | None:
    """Return who is signed in, None for a viewer; a token that no longer holds signs out."""
    found = st.session_state.get(_KEY)
    if isinstance(found, Visitor) and counter.admits(found.token):
        return found
    st.session_state.pop(_KEY, None)
    return None


def draw_sign_in(counter: Counter) -> Visitor | None:
    """Draw who is signed in, or the form to do so, and return who it is."""
    known = visitor(counter)
    if known is not None:
        with st.popover(f"Signed in as {known.who}", icon=":material/person:", width="stretch", key="who_is_in"):
            st.caption("Your name stands in the record beside every order you give.")
            if counter.name_of(known.token) is None:
                st.caption(
                    "It is only claimed: the server's own token does not prove who you are, so your approval does not "
                    "count where two persons must agree."
                )
            if st.button("Sign out", key="sign_out"):
                st.session_state.pop(_KEY, None)
                st.rerun()
        return known
    with (
        st.popover("Sign in to act", icon=":material/lock:", width="stretch", key="who_comes_in"),
        st.form("sign_in"),
    ):
        who = st.text_input(
            "Your name", key="sign_in_name", help="It stands in the record; a token of your own brings it along."
        )
        token = st.text_input(
            "API token",
            type="password",
            key="sign_in_token",
            help="Your own token of the file that `[serve] people_file` names, or the one the server was started with: "
            "that of `[serve] token_file`, else the one in the address file beside the store.",
        )
        if st.form_submit_button("Sign in", type="primary"):
            name = counter.name_of(token.strip()) or who.strip()
            if not counter.admits(token.strip()):
                st.error("The server does not know this token.")
            elif not name:
                st.error("Give your name: this token is nobody's own.")
            else:
                st.session_state[_KEY] = Visitor(name, token.strip())
                st.rerun()
    return None


def order(counter: Counter, who: Visitor, name: str, parameters: Mapping[str, object]) -> Mapping[str, object] | None:
    """Give an order and return its report; what is refused is told on the page, and None returned."""
    try:
        return counter.operate(who.token, who.who, name, parameters)
    except StewardError as error:
        st.error(str(error), icon=":material/block:")
        return None


def confirm(label: str, wanted: str, key: str) -> bool:
    """Draw a field in which a target must be typed as it stands, and return whether it was."""
    typed = st.text_input(f"Type `{wanted}` to {label}", key=key, placeholder=wanted)
    return typed.strip() == wanted
