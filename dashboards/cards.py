"""The two things every section of a page is made of: a number that explains itself, and a heading that does."""

import streamlit as st

from dashboards.explain import Explanation


def draw_number(label: str, value: str, below: str, why: Explanation) -> None:
    """Draw a number with a line below it, and its explanation in the balloon beside it."""
    st.metric(
        label,
        value,
        delta=below,
        delta_color="off",
        delta_arrow="off",
        help=why.markdown(),
        border=True,
        height="stretch",
    )


def draw_heading(text: str, why: Explanation) -> None:
    """Draw the heading of a figure or a table, with its explanation in the balloon beside it."""
    st.subheader(text, anchor=False, help=why.markdown())
