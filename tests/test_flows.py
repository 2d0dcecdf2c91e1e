"""Flows: what Prefect is told, read back through its API; the child server lives and dies right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import toy_shards as toys
from corpora import make_corpus
from PIL import Image
from study_world import corpus_of
from test_study import PATIENTS, QUICK

from fingerprint import ledger
from fingerprint.phases import AUDIT
from flows import chain, cluster, server, state

os.environ.update(server.PRIVATE)  # before anyone imports Prefect

from prefect import flow, settings  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.actions import DeploymentScheduleCreate  # noqa: E402
from prefect.client.schemas.filters import (  # noqa: E402
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.schedules import CronSchedule  # noqa: E402
from prefect.states import Running  # noqa: E402

from flows import tell  # noqa: E402
from flows.audit import audit  # noqa: E402
from flows.ingest import ingest  # noqa: E402
from flows.study import study  # noqa: E402

KNOBS = {"size_px": 64, "workers": 2, "shard_slices": 8, "controls": 4}
SECRET_NAME = "MUSTERMANN_ERIKA_19541231"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Keep our state and keys out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("PREFECT_API_URL", raising=False)
        for name in (*server.PRIVATE, *server.QUIET):
            patch.setenv(name, os.environ.get(name, ""))
        yield


@pytest.fixture(scope="module")
def api(home):
    """Lend one child server, and a client of it."""
    with server.running() as ready:
        told = {
            getattr(settings, name): os.environ[name]
            for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_HOME")
        }
        told[settings.PREFECT_LOGGING_TO_API_ENABLED] = False
        told[settings.PREFECT_RESULTS_PERSIST_BY_DEFAULT] = False
        ready()
        with settings.temporary_settings(told), get_client(sync_client=True) as client:
            yield client


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    """Make a real corpus, one with a copy in it, and one of strangers; 64 x 64."""
    folder = tmp_path_factory.mktemp("sets")
    draw = np.random.default_rng(20250123)
    real = draw.integers(0, 256, (12, 64, 64), dtype=np.uint8)
    strangers = draw.integers(0, 256, (4, 64, 64), dtype=np.uint8)
    people = [f"P{i // 3:012d}" for i in range(12)]
    nobody = [""] * 4
    make_corpus(folder / "real", real, people)
    copied = np.concatenate([real[5:6], strangers[:3]])
    make_corpus(folder / "copied", copied, nobody, set_name="generated")
    make_corpus(folder / "novel", strangers, nobody, set_name="generated")
    return {name: str(folder / name) for name in ("real", "copied", "novel")}


def run_audit(sets, generated: str, out: Path):
    """Run the flow in this process; return its state and its run as the server knows it."""

    return audit(
        sets["real"], sets[generated], str(out), knobs=KNOBS, cluster="threads", return_state=True
    )


def artifacts(client, state) -> dict[str, list]:

    only = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    )
    found: dict[str, list] = {}
    for one in client.read_artifacts(artifact_filter=only):
        found.setdefault(one.key, []).append(one)
    return found


def task_runs(client, state) -> list:

    only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    return client.read_task_runs(flow_run_filter=only)


def wait_for(true, seconds: float = 10.0):
    """Return what becomes true in time, or what it was last."""
    end = time.monotonic() + seconds
    while not (value := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


# -- what Prefect is told


@pytest.fixture(scope="module")
def copied(api, sets, tmp_path_factory):
    out = tmp_path_factory.mktemp("copied") / "run"
    return run_audit(sets, "copied", out), out


def test_a_run_that_finds_copies_ends_completed_named_so(api, copied):
    state, _ = copied
    known = api.read_flow_run(state.state_details.flow_run_id)
    assert known.state.type.value == "COMPLETED"
    assert known.state.name == "CopiesFound"
    assert known.state.message == "something was found: identical"


def test_a_run_that_finds_nothing_ends_completed(api, sets, tmp_path):
    state = run_audit(sets, "novel", tmp_path / "run")
    known = api.read_flow_run(state.state_details.flow_run_id)
    assert (known.state.type.value, known.state.name) == ("COMPLETED", "Completed")


def test_each_phase_is_one_task_run(api, copied):
    state, _ = copied
    phases = [phase.name for phase in AUDIT]
    # the server learns of task runs from events, a moment later
    assert wait_for(lambda: len(task_runs(api, state)) == len(phases))
    runs = task_runs(api, state)
    runs.sort(key=lambda run: run.start_time)
    assert [run.name for run in runs] == phases
    assert {run.state.name for run in runs} == {"Completed"}


def test_each_phase_has_a_progress_artifact_at_100(api, copied):
    found = artifacts(api, copied[0])
    progress = {key: ones for key, ones in found.items() if key.startswith("progress-")}
    assert set(progress) == {f"progress-{phase.name}" for phase in AUDIT}
    assert {float(one.data) for ones in progress.values() for one in ones} == {100.0}


def test_tables_hold_counts_verdict_and_path_of_the_report(api, copied):
    state, out = copied
    found = artifacts(api, state)
    rows = {row["what"]: row["value"] for row in json.loads(found["verdict"][0].data)}
    assert rows["verdict"] == "copies found"
    assert rows["identical.images"] == "1"
    assert rows["queries.generated"] == "4"
    assert Path(rows["report"]) == out.resolve() / "report.html"
    assert Path(rows["report"]).stat().st_mode & 0o777 == 0o600
    shards = {row["what"]: row["value"] for row in json.loads(found["shards"][0].data)}
    done, planned = shards["search"].split(" of ")
    assert done == planned
    assert int(planned) >= 2


def test_flow_and_plain_leave_the_same_findings(copied, sets, tmp_path):
    how = chain.How("serial")
    plain = chain.audit_sets(
        sets["real"], sets["copied"], str(tmp_path / "run"), knobs=KNOBS, how=how
    )
    flow = json.loads((copied[1] / "findings.json").read_bytes())
    apart = ("run.started", "run.ended")
    assert {k: v for k, v in plain.run.findings.items() if not k.startswith(apart)} == {
        k: v for k, v in flow.items() if not k.startswith(apart)
    }
    assert toys.files(copied[1] / "ledger") == toys.files(tmp_path / "run" / "ledger")


def test_a_run_that_is_not_complete_ends_failed_and_says_no_path(api, sets, tmp_path, monkeypatch):
    @cluster.contextmanager
    def nowhere(spec, settings):
        yield lambda folder, shards: iter(())

    monkeypatch.setattr(cluster, "executor", nowhere)
    state = run_audit(sets, "novel", tmp_path / "run")
    error = state.result(raise_on_failure=False)
    assert isinstance(error.__cause__, ledger.Incomplete)
    known = api.read_flow_run(state.state_details.flow_run_id)
    assert known.state.type.value == "FAILED"
    assert "Incomplete" in known.state.message
    assert str(tmp_path) not in known.state.message
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["status"] == "incomplete"


def test_a_study_is_one_flow_and_its_audits_are_told_apart(api, tmp_path):
    corpus = corpus_of(tmp_path / "corpus", PATIENTS)
    knobs = QUICK | {"sizes": "6,18", "sets": 0, "snapshots": 0}
    out = tmp_path / "out"
    done = study(str(corpus.path), str(out), knobs=knobs, cluster="serial", return_state=True)
    assert done.is_completed()
    wanted = {"cohorts", "train", "sample", "stats", "report", "search-n6", "search-n18"}
    assert wait_for(lambda: wanted <= {run.name for run in task_runs(api, done)})
    assert "study" in artifacts(api, done)
    assert (out / "report.html").exists()


@pytest.fixture
def folder_of_images(tmp_path):
    """Make images whose file names are names of people."""
    draw = np.random.default_rng(7)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        pixels = draw.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{SECRET_NAME}_{i}.png")
    (folder / f"{SECRET_NAME}_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return folder


def test_ingest_flow_tells_counts_and_no_file_name(api, folder_of_images, tmp_path):

    state = ingest(
        [str(folder_of_images)],
        str(tmp_path / "corpus"),
        knobs=KNOBS | {"max_rejected_share_real": 0.5},
        cluster="threads",
        return_state=True,
    )
    known = api.read_flow_run(state.state_details.flow_run_id)
    assert known.state.name == "Completed"
    rows = {
        row["what"]: row["value"] for row in json.loads(artifacts(api, state)["data-real"][0].data)
    }
    assert (rows["seen"], rows["accepted"]) == ("4", "3")
    wait_for(lambda: len(task_runs(api, state)) == 4)
    database = Path(os.environ["PREFECT_HOME"])
    stored = b"".join(p.read_bytes() for p in database.rglob("*") if p.is_file())
    assert len(stored) > 100_000
    assert SECRET_NAME.encode() not in stored


def test_too_many_rejected_ends_failed_named_so(api, folder_of_images, tmp_path):

    out = str(tmp_path / "corpus")
    state = ingest([str(folder_of_images)], out, knobs=KNOBS, cluster="threads", return_state=True)
    known = api.read_flow_run(state.state_details.flow_run_id)
    assert (known.state.type.value, known.state.name) == ("FAILED", "TooManyRejected")
    assert "1 of 4 files" in state.result(raise_on_failure=False).refused


def test_runs_of_dead_processes_are_marked_crashed(api):

    @flow(name="left")
    def left():
        pass

    run = api.create_flow_run(left, state=Running())
    assert tell.bury_dead_runs() == 1
    assert api.read_flow_run(run.id).state.type.value == "CRASHED"
    assert tell.bury_dead_runs() == 0


def test_scheduler_inserts_runs_for_a_cron_deployment(api):
    """With SQLAlchemy 2.1, say, it silently inserts none."""

    @flow(name="weekly")
    def weekly():
        pass

    deployment = api.create_deployment(
        flow_id=api.create_flow(weekly),
        name="weekly",
        schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * 1"), active=True)],
    )
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    runs = wait_for(lambda: api.read_flow_runs(deployment_filter=only), 20)
    assert len(runs) > 0
    assert {run.state.name for run in runs} == {"Scheduled"}


# -- the child server


def listening(process: psutil.Process) -> set[str]:
    found = process.net_connections(kind="inet")
    return {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "flows.serve" in p.cmdline()]


def test_server_listens_on_loopback_alone(api):
    (child,) = children()
    assert listening(child) == {"127.0.0.1"}
    others = [c for c in child.net_connections(kind="inet") if c.status == psutil.CONN_ESTABLISHED]
    assert {c.raddr.ip for c in others} <= {"127.0.0.1"}


def test_server_wants_the_password_of_this_run(api):

    url = os.environ["PREFECT_API_URL"]
    assert httpx.post(f"{url}/flow_runs/filter", json={}, trust_env=False).status_code == 401
    user, password = os.environ["PREFECT_API_AUTH_STRING"].split(":")
    answer = httpx.post(f"{url}/flow_runs/filter", json={}, auth=(user, password), trust_env=False)
    assert answer.status_code == 200


def test_prefect_home_is_for_its_owner_alone(api):
    home = Path(os.environ["PREFECT_HOME"])
    files = list(home.glob("prefect.db*"))
    assert files
    assert {p.stat().st_mode & 0o077 for p in [home, *files]} == {0}


def test_a_second_server_takes_another_home(api, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL")
    first = os.environ["PREFECT_HOME"]
    with server.running():
        second = Path(os.environ["PREFECT_HOME"])
        assert str(second) != first
        assert second.parent == state.folder("scratch")
    assert not second.exists()
    assert os.environ["PREFECT_HOME"] == first


def test_a_named_server_is_used_untouched(home, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    before = children()
    with server.running() as ready:
        ready()
        assert children() == before
        assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"


def test_a_server_that_does_not_answer_is_one_clear_line(home, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before = children()
    with server.running(timeout_s=0.0) as ready:
        (child,) = (process for process in children() if process not in before)
        with pytest.raises(RuntimeError, match="no answer within 0 s.*--plain"):
            ready()
    assert not child.is_running()
    assert "PREFECT_API_URL" not in os.environ


PARENT = """
import os, time
from flows import server
with server.running():
    import psutil
    print(psutil.Process().children()[0].pid, flush=True)
    time.sleep({sleep})
    {then}
"""


@pytest.mark.parametrize("wait_s", [0.0, 1.5])
def test_server_dies_with_its_parent_even_under_kill_9(home, monkeypatch, wait_s):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(sleep=60, then="pass")], stdout=subprocess.PIPE
    )
    child = psutil.Process(int(parent.stdout.readline()))
    assert "flows.serve" in child.cmdline()
    time.sleep(wait_s)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


# -- a deployment


def prefect_command(*argv: str, cwd: Path) -> str:
    """Run Prefect's own command line against the server of these tests."""
    program = [str(Path(sys.executable).parent / "prefect"), *argv]
    done = subprocess.run(program, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def deployed(api, sets, tmp_path):
    """Deploy the schedules of ``deploy/prefect.yaml`` for the corpora of these tests."""
    page = (Path(__file__).parent.parent / "deploy" / "prefect.yaml").read_text()
    (tmp_path / "knobs.toml").write_text("\n".join(f"{k} = {v}" for k, v in KNOBS.items()))
    for old, new in {
        "/srv/fingerprint/settings.toml": str(tmp_path / "knobs.toml"),
        "/srv/fingerprint/audits": str(tmp_path / "audits"),
        "/srv/fingerprint/generated": sets["copied"],
        "/srv/fingerprint/real": sets["real"],
    }.items():
        page = page.replace(old, new)
    (tmp_path / "prefect.yaml").write_text(page)
    pool = ("work-pool", "create", "fingerprint", "--type", "process", "--overwrite")
    prefect_command(*pool, cwd=tmp_path)
    prefect_command("--no-prompt", "deploy", "--all", cwd=tmp_path)
    return api.read_deployment_by_name("audit/weekly")


def runs_of(api, deployment) -> list:
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    return api.read_flow_runs(deployment_filter=only)


@pytest.mark.slow
def test_deployment_runs_in_a_worker_and_ends_named_copies_found(api, deployed, tmp_path):
    """Two runs are asked for at once: one is done, the one that would overlap is cancelled."""
    assert deployed.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert deployed.global_concurrency_limit.limit == 1
    assert wait_for(lambda: runs_of(api, deployed), 30)  # of the cron: without asking
    before = {run.id for run in runs_of(api, deployed)}
    for _ in range(2):
        prefect_command("deployment", "run", "audit/weekly", cwd=tmp_path)
    prefect_command("worker", "start", "--pool", "fingerprint", "--run-once", cwd=tmp_path)
    asked = [run for run in runs_of(api, deployed) if run.id not in before]
    asked = [run for run in asked if not run.auto_scheduled]
    assert sorted(run.state.name for run in asked) == ["Cancelled", "CopiesFound"]
    assert all(run.state.is_scheduled() for run in runs_of(api, deployed) if run.id in before)
    (report,) = (tmp_path / "audits").glob("20??-??-??/report.html")
    assert report.stat().st_mode & 0o777 == 0o600
