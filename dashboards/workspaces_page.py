"""Which workspaces are there to be, whose are they, and what was done to make them so?"""

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn

from dashboards.port import Desk, current
from dashboards.workspace_questions import find_steps_of, find_workspaces_undeclared, find_workspaces_wished
from fleet.errors import StewardError


def draw() -> None:
    """Draw the page; what our own rooms can't do is told in their words."""
    st.title("Workspaces", anchor=False)
    try:
        with current() as desk:
            wished = find_workspaces_wished(desk.engine)
            if wished.is_empty():
                st.info("No workspace has a manifest yet.", icon=":material/workspaces:")
                st.markdown("`steward workspace create NAME --namespace NAMESPACE` rehearses one; `--yes` makes it.")
            else:
                _draw_wished(wished)
                _draw_steps(desk, wished["workspace"].to_list())
            _draw_undeclared(find_workspaces_undeclared(desk.engine, desk.clock.now(), wished["workspace"].to_list()))
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_wished(wished: pl.DataFrame) -> None:
    st.dataframe(
        wished,
        column_config={
            "workspace": "Workspace",
            "owner": "Owner",
            "clusters": "Clusters",
            "namespaces": "Namespaces",
            "gpus": NumberColumn("GPUs", help="What it may count on by its manifest; empty: no quota is declared"),
            "people": "Roles",
            "state": "State",
            "changed_at": DatetimeColumn("Changed", format="iso8601"),
            "actor": "By",
        },
        hide_index=True,
    )
    st.caption("What the manifests wish. `steward workspace drift` tells where clusters differ from it now.")


def _draw_undeclared(found: pl.DataFrame) -> None:
    if found.is_empty():
        return
    st.subheader("In use without a manifest", anchor=False)
    st.dataframe(
        found,
        column_config={
            "workspace": "Workspace",
            "owner": "Owner",
            "clusters": "Clusters",
            "namespaces": "Namespaces",
            "gpus": NumberColumn("GPUs", help="The sum of its quotas now; empty: it has none"),
        },
        hide_index=True,
    )
    st.caption("Seen in clusters or in your settings: use and cost are told, namespaces and roles are left alone.")


def _draw_steps(desk: Desk, names: list[str]) -> None:
    chosen = st.selectbox("What was done for", names, key="workspace", bind="query-params")
    steps = find_steps_of(desk.engine, chosen)
    if steps.is_empty():
        st.caption("Nothing was done for it yet: a plan shows what would be.")
        return
    st.dataframe(
        steps.with_columns(pl.col("kind").str.replace_all("_", " ")),
        column_config={
            "ts": DatetimeColumn("When", format="iso8601"),
            "kind": "Move",
            "target": "Object",
            "cluster": "Cluster",
            "stage": "What became of it",
            "reason": "Why",
            "detail": "Detail",
        },
        hide_index=True,
    )


draw()
