"""What `deploy/` holds, runs: a SLURM job with stubs for SLURM, the settings, the schedules."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from corpora import make_corpus
from distributed import Client
from distributed.security import Security

from fingerprint import settings
from flows import workers

DEPLOY = Path(__file__).parent.parent / "deploy"
SLURM = DEPLOY / "slurm.sh"
KNOBS = {"size_px": 64, "shard_slices": 4, "controls": 4, "memory_gib": 1.0}
STUBS = {
    # two nodes: the command of the step, twice; signals are handed on, as SLURM does
    "srun": """
trap 'kill $(jobs -p)' TERM
while [ "${1#--}" != "$1" ]; do shift; done
"$@" & "$@" &
wait; wait
""",
    "scontrol": 'echo "$@" >> "$STUBS/scontrol.log"',
}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Make corpora, stubs of SLURM on the path, and the environment of a job."""
    draw = np.random.default_rng(20250123)
    real = draw.integers(0, 256, (24, 64, 64), dtype=np.uint8)
    generated = np.concatenate([real[4:5], draw.integers(0, 256, (3, 64, 64), dtype=np.uint8)])
    make_corpus(tmp_path / "real", real, [f"P{i // 3:012d}" for i in range(24)])
    make_corpus(tmp_path / "generated", generated, [""] * 4, set_name="generated")
    make_corpus(tmp_path / "novel", generated[1:], [""] * 3, set_name="generated")
    (tmp_path / "knobs.toml").write_text("\n".join(f"{k} = {v}" for k, v in KNOBS.items()))
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, body in STUBS.items():
        (stubs / name).write_text(f"#!/bin/bash\n{body}\n")
        (stubs / name).chmod(0o700)
    (tmp_path / "scratch").mkdir()
    here = {
        "PATH": f"{stubs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STUBS": str(stubs),
        "SLURM_JOB_ID": "77",
        "JOBS": str(tmp_path / "jobs"),
        "SCRATCH": str(tmp_path / "scratch"),
        "WORKER": "dask worker",  # where there is no GPU it does the same, on the CPU
        "CORES": "1",
        "MEMORY_GIB": "1",
        "INTERFACE": "lo",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def started(job: Path, generated: str, *more: str) -> subprocess.Popen[str]:
    argv = ["audit", job / "real", job / generated, job / "run", "--plain"]
    return subprocess.Popen(
        ["bash", SLURM, *argv, "--settings", job / "knobs.toml", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def members(session: int) -> list[psutil.Process]:
    """Return the living processes of a session; workers of Dask stay in that of their job."""
    found = []
    for process in psutil.process_iter(["status"]):
        with_session = process.pid != session and process.info["status"] != psutil.STATUS_ZOMBIE
        try:
            if with_session and os.getsid(process.pid) == session:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def gone(session: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while members(session) and time.monotonic() < end:
        time.sleep(0.1)
    return not members(session)


def test_script_is_sound_bash():
    subprocess.run(["bash", "-n", SLURM], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SLURM], check=True)


def test_script_refuses_to_run_outside_a_job(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    done = subprocess.run(["bash", SLURM], env=env, capture_output=True, text=True)
    assert (done.returncode, "a command is missing" in done.stderr) == (2, True)
    done = subprocess.run(["bash", SLURM, "demo"], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "sbatch" in done.stderr


def test_script_gives_workers_elsewhere_what_ours_get(tmp_path):
    """`flows/workers.py` sets these for its own clusters; others have them from the script."""
    text = SLURM.read_text()
    for name, value in (workers.THREADS | workers.ALLOCATOR).items():
        assert f"{name}={value}" in text
    for key, value in workers.config(tmp_path).items():
        if key.startswith(("distributed.worker.", "distributed.scheduler.")):
            variable = "DASK_" + key.upper().replace(".", "__").replace("-", "_")
            assert f"{variable}={value}" in text, key


@pytest.mark.slow
def test_job_on_two_nodes_over_tls_finds_the_copy_and_ends_well(job):
    command = started(job, "generated", "--json")
    heard, certificate = set(), None
    while command.poll() is None:
        certificate = certificate or next((job / "jobs").glob("77/cert.pem"), None)
        for process in members(command.pid):
            try:
                found = process.net_connections(kind="inet")
            except psutil.Error:
                continue
            heard |= {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}
        time.sleep(0.1)
    said = command.stdout.read()
    command.stdout.close()
    assert command.returncode == 0, said
    assert "fingerprint ended with 10" in said
    assert certificate is not None
    assert heard == {"127.0.0.1"}
    assert (job / "run" / "report.html").exists()
    told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert told["findings"]["identical.images"] == 1
    assert gone(command.pid)
    assert list((job / "jobs").iterdir()) == []  # the key of the job is not left behind
    assert list((job / "scratch").iterdir()) == []
    assert not (job / "stubs" / "scontrol.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("restarts", "again"), [("0", True), ("20", False)])
def test_job_that_is_stopped_goes_back_into_the_queue_but_not_for_ever(
    job, monkeypatch, restarts, again
):
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    command = started(job, "novel")
    for line in command.stdout:
        if "check" in line:
            break
    command.send_signal(signal.SIGTERM)  # as SLURM does, to the script alone
    said = command.stdout.read()
    command.stdout.close()
    assert command.wait(40) == 4, said
    assert gone(command.pid)
    asked = job / "stubs" / "scontrol.log"
    assert (asked.read_text().split() if asked.exists() else []) == ["requeue", "77"] * again
    assert list((job / "jobs").iterdir()) == []
    if again:
        resumed = started(job, "novel")
        said = resumed.stdout.read()
        resumed.stdout.close()
        assert resumed.wait() == 0, said


@pytest.mark.slow
def test_who_has_no_certificate_is_refused_by_the_scheduler(job, tmp_path):
    command = started(job, "novel")
    file = job / "jobs" / "77" / "scheduler.json"
    while not file.exists() or not file.read_text():
        time.sleep(0.02)
        assert command.poll() is None
    address = json.loads(file.read_text())["address"]
    assert address.startswith("tls://127.0.0.1:")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-subj", "/CN=x", "-keyout", tmp_path / "k.pem", "-out", tmp_path / "c.pem"],
        check=True,
        capture_output=True,
    )
    other = Security(
        tls_ca_file=str(job / "jobs" / "77" / "cert.pem"),
        tls_client_cert=str(tmp_path / "c.pem"),
        tls_client_key=str(tmp_path / "k.pem"),
        require_encryption=True,
    )
    with pytest.raises(OSError):  # noqa: PT011 - the text is that of the TLS library
        Client(address, security=other, timeout=3)
    command.terminate()
    command.stdout.read()
    command.stdout.close()
    command.wait(40)


# -- settings


@pytest.mark.parametrize("path", sorted((DEPLOY / "settings").glob("*.toml")), ids=lambda p: p.stem)
def test_settings_can_be_loaded_and_say_only_what_differs(path):
    mine, usual = settings.load(path), settings.Settings()
    said = [line.split("=")[0].strip() for line in path.read_text().splitlines() if "=" in line]
    assert said
    for name in said:
        assert getattr(mine, name.lstrip("# ")) != getattr(usual, name.lstrip("# ")), name


def test_there_are_settings_for_a_laptop_a_gpu_and_a_cluster():
    names = {p.stem for p in (DEPLOY / "settings").glob("*.toml")}
    assert names == {"laptop", "one-gpu", "cluster", "study", "membership"}
    default = re.search(r"MEMORY_GIB:-(\d+)", SLURM.read_text())
    assert default
    assert settings.load(DEPLOY / "settings" / "cluster.toml").memory_gib == float(default[1])


# -- schedules


def test_every_deployment_runs_one_at_a_time_every_week_and_keeps_its_own_corpus():
    page = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())
    assert page["deployments"]
    for one in page["deployments"]:
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert one["work_pool"]["name"] == "fingerprint"
        (schedule,) = one["schedules"]
        assert re.fullmatch(r"\d+ \d+ \* \* \d", schedule["cron"])
        module, flow = one["entrypoint"].rsplit(".", 1)
        assert (DEPLOY.parent / Path(*module.split("."))).with_suffix(".py").exists()
    names = [(one["entrypoint"], one["name"]) for one in page["deployments"]]
    assert len(set(names)) == len(names)
