"""The desk: every question and order by name, answered over one house; the CLI and the API both ask here."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

import polars as pl

from fleet.errors import BadInput
from steward.acting import record_told
from steward.actions_desk import ORDERS as ACTION_ORDERS
from steward.actions_record import QUESTIONS as ACTION_QUESTIONS
from steward.allocation_desk import QUESTIONS as ALLOCATION_QUESTIONS
from steward.answers import analysis_report, collected_report, doctor_report, turn_report
from steward.compose import House, close_sources, open_capture_source, open_sources, open_trace_sources
from steward.config import Settings
from steward.cost_desk import QUESTIONS as MONEY_QUESTIONS
from steward.cost_orders import ORDERS as COST_ORDERS
from steward.cost_units import QUESTIONS as UNIT_QUESTIONS
from steward.cost_waste import QUESTIONS as WASTE_QUESTIONS
from steward.cycle import Collected, collect, record_findings, turn
from steward.forecast_desk import QUESTIONS as FORECAST_QUESTIONS
from steward.forecast_desk import Question
from steward.gauges import metrics_of
from steward.health_desk import answer_health, explain_gpu
from steward.idle_desk import IDLE_QUESTIONS
from steward.ingest_desk import IngestDesk
from steward.jobs import ORDERS as JOB_ORDERS
from steward.jobs import QUESTIONS as JOB_QUESTIONS
from steward.judge import judge
from steward.loop import LoopState
from steward.moments import as_of, stale_notes
from steward.policy_desk import QUESTIONS as POLICY_QUESTIONS
from steward.prices_desk import prices_report
from steward.report import Report, plain
from steward.upkeep import keep_up
from steward.workspace_desk import ORDERS as WORKSPACE_ORDERS
from steward.workspace_desk import QUESTIONS as WORKSPACE_QUESTIONS

COST_QUESTIONS = {**MONEY_QUESTIONS, **UNIT_QUESTIONS, **ALLOCATION_QUESTIONS, **WASTE_QUESTIONS}
RECORD_QUESTIONS = {**POLICY_QUESTIONS, **JOB_QUESTIONS}
_REPORTS = ("health", "doctor", "prices", "explain_gpu")
REPORTS = (
    *_REPORTS,
    *IDLE_QUESTIONS,
    *COST_QUESTIONS,
    *FORECAST_QUESTIONS,
    *ACTION_QUESTIONS,
    *RECORD_QUESTIONS,
    *WORKSPACE_QUESTIONS,
)
_ORDERS = ("collect", "replay", "analyse", "run", "migrate", "ingest")
OPERATIONS = (*_ORDERS, *ACTION_ORDERS, *JOB_ORDERS, *COST_ORDERS, *WORKSPACE_ORDERS)
STALE_TURNS = 5
_TELL_S = 30.0
_OF_A_MOMENT = frozenset({"health", "explain_gpu", "idle", "top", "packing", "sharing"})


class _Turn(Protocol):
    def __call__(self, house: House, now: datetime, /) -> object: ...


class HouseDesk:
    """Answers over a house; orders wait for each other, questions do not wait."""

    def __init__(self, house: House, state: LoopState | None = None) -> None:
        """Answer over `house`; `state` is the loop's, where one turns."""
        self._house = house
        self._state = state
        self._ingest = IngestDesk(house)
        self._lock = threading.Lock()

    def report(self, name: str, parameters: Mapping[str, object]) -> dict[str, object]:
        """Answer one question by name, or raise `BadInput`."""
        questions: dict[str, Callable[[Mapping[str, object]], Report]] = {
            "health": lambda given: answer_health(self._house, given, self._moment(given)),
            "explain_gpu": lambda given: explain_gpu(self._house, given, self._moment(given)),
            "doctor": lambda _parameters: doctor_report(self._house, self._state),
            **{name: partial(self._look_ahead, answer) for name, answer in FORECAST_QUESTIONS.items()},
            "prices": lambda parameters: prices_report(self._house, parameters),
            **{key: partial(answer, self._house) for key, answer in IDLE_QUESTIONS.items()},
            **{each: partial(answer, self._house) for each, answer in COST_QUESTIONS.items()},
            **{each: partial(answer, self._house) for each, answer in WORKSPACE_QUESTIONS.items()},
            **{each: partial(answer, self._house) for each, answer in {**ACTION_QUESTIONS, **RECORD_QUESTIONS}.items()},
        }
        if name not in questions:
            message = f"there is no report {name}; the reports are {', '.join(REPORTS)}"
            raise BadInput(message, field="name")
        report = questions[name](parameters)
        if name in _OF_A_MOMENT and report.as_of is not None:
            report = replace(report, notes=(*report.notes, *stale_notes(self._house, report.as_of)))
        return report.to_body()

    def operate(self, name: str, parameters: Mapping[str, object]) -> dict[str, object]:
        """Carry out one order by name, or raise `BadInput`."""
        orders: dict[str, Callable[[Mapping[str, object]], Report]] = {
            "collect": self._collect,
            "replay": self._replay,
            "analyse": self._analyse,
            "run": self._run,
            "migrate": self._migrate,
            "ingest": self._ingest.take,
            **{each: partial(order, self._house) for each, order in {**ACTION_ORDERS, **JOB_ORDERS}.items()},
            **{each: partial(order, self._house) for each, order in COST_ORDERS.items()},
            **{each: partial(order, self._house) for each, order in WORKSPACE_ORDERS.items()},
        }
        if name not in orders:
            message = f"there is no operation {name}; the operations are {', '.join(OPERATIONS)}"
            raise BadInput(message, field="name")
        if name == "ingest":
            return orders[name](parameters).to_body()  # rows only: an agent need not wait for a turn to end
        with self._lock:
            return orders[name](parameters).to_body()

    def turn_now(self, make_turn: _Turn) -> object:
        """Turn the loop once, when no order is being carried out."""
        with self._lock:
            turned = make_turn(self._house, self._house.clock.now())
            keep_up(self._house, self._house.clock.now())
            return turned

    def metrics(self) -> str:
        """Return the state of the house in the Prometheus text format."""
        return metrics_of(self._house, self._state)

    def health(self) -> Mapping[str, object]:
        """Return whether the house does its work."""
        reasons = []
        if self._state is not None and self._house.sources:
            if self._state.last_error is not None:
                reasons.append(f"the last turn failed: {self._state.last_error}")
            turned = self._state.last_turn_at
            late = timedelta(seconds=STALE_TURNS * self._house.settings.serve.turn_s)
            if turned is not None and self._house.clock.now() - turned > late:
                reasons.append(f"no turn since {plain(turned)}")
        return {"ok": not reasons, "reasons": reasons}

    def _moment(self, parameters: Mapping[str, object]) -> datetime:
        return as_of(self._house, str(parameters.get("as_of", "now")))

    def _look_ahead(self, answer: Question, parameters: Mapping[str, object]) -> Report:
        return answer(self._house, parameters, as_of(self._house, str(parameters.get("as_of", "data"))))

    def _collect(self, parameters: Mapping[str, object]) -> Report:
        house, settings = self._house, self._house.settings
        capture = parameters.get("capture")
        names = [str(name) for name in _list(parameters.get("sources"))]
        if capture is not None:
            phase = str(parameters.get("phase", "idle"))
            if names not in ([], ["nvml"]):
                message = "--capture stands in for the driver; it goes with --source nvml only"
                raise BadInput(message, field="capture")
            source = open_capture_source(settings, house.clock, Path(str(capture)), phase)
            return self._collect_from(House(settings, house.store, house.clock, (source,)))
        if names and set(names) != set(settings.collect.sources):
            if "simulator" in names:
                message = "the simulator is collected from where [collect] sources names it; see `steward demo`"
                raise BadInput(message, field="sources")
            sources = tuple(open_sources(settings, house.store, house.clock, names))
            try:
                return self._collect_from(House(settings, house.store, house.clock, sources))
            finally:
                close_sources(sources)
        if not house.sources:
            message = "no source to collect from: name one with --source, or set [collect] sources"
            raise BadInput(message, field="sources")
        return self._collect_from(house)

    def _collect_from(self, house: House) -> Report:
        now = house.clock.now()
        collected = collect(house, now)
        if collected.first_sample_at is not None:
            # A sample stamped with this very moment belongs to the hour that is rolled up, too.
            house.store.roll_up(collected.first_sample_at, now + timedelta(seconds=1))
        return collected_report(collected, now, failed=_all_failed(house, collected))

    def _replay(self, parameters: Mapping[str, object]) -> Report:
        path = Path(str(parameters.get("path", "")))
        house = self._house
        sources = tuple(open_trace_sources(path))
        collected = collect(House(house.settings, house.store, house.clock, sources), house.clock.now())
        if collected.first_sample_at is not None:
            house.store.roll_up(collected.first_sample_at, house.clock.now())
        return collected_report(collected, house.clock.now(), failed=False)

    def _analyse(self, parameters: Mapping[str, object]) -> Report:
        now = as_of(self._house, str(parameters.get("as_of", "data")))
        findings = judge(self._house, now)
        record_findings(self._house, findings)
        return analysis_report(findings)

    def _run(self, _parameters: Mapping[str, object]) -> Report:
        turned = turn(self._house, self._house.clock.now())
        keep_up(self._house, turned.now)
        self._house.outbox.flush(_TELL_S)  # nobody comes after this turn who could see what became of the news
        record_told(self._house, self._house.clock.now())
        return turn_report(turned)

    def _migrate(self, _parameters: Mapping[str, object]) -> Report:
        described = self._house.store.describe()
        return Report(
            "MigrateReport", self._house.clock.now(), {"path": described["path"], "schema": described["schema"]}
        )


def explain_settings(settings: Settings, file: Path | None, database: Path) -> Report:
    """Return the settings in force as a report."""
    items = []
    for section, values in settings.model_dump(mode="json").items():
        for key, value in _flat(values):
            items.append({"setting": f"{section}.{key}", "value": value})
    where = {"file": None if file is None else str(file), "store": str(database)}
    return Report(
        "SettingsReport", None, where, items, notes=("environment variables STEWARD_SECTION__KEY win over the file",)
    )


def _flat(values: object, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(values, Mapping):
        return [(prefix, values)]
    pairs = []
    for key, value in values.items():
        pairs += _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return pairs


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _all_failed(house: House, collected: Collected) -> bool:
    failed = {name for name, trouble in collected.troubles if trouble.kind == "failed" and trouble.place == name}
    return bool(house.sources) and all(source.name in failed for source in house.sources)


def count_rows(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """Return how many rows have each value of a column."""
    counted = frame.group_by(column).len().sort(column)
    return {str(key): int(count) for key, count in counted.iter_rows()}
