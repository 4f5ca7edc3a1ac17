"""Every number explains itself: the rows it is made of, the rule that counts them, the formula."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a number is what it is."""

    rows: str
    rule: str
    formula: str

    def markdown(self) -> str:
        """Return it as the text of a help balloon."""
        return f"**Rows** {self.rows}\n\n**Rule** {self.rule}\n\n**Formula** {self.formula}"


GPUS_TOLD_BY = {
    "gpu": Explanation(
        "table `gpu`, in the chosen clusters",
        "a GPU counts if a source told of it within the window",
        "count of rows",
    ),
    "node": Explanation(
        "table `node`, in the chosen clusters; no GPU has been seen itself",
        "what each node should have",
        "sum of `gpus`",
    ),
    "demand_sample": Explanation(
        "table `demand_sample`; neither GPUs nor nodes have been seen themselves",
        "the last moment of the window that tells a capacity",
        "sum of `capacity_gpus` over workspaces",
    ),
}
HEALTHY = Explanation(
    "table `verdict`, topic health, one per GPU and rule, of the latest turn",
    "a GPU that several rules spoke of counts by the worst: failed, failing, degraded, healthy; a GPU without "
    "telemetry is unknown, which is neither healthy nor failed",
    "count of GPUs whose state is `healthy`; faulty are failed, failing and degraded together",
)
ALLOCATED = {
    "pod_allocation": Explanation(
        "table `pod_allocation`",
        "a GPU counts once, however many pods share it, while an allocation is open at the end of the window",
        "count of distinct `gpu` where `starts_at` ≤ end and (`ends_at` is null or > end)",
    ),
    "demand_sample": Explanation(
        "table `demand_sample`; no allocation of a single GPU has been recorded",
        "the last moment of the window that tells it",
        "sum of `running_gpus` over workspaces",
    ),
}
ACTIVE = Explanation(
    "roll-up `gpu_hour`, its latest hour",
    "a GPU counts if any sample of the hour was above 5 % activity (SM activity, else graphics engine, else NVML "
    "utilisation); a GPU without an activity signal is unknown",
    "count of rows with `active_sample_count` > 0; the share is of the GPUs with a signal in that hour",
)
FUNNEL = Explanation(
    "the four numbers above",
    "each step is counted by itself, so that a GPU may be active without an allocation that is known",
    "see the numbers; a step that is not known has no bar",
)
IDLE_COST = Explanation(
    "table `cost_line`, category allocated_idle, that starts within the window",
    "a GPU-second that somebody held while the GPU did nothing",
    "sum of `cost_usd`; GPU-hours = sum of `gpu_seconds` / 3600. Lines without a price are told apart. It counts every "
    "idle moment of the window; `steward idle` and the page Workloads count only what idles now, since it went idle",
)
BILL = Explanation(
    "table `cost_line`, that starts within the window, its corrections included",
    "every GPU-second is in exactly one category, and so is every dollar; hours without a price are told apart",
    "sum of `cost_usd`; GPU-hours = sum of `gpu_seconds` / 3600",
)
USED_COST = Explanation(
    "table `cost_line`, category used",
    "what pods held, times the share of the hour's samples that were active",
    "sum of `cost_usd`",
)
NOBODYS_COST = Explanation(
    "table `cost_line`, categories unallocated, unattributed, fragmentation, unhealthy and overhead",
    "nobody held it, or nobody is known to; choose below who pays for it",
    "sum of `cost_usd`",
)
CHARGEBACK = Explanation(
    "table `cost_line` joined with `gpu`, `node` and `pod` where the view needs it",
    "what nobody held stands apart, or is paid by the holders of the same cluster or node; shares come from all "
    "holders before any filter",
    "own = sum of `cost_usd`; shared = the holder's share of what nobody held; odd micro-dollars by largest remainder, "
    "so that the column sums to the bill",
)
BUDGETS = Explanation(
    "tables `budget` and `cost_line`, since the month began",
    "the greater of dollars over dollars and GPU-hours over GPU-hours counts; at 100 % the budget's own policy follows",
    "expected = spent so far + forecast GPUs of the rest of the month * the mean price so far, where demand is "
    "forecast; else spent so far * length of the month / time gone",
)
SAVING = Explanation(
    "tables `plan` and `move`, the plan made last",
    "planned only: nothing is changed until the plan is applied",
    "sum of `saving_usd_per_hour` over the moves that have a price",
)
COSTS = Explanation(
    "table `cost_line`, that starts within the window",
    "each GPU-second belongs to exactly one category, and overhead has none, so the bars add up to the bill",
    "sum of `cost_usd` (of GPU-hours where nothing has a price) by category and day, or hour in a window of 24 h; the "
    "first and the last bar are cut by the window",
)
HOLDERS = Explanation(
    "table `cost_line`, category allocated_idle, that starts within the window",
    "charged to the workspace that held the GPU at that second",
    "sum of `cost_usd` and of `gpu_seconds` / 3600 by workspace",
)
FAILING = Explanation(
    "table `verdict` of the latest turn, every topic but idle, severity critical or warning",
    "one row per subject and rule",
    "ordered by severity, then by money at stake, then by GPU-hours at stake",
)
WASTING = Explanation(
    "table `verdict` of the latest turn, topic idle, workloads only, state idle or idle_held or an action called for",
    "a workload is idle when everything it holds is, by full evidence; idle held: nothing ran, and memory was held",
    "ordered by severity, then by money at stake, then by GPU-hours at stake",
)
DEMAND = Explanation(
    "table `demand_sample` in the window, and the latest `forecast` of the same series",
    "a series told of as a whole is not added to its parts by pool or model; steps without a row stay empty",
    "mean over each step (an hour; a quarter in a window of 24 h), then the sum over series. The band is the 10 % to "
    "90 % quantile of running and waiting GPUs together. Capacity is the sum of what each workspace's quota lets it "
    "have; quotas may promise more GPUs than the fleet has",
)
MOVES = Explanation(
    "tables `plan`, `move` and `outcome`, the plan made last",
    "one row per move, in the order they would be made; the stage is the latest outcome recorded for it",
    "a move's saving is that of its verdict, per hour; a dash = no price",
)
SOURCE_STATE = Explanation(
    "tables `watermark`, `source_failure`, `source_gpu` and `gpu_sample`",
    "failing: its last failure came after what was read; late: nothing read for 15 minutes; partial: coverage below "
    "90 %; never read: it told only troubles",
    "the first of these that holds, else ok",
)
SOURCE_COVERAGE = Explanation(
    "table `gpu_sample`, the last hour, of the GPUs that the source gives samples of",
    "a source is held to its own cadence, the middle gap between its samples; GPUs not seen for a day are not expected",
    "sum of min(had, expected) / sum of expected",
)
SOURCE_LAG = Explanation(
    "table `watermark`", "everything before a source's mark is stored", "now minus the mark, of the source most behind"
)
COVERAGE = Explanation(
    "roll-up `gpu_hour`, the whole hours of the window",
    "every GPU of the window is expected from when it was first seen on, silent ones too; what it should give an hour "
    "is the median of what GPUs gave, so no cadence is assumed",
    "samples had / (median samples per GPU and hour * GPU-hours expected)",
)
AGE = Explanation(
    "tables `gpu_sample` and `demand_sample`",
    "the newest sample of a GPU or, where there is none, of a queue",
    "now minus its moment; a recorded trace is as old as it is",
)
REJECTED = Explanation(
    "table `source_failure`, everything that is kept",
    "a row that a source had to refuse is counted, with the place and the reason, and never stored as something else",
    "sum of `row_count` where `kind` is rejected",
)
FAILURES = Explanation(
    "table `source_failure`, everything that is kept",
    "a source that could not be read is a recorded failure and not an empty hour",
    "count of rows where `kind` is failed",
)
