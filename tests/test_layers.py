"""A room imports only from rooms above it; the library knows neither Prefect nor Dask."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "settings",
    "ledger",
    "lease",
    "warp",
    "corpus",
    "measure",
    "search",
    "register",
    "models",
    "membership",
    "report",
    "phantom",
    "job",
    "study_job",
    "membership_job",
    "phases",
    "verify",
    "run",
    "study_run",
    "membership_run",
)
FILES = sorted((ROOT / "fingerprint").rglob("*.py"))
FLOWS = sorted((ROOT / "flows").rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_rooms_import_only_from_rooms_above(path: Path) -> None:
    parts = path.relative_to(ROOT / "fingerprint").with_suffix("").parts
    if parts == ("__init__",):
        return
    here = ROOMS.index(parts[0])
    for name in imported(path):
        if name.startswith("fingerprint.") and room_of(name) in ROOMS:
            assert ROOMS.index(room_of(name)) <= here, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_library_imports_neither_prefect_nor_dask_nor_flows(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"prefect", "dask", "distributed", "dask_cuda", "flows"}


@pytest.mark.parametrize("path", FLOWS, ids=lambda p: p.name)
def test_dask_is_imported_in_one_file(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"dask", "distributed", "dask_cuda"} or path.name == "cluster.py"


def test_no_pickle_is_read_anywhere() -> None:
    for path in FILES + FLOWS:
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"pickle", "cloudpickle", "dill", "shelve"}, path.name
        assert "allow_pickle=True" not in path.read_text(), path.name


def test_no_image_is_read_by_the_reader_that_hides_damage() -> None:
    for path in sorted((ROOT / "fingerprint" / "corpus").rglob("*.py")):
        assert "SimpleITK" not in imported(path), path.name
