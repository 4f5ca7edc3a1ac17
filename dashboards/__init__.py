"""The dashboards: one page a question."""
