"""Settings: `steward.toml`, then environment variables `STEWARD_SECTION__KEY`, then flags.

The file is the first there is of: `--config`, `STEWARD_CONFIG`, `steward.toml` in the working folder,
`gpu-steward/steward.toml` in the XDG config folder. An unknown key, or a value that means nothing, stops the
command and names the key, where it stands and what would be accepted.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from actions.policy import ActionPolicy
from analytics.cost_policy import LedgerPolicy
from analytics.demand_verdicts import DemandPolicy
from analytics.failure_risk import RiskPolicy
from analytics.forecast_policy import ForecastPolicy
from analytics.health_policy import HealthPolicy
from analytics.health_stake import StakePolicy
from analytics.health_state import StatePolicy
from analytics.idle import IdlePolicy
from analytics.outliers import OutlierPolicy
from analytics.sharing_policy import SharingPolicy
from analytics.telemetry_loss import TelemetryPolicy
from collectors.prometheus_settings import PrometheusSettings
from fleet.errors import BadConfig
from steward.notify_settings import NotifySettings

PREFIX = "STEWARD_"
# Variables with our prefix that are not settings: the settings file itself, and the tests' data folder.
RESERVED = frozenset({"STEWARD_CONFIG", "STEWARD_DATA"})
SOURCES = ("nvml", "kmsg", "prometheus", "kubernetes", "simulator")

_STRICT = ConfigDict(extra="forbid")
if TYPE_CHECKING:
    _Idle: TypeAlias = IdlePolicy
    _Health: TypeAlias = HealthPolicy
    _Cost: TypeAlias = LedgerPolicy
    _Forecast: TypeAlias = ForecastPolicy
    _Demand: TypeAlias = DemandPolicy
    _Actions: TypeAlias = ActionPolicy
    _Prometheus: TypeAlias = PrometheusSettings
    _Telemetry: TypeAlias = TelemetryPolicy
    _Outliers: TypeAlias = OutlierPolicy
    _States: TypeAlias = StatePolicy
    _Risk: TypeAlias = RiskPolicy
    _Stakes: TypeAlias = StakePolicy
    _Notify: TypeAlias = NotifySettings
    _Sharing: TypeAlias = SharingPolicy
else:
    # The rooms' policies are plain dataclasses; these are the same ones, checked as pydantic checks.
    _Idle, _Health, _Cost, _Forecast, _Demand, _Actions, _Prometheus = (
        validated(policy, config=_STRICT, frozen=True)
        for policy in (
            IdlePolicy,
            HealthPolicy,
            LedgerPolicy,
            ForecastPolicy,
            DemandPolicy,
            ActionPolicy,
            PrometheusSettings,
        )
    )
    _Telemetry, _Outliers, _States, _Risk, _Stakes, _Notify = (
        validated(policy, config=_STRICT, frozen=True)
        for policy in (TelemetryPolicy, OutlierPolicy, StatePolicy, RiskPolicy, StakePolicy, NotifySettings)
    )
    _Sharing = validated(SharingPolicy, config=_STRICT, frozen=True)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreSection(_Section):
    """`[store]`: where the database is, and how long raw rows are kept."""

    path: Path | None = None
    keep_samples_days: Annotated[int, Field(ge=1)] = 30
    keep_hours_days: Annotated[int, Field(ge=1)] = 400


class CollectSection(_Section):
    """`[collect]`: what is read, and how often; `contexts` are those of the kubeconfig, a cluster each.

    `kernel_log` is the kernel's ring buffer, or a file that dmesg or journalctl wrote.
    """

    sources: tuple[Literal["nvml", "kmsg", "prometheus", "kubernetes", "simulator"], ...] = ()
    interval_s: Annotated[float, Field(gt=0)] = 60.0
    cluster: str = "default"
    node: str | None = None
    prometheus: _Prometheus = _Prometheus()
    contexts: tuple[str, ...] = ()
    kernel_log: Path = Path("/dev/kmsg")


class AgentSection(_Section):
    """`[agent]`: how the node agent reads, where it listens, and the server it hands rows over to.

    Without a server rows go to the store of this machine. `driver` names what makes a driver in place of the real one.
    """

    interval_s: Annotated[float, Field(gt=0)] = 10.0
    listen: str = "127.0.0.1:9400"
    server: str | None = None
    token_file: Path | None = None
    driver: str | None = None
    kubelet_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    proc: Path = Path("/proc")
    logs: Path = Path("/var/log")


class PriceSection(_Section):
    """`[prices]`: a price book of your own; None is the built-in book of list prices."""

    book: Path | None = None


class SimulatorSection(_Section):
    """`[simulator]`: a preset, or a file that says everything."""

    preset: Literal["default", "serving_heavy", "notebook_heavy"] = "default"
    spec: Path | None = None
    gpus: Annotated[int, Field(ge=8)] = 512
    days: Annotated[float, Field(gt=0)] = 14.0
    seed: Annotated[int, Field(ge=0)] = 7
    starts_at: str | None = None


class ServeSection(_Section):
    """`[serve]`: where the server listens, how often the loop turns, and the file its API's token stands in.

    Without a token file every start makes a new token, which only commands on this machine learn; a Prometheus that
    pushes needs one that stays. `people_file` gives persons tokens of their own, a line each: name, space, token.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    turn_s: Annotated[float, Field(ge=1)] = 60.0
    token_file: Path | None = None
    people_file: Path | None = None


class LogSection(_Section):
    """`[log]`: logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "warning"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    store: StoreSection = StoreSection()
    collect: CollectSection = CollectSection()
    agent: AgentSection = AgentSection()
    prices: PriceSection = PriceSection()
    simulator: SimulatorSection = SimulatorSection()
    serve: ServeSection = ServeSection()
    log: LogSection = LogSection()
    idle: _Idle = _Idle()
    health: _Health = _Health()
    telemetry: _Telemetry = _Telemetry()
    outliers: _Outliers = _Outliers()
    states: _States = _States()
    risk: _Risk = _Risk()
    stakes: _Stakes = _Stakes()
    cost: _Cost = _Cost()
    forecast: _Forecast = _Forecast()
    demand: _Demand = _Demand()
    actions: _Actions = _Actions()
    notify: _Notify = _Notify()
    sharing: _Sharing = _Sharing()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which comes in as arguments."""
        return EnvSettingsSource(settings_cls), init_settings


def find_file(given: Path | None, environment: Mapping[str, str], folder: Path) -> Path | None:
    """Return the settings file to read, None where there is none; raises `BadConfig` where a named one is missing."""
    for path, origin in ((given, "--config"), (_path(environment.get("STEWARD_CONFIG")), "STEWARD_CONFIG")):
        if path is not None:
            if not path.is_file():
                message = f"{origin}: there is no settings file {path}"
                raise BadConfig(message, place=origin, field=str(path))
            return path
    home = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for path in (folder / "steward.toml", home / "gpu-steward" / "steward.toml"):
        if path.is_file():
            return path
    return None


def load_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings from a file (None: defaults) and the environment, or raise `BadConfig`."""
    values = {} if path is None else _read(path)
    _refuse_unknown_variables(environment)
    try:
        return Settings(**cast("dict[str, Any]", values))  # a file's values have whatever type; pydantic checks them
    except ValidationError as error:
        raise _bad_config(error, path, values) from error


def changed_settings(settings: Settings, values: Mapping[str, object], place: str) -> Settings:
    """Return settings with the sections of `values` laid over them, key by key; raises `BadConfig` naming `place`."""
    changed: dict[str, object] = {}
    for name, section in values.items():
        field_info = Settings.model_fields.get(name)
        annotation = None if field_info is None else field_info.annotation
        if annotation is None or not isinstance(section, Mapping):
            known = ", ".join(sorted(Settings.model_fields))
            message = f"{place}: there is no section {name}; the sections are {known}"
            raise BadConfig(message, place=place, field=name)
        merged = _merged(settings.model_dump()[name], section)
        try:
            changed[name] = TypeAdapter(annotation).validate_python(merged)
        except ValidationError as error:
            first = error.errors()[0]
            keys = [name, *(str(part) for part in first["loc"])]
            message = f"{place}: {'.'.join(keys)}: {first['msg']} (found {first['input']!r})"
            if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
                message = f"{place}: unknown key {'.'.join(keys)}; accepted here: {', '.join(_known(keys[:-1]))}"
            raise BadConfig(message, place=place, field=".".join(keys)) from error
    return settings.model_copy(update=changed)


def _merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both


def store_path(settings: Settings, given: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the database to use: `--store`, else `[store] path`, else the XDG data folder."""
    if given is not None:
        return given
    if settings.store.path is not None:
        return settings.store.path
    home = Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "gpu-steward" / "steward.duckdb"


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: this is not TOML: {error}"
        raise BadConfig(message, place=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: can't be read: {error}"
        raise BadConfig(message, place=str(path)) from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    sections = {name.upper() for name in Settings.model_fields}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        section, delimiter, key = name.removeprefix(PREFIX).partition("__")
        if section not in sections or not delimiter or not key:
            message = (
                f"environment variable {name}: there is no such setting; settings are written "
                f"{PREFIX}SECTION__KEY with a section of {', '.join(sorted(sections))}"
            )
            raise BadConfig(message, place="environment", field=name)


def _bad_config(error: ValidationError, path: Path | None, values: Mapping[str, object]) -> BadConfig:
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    where = _place(keys, path, values)
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = ", ".join(_known(keys[:-1]))
        message = f"{where}: unknown key {'.'.join(keys)}; accepted here: {known}"
    else:
        message = f"{where}: {'.'.join(keys)}: {first['msg']} (found {first['input']!r})"
    return BadConfig(message, place=where, field=".".join(keys))


def _place(keys: list[str], path: Path | None, values: Mapping[str, object]) -> str:
    variable = (PREFIX + "__".join(keys)).upper()
    if any(name.upper() == variable for name in os.environ):
        return f"environment variable {variable}"
    section = values.get(keys[0]) if keys else None
    if path is None or (section is None and len(keys) > 1):
        return "environment"
    return str(path)


def _known(keys: list[str]) -> list[str]:
    """Return the names accepted under a section, walking models and dataclasses alike."""
    found: type = Settings
    for key in keys:
        inner = _types(found).get(key)
        if inner is None:
            return []
        found = inner
    return sorted(_types(found))


def _types(owner: type) -> dict[str, type]:
    if issubclass(owner, BaseModel):
        return {name: _bare(info.annotation) for name, info in owner.model_fields.items()}
    if is_dataclass(owner):
        return {item.name: _bare(item.type) for item in fields(owner)}
    return {}


def _bare(annotation: object) -> type:
    """Return the class behind an annotation such as `X | None`; `object` where there is no single one."""
    if isinstance(annotation, type):
        return annotation
    if get_origin(annotation) in {Union, UnionType}:
        kept = [part for part in get_args(annotation) if isinstance(part, type) and part is not type(None)]
        return kept[0] if kept else object
    return object
