"""The command line: exit codes, one line for what goes wrong, settings that can be fed back."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from corpora import make_corpus
from PIL import Image

from fingerprint import lease, ledger, settings
from flows import chain, cli, doctor, knobs, log, progress, state

PROGRAM = (sys.executable, "-c", "from flows.cli import main; main()")
SMALL = {"size_px": 64, "workers": 1, "controls": 4, "memory_gib": 1.0}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Keep our state and keys out of the user's home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("FINGERPRINT_KEY_FILE", raising=False)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    draw = np.random.default_rng(20250123)
    real = draw.integers(0, 256, (8, 64, 64), dtype=np.uint8)
    strangers = draw.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    make_corpus(folder / "real", real, [f"P{i // 2:012d}" for i in range(8)])
    copied = np.concatenate([real[5:6], strangers])
    make_corpus(folder / "copied", copied, [""] * 4, set_name="generated")
    make_corpus(folder / "novel", strangers, [""] * 3, set_name="generated")
    (folder / "knobs.toml").write_text("\n".join(f"{k} = {v}" for k, v in SMALL.items()))
    return {p.name: str(p) for p in folder.iterdir()}


def audit(sets, generated: str, out: Path, *more: str) -> list[str]:
    argv = ["audit", sets["real"], sets[generated], str(out), "--settings", sets["knobs.toml"]]
    return [*argv, "--plain", "--cluster", "serial", *more]


# -- exit codes


def test_copies_found_is_10_and_none_found_is_0(sets, tmp_path, capsys):
    assert cli.run(audit(sets, "copied", tmp_path / "a", "--json")) == 10
    told = json.loads(capsys.readouterr().out)
    assert told["exit"] == 10
    assert told["findings"]["identical.images"] == 1
    assert Path(told["report"]) == tmp_path / "a" / "report.html"
    assert cli.run(audit(sets, "novel", tmp_path / "b", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["findings"]["identical.images"] == 0


def test_another_run_in_out_is_2_and_names_what_differs(sets, tmp_path, capsys):
    assert cli.run(audit(sets, "novel", tmp_path / "a")) == 0
    assert cli.run(audit(sets, "novel", tmp_path / "a", "--seed", "3")) == 2
    assert "seed" in capsys.readouterr().err


def test_a_second_audit_of_the_same_out_is_2_while_the_first_runs(sets, tmp_path, capsys):
    with lease.lease(tmp_path / "a" / lease.NAME):
        assert cli.run(audit(sets, "novel", tmp_path / "a")) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()}" in said
    assert "is writing here; wait for it, or choose another folder" in said
    assert not (tmp_path / "a" / "run.json").exists()
    assert cli.run(audit(sets, "novel", tmp_path / "a")) == 0


def test_a_cluster_that_stops_is_4_and_the_page_says_incomplete(
    sets, tmp_path, monkeypatch, capsys
):
    @contextmanager
    def nowhere(spec, settings):
        yield lambda folder, shards: iter(())

    monkeypatch.setattr(chain.cluster, "executor", nowhere)
    assert cli.run(audit(sets, "novel", tmp_path / "a")) == 4
    assert "INCOMPLETE" in (tmp_path / "a" / "report.html").read_text()
    assert capsys.readouterr().out == ""


def test_a_changed_byte_is_5_everywhere(tmp_path, capsys):
    draw = np.random.default_rng(1)
    corpus = tmp_path / "real"
    make_corpus(corpus, draw.integers(0, 256, (4, 64, 64), dtype=np.uint8), ["P0"] * 4)
    assert cli.run(["verify", str(corpus)]) == 0
    victim = next(p for p in (corpus / "pixels").rglob("*") if p.is_file() and p.suffix != ".json")
    held = bytearray(victim.read_bytes())
    held[100] ^= 1
    victim.write_bytes(bytes(held))
    capsys.readouterr()
    assert cli.run(["verify", str(corpus), "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert told["exit"] == 5
    assert any(victim.name in line for line in told["problems"])
    argv = ["audit", str(corpus), str(corpus), str(tmp_path / "run"), "--plain"]
    assert cli.run([*argv, "--cluster", "serial"]) == 5


@pytest.fixture
def images(tmp_path) -> Path:
    draw = np.random.default_rng(7)
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = draw.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def ingest_argv(images: Path, sets, *more: str) -> list[str]:
    argv = ["ingest", str(images), "--out", str(images.parent / "corpus"), "--plain"]
    return [*argv, "--cluster", "serial", "--settings", sets["knobs.toml"], *more]


def test_ingest_prints_the_data_table_as_one_object(images, sets, capsys):
    assert cli.run(ingest_argv(images, sets, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seen"], told["accepted"], told["slices"], told["exit"]) == (3, 3, 3, 0)


def test_too_many_rejected_is_3_and_names_the_file_on_the_terminal_alone(images, sets, capsys):
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert cli.run(ingest_argv(images, sets)) == 3
    said = capsys.readouterr().err
    assert "1 of 4 files" in said
    assert "broken.png" in said
    corpus = images.parent / "corpus"
    assert not any(b"broken.png" in p.read_bytes() for p in corpus.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["moon"], "No such command"),
        (["audit", "a"], "Missing argument"),
        (["audit", "a", "b", "c", "--nope"], "--nope"),
        (["ingest", "nowhere", "--out", "OUT", "--plain"], "nowhere"),
        (["ingest", "nowhere", "--out", "OUT", "--dry-run"], "nowhere"),
        (["settings", "--settings", "nowhere.toml"], "nowhere.toml"),
        (["report", "nowhere"], "nowhere"),
        (["verify", "nowhere"], "nowhere"),
        (["export", "nowhere", "out", "--format", "bmp"], "bmp"),
        (["locate", "nowhere"], "missing"),
        (["audit", "a", "b", "c", "--plain", "--cluster", "moon"], "moon"),
        (["audit", "1000", "240", "c"], "--dry-run"),
    ],
)
def test_usage_is_2_and_one_line(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = [s for s in said.err.splitlines() if "back it up" not in s]
    assert line.startswith("fingerprint: ")
    assert says in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ledger.Damaged("chunk"), 5),
        (ledger.Incomplete("2 of 3"), 4),
        (cli.Terminated(), 4),
        (KeyboardInterrupt(), 4),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (ValueError("size_px: 3"), 2),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error, code):
    assert cli.explain(error)[0] == code


def test_an_internal_error_is_1_and_its_text_is_on_the_terminal_alone(
    sets, tmp_path, monkeypatch, capsys
):
    def broken(*args, **more):
        raise KeyError("MUSTERMANN_ERIKA")

    monkeypatch.setattr(chain, "audit_job", broken)
    assert cli.run(audit(sets, "novel", tmp_path / "a")) == 1
    assert "MUSTERMANN_ERIKA" in capsys.readouterr().err
    for path in (tmp_path / "a" / "log.jsonl", state.folder() / "log.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines[-1]["exception"] == ["KeyError"]
        assert any("broken" in where for where in lines[-1]["traceback"])
        assert "MUSTERMANN" not in path.read_text()


def test_json_answers_one_object_for_errors_too(capsys):
    assert cli.run(["settings", "--settings", "nowhere.toml", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["exit"] == 2
    assert "nowhere.toml" in told["error"]


# -- help, settings, doctor


def test_help_answers_in_well_under_a_second():
    fastest = min(timed("--help") for _ in range(3))
    assert fastest < 0.7


def timed(*argv: str) -> float:
    start = time.monotonic()
    done = subprocess.run([*PROGRAM, *argv], capture_output=True, text=True, check=True)
    assert "audit" in done.stdout
    return time.monotonic() - start


@pytest.mark.parametrize("command", ["audit", "ingest", "demo", "export", "doctor"])
def test_at_most_a_dozen_options_are_shown(command, capsys):
    assert cli.run([command, "--help"]) == 0
    shown = [s for s in capsys.readouterr().out.splitlines() if s.startswith("  --")]
    assert 1 < len(shown) <= 13  # a dozen, and --help


@pytest.mark.parametrize("command", ["audit", "ingest", "demo"])
def test_every_long_command_can_be_sent_elsewhere(command, capsys):
    assert cli.run([command, "--help"]) == 0
    assert "--cluster" in capsys.readouterr().out


def test_flags_become_settings_of_the_run(sets, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(chain, "audit_sets", lambda **given: asked.update(given))
    flags = ("--image", "body", "--mirror", "--keep-matrix", "--no-pose", "--sample", "5")
    cli.run(audit(sets, "novel", tmp_path / "a", *flags))
    assert asked["knobs"] == {
        "image": "body",
        "mirror": True,
        "keep_matrix": True,
        "pose": False,
        "sample": 5,
    }
    cli.run(audit(sets, "novel", tmp_path / "a"))
    assert asked["knobs"] == {}


def test_an_image_that_is_not_scored_is_refused(sets, tmp_path, capsys):
    assert cli.run(audit(sets, "novel", tmp_path / "a", "--image", "xray")) == 2
    assert "image" in capsys.readouterr().err


def test_settings_can_be_fed_back(tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text('window_hu = "lung"\nrequire = ["age"]\nsample = 7\norient = "flip-x"\n')
    assert cli.run(["settings", "--settings", str(mine)]) == 0
    page = capsys.readouterr().out
    again = tmp_path / "again.toml"
    again.write_text(page)
    assert settings.load(again) == settings.load(mine)
    assert settings.load(again).sample == 7


def test_settings_show_every_knob_and_what_it_does(capsys):
    page = knobs.as_toml(settings.Settings())
    known = tomllib.loads(page)
    for name, field in settings.Settings.model_fields.items():
        assert name in known or f"# {name} =" in page
        if field.description:
            assert f"# {field.description}" in page


def test_doctor_says_that_an_audit_can_run_here(capsys):
    assert cli.run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["libraries"] == "within their bounds"
    assert told["int8 product, cpu"] == "int8"
    assert told["cores"] >= 1
    assert told["disk_free_gib"] > 0
    assert "poses a query" in told["pose search"]


def test_doctor_names_gpus_and_what_is_missing_for_them(monkeypatch):
    known = type("Known", (), {"name": "H999", "major": 9, "minor": 0})
    gpu = doctor.torch.cuda
    monkeypatch.setattr(gpu, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "device_count", lambda: 2)
    monkeypatch.setattr(gpu, "get_device_properties", lambda i: known)
    monkeypatch.setattr(gpu, "mem_get_info", lambda i: (2**30 * (i + 1), 4 * 2**30))
    monkeypatch.setattr(doctor.product, "chosen", lambda device: f"int8 on {device}")
    monkeypatch.setattr(doctor.finish, "chosen", lambda device: f"fused on {device}")
    monkeypatch.setattr(doctor, "_library", lambda name: "not installed")
    told = doctor.examined()
    assert told["gpu 0"] == "H999, 1.0 of 4.0 GiB free, sm_90"
    assert told["gpu 1"] == "H999, 2.0 of 4.0 GiB free, sm_90"
    assert told["int8 product, gpu"] == "int8 on cuda"
    assert told["finish, gpu"] == "fused on cuda"
    assert told["cupy"] == told["dask-cuda"] == "not installed"
    assert told["--cluster cuda"].startswith("no: dask_cuda")
    assert told["pose search"].startswith("GPU")


def test_doctor_names_a_library_that_is_too_old(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "0.1")
    wrong = doctor.bounds()
    assert any(line.startswith("pydicom 0.1 is not") for line in wrong)
    assert doctor.examined()["ok"] is False


def test_doctor_cleans_what_is_not_in_use(capsys):
    dead = state.folder("scratch") / "dead"
    dead.mkdir()
    (state.folder("prefect") / "prefect.db").write_bytes(b"history")
    assert cli.run(["doctor", "--clean", "--json"]) == 0
    assert not dead.exists()
    assert not (state.folder() / "prefect").exists()
    home = state.folder("prefect")
    handle = state.lock(home / state.LOCK)
    assert "in use" in doctor.cleaned()["prefect home"]
    assert home.exists()
    os.close(handle)


# -- dry run, export, report


def test_a_dry_run_writes_nothing(sets, images, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert cli.run(audit(sets, "novel", tmp_path / "a", "--dry-run", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["queries.generated"], told["queries.control"]) == (3, SMALL["controls"])
    assert told["slices.real"] == 8
    assert cli.run(ingest_argv(images, sets, "--dry-run", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_export_makes_files_and_refuses_a_folder_with_something_in_it(sets, tmp_path, capsys):
    out = tmp_path / "png"
    assert cli.run(["export", sets["real"], str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] >= 8
    assert cli.run(["export", sets["real"], str(out)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_report_of_a_changed_run_is_5_and_the_change_stays_visible(sets, tmp_path, capsys):
    assert cli.run(audit(sets, "novel", tmp_path / "a")) == 0
    with open(tmp_path / "a" / "matches.parquet", "ab") as out:
        out.write(b"x")
    assert cli.run(["report", str(tmp_path / "a")]) == 5
    assert "matches.parquet" in capsys.readouterr().err
    assert cli.run(["verify", str(tmp_path / "a")]) == 5


def test_report_is_built_again_and_the_run_still_verifies(sets, tmp_path, capsys):
    assert cli.run(audit(sets, "novel", tmp_path / "a")) == 0
    assert cli.run(["report", str(tmp_path / "a")]) == 0
    assert cli.run(["report", str(tmp_path / "a"), "--without-real-images"]) == 0
    capsys.readouterr()
    assert cli.run(["verify", str(tmp_path / "a")]) == 0, capsys.readouterr().out


# -- signals, files, progress


def test_sigterm_is_4_within_30_s_and_resumable(sets, tmp_path):
    argv = audit(sets, "copied", tmp_path / "a")
    argv[argv.index("serial")] = "local"
    command = subprocess.Popen([*PROGRAM, *argv], stderr=subprocess.PIPE, text=True)
    for line in command.stderr:
        if "check" in line or "search" in line:
            break
    below = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 4
    assert "run the same command" in command.stderr.read()
    command.stderr.close()
    psutil.wait_procs(below, timeout=5)
    assert not any(p.is_running() for p in below)
    assert cli.run(audit(sets, "copied", tmp_path / "a")) == 10


def test_a_server_that_is_killed_ends_the_command_with_4_and_it_resumes(sets, tmp_path):
    argv = [word for word in audit(sets, "copied", tmp_path / "a") if word != "--plain"]
    command = subprocess.Popen([*PROGRAM, *argv], stderr=subprocess.PIPE, text=True)
    for line in command.stderr:
        if "check" in line:
            break
    below = psutil.Process(command.pid).children(recursive=True)
    server = next(p for p in below if "flows.serve" in p.cmdline())
    server.kill()
    assert command.wait(60) == 4
    assert "the Prefect server ended" in command.stderr.read()
    command.stderr.close()
    psutil.wait_procs(below, timeout=5)
    assert not any(p.is_running() for p in below)
    assert cli.run(audit(sets, "copied", tmp_path / "a")) == 10


def test_everything_in_out_is_for_its_owner_alone(sets, tmp_path):
    before = os.umask(0o022)
    try:
        assert cli.run(audit(sets, "novel", tmp_path / "a")) == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    open_to_others = [p for p in (tmp_path / "a").rglob("*") if p.stat().st_mode & 0o077]
    assert open_to_others == []
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_plain_lines_have_an_eta_and_do_not_flood():
    said: list[str] = []
    now = [0.0]
    watch = progress.lines(said.append, lambda: now[0])
    watch("search", 0, 100)
    for done in range(1, 101):
        now[0] = float(done)
        watch("search", done, 100)
    assert said[0] == "search: 0 of 100"
    assert said[1] == "search: 10 of 100, 90 s left"
    assert said[-1] == "search: 100 of 100"
    assert len(said) == 11


def test_log_file_is_json_lines_without_the_text_of_exceptions(tmp_path):
    path = tmp_path / "log.jsonl"

    def work() -> None:
        with log.to_file(path):
            logging.getLogger("fingerprint.x").info("search: %d", 3)
            raise ValueError("MUSTERMANN")

    with pytest.raises(ValueError, match="MUSTERMANN"):
        work()
    first, last = (json.loads(line) for line in path.read_text().splitlines())
    assert first["message"] == "search: 3"
    assert last["exception"] == ["ValueError"]
    assert "MUSTERMANN" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_bars_end_full_with_and_without_shards(monkeypatch):
    with progress.bars() as watch:
        shown = next(
            c.cell_contents for c in watch.__closure__ if hasattr(c.cell_contents, "tasks")
        )
        watch("search", 0, 4)
        watch("search", 4, 4)
        watch("match", 0, 0)
        assert [task.finished for task in shown.tasks] == [True, False]
    assert [task.finished for task in shown.tasks] == [True, True]
