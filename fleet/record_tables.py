"""What was found, planned and done, and how far each source was read."""

from fleet.columns import EXACT, FLAG, GPU_KEY, INT, SMALL, TEXT, TIME, needed
from fleet.frames import MONEY, Column, Table

VERDICT = Table(
    "verdict",
    "What the analysis found, with its evidence.",
    (
        needed("made_at", TIME, "the `now` of the analysis"),
        needed("topic", TEXT, "idle, health, anomaly, demand, cost, packing, capacity"),
        needed("subject_kind", TEXT, "gpu, slice, node, pod, replica, workload, workspace, pool, cluster, source"),
        needed("subject", TEXT, "UUID or name; namespace/name where it has a namespace"),
        Column("cluster", TEXT, "its cluster"),
        Column("node", TEXT, "its node"),
        Column("workspace", TEXT, "who holds it"),
        Column("workload", TEXT, "kind/namespace/name of the top-level owner that holds it"),
        needed(
            "state",
            TEXT,
            "idle: active, idle, idle_held, stalled, under_used, bursty, unknown;"
            " health: healthy, probation, degraded, failing, failed, unknown;"
            " demand: short, fits, spare, unbounded, unknown; cost: within, warned, spent, unlimited, unknown;"
            " packing: unfit, fragmented, shareable",
        ),
        needed("severity", TEXT, "ok, info, warning, critical, unknown"),
        needed("rule", TEXT, "the rule that spoke"),
        Column("action", TEXT, "what to do: none, reclaim, fence, reset_gpu, reboot_node, drain, inspect, ..."),
        Column("confidence", EXACT, "0..1, null where the rule has none"),
        Column("since", TIME, "when the state began, as far as the evidence goes back"),
        Column("until", TIME, "end of the evidence"),
        Column("coverage", EXACT, "samples had over samples expected, ratio"),
        Column("gpu_hours", EXACT, "GPU-hours at stake"),
        Column("cost_usd", MONEY, "money at stake; null = unpriced"),
        needed("evidence", TEXT, "the rows and numbers that decided, as a JSON object"),
    ),
    key=("made_at", "topic", "cluster", "subject_kind", "subject", "rule"),
    time="made_at",
    on_conflict="keep",
)

RISK = Table(
    "risk",
    "How likely each GPU and node is to fail, as the latest analysis sees it.",
    (
        needed("subject_kind", TEXT, "gpu or node"),
        needed("subject", TEXT, "UUID of the GPU, name of the node"),
        needed("cluster", TEXT, "its cluster"),
        needed("node", TEXT, "its node"),
        needed("made_at", TIME, "the `now` of the analysis"),
        Column("risk_1d", EXACT, "probability of a fault within a day, ratio"),
        Column("risk_7d", EXACT, "within 7 days, ratio"),
        Column("risk_30d", EXACT, "within 30 days, ratio"),
        Column("base_1d", EXACT, "the same for any GPU or node of the fleet, ratio"),
        Column("base_7d", EXACT, "within 7 days, ratio"),
        Column("base_30d", EXACT, "within 30 days, ratio"),
        Column("alert_line", EXACT, "risk within 7 days to alarm at, by the budget of false alarms, ratio; null: none"),
        Column("fault_count", INT, "faults in its record"),
        Column("last_fault_at", TIME, "when the last of them began"),
        needed(
            "basis", TEXT, "history: learnt from this fleet's faults; published: rates of others, with their source"
        ),
    ),
    key=("subject_kind", "cluster", "subject"),
)

FORECAST = Table(
    "forecast",
    "Forecast demand with its intervals and its record.",
    (
        needed("made_at", TIME, "the `now` of the forecast"),
        needed("cluster", TEXT, "series: cluster, or * for all"),
        needed("workspace", TEXT, "series: workspace, or * for all"),
        Column("pool", TEXT, "series: node pool, null = all"),
        Column("model", TEXT, "series: GPU model, null = all"),
        needed("ts", TIME, "the hour forecast"),
        needed("forecaster", TEXT, "who forecast it"),
        Column("gpus", EXACT, "median GPUs wanted"),
        Column("gpus_lower_80", EXACT, "10 % quantile"),
        Column("gpus_upper_80", EXACT, "90 % quantile"),
        Column("gpus_lower_95", EXACT, "2.5 % quantile"),
        Column("gpus_upper_95", EXACT, "97.5 % quantile"),
        Column("capacity_gpus", EXACT, "GPUs there are, as last seen"),
        Column("mase", EXACT, "back-test error over that of the last value (below 1 is better)"),
        Column("coverage_80", EXACT, "share of back-test points inside the 80 % interval"),
        Column("note", TEXT, "why it should be trusted less, where it should"),
    ),
    key=("made_at", "cluster", "workspace", "pool", "model", "ts"),
    time="made_at",
    on_conflict="keep",
)

PLAN = Table(
    "plan",
    "Plans made, append-only.",
    (
        needed("plan_id", TEXT, "its id"),
        needed("made_at", TIME, "when"),
        needed("policy", TEXT, "the policy it was made by, as JSON"),
        needed("move_count", SMALL, "moves in it"),
        Column("saving_usd_per_hour", MONEY, "what its moves save an hour; null = unpriced"),
        Column("held_back", TEXT, "verdicts that led to no move, with the reason, as JSON"),
    ),
    key=("plan_id",),
    time="made_at",
    on_conflict="keep",
)

MOVE = Table(
    "move",
    "Moves of plans, append-only.",
    (
        needed("plan_id", TEXT, "its plan"),
        needed("move_id", TEXT, "its id"),
        needed("ordinal", SMALL, "place in the plan, from 0"),
        needed("kind", TEXT, "what is done"),
        needed("cluster", TEXT, "where"),
        needed("target", TEXT, "kind/namespace/name of the object"),
        needed("reason", TEXT, "why, in words"),
        needed("body", TEXT, "the whole move as JSON"),
    ),
    key=("move_id",),
    on_conflict="keep",
)

OUTCOME = Table(
    "outcome",
    "What became of moves, append-only: one row before and one after each attempt.",
    (
        needed("move_id", TEXT, "the move"),
        needed("ts", TIME, "when"),
        needed("stage", TEXT, "intended, applied, refused, failed, unclear, undone"),
        needed("is_dry_run", FLAG, "nothing was changed on purpose"),
        Column("actor", TEXT, "who let it happen"),
        Column("detail", TEXT, "the reason or the server's answer"),
        Column("prior", TEXT, "the object before, as JSON"),
    ),
    key=("move_id", "ts", "stage", "is_dry_run"),
    time="ts",
    on_conflict="keep",
)

APPROVAL = Table(
    "approval",
    "Who was asked about moves, and what they answered, append-only.",
    (
        needed("content", TEXT, "digest of what is done to what, from what: an answer holds for this and nothing else"),
        needed("move_id", TEXT, "the move it was said of"),
        needed("plan_id", TEXT, "its plan"),
        needed("ts", TIME, "when"),
        needed("step", TEXT, "proposed, notified, approved, refused, expired"),
        needed("who", TEXT, "who proposed or answered, or the channel that carried the news"),
        Column("note", TEXT, "in their words"),
        Column("expires_at", TIME, "proposed: until when it may be answered and made"),
        Column(
            "person_count",
            SMALL,
            "proposed: how many have to agree; approved, refused: 1 where a token of their own told who, else 0",
        ),
    ),
    key=("content", "ts", "step", "who"),
    time="ts",
    on_conflict="keep",
)

WATERMARK = Table(
    "watermark",
    "How far each source has been read.",
    (
        needed("source", TEXT, "the source"),
        needed("ts", TIME, "everything before this moment is stored"),
        Column("cursor", TEXT, "the place after the last record read, in the source's own words"),
    ),
    key=("source",),
)

SOURCE_GPU = Table(
    "source_gpu",
    "Which source gives samples of which GPU. Built by the store only.",
    (
        needed("source", TEXT, "the source"),
        GPU_KEY,
        needed("first_seen_at", TIME, "moment of the first sample that it gave"),
    ),
    key=("source", "gpu"),
)

SOURCE_FAILURE = Table(
    "source_failure",
    "What a source could not give: failures and counted rejections, never silent.",
    (
        needed("ts", TIME, "when it was noticed"),
        needed("source", TEXT, "the source"),
        needed("kind", TEXT, "failed, rejected or noticed (kept, but strange)"),
        needed("place", TEXT, "file, table, column or address"),
        needed("reason", TEXT, "why"),
        needed("row_count", INT, "rows concerned; 0 for a failure of the whole source"),
        Column("example", TEXT, "one of them"),
    ),
    key=("source", "kind", "place", "reason", "ts"),
    time="ts",
    on_conflict="keep",
)
