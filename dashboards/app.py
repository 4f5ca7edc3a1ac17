"""The pages and the way between them; nothing else."""

import streamlit as st

st.set_page_config(page_title="GPU Steward", page_icon=":material/memory:", layout="wide")
st.navigation(
    [
        st.Page("overview_page.py", title="Overview", icon=":material/dashboard:", default=True),
        st.Page("workloads_page.py", url_path="workloads", title="Workloads", icon=":material/work_history:"),
        st.Page("health_page.py", url_path="health", title="Health", icon=":material/monitor_heart:"),
        st.Page("cost_page.py", url_path="cost", title="Cost", icon=":material/payments:"),
        st.Page("demand_page.py", url_path="demand", title="Demand", icon=":material/trending_up:"),
        st.Page("workspaces_page.py", url_path="workspaces", title="Workspaces", icon=":material/workspaces:"),
        st.Page("actions_page.py", url_path="actions", title="Actions", icon=":material/rule:"),
        st.Page("telemetry_page.py", url_path="data-quality", title="Data quality", icon=":material/fact_check:"),
    ]
).run()
