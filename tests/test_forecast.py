"""The forecast: formulas against loops over the plan, refusals, and a million in a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.corpus.screen import PIXELS
from fingerprint.search import blocks, itself, raw, tiling, triangle
from fingerprint.settings import Settings
from flows import chain, cli, costs, forecast, words

SMALL = Settings(size_px=64, workers=2, controls=4, shard_slices=8, band_queries=3, pose=False)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    draw = np.random.default_rng(20250123)
    real = draw.integers(0, 256, (36, 64, 64), dtype=np.uint8)
    make_corpus(folder / "real", real, [f"P{i // 3:012d}" for i in range(36)])
    control = draw.integers(0, 256, (10, 64, 64), dtype=np.uint8)
    people = [f"Q{i // 5:012d}" for i in range(10)]
    make_corpus(folder / "control", control, people, set_name="control")
    other = draw.integers(0, 256, (7, 64, 64), dtype=np.uint8)
    make_corpus(folder / "generated", other, [""] * 7, set_name="generated")
    return {p.name: str(p) for p in folder.iterdir()}


def planned(sets, s: Settings, controls: bool) -> list[ledger.Shard]:
    """Return the shards that the search itself plans."""
    opened = {name: store.open_corpus(path) for name, path in sets.items()}
    given = opened["control"] if controls else None
    againsts = blocks.five_blocks(opened["real"], opened["generated"], given, None, s)
    return raw.plan(
        againsts, band=s.band_queries, shard=s.shard_slices, block=s.block_slices, keep=False
    )


# -- counts, against the plan


@pytest.mark.parametrize("controls", [True, False])
@pytest.mark.parametrize("sample", [None, 5])
def test_shards_are_those_that_the_search_plans(sets, controls, sample):
    s = SMALL.model_copy(update={"sample": sample})
    given = sets["control"] if controls else None
    told = forecast.of_audit(sets["real"], sets["generated"], given, s)
    assert told["shards.search"] == len(planned(sets, s, controls))
    assert told["queries.generated"] == (sample or 7)
    assert told["queries.control"] == 4


def test_bytes_of_the_ledger_are_those_that_are_written(sets, tmp_path):
    told = forecast.of_audit(sets["real"], sets["generated"], sets["control"], SMALL)
    shards = planned(sets, SMALL, True)
    list(ledger.in_this_process(tmp_path, shards))
    written = sum(p.stat().st_size for p in tmp_path.rglob("*.shard"))
    heads = 2048 * len(shards)  # names and sizes of arrays, which the forecast leaves out
    assert written - heads <= told["bytes_written.ledger.search"] <= 1.1 * written


def test_an_audit_does_what_was_said(sets, tmp_path, monkeypatch):
    """Every phase: as many shards as were said, and about as many bytes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    knobs = {"size_px": 64, "controls": 4, "shard_slices": 8, "band_queries": 3}
    out = tmp_path / "run"
    how = chain.How("serial")
    chain.audit_sets(sets["real"], sets["generated"], str(out), knobs=knobs, how=how)
    told = forecast.of_audit(sets["real"], sets["generated"], None, Settings(**knobs))
    done = json.loads((out / "run.json").read_bytes())["phases"]
    for phase in ("search", "poses", "screen", "refine"):
        assert told[f"shards.{phase}"] == done[phase]["planned"] > 0, phase
        written = sum(p.stat().st_size for p in (out / "ledger" / phase).iterdir())
        said = told[f"bytes_written.ledger.{phase}"]
        # neighbours of the best are counted as if all were tried; heads of files are not counted
        assert written - 4096 * done[phase]["planned"] <= said <= 4 * written, phase


def test_a_corpus_against_itself_is_planned_as_the_search_plans_it(sets):
    s = SMALL.model_copy(update={"shard_pairs": 100, "band_queries": 8})
    told = forecast.of_audit(sets["real"], sets["real"], None, s)
    reference, _ = blocks.reference_of(store.open_corpus(sets["real"]), 0)
    assert told["shards.search"] == len(itself.plan(reference, s)) > 1
    assert told["pairs"] == 36 * 35 // 2
    assert "queries.generated" not in told
    shape = triangle.shape_of(36, s, side=64, chunk=4)
    source = forecast.Source("", 36, 12, 64, 4, {})
    assert forecast._triangle(source, s) == shape


def tiles_of(b: costs.Block, band: int, shard: int) -> list[tiling.Tile]:
    return tiling.tiles(b.queries, b.slices, band=band, shard=shard, chunk=1)


counts = st.integers(1, 60)


@settings(max_examples=60, deadline=None)
@given(counts, counts, st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_formulas_equal_loops_over_tiles(queries, slices, band, shard, per_patient):
    patients = -(-slices // per_patient)
    block = costs.Block("real", "generated", queries, slices, patients)
    s = Settings(shard_slices=shard, pose=False)
    size = {"side": 32, "chunk": 1, "band": band}
    cost = costs.of_phases([block], s, bank=costs.Bank(), rates=costs.CPU, **size)["search"]
    tiles = tiles_of(block, band, shard)
    assert cost.shards == len(tiles)
    assert cost.read == sum((t.s1 - t.s0) * 32 * 32 for t in tiles)
    assert cost.multiply_adds == sum((t.q1 - t.q0) * (t.s1 - t.s0) * 32 * 32 for t in tiles)
    met = [len({i // per_patient for i in range(t.s0, t.s1)}) for t in tiles]
    least = sum(
        2 * 16 * (t.q1 - t.q0) * m + 8 * (m + 4096) for t, m in zip(tiles, met, strict=True)
    )
    assert least <= cost.written


@settings(max_examples=40, deadline=None)
@given(counts, counts, st.integers(1, 500))
def test_screen_multiplies_every_pose_of_every_query_with_every_slice(queries, slices, poses):
    block = costs.Block("real", "generated", queries, slices, slices)
    size = {"side": 512, "chunk": 64, "band": 8}
    bank = costs.Bank(poses, band=7, shard=11, refined=3)
    phases = costs.of_phases([block, block], Settings(), bank=bank, rates=costs.CPU, **size)
    assert phases["screen"].shards == 2 * len(tiles_of(block, 7, 11))
    assert phases["poses"].shards == -(-queries // 7)
    assert phases["refine"].shards == 2 * -(-queries // 3)
    assert phases["screen"].multiply_adds == 2 * queries * poses * slices * PIXELS
    assert phases["poses"].written == queries * poses * PIXELS  # one set of queries, moved once


def test_a_phase_gains_nothing_from_more_workers_than_shards():
    cost = costs.Cost(shards=3, seconds=3600.0, alone=36.0)
    assert cost.hours(1) == pytest.approx(1.01)
    assert cost.hours(2) == pytest.approx(0.51)
    assert cost.hours(8) == cost.hours(3)


def test_totals_are_sums(sets):
    told = forecast.of_audit("100000", "240", "500", Settings(workers=2))
    for column in ("shards", "multiply_adds", "bytes_written", "hours"):
        parts = [v for k, v in told.items() if k.startswith(f"{column}.") and "total" not in k]
        assert told[f"{column}.total"] == pytest.approx(sum(parts), rel=1e-3)
        assert len(parts) > 1


# -- what is not there yet, and what does not fit


def test_numbers_stand_for_corpora(sets):
    told = forecast.of_audit("1002012", "240", None, Settings(controls=240, workers=2, pose=False))
    assert told["slices.real"] == 1_002_012
    assert told["patients.real"] == -(-1_002_012 // 118)
    assert told["queries.generated"] == told["queries.control"] == 240
    assert told["hours.total"] > 0


def test_a_number_that_is_a_folder_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert forecast.whole_number("2024")
    (tmp_path / "2024").mkdir()
    assert not forecast.whole_number("2024")
    forecast.refuse_numbers("2024")


def test_equal_numbers_are_a_corpus_against_itself():
    told = forecast.of_audit("60000", "60000", None, Settings(workers=2))
    assert told["pairs"] == 60_000 * 59_999 // 2
    assert "poses_of_a_query" not in told


def test_a_million_against_itself_is_costed_before_it_exists(tmp_path):
    argv = ["audit", "1002012", "1002012", str(tmp_path / "OUT"), "--dry-run", "--json"]
    program = [sys.executable, "-c", "from flows.cli import main; main()", *argv]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["pairs"] == 502_013_523_066
    assert told["memory.worker_bytes"] <= told["memory.worker_limit_bytes"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pair", [("1000", "240"), ("1000", "1000")])
def test_a_run_that_does_not_fit_into_the_memory_is_2_and_names_the_knob(pair, capsys, tmp_path):
    (tmp_path / "s.toml").write_text("memory_gib = 0.55\n")
    argv = ["audit", *pair, str(tmp_path / "OUT"), "--dry-run", "--settings"]
    assert cli.run([*argv, str(tmp_path / "s.toml")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "memory_gib" in line
    assert "raise memory_gib" in line


def test_a_matrix_beyond_its_cap_is_refused():
    s = Settings(keep_matrix=True, keep_matrix_gib=1.0, pose=False, controls=240)
    with pytest.raises(ValueError, match="keep_matrix_gib"):
        forecast.of_audit("1002012", "240", None, s)
    told = forecast.of_audit("100000", "240", None, s)
    assert told["bytes_written.matrix.zarr"] == 8 * (480 * 100_000 + 240 * 240)


def test_only_the_heads_of_corpora_are_opened(sets, tmp_path):
    bare = {}
    for name, path in sets.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_bytes((Path(path) / "zarr.json").read_bytes())
        bare[name] = str(tmp_path / name)
    want = forecast.of_audit(sets["real"], sets["generated"], sets["control"], SMALL)
    assert forecast.of_audit(bare["real"], bare["generated"], bare["control"], SMALL) == want


def test_folders_are_counted_and_their_ingest_is_costed(tmp_path):
    for role, files in (("real", 30), ("generated", 4)):
        (tmp_path / role).mkdir()
        for i in range(files):
            (tmp_path / role / f"{i}.dcm").write_bytes(bytes(2 * 512 * 512))
    told = forecast.of_audit(str(tmp_path / "real"), str(tmp_path / "generated"), None, SMALL)
    assert (told["ingest.real.files"], told["slices.real"]) == (30, 30)
    assert told["slices.generated"] == 4
    ingests = told["ingest.real.hours"] + told["ingest.generated.hours"]
    assert told["hours.ingest"] == pytest.approx(ingests, rel=1e-3)


# -- where, and in words


def test_rates_of_a_gpu_are_called_what_they_are(monkeypatch):
    s = Settings(workers=8, pose=False)
    slow = forecast.of_audit("1002012", "240", None, s)
    fast = forecast.of_audit("1002012", "240", None, s, cluster="cuda")
    assert slow["rates"].startswith("measured on")
    known = "measured on" if costs.GPU.measured else "assumed for"
    assert fast["rates"].startswith(known)
    assert fast["workers"] == 8
    assert fast["hours.search"] < slow["hours.search"]
    assert fast["multiply_adds.total"] == slow["multiply_adds.total"]


@pytest.mark.parametrize(
    ("cluster", "workers"), [("serial", 1), ("threads", 3), ("local", 3), ("tls://x:1", 3)]
)
def test_workers_are_those_that_there_will_be(cluster, workers):
    told = forecast.of_audit("1000", "10", None, Settings(workers=3, pose=False), cluster=cluster)
    assert told["workers"] == workers


def test_people_read_a_line_for_each_phase(capsys, tmp_path):
    argv = ["audit", "1002012", "240", str(tmp_path / "OUT"), "--dry-run", "--no-pose"]
    assert cli.run(argv) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["slices.real"] == "1,002,012"
    assert "multiply-adds" in lines["search"]
    assert "GiB read" in lines["search"]
    assert "GiB" in lines["memory.worker_bytes"]
    assert lines["total"].split(", ")[-1].split()[1] in ("s", "min", "h", "days")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "under 1 s"), (90, "90 s"), (600, "10 min"), (10**6, "11.6 days")]
)
def test_durations_are_said_in_the_unit_that_fits(seconds, said):
    assert words._duration(seconds) == said


def test_the_run_itself_takes_no_number(tmp_path):
    with pytest.raises(ValueError, match="--dry-run"):
        forecast.refuse_numbers("1000", "240", None)
    forecast.refuse_numbers(str(tmp_path), None)


@pytest.mark.slow
def test_peak_memory_of_the_flow_is_below_what_was_said(tmp_path):
    """With a corpus of many slices, each small: labels and plan are what takes the memory."""
    draw = np.random.default_rng(1)
    many = draw.integers(0, 256, (20_000, 32, 32), dtype=np.uint8)
    people = [f"P{i // 20:012d}" for i in range(20_000)]
    make_corpus(tmp_path / "real", many, people, chunk=64)
    make_corpus(tmp_path / "generated", many[:40], [""] * 40, set_name="generated", chunk=64)
    s = {"size_px": 32, "workers": 2, "pose": False, "memory_gib": 1.5}
    code = (
        "import resource, sys; from flows import chain\n"
        f"chain.audit_sets(*sys.argv[1:], knobs={s!r}, how=chain.How('serial'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    paths = [str(tmp_path / name) for name in ("real", "generated", "out")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = forecast.of_audit(*paths[:2], None, Settings(**s))
    # in one process, worker and flow share the libraries
    assert int(done.stdout) < told["memory.flow_bytes"] + told["memory.worker_bytes"]
