"""A policy as a file: the part of a steward.toml that a policy changes, and how idleness is to be told."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace

from fleet.errors import BadConfig
from steward.config import Settings, changed_settings
from steward.policy_replay import Candidate
from steward.policy_verdicts import IDLE_RULES, IdleRule, Wanted

SECTIONS = ("actions", "idle", "health", "replay")
IN_FORCE = "settings in force"


def candidate_of(name: str, text: str | None, settings: Settings, wanted: Wanted) -> Candidate:
    """Return the policy that TOML text makes of the settings in force; None is those settings themselves.

    The sections are `[actions...]`, `[idle]` and `[health]` as in a steward.toml, and `[replay]` with `idle_rule`
    (house, max_zero, mean_below) and `mean_below`. Raises `BadConfig` that names the file and the key.
    """
    if text is None:
        return Candidate(name, settings, wanted)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{name}: this is not TOML: {error}"
        raise BadConfig(message, place=name) from error
    strange = [key for key in values if key not in SECTIONS]
    if strange:
        message = f"{name}: a policy has the sections {', '.join(SECTIONS)}, not {strange[0]}"
        raise BadConfig(message, place=name, field=strange[0])
    sections = {key: value for key, value in values.items() if key != "replay"}
    return Candidate(name, changed_settings(settings, sections, name), _wanted(name, values.get("replay", {}), wanted))


def _wanted(name: str, section: object, wanted: Wanted) -> Wanted:
    told = section if isinstance(section, Mapping) else {}
    for key in told:
        if key not in {"idle_rule", "mean_below"}:
            message = f"{name}: unknown key replay.{key}; accepted here: idle_rule, mean_below"
            raise BadConfig(message, place=name, field=f"replay.{key}")
    below = told.get("mean_below", wanted.mean_below)
    if isinstance(below, bool) or not isinstance(below, int | float) or not 0 <= below <= 1:
        message = f"{name}: replay.mean_below: {below!r} is not between 0 and 1"
        raise BadConfig(message, place=name, field="replay.mean_below")
    return replace(wanted, idle_rule=_rule(name, told.get("idle_rule", wanted.idle_rule)), mean_below=float(below))


def _rule(name: str, given: object) -> IdleRule:
    for rule in IDLE_RULES:
        if given == rule:
            return rule
    message = f"{name}: replay.idle_rule: {given!r} is not one of {', '.join(IDLE_RULES)}"
    raise BadConfig(message, place=name, field="replay.idle_rule")
