"""The desk: every question and order by name, answered over one house; the CLI and the API both ask here."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

import polars as pl

from actions.explain import diff_lines
from actions.rows import moves_from, outcomes_from, plan_frames, plan_from
from actions.undo import undo_plan
from fleet.errors import BadInput, SourceFailed
from fleet.move import Plan
from steward.allocation_desk import QUESTIONS as ALLOCATION_QUESTIONS
from steward.answers import analysis_report, collected_report, doctor_report, turn_report
from steward.brake import pull, reason_of, release
from steward.compose import House, close_sources, open_capture_source, open_sources, open_trace_sources
from steward.config import Settings
from steward.cost_desk import QUESTIONS as MONEY_QUESTIONS
from steward.cost_orders import ORDERS as COST_ORDERS
from steward.cost_units import QUESTIONS as UNIT_QUESTIONS
from steward.cost_waste import QUESTIONS as WASTE_QUESTIONS
from steward.cycle import (
    Collected,
    carry_out,
    collect,
    make_plans,
    record_findings,
    settle_unfinished,
    turn,
)
from steward.forecast_desk import QUESTIONS as FORECAST_QUESTIONS
from steward.forecast_desk import Question
from steward.gauges import metrics_of
from steward.health_desk import answer_health, explain_gpu
from steward.idle_desk import IDLE_QUESTIONS
from steward.ingest_desk import IngestDesk
from steward.judge import judge
from steward.loop import LoopState
from steward.moments import as_of, stale_notes
from steward.prices_desk import prices_report
from steward.report import Report, plain
from steward.upkeep import keep_up
from steward.workspace_desk import ORDERS as WORKSPACE_ORDERS
from steward.workspace_desk import QUESTIONS as WORKSPACE_QUESTIONS

COST_QUESTIONS = {**MONEY_QUESTIONS, **UNIT_QUESTIONS, **ALLOCATION_QUESTIONS, **WASTE_QUESTIONS}
REPORTS = (
    "health",
    "doctor",
    "prices",
    "explain_gpu",
    *IDLE_QUESTIONS,
    *COST_QUESTIONS,
    *FORECAST_QUESTIONS,
    *WORKSPACE_QUESTIONS,
)
_ORDERS = ("collect", "replay", "analyse", "plan", "apply", "undo", "brake", "run", "migrate", "ingest")
OPERATIONS = (*_ORDERS, *COST_ORDERS, *WORKSPACE_ORDERS)
STALE_TURNS = 5
_OF_A_MOMENT = frozenset({"health", "explain_gpu", "idle", "top", "packing"})


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
            "plan": self._plan,
            "apply": self._apply,
            "undo": self._undo,
            "brake": self._brake,
            "run": self._run,
            "migrate": self._migrate,
            "ingest": self._ingest.take,
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

    def _plan(self, parameters: Mapping[str, object]) -> Report:
        house = self._house
        now = as_of(house, str(parameters.get("as_of", "now")))
        if not house.clusters:
            message = "no cluster to plan for: [collect] sources names none that can be moved (kubernetes, simulator)"
            raise BadInput(message, field="collect.sources")
        findings = judge(house, now)
        record_findings(house, findings)
        plans = make_plans(house, findings.verdicts, now)
        if not plans:
            message = "no cluster could be read, so there is no plan; `steward doctor` tells what each of them said"
            raise SourceFailed(message)
        lines = tuple(line for made in plans for line in diff_lines(made))
        hint = tuple(
            f"rehearse it: steward apply {made.plan_id}; make it: steward apply {made.plan_id} --yes" for made in plans
        )
        return Report(
            "PlanReport",
            now,
            items=_moves(plans),
            columns=_MOVE_COLUMNS,
            notes=(*lines, *hint, *stale_notes(house, now)),
        )

    def _apply(self, parameters: Mapping[str, object]) -> Report:
        house = self._house
        plans = house.store.read("plan")
        plan_id = parameters.get("plan_id")
        if plan_id is None:
            if plans.is_empty():
                message = "no plan is recorded yet; make one with `steward plan`"
                raise BadInput(message, field="plan_id")
            plan_id = plans.sort("made_at").get_column("plan_id")[-1]
        made = plan_from(plans, house.store.read("move"), str(plan_id))
        return self._carry_out(made, is_real=parameters.get("yes") is True)

    def _undo(self, parameters: Mapping[str, object]) -> Report:
        house = self._house
        wanted = str(parameters.get("what", ""))
        moves = house.store.read("move").filter((pl.col("plan_id") == wanted) | (pl.col("move_id") == wanted))
        if moves.is_empty():
            message = f"there is no plan and no move {wanted}; the moves made are listed in the table move"
            raise BadInput(message, field="what")
        outcomes = outcomes_from(house.store.read("outcome"))
        made = undo_plan(moves_from(moves.sort("ordinal").get_column("body")), outcomes, house.clock.now())
        is_real = parameters.get("yes") is True
        for table, frame in plan_frames(made).items() if is_real else ():
            house.store.append_stored(table, frame)
        report = self._carry_out(made, is_real=is_real)
        held = tuple(f"not taken back: {each.subject}: {each.reason}" for each in made.held_back)
        nothing = () if made.moves or held else ("nothing of it stands; there is nothing to take back",)
        return replace(report, kind="UndoReport", notes=(*report.notes, *held, *nothing))

    def _brake(self, parameters: Mapping[str, object]) -> Report:
        path, now = self._house.store.path, self._house.clock.now()
        order = str(parameters.get("order", "status"))
        if order == "on":
            pull(path, f"{plain(now)} {parameters.get('reason', 'no reason given')}")
        elif order == "off":
            release(path)
        elif order != "status":
            message = f"brake: {order!r} is not one of on, off, status"
            raise BadInput(message, field="order")
        reason = reason_of(path)
        return Report("BrakeReport", now, {"brake": "off" if reason is None else "on", "reason": reason})

    def _carry_out(self, made: Plan, *, is_real: bool) -> Report:
        house = self._house
        if is_real:
            settle_unfinished(house)
        outcomes = carry_out(house, made, is_dry_run=not is_real, is_approved=is_real)
        items = [
            {"move": each.move_id, "stage": each.stage.value, "dry_run": each.is_dry_run, "detail": each.detail}
            for each in outcomes
        ]
        failed = any(each.stage.value == "failed" for each in outcomes)
        notes = () if is_real else ("this was a rehearsal and changed nothing; --yes makes the moves",)
        return Report(
            "ApplyReport", house.clock.now(), {"plan": made.plan_id}, items, notes=notes, exit_code=int(failed)
        )

    def _run(self, _parameters: Mapping[str, object]) -> Report:
        turned = turn(self._house, self._house.clock.now())
        keep_up(self._house, turned.now)
        return turn_report(turned)

    def _migrate(self, _parameters: Mapping[str, object]) -> Report:
        described = self._house.store.describe()
        return Report(
            "MigrateReport", self._house.clock.now(), {"path": described["path"], "schema": described["schema"]}
        )


_MOVE_COLUMNS = ("kind", "target", "cluster", "gpus", "workspace", "saving_usd_per_hour", "reason")


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


def _moves(plans: tuple[Plan, ...]) -> list[dict[str, object]]:
    return [
        {
            "kind": move.kind.value,
            "target": str(move.target),
            "cluster": move.cluster,
            "gpus": move.gpus,
            "workspace": move.workspace,
            "saving_usd_per_hour": move.saving_usd_per_hour,
            "reason": move.reason,
            "risk": move.risk,
            "move_id": move.move_id,
            "plan_id": made.plan_id,
        }
        for made in plans
        for move in made.moves
    ]


def count_rows(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """Return how many rows have each value of a column."""
    counted = frame.group_by(column).len().sort(column)
    return {str(key): int(count) for key, count in counted.iter_rows()}
