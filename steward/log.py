"""Logs: structured, on stderr, so that stdout stays data."""

import logging
import sys

import structlog

from steward.config import LogSection


def set_up_log(section: LogSection) -> None:
    """Send logs of at least the level asked for to stderr, as text or as JSON lines; colour only on a terminal."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if section.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[section.level.upper()]),
        # Asked for at each line: whoever put something in place of stderr may have closed it since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
