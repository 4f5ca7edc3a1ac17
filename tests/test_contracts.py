"""The contracts of the house are kept, and each of them fails when its rule is broken once."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
LINTER = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS: dict[str, dict[str, object]] = {contract["id"]: contract for contract in LINTER["contracts"]}

# For each contract, a room that breaks it and the import that does.
OFFENCES = {
    "floors": ("analytics", "store"),
    "room-fleet": ("fleet", "store"),
    "room-store": ("store", "analytics"),
    "room-collectors": ("collectors", "actions.port"),
    "room-analytics": ("analytics", "store"),
    "room-actions": ("actions", "collectors.source"),
    "room-controller": ("controller", "store"),
    "room-api": ("api", "actions.port"),
    "room-dashboards": ("dashboards", "controller"),
    "room-simulator": ("simulator", "store"),
    "door-pynvml": ("steward", "pynvml"),
    "door-grpc": ("api", "grpc"),
    "door-prometheus-api-client": ("analytics", "prometheus_api_client"),
    "door-requests": ("api", "requests"),
    "door-kubernetes": ("controller", "kubernetes.client"),
    "door-cramjam": ("api", "cramjam"),
    "door-lxml": ("collectors", "lxml.etree"),
    "door-duckdb": ("analytics", "duckdb"),
    "door-sqlglot": ("steward", "sqlglot"),
    "door-ibis": ("collectors", "ibis"),
    "door-sklearn": ("simulator", "sklearn.ensemble"),
    "door-scipy": ("actions", "scipy.optimize"),
    "door-fastapi": ("dashboards", "fastapi"),
    "door-uvicorn": ("api", "uvicorn"),
    "door-httpx": ("collectors", "httpx"),
    "door-streamlit": ("api", "streamlit"),
    "door-typer": ("api", "typer"),
    "door-pydantic-settings": ("steward", "pydantic_settings"),
    "door-structlog": ("fleet", "structlog"),
    "door-rich": ("dashboards", "rich.console"),
}


def trespasser(contract: str) -> str:
    return f"trespasser_{contract.replace('-', '_')}"


def house(folder: Path) -> Path:
    """Copy what the linter reads: the settings and the Python files of every room."""
    for room in LINTER["root_packages"]:
        shutil.copytree(PROJECT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports over the house in `folder`, not over the one that is installed."""
    script = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", script, "--no-cache", "--no-logo", "--config", "pyproject.toml"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter, our own words


def broken_sections(report: str) -> dict[str, str]:
    """Return the part of the report on each broken contract, by the contract's name."""
    _, _, told = report.partition("Broken contracts\n")
    parts = re.split(r"^(.+)\n-{5,}\n", told, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def sections_of_a_broken_house(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = house(tmp_path_factory.mktemp("broken"))
    for contract, (room, module) in OFFENCES.items():
        (folder / room / f"{trespasser(contract)}.py").write_text(f'"""Trespass."""\n\nimport {module}\n')
    result = lint(folder)
    assert result.returncode == 1, result.stdout + result.stderr
    return broken_sections(result.stdout)


def test_every_contract_is_kept(tmp_path: Path) -> None:
    result = lint(house(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in result.stdout


def test_every_contract_has_an_offence_to_be_tried_with() -> None:
    assert set(OFFENCES) == set(CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_breaks_when_its_rule_is_broken_once(
    contract: str, sections_of_a_broken_house: dict[str, str]
) -> None:
    name = str(CONTRACTS[contract]["name"])
    room, module = OFFENCES[contract]
    section = sections_of_a_broken_house.get(name, "")
    assert f"{room}.{trespasser(contract)} -> {module.split('.')[0]}" in section


@pytest.mark.parametrize("contract", [name for name in CONTRACTS if "ignore_imports" in CONTRACTS[name]])
def test_a_door_lets_in_the_files_it_names(contract: str, tmp_path: Path) -> None:
    folder = house(tmp_path)
    exceptions = CONTRACTS[contract]["ignore_imports"]
    assert isinstance(exceptions, list)
    edges = [str(exception).replace("**", trespasser(contract)) for exception in exceptions]
    for importer, module in (edge.split(" -> ") for edge in edges):
        (folder / f"{importer.replace('.', '/')}.py").write_text(f'"""At the door."""\n\nimport {module}\n')
    section = broken_sections(lint(folder).stdout).get(str(CONTRACTS[contract]["name"]), "")
    assert [edge for edge in edges if edge in section] == []


def test_the_floors_alone_would_let_the_controller_read_the_store(sections_of_a_broken_house: dict[str, str]) -> None:
    section = sections_of_a_broken_house[str(CONTRACTS["floors"]["name"])]
    assert trespasser("room-controller") not in section
