"""A fleet from a settings file: a mapping, as TOML gives it, becomes a FleetSpec, or an error saying what to write."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleet.errors import BadConfig, BadInput
from simulator.presets import PRESETS
from simulator.spec import FleetSpec

_PRESET_KEYS = ("preset", "gpus", "days")


def spec_from(mapping: Mapping[str, object], place: str) -> FleetSpec:
    """Read a fleet from a mapping; `place` (a file's name) stands in errors.

    With `preset` (and `gpus`, `days`) the mapping holds only what differs from that preset: tables are merged,
    lists replace. Without, it holds the whole fleet. Raises `BadConfig` naming the key and what is accepted.
    """
    keys: dict[str, object] = dict(mapping)
    if any(key in keys for key in ("preset", "gpus")):
        keys = _over_preset(keys, place)
    result = _dataclass_from(FleetSpec, keys, "", place)
    if not isinstance(result, FleetSpec):  # _dataclass_from gives what it was asked for; this tells the type checker
        message = f"{place}: not a fleet"
        raise BadConfig(message, place=place)
    return result


def _over_preset(keys: dict[str, object], place: str) -> dict[str, object]:
    name = keys.pop("preset", "default")
    if not isinstance(name, str) or name not in PRESETS:
        _refuse(place, "preset", f"{name!r} is not one of {', '.join(PRESETS)}")
    gpus = _scalar(int, keys.pop("gpus", 512), "gpus", place)
    days = _scalar(float, keys.get("days", 14.0), "days", place)
    try:
        preset = PRESETS[name](gpus=gpus, days=days)
    except BadInput as error:
        _refuse(place, error.field or "preset", str(error), error)
    return _merged(dataclasses.asdict(preset), keys)


def _merged(base: dict[str, Any], over: Mapping[str, object]) -> dict[str, object]:
    result: dict[str, object] = dict(base)
    for key, value in over.items():
        below = base.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return result


def _dataclass_from(cls: type[Any], mapping: Mapping[str, object], path: str, place: str) -> object:
    accepted = {field.name: field for field in dataclasses.fields(cls)}
    for key in mapping:
        if key not in accepted:
            _refuse(place, _join(path, key), f"is unknown; accepted here: {', '.join(accepted)}")
    for name, field in accepted.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in mapping and not has_default:
            _refuse(place, _join(path, name), "is missing")
    hints = typing.get_type_hints(cls)
    values = {key: _value(hints[key], value, _join(path, key), place) for key, value in mapping.items()}
    try:
        made: object = cls(**values)
    except BadInput as error:
        _refuse(place, _join(path, error.field or ""), str(error), error)
    return made


def _value(kind: Any, value: object, path: str, place: str) -> object:  # noqa: ANN401 - a type form: class, union, tuple
    origin = typing.get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:
        if value is None:
            return None
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        return _value(kind, value, path, place)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            _refuse(place, path, f"{value!r} is not a list")
        part = typing.get_args(kind)[0]
        return tuple(_value(part, each, f"{path}[{index}]", place) for index, each in enumerate(value))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            _refuse(place, path, f"{value!r} is not a table")
        return _dataclass_from(kind, value, path, place)  # type: ignore[arg-type]  # is_dataclass does not narrow to a type
    return _scalar(kind, value, path, place)


def _scalar(kind: Any, value: object, path: str, place: str) -> Any:  # noqa: ANN401 - the caller names the kind
    if kind is datetime:
        return _moment(value, path, place)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        return float(value)  # type: ignore[arg-type]  # is_number said so
    if kind is float or type(value) is not kind:
        accepted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
        _refuse(place, path, f"{value!r} is not {accepted}")
    return value


def _moment(value: object, path: str, place: str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            _refuse(place, path, f"{value!r} is not a time like 2026-03-02T00:00:00Z", error)
    if not isinstance(value, datetime) or value.tzinfo is None:
        _refuse(place, path, f"{value!r} is not a time with a zone, like 2026-03-02T00:00:00Z")
    return value.astimezone(UTC)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _refuse(place: str, path: str, why: str, cause: BaseException | None = None) -> typing.NoReturn:
    message = f"{place}: {path}: {why}"
    raise BadConfig(message, place=place, field=path) from cause
