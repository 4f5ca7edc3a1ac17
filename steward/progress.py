"""Progress of long work: a bar on a terminal's stderr, silence elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[float, str], None]


@contextmanager
def progress(total: float) -> Iterator[Tell]:
    """Give a function that is told how much of `total` is done and what is being done."""
    if not sys.stderr.isatty():
        yield lambda _done, _what: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - likewise

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, what: bar.update(task, completed=done, description=what)
