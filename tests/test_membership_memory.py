"""Memory of a membership run: told before it begins, and not exceeded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fingerprint.membership import memory
from fingerprint.membership.memory import Counts
from fingerprint.search.tiling import BASE_BYTES
from fingerprint.settings import METHODS, Settings
from flows.cli import run as command

COUNTS = Counts(asked=300, generated=500, control=200, px=64)
MEASURED = """
import sys
from pathlib import Path
import numpy as np, torch
from fingerprint.membership import Dev, Real, methods
from fingerprint.settings import Settings
torch.set_num_threads(1)
def of_status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
def images(n, px=64, rng=np.random.default_rng(0)):
    return rng.integers(0, 256, (n, px, px), dtype=np.uint8)
asked, generated, control = (images(n) for n in {counts!r})
method = methods.Method({name!r}, Settings(**{settings!r}), 64, Path("none")).made()
def peak(*sets):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = of_status("VmRSS")
    real = Real(sets[0], np.arange(len(sets[0])))
    method.fit(Dev(sets[1], real, real))(*sets, seed=0)
    return of_status("VmHWM") - before
peak(asked[:8], generated[:24], control[:24])  # what is loaded on the way
print(peak(asked, generated, control))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux")
@pytest.mark.parametrize("name", ["similarity", "density", "vcmi", "calibrated"])
def test_a_method_takes_what_was_told_and_no_more(name: str) -> None:
    knobs = {"noise": False, "pose": False}
    counts = replace(COUNTS, generated=5000) if name in ("density", "calibrated") else COUNTS
    numbers = (counts.asked, counts.generated, counts.control)
    code = MEASURED.format(name=name, counts=numbers, settings=knobs)
    # what is freed goes back at once, so that nothing hides in memory held from the first try
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=env)
    told = memory.bytes_needed(counts, Settings(**knobs))[name]
    assert told / 3 < int(done.stdout) <= told


def test_more_images_or_pixels_never_take_less() -> None:
    few = memory.bytes_needed(COUNTS, Settings())
    assert set(few) == set(METHODS)
    for more in (replace(COUNTS, generated=9000), replace(COUNTS, asked=9000)):
        found = memory.bytes_needed(more, Settings())
        assert all(found[name] >= few[name] for name in few)
    wide = memory.bytes_needed(replace(COUNTS, px=512), Settings(compare_px=512))
    assert all(wide[name] > few[name] for name in ("similarity", "density", "vcmi"))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_not_run_needs_nothing(name: str) -> None:
    others = tuple(other for other in METHODS if other != name)
    assert name not in memory.bytes_needed(COUNTS, Settings(methods=others))


def test_networks_take_their_file_and_their_features() -> None:
    plain = memory.bytes_needed(COUNTS, Settings())
    vgg = memory.bytes_needed(COUNTS, Settings(networks=("vgg16=there.pth",)))
    for name in ("embedding", "texture"):
        assert vgg[name] > plain[name] + 4 * 138_357_544


def test_a_task_that_does_not_fit_is_refused_and_the_knob_is_named() -> None:
    large = Counts(4000, 10_000, 3000, 512)
    memory.refuse_more("task", large, Settings())
    with pytest.raises(ValueError, match=r"^memory_gib: density of task one .* lower compare_px"):
        memory.refuse_more("one", large, Settings(compare_px=512))


def test_a_dry_run_tells_the_memory_or_refuses_it(tmp_path: Path, capsys) -> None:
    for folder in ("dev/real_used", "dev/real_not_used", "test/real_unknown"):
        for each in (tmp_path / folder, (tmp_path / folder).with_name("generated")):
            each.mkdir(parents=True, exist_ok=True)
            (each / "one.png").touch()  # names are counted, nothing is read
    where = [str(tmp_path / name) for name in ("dev", "test", "out")]
    assert command(["membership", *where, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert BASE_BYTES < told["memory.worker_bytes"] <= told["memory.worker_limit_bytes"]
    (tmp_path / "s.toml").write_text("memory_gib = 0.6\n")
    assert command(["membership", *where, "--dry-run", "--settings", str(tmp_path / "s.toml")]) == 2
    assert "memory_gib: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
