"""Why the numbers of the health page are what they are."""

from dashboards.explain import Explanation

STATE = Explanation(
    "table `verdict`, topic health, one per GPU of the latest turn; a GPU without one is unknown",
    "the worst of its open faults and of what rules, peers and silence find; probation after a repair; healthy only "
    "where telemetry reaches and nothing is found",
    "count of GPUs by state",
)
UNHEALTHY = Explanation(
    "table `verdict` of the latest turn, topic health, that calls for something or is no clean bill",
    "each with its evidence; `steward explain gpu UUID` goes down to the rows",
    "ordered by severity, then by money, then by GPU-hours at stake (GPUs that stand still * hours of the repair)",
)
TIMELINE = Explanation(
    "table `event` in the window, by clock hour, kind and code",
    "a dot says how many and on how many GPUs; where there are too many dots, the commonest give way",
    "count of rows; of one GPU and code within two seconds only one is stored",
)
MAP = Explanation(
    "table `gpu` with the latest verdicts; one cell a GPU",
    "nodes across by name, GPUs of a node upwards; where not all nodes fit, those with the worst GPUs are shown",
    "state as above",
)
PROBATION = Explanation(
    "verdicts of the latest turn with the state probation",
    "a fault was cleared by a reset or a boot less than the probation ago; one that comes back asks for the next rung",
    "risk = probability of a fault within 7 days, learnt from this fleet's faults where they are enough",
)
RISK = Explanation(
    "table `risk`, the latest analysis",
    "every GPU and node has a risk; the base is that of any of them",
    "isotonic fit over days of score -> fault; score = sum over its faults of weight * exp(-age / memory)",
)
