"""The actions page in a real browser, as a viewer sees it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.steward.test_serve import running

SERVER_SAYS_NO = "there is no report"


@pytest.mark.browser
def test_a_browser_shows_what_a_desk_can_not_answer_in_its_own_words(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on the PATH")
    script = Path(__file__).parents[2] / "scripts" / "screenshot"
    with running() as (_, url):
        command = [
            sys.executable,
            str(script),
            f"{url}/actions",
            str(tmp_path / "page.png"),
            "--text",
            "--width",
            "800",
        ]
        shot = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)  # noqa: S603 - our own words
    words = shot.stdout.split("\n")
    assert "Actions" in words
    assert any("Sign in to act" in line for line in words)
    assert any(SERVER_SAYS_NO in line for line in words)
    assert "Approve" not in words
