"""Why the numbers of idleness and use are what they are."""

from dashboards.explain import Explanation

CAUGHT = Explanation(
    "tables `gpu_sample` and `slice_sample` of the last hours before the newest sample, and who holds what",
    "caught: at most one sample above the line in the window of its kind of workload (notebooks 2 h, services 30 min, "
    "all else 1 h), old enough, at least 95 % of the samples there, and nothing else that tells of work; a GPU under "
    "MIG is judged by its slices",
    "judged afresh for the chosen line; GPUs and slices count one each, MIG parents and what nobody holds not at all",
)
STATES = Explanation(
    "the verdicts for the chosen line, one a workload",
    "idle: nothing ran and nothing was held in memory; idle held: memory held without work; stalled: kernels ran all "
    "the time and did nothing; under used: fewer GPUs or a smaller part would do; bursty: quiet now, and usually back "
    "soon, so it is left alone; zombie: idle for more than a day",
    "ordered by money at stake, then by GPU-hours",
)
HEAT = Explanation(
    "roll-up `gpu_hour`, the whole hours of the window, one row a node",
    "the best signal of each GPU: SM activity, else GR engine, else NVML's utilization; an hour without any sample has "
    "no cell",
    "mean of `activity_mean` over the node's GPUs, weighted by their samples",
)
HOURS_FUNNEL = Explanation(
    "table `cost_line` that starts within the window, with `gpu_hour` for how busy an active hour was",
    "each step is exactly the next one and what was lost between: unhealthy, fragmented (free beside somebody "
    "who holds a part of the GPU), not held, unknown (held, and nothing measured), held while idle, partly used "
    "(active, and not all of the GPU busy)",
    "sums of `gpu_seconds` in whole microseconds / 3600; effective = active time times mean activity",
)
FITS = Explanation(
    "tables `gpu`, `node` and `pod_allocation` at the end of the window, less failed GPUs and nodes that take no pods",
    "a pod takes all its GPUs from one node; GPUs under MIG are no room for gangs",
    "fits = sum over nodes of free GPUs / size, rounded down; stranded = free GPUs - size * fits",
)
SHARING = Explanation(
    "the latest turn's verdicts of topic packing: MIG layouts against what runs and waits, and the hourly peaks (table "
    "`gpu_hour`) of all pods that held a GPU of a node in the last days",
    "sharing by time: only nodes of one workspace on which small pods of notebooks and services hold one GPU each, and "
    "only where the largest of them fit on one GPU together; what is not known gives no verdict, and nothing keeps "
    "those who share out of each other's memory",
    "memory and activity needed = sum of the largest peaks, as many as pods would share a GPU; gain = what waits and "
    "would find a place",
)
