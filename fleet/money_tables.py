"""Money: the ledger, its closed months, budgets, charges beside GPUs, and the work that was done for it."""

import polars as pl

from fleet.columns import EXACT, INT, INTERVAL, SMALL, TEXT, TIME, needed
from fleet.frames import MONEY, Column, Table

CATEGORIES = (
    "used", "allocated_idle", "unknown", "unattributed", "unallocated", "fragmentation", "unhealthy", "overhead",
)  # fmt: skip
"""Where a GPU-second or a dollar of the ledger can go; every one is in exactly one of them."""

HELD = ("used", "allocated_idle", "unknown")
"""The categories that a holder pays for."""

COST_LINE = Table(
    "cost_line",
    "The ledger: GPU-seconds and money by GPU, interval, holder and category; parts sum to the whole.",
    (
        Column("gpu", pl.UInt32(), "the GPU, by the store's key; null: a line of no GPU, see resource"),
        needed("starts_at", TIME, "start of the interval"),
        needed("ends_at", TIME, "end of the interval"),
        Column("cluster", TEXT, "its cluster"),
        Column("workspace", TEXT, "who pays; null = nobody held it, or whoever held it belongs to no workspace"),
        Column("namespace", TEXT, "namespace of the pod"),
        Column("workload", TEXT, "kind/namespace/name of the top-level owner"),
        Column("pod_uid", TEXT, "the pod"),
        needed("category", TEXT, ", ".join(CATEGORIES)),
        needed("gpu_seconds", EXACT, "quantity; a correction may be negative; 0 for a line of no GPU"),
        Column("usd_per_gpu_hour", MONEY, "rate; null = unpriced, or a line of no GPU"),
        Column("cost_usd", MONEY, "amount; null = unpriced"),
        Column("slice", pl.UInt32(), "the MIG device that was held, by the store's key"),
        Column("node", TEXT, "the node, where there is no GPU"),
        Column("resource", TEXT, "gpu (also where null), cpu, ram, storage, network, overhead or what a charge names"),
        Column("adjustment", SMALL, "0 or null: as first booked; n: the n-th correction of the interval"),
        Column("booked_at", TIME, "when the line was written"),
        Column("billed_at", TIME, "start of the month that pays; null = that of starts_at"),
    ),
    key=(
        "gpu", "starts_at", "cluster", "node", "workspace", "namespace", "workload", "pod_uid", "slice", "resource",
        "category", "adjustment",
    ),
    time="starts_at",
)  # fmt: skip

COST_DAY = Table(
    "cost_day",
    "The ledger by day (UTC), kept by the store with every line that is written: what views of whole days add up.",
    (
        needed("day_at", TIME, "start of the day that its lines start in"),
        Column("gpu", pl.UInt32(), "the GPU, by the store's key; null: of no GPU"),
        Column("cluster", TEXT, "its cluster"),
        Column("node", TEXT, "the node, where there is no GPU"),
        Column("workspace", TEXT, "who pays, as in cost_line"),
        Column("namespace", TEXT, "namespace of the pod"),
        Column("workload", TEXT, "kind/namespace/name of the top-level owner"),
        Column("pod_uid", TEXT, "the pod"),
        needed("category", TEXT, ", ".join(CATEGORIES)),
        Column("resource", TEXT, "as in cost_line"),
        needed("gpu_us", INT, "GPU-microseconds, corrections included"),
        Column("cost_usd", MONEY, "dollars, corrections included; null = no line has a price"),
        needed("unpriced_us", INT, "GPU-microseconds of the lines without a price"),
    ),
    key=("day_at", "gpu", "cluster", "node", "workspace", "namespace", "workload", "pod_uid", "category", "resource"),
    time="day_at",
)  # fmt: skip

COST_MONTH = Table(
    "cost_month",
    "Months that are closed: what is found out about them later is billed in the first open month.",
    (
        needed("month_at", TIME, "its first moment"),
        needed("closed_at", TIME, "when it was closed"),
        needed("line_count", INT, "lines it was billed with"),
        needed("gpu_seconds", EXACT, "GPU-seconds it was billed with"),
        Column("cost_usd", MONEY, "dollars it was billed with; null = nothing had a price"),
    ),
    key=("month_at",),
    time="month_at",
    on_conflict="keep",
)

BUDGET = Table(
    "budget",
    "What a workspace may spend in a month, and what happens when it is spent.",
    (
        needed("workspace", TEXT, "the workspace"),
        *INTERVAL,
        Column("usd_per_month", MONEY, "dollars a calendar month; null = not limited"),
        Column("gpu_hours_per_month", EXACT, "GPU-hours a calendar month; null = not limited"),
        Column("thresholds", TEXT, "shares of the budget that are told of, as a JSON list; null = 0.5, 0.75, 0.9, 1"),
        Column("at_limit", TEXT, "what happens at 100 %: notify, stop_borrowing, hold_queue; null = notify"),
    ),
    key=("workspace", "starts_at"),
    time="starts_at",
)

CHARGE = Table(
    "charge",
    "What is charged beside GPUs: storage, network, licences, support.",
    (
        needed("charge_id", TEXT, "its id, unique"),
        needed("cluster", TEXT, "its cluster"),
        needed("resource", TEXT, "storage, network, overhead or a word of your own"),
        Column("namespace", TEXT, "whose it is; null = everybody's"),
        Column("workspace", TEXT, "who pays; null = the workspace of the namespace, else everybody"),
        needed("starts_at", TIME, "first moment it is for"),
        needed("ends_at", TIME, "first moment it is no longer for"),
        Column("quantity", EXACT, "how much of it, in `unit`"),
        Column("unit", TEXT, "GiB-hours, GiB, requests, ..."),
        needed("cost_usd", MONEY, "its whole amount"),
        Column("source", TEXT, "where it was read"),
    ),
    key=("charge_id",),
    time="starts_at",
)

WORK_DONE = Table(
    "work_done",
    "Work that workloads did: tokens, requests, training steps; what a dollar is divided by.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("namespace", TEXT, "its namespace"),
        needed("workload", TEXT, "kind/namespace/name, as in the ledger"),
        Column("served_model", TEXT, "the model that was served or trained"),
        needed("starts_at", TIME, "first moment inside"),
        needed("ends_at", TIME, "first moment after"),
        Column("request_count", EXACT, "requests answered"),
        Column("prompt_tokens", EXACT, "tokens read, cached ones included"),
        Column("cached_tokens", EXACT, "tokens of prompts that a cache had"),
        Column("generated_tokens", EXACT, "tokens written"),
        Column("prefill_s", EXACT, "seconds of prefill, over all requests"),
        Column("decode_s", EXACT, "seconds of decode, over all requests"),
        Column("training_steps", EXACT, "optimiser steps"),
    ),
    key=("cluster", "namespace", "workload", "served_model", "starts_at"),
    time="starts_at",
)
