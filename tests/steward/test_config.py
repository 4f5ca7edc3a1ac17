"""Settings: the file, the environment over it, and errors that name key, place and what would be accepted."""

from pathlib import Path

import pytest

from fleet.errors import BadConfig
from steward.cli import SourceName
from steward.config import SOURCES, find_file, load_settings, store_path


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "steward.toml"
    path.write_text(text)
    return path


def test_defaults_need_no_file() -> None:
    settings = load_settings(None, {})
    assert settings.collect.sources == ()
    assert settings.idle.window_s == 3600.0
    assert settings.actions.modes.reclaim == "propose"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '[serve]\nport = 1\nhost = "::1"\n[idle]\nwindow_s = 600\n')
    monkeypatch.setenv("STEWARD_SERVE__PORT", "2")
    settings = load_settings(path, {"STEWARD_SERVE__PORT": "2"})
    assert (settings.serve.port, settings.serve.host, settings.idle.window_s) == (2, "::1", 600.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[srve]\nport = 1", r"unknown key srve; accepted here: .*serve", id="section"),
        pytest.param("[idle]\nwindows_s = 1", r"unknown key idle\.windows_s; accepted here: .*window_s", id="key"),
        pytest.param("[actions.budget]\nmax = 1", r"actions\.budget\.max; accepted here: .*max_gpus", id="nested"),
        pytest.param('[serve]\nport = "x"', r"serve\.port: .*integer.*found 'x'", id="type"),
        pytest.param("[serve]\nport = 70000", r"serve\.port: .*65535", id="range"),
        pytest.param('[collect]\nsources = ["nvlm"]', r"collect\.sources\.0: .*'nvml'", id="choice"),
        pytest.param('[actions.modes]\nfence = "maybe"', r"maybe.* is not one of off, observe", id="policy"),
        pytest.param("[idle]\nwindow_s = nan", r"window_s", id="NaN"),
        pytest.param("[serve\n", "this is not TOML", id="syntax"),
    ],
)
def test_an_error_names_the_key_the_file_and_what_is_accepted(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadConfig, match=says) as error:
        load_settings(path, {})
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["STEWARD_FOO", "STEWARD_SERVE", "STEWARD_SERVR__PORT", "STEWARD_SERVE__"])
def test_a_variable_that_is_no_setting_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match=name):
        load_settings(None, {name: "1"})


def test_reserved_variables_are_not_settings() -> None:
    assert load_settings(None, {"STEWARD_DATA": "x", "STEWARD_CONFIG": "y"}).serve.port == 8787


def test_the_file_is_found_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home" / "gpu-steward"
    home.mkdir(parents=True)
    (home / "steward.toml").write_text("")
    environment = {"XDG_CONFIG_HOME": str(home.parent)}
    assert find_file(None, environment, tmp_path) == home / "steward.toml"
    here = write(tmp_path, "")
    assert find_file(None, environment, tmp_path) == here
    other = tmp_path / "other.toml"
    other.write_text("")
    assert find_file(None, environment | {"STEWARD_CONFIG": str(other)}, tmp_path) == other
    with pytest.raises(BadConfig, match="no settings file"):
        find_file(tmp_path / "gone.toml", environment, tmp_path)


def test_the_store_is_named_by_flag_then_file_then_folder(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, '[store]\npath = "a.duckdb"'), {})
    assert store_path(settings, Path("b.duckdb"), {}) == Path("b.duckdb")
    assert store_path(settings, None, {}) == Path("a.duckdb")
    bare = store_path(load_settings(None, {}), None, {"XDG_DATA_HOME": "/data"})
    assert bare == Path("/data/gpu-steward/steward.duckdb")


def test_the_command_line_offers_every_source_of_the_settings() -> None:
    assert {name.value for name in SourceName} == set(SOURCES)
