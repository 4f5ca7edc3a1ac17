"""Workspaces nobody declared are still told of, with what is known of them now."""

from datetime import UTC, datetime, timedelta

import polars as pl

from analytics.known_workspaces import undeclared

NOW = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
NOTHING = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
WORKSPACES = pl.DataFrame({"workspace": ["lab", "vision"], "owner": ["ann", "bob"]})
MEMBERS = pl.DataFrame({
    "cluster": ["west", "east", "east"], "namespace": ["vision-b", "vision-a", "gone"],
    "workspace": ["vision", "vision", "vision"], "starts_at": [NOW - DAY] * 3, "ends_at": [None, None, NOW],
})  # fmt: skip
QUOTAS = pl.DataFrame({
    "cluster": ["east", "west", "east", "north"], "workspace": ["vision", "vision", "vision", "speech"],
    "gpus": [4.0, 0.0, 100.0, 0.0], "starts_at": [NOW - DAY, NOW - DAY, NOW + DAY, NOW], "ends_at": [None] * 4,
}).with_columns(ends_at=NOTHING)  # fmt: skip


def test_only_those_without_a_manifest_are_told_with_their_places_of_now() -> None:
    found = undeclared(WORKSPACES, MEMBERS, QUOTAS, NOW, {"lab"})
    assert found.rows() == [
        ("speech", None, "north", None, 0.0),
        ("vision", "bob", "east, west", "vision-a, vision-b", 4.0),
    ]


def test_without_any_quota_the_gpus_are_unknown_and_not_zero() -> None:
    found = undeclared(WORKSPACES, MEMBERS.clear(), QUOTAS.clear(), NOW, ())
    assert found.rows() == [("lab", "ann", None, None, None), ("vision", "bob", None, None, None)]
    assert undeclared(WORKSPACES, MEMBERS, QUOTAS, NOW, {"lab", "vision", "speech"}).is_empty()
