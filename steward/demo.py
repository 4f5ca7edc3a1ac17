"""The demo: a fleet nobody has, the loop nobody changed for it, and an honest account of what it found."""

import os
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from shutil import which

from fleet.clock import FixedClock, SystemClock
from fleet.errors import BadInput
from fleet.move import Plan
from fleet.verdict import Verdict
from simulator.cluster import SimulatorCluster
from simulator.source import SimulatorSource
from simulator.step import build
from simulator.truth import faults, work_intervals
from simulator.world import World
from steward.compose import House, fleet_spec, load_prices
from steward.config import Settings, SimulatorSection, load_settings
from steward.cycle import Turn, day_ends, turn
from steward.log import set_up_log
from steward.progress import Tell, progress
from steward.report import Report
from steward.score import FaultScore, Score, score_faults, score_idle
from store.store import Store

TURN_EVERY = timedelta(days=1)
HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Played:
    """What the demo's turns said and left behind."""

    turns: tuple[datetime, ...]
    verdicts: tuple[Verdict, ...]
    last: Turn
    rows: dict[str, int]


def run_demo(store: Path | None, *, gpus: int, days: float, seed: int, preset: str, spec: Path | None) -> Report:
    """Simulate a fleet up to the present hour, turn the loop over it, and report what was found and missed.

    The store and the settings to go on with are written to `store` (None: `demo.duckdb` in the data folder); a
    demo that stands there already is replaced, any other store is refused.
    """
    database = _demo_path(store)
    now = SystemClock().now().replace(minute=0, second=0, microsecond=0)
    starts_at = now - timedelta(days=days)
    section = SimulatorSection.model_validate(
        {"preset": preset, "spec": spec, "gpus": gpus, "days": days, "seed": seed, "starts_at": starts_at.isoformat()}
    )
    config = _write_settings(database, section)
    settings = load_settings(config, {})
    set_up_log(settings.log)
    clock = FixedClock(starts_at)
    world = build(fleet_spec(section))
    with Store.open(database, clock=clock) as opened, progress((now - starts_at).total_seconds()) as tell:
        load_prices(settings, opened)
        house = House(settings, opened, clock, (SimulatorSource(world),), (SimulatorCluster(world),))
        played = play(house, clock, starts_at, now, tell)
        return account(world, settings, played, config)


def play(house: House, clock: FixedClock, starts_at: datetime, until: datetime, tell: Tell) -> Played:
    """Turn the loop every simulated day from `starts_at` to `until`."""
    verdicts: list[Verdict] = []
    rows: dict[str, int] = {}
    moments = day_ends(starts_at, until, TURN_EVERY)
    for moment in moments:
        clock.set(moment)
        last = turn(house, moment)
        verdicts += [verdict for verdict in last.findings.verdicts if verdict.state not in {"active", "healthy"}]
        for table, count in last.collected.rows.items():
            rows[table] = rows.get(table, 0) + count
        tell((moment - starts_at).total_seconds(), f"{moment:%d %b %H:%M}")
    return Played(tuple(moments), tuple(verdicts), last, rows)


def account(world: World, settings: Settings, played: Played, config: Path) -> Report:
    """Return the demo's report: what was seen, found, missed, planned, and where to look next."""
    idle_policy, health_policy = settings.idle, settings.health
    idle = score_idle(played.verdicts, work_intervals(world), played.turns, idle_policy)
    look_back = timedelta(seconds=health_policy.look_back_s)
    broken = score_faults(played.verdicts, faults(world), look_back, played.last.now)
    return Report(
        kind="DemoReport",
        as_of=played.last.now,
        summary=_summary(world, played, idle, broken),
        items=_items(played.last),
        columns=("finding", "subject", "workspace", "state", "rule", "action", "gpu_hours", "cost_usd"),
        notes=_notes(played, broken, config),
    )


def _summary(world: World, played: Played, idle: Score, broken: FaultScore) -> dict[str, object]:
    plans = played.last.plans
    saving = _saving(plans)
    return {
        "fleet": _fleet(world),
        "time": f"{played.turns[0] - TURN_EVERY:%Y-%m-%d %H:%M} to {played.last.now:%Y-%m-%d %H:%M} UTC",
        "stored": f"{played.rows.get('gpu_sample', 0):,} GPU samples, {played.rows.get('event', 0):,} events",
        "idle_found": f"{idle.found:,} idle GPUs and slices over {len(played.turns)} turns, {_rates(idle)}",
        "idle_missed": f"{idle.missed:,} ({idle.unsure:,} of them answered unknown)",
        "idle_false": f"{idle.false:,} called idle while their pod worked",
        "faults_found": f"{broken.score.found:,} of {_there(broken.score):,} faults that need somebody",
        "faults_missed": _counted(broken.missed_kinds),
        "faults_false": f"{broken.score.false:,} GPUs accused falsely{_reasons(broken.false_rules)}",
        "idle_now": _waste(played.last.findings.verdicts),
        "plan": f"{sum(len(plan.moves) for plan in plans)} moves (dry run), {_held(plans)} held back",
        "saving": None if saving is None else f"{saving:,.2f} USD/h, {saving * HOURS_PER_MONTH:,.0f} USD a month",
    }


def _items(last: Turn) -> list[dict[str, object]]:
    wrong = [v for v in last.findings.verdicts if v.topic == "health" and v.severity in {"critical", "warning"}]
    idle = [v for v in last.findings.verdicts if v.subject_kind == "workload" and v.action == "reclaim"]
    worst = sorted(idle, key=lambda v: -(v.gpu_hours or 0.0))[:8]
    return [
        {
            "finding": verdict.topic,
            "subject": verdict.subject,
            "workspace": verdict.workspace,
            "state": verdict.state,
            "rule": verdict.rule,
            "action": verdict.action,
            "gpu_hours": verdict.gpu_hours,
            "cost_usd": None if verdict.cost_usd is None else f"{verdict.cost_usd:,.2f}",
        }
        for verdict in (*wrong[:8], *worst)
    ]


def _notes(played: Played, broken: FaultScore, config: Path) -> tuple[str, ...]:
    hours = int(TURN_EVERY.total_seconds() // 3600)
    notes = [f"the demo turns every {hours} simulated hours; a server turns every minute and sees what came and went"]
    if broken.missed_kinds:
        notes.append("a fault missed is one whose signs were gone at the next turn, or that no rule names yet")
    unpriced = played.last.findings.unpriced_gpus
    if unpriced:
        notes.append(f"{unpriced} GPUs have no price; nothing of them is in the money above")
    ours = f"{how_to_call()} --config {config}"
    moment = played.last.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    notes.append(f"look at it:       {ours} serve   then open http://127.0.0.1:8787")
    notes.append(f"see the plan:     {ours} plan --as-of {moment}")
    notes.append(f"act:              {ours} collect   then plan, apply PLAN --yes, undo PLAN --yes")
    return tuple(notes)


def how_to_call() -> str:
    """Return how this program can be called again: by its name where the shell would find it, else by its path."""
    return "steward" if which("steward") or Path(sys.argv[0]).name != "steward" else sys.argv[0]


def _fleet(world: World) -> str:
    spec = world.spec
    return f"{spec.gpus:,} GPUs, {len(spec.clusters)} clusters, {len(spec.workspaces)} workspaces"


def _there(score: Score) -> int:
    return score.found + score.missed


def _rates(score: Score) -> str:
    precision = "none" if score.precision is None else f"{score.precision:.3f}"
    recall = "none" if score.recall is None else f"{score.recall:.3f}"
    return f"precision {precision}, recall {recall}"


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "0"


def _reasons(rules: dict[str, int]) -> str:
    return f" ({_counted(rules)})" if rules else ""


def _waste(verdicts: tuple[Verdict, ...]) -> str:
    idle = [v for v in verdicts if v.topic == "idle" and v.subject_kind == "workload" and v.action == "reclaim"]
    hours = sum(v.gpu_hours for v in idle if v.gpu_hours is not None)
    cost = sum((v.cost_usd for v in idle if v.cost_usd is not None), Decimal(0))
    return f"{len(idle)} workloads hold GPUs idle: {hours:,.0f} GPU-hours so far, {cost:,.2f} USD"


def _saving(plans: tuple[Plan, ...]) -> Decimal | None:
    known = [plan.saving_usd_per_hour for plan in plans if plan.saving_usd_per_hour is not None]
    return sum(known, Decimal(0)) if known else None


def _held(plans: tuple[Plan, ...]) -> int:
    return sum(len(plan.held_back) for plan in plans)


def _demo_path(store: Path | None) -> Path:
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    path = store if store is not None else home / "gpu-steward" / "demo.duckdb"
    config = path.with_suffix(".toml")
    if path.exists() and not config.exists():
        message = f"{path} is there and was not made by the demo; name another file with --store"
        raise BadInput(message, field="store")
    for leftover in (path, path.with_name(path.name + ".wal")):
        leftover.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _write_settings(database: Path, section: SimulatorSection) -> Path:
    """Write the settings that go on with the demo, as TOML, beside its store."""
    config = database.with_suffix(".toml")
    lines = ["# Written by `steward demo`: the simulated fleet goes on from where the demo left it.", "[store]"]
    lines += [f'path = "{database}"', "", "[collect]", 'sources = ["simulator"]', "", "[simulator]"]
    for name, value in section.model_dump(exclude_none=True).items():
        lines.append(f"{name} = {value}" if isinstance(value, (int, float)) else f'{name} = "{value}"')
    config.write_text("\n".join(lines) + "\n")
    return config
