"""Numbers as Prometheus text (exposition format 0.0.4): what is not measured is left out, never written as 0."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from fleet.errors import BadInput

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Number = int | float | Decimal
Kind = Literal["gauge", "counter", "untyped"]

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class Sample:
    """One number and the labels that tell it from its sisters; None = not measured."""

    value: Number | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its samples; a counter's name ends in `_total`."""

    name: str
    help: str
    kind: Kind
    samples: tuple[Sample, ...]


def metric(name: str, meaning: str, value: Number | None, kind: Kind = "gauge") -> Metric:
    """Return a metric that has one sample and no labels."""
    return Metric(name, meaning, kind, (Sample(value, {}),))


def expose(metrics: Iterable[Metric]) -> str:
    """Return the metrics as text that ends in a newline; a metric without any measured sample is left out whole.

    Raises `BadInput` for a name that Prometheus does not take, and for a metric or a sample given twice: either
    would make it refuse every other number of the page too.
    """
    lines: list[str] = []
    seen: set[str] = set()
    for each in metrics:
        if each.name in seen:
            message = f"metric {each.name} is given twice"
            raise BadInput(message, field=each.name)
        seen.add(each.name)
        lines += _lines(each)
    return "".join(f"{line}\n" for line in lines)


def _lines(each: Metric) -> list[str]:
    if _METRIC_NAME.fullmatch(each.name) is None:
        message = f"{each.name!r} is not a metric name"
        raise BadInput(message, field=each.name)
    samples = [_sample(each.name, sample.labels, sample.value) for sample in each.samples if sample.value is not None]
    if not samples:
        return []
    if len({series for series, _ in samples}) < len(samples):
        message = f"metric {each.name} has two samples with the same labels"
        raise BadInput(message, field=each.name)
    meaning = each.help.replace("\\", r"\\").replace("\n", r"\n")
    head = [f"# HELP {each.name} {meaning}", f"# TYPE {each.name} {each.kind}"]
    return head + [f"{series} {value}" for series, value in samples]


def _sample(name: str, labels: Mapping[str, str], value: Number) -> tuple[str, str]:
    wrong = next((label for label in labels if _LABEL_NAME.fullmatch(label) is None), None)
    if wrong is not None:
        message = f"metric {name}: {wrong!r} is not a label name"
        raise BadInput(message, field=wrong)
    pairs = ",".join(f'{label}="{_escape(labels[label])}"' for label in sorted(labels))
    return (f"{name}{{{pairs}}}" if pairs else name), _number(value)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: Number) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value) if isinstance(value, float) else f"{value:f}"
