"""What the demo tells its reader to type can be typed."""

import sys
from pathlib import Path

import pytest

from steward.demo import how_to_call


@pytest.mark.parametrize(
    ("is_on_path", "called", "said"),
    [
        (True, ".venv/bin/steward", "steward"),
        (False, ".venv/bin/steward", ".venv/bin/steward"),
        (False, "/usr/lib/python3/pytest/__main__.py", "steward"),
    ],
)
def test_the_program_is_named_as_the_shell_finds_it(
    called: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_on_path: bool
) -> None:
    if is_on_path:
        (tmp_path / "steward").write_text("#!/bin/sh\n")
        (tmp_path / "steward").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    assert how_to_call() == said
