"""Shared fixtures: where the real data is, and what is skipped, visibly, without it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fingerprint.corpus.identity import Key

if find_spec("hypothesis"):  # a machine that is lent for its GPU may lack it
    from hypothesis import settings

    # no test is timed: a busy machine is no failure
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
# an audit of these tests registers two patients of each query, one of them elastically: every path
# is walked, in a tenth of the time; what registers more says so
os.environ.setdefault("FINGERPRINT_REGISTER_PATIENTS", "2")
os.environ.setdefault("FINGERPRINT_ELASTIC_PATIENTS", "1")
# has twelve controls, and plants no copies: what is about controls or canaries says how many
os.environ.setdefault("FINGERPRINT_CONTROLS", "12")
os.environ.setdefault("FINGERPRINT_CANARIES", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run tests marked slow")
    parser.addoption("--rungpu", action="store_true", help="run tests marked gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for name in ("slow", "gpu"):
        if not config.getoption(f"--run{name}"):
            skip = pytest.mark.skip(reason=f"{name}: run with make test-{name}")
            for item in items:
                if item.get_closest_marker(name):
                    item.add_marker(skip)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real CT; the test is skipped where there is none."""
    folder = os.environ.get("FINGERPRINT_DATA")
    if not folder:
        pytest.skip("FINGERPRINT_DATA is not set: no real CT here")
    return Path(folder)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250123)


@pytest.fixture(scope="session")
def key() -> Key:
    return Key(b"a key for the tests, 32 bytes long")
