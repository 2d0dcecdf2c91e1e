"""Where shards run. The only file that knows Dask; what it yields is an `ledger.Execute`.

    serial                 a loop in this process
    threads                a pool of threads in this process
    local                  one process per core on this machine (dask LocalCluster)
    cuda                   one process per GPU of this machine (dask_cuda.LocalCUDACluster) for what
                           needs one, and one per core for the rest
    tcp://127.0.0.1:8786   a scheduler on this machine;  tls://host:8786  anywhere
    scheduler.json         the file of a scheduler (SLURM, Kubernetes, `dask cuda worker`)

Workers of a scheduler elsewhere that declare the resources GPU or CPU get the shards of phases that
need a GPU, or of the others; where none declares any, all get all.

A shard goes out under its own digest, a receipt comes back, nothing else. A worker that dies costs
its shard another try; a shard that keeps killing workers is written to ``poison.json`` beside the
ledger's phases and left out, so that `ledger.finish` names it. No worker imports Prefect.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, KilledWorker, LocalCluster, Status, as_completed
from distributed.comm import CommClosedError

from fingerprint import ledger
from fingerprint.ledger import Execute, Incomplete, Receipt, Shard
from fingerprint.settings import Settings
from flows import poison, state, workers
from flows.places import cores, lanes

log = logging.getLogger(__name__)

MAX_FAILED = 8  # shards that may raise before no more are started: a full disk, say
CLOSE_S = 10.0  # a cluster that takes longer to close is killed
ASK_S = 10.0  # a scheduler that does not say in so long who its workers are is gone
JOIN_S = 60  # a scheduler without any worker for so long is an error
GONE = "the cluster went away; run the command again"
# `Phase.needs_gpu`; the phases themselves load all that they use
GPU_PHASES = (
    *("search", "screen", "register", "train", "sample", "curve"),
    *("shadow", "describe", "score"),
)


def executor(spec: str, settings: Settings) -> AbstractContextManager[Execute]:
    """Open the place that `spec` names; the context yields what sends shards there.

    Raises
    ------
    ValueError
        An unknown place, a GPU cluster without GPU, a scheduler beyond loopback without TLS.
    """
    if spec == "serial":
        return nullcontext(ledger.in_this_process)
    if spec == "threads":
        return _threads(settings)
    if spec == "local":
        return _own(LocalCluster, settings, n_workers=lanes(settings))
    if spec == "cuda":
        return _gpus_and_cores(settings, *_cuda_cluster())
    if "://" in spec:
        return _elsewhere(spec, spec)
    if spec.endswith(".json"):
        return _elsewhere(spec, _address_in(Path(spec)))
    raise ValueError(
        "--cluster: serial, threads, local, cuda, tls://host:port or a scheduler.json, "
        f"got {spec!r}"
    )


# -- in this process


@contextmanager
def _threads(settings: Settings) -> Iterator[Execute]:
    wide = lanes(settings)
    with ThreadPoolExecutor(wide) as pool:

        def execute(folder: Path, shards: Sequence[Shard]) -> Iterator[Receipt]:
            waiting = iter(shards)
            failed: list[BaseException] = []
            flying: set[Future[Receipt]] = set()
            while True:
                if len(failed) < MAX_FAILED:
                    more = islice(waiting, wide - len(flying))
                    flying |= {pool.submit(ledger.work, folder, shard) for shard in more}
                if not flying:
                    break
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if error is None:
                        yield future.result()
                    else:
                        failed.append(error)
            if failed:
                raise failed[0]

        yield execute


# -- Dask


@contextmanager
def _own(make: Any, settings: Settings, **options: Any) -> Iterator[Execute]:
    """Start a cluster on this machine, and take it down with everything it left on the disk."""
    # it complains about folders that are wiped before the interpreter ends
    logging.getLogger("distributed.diskutils").setLevel(logging.CRITICAL)
    with (
        workers.environment_kept(),
        state.scratch() as folder,
        dask.config.set(workers.config(folder)),
        workers.main_hidden(),
    ):
        cluster = make(
            threads_per_worker=1,
            memory_limit=int(settings.memory_gib * 2**30),
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(folder),
            silence_logs=logging.CRITICAL,
            **options,
        )
        try:
            with Client(cluster) as client:
                yield _sender(client)
        finally:
            _take_down(cluster)


@contextmanager
def _gpus_and_cores(settings: Settings, make: Any, found: int) -> Iterator[Execute]:
    """Multiply on GPUs, and do the rest on cores; each kind starts when a phase first needs it."""
    wide = min(settings.workers or found, found)
    narrow = max(1, cores() - wide)
    with ExitStack() as opened:

        @functools.cache
        def of(gpu: bool) -> Execute:
            if gpu:
                return opened.enter_context(_own(make, settings, n_workers=wide))
            blind = {"CUDA_VISIBLE_DEVICES": ""}
            return opened.enter_context(_own(LocalCluster, settings, n_workers=narrow, env=blind))

        def execute(folder: Path, shards: Sequence[Shard]) -> Iterator[Receipt]:
            if shards:
                yield from of(shards[0].phase in GPU_PHASES)(folder, shards)

        yield execute


def _take_down(cluster: LocalCluster) -> None:
    """Close a cluster, and kill what does not close.

    A nanny whose worker dies while another start of it is under way waits for ever for the first
    (distributed 2026.7.1): one poisoned shard in about ten leaves it so.
    """
    try:
        cluster.close(timeout=CLOSE_S)
    except TimeoutError:
        pids = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
        log.debug("workers killed, because their cluster did not close: %s", pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        cluster.status = Status.closed  # or it is closed once more when the interpreter ends


@contextmanager
def _elsewhere(spec: str, address: str) -> Iterator[Execute]:
    """Connect to a scheduler that somebody else started."""
    encrypted = address.startswith("tls://")
    if not encrypted and not _is_loopback(address):
        raise ValueError(
            f"--cluster {spec}: {address} leaves this machine unencrypted, and a scheduler has no "
            "password; start it with TLS and give tls://host:port"
        )
    with dask.config.set({"distributed.comm.require-encryption": encrypted}):
        try:
            client = Client(address, timeout=JOIN_S)
        except (OSError, TimeoutError) as error:
            raise ValueError(f"--cluster {spec}: nobody answers at {address}") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=JOIN_S)
            except TimeoutError as error:
                raise ValueError(f"--cluster {spec}: no worker within {JOIN_S} s") from error
            _refuse_other_versions(client, spec)
            yield _sender(client)


def _refuse_other_versions(client: Client, spec: str) -> None:
    """Refuse workers with another version of this package.

    One that cannot import what it is sent says nothing: the command would wait for ever.
    """
    told: Any = client.get_versions(packages=["fingerprint"])
    mine = told["client"]["packages"]["fingerprint"]
    for address, seen in told["workers"].items():
        theirs = seen["packages"]["fingerprint"]
        if theirs != mine:
            raise ValueError(
                f"--cluster {spec}: {address} has fingerprint {theirs or 'not installed'}, here it "
                f"is {mine}; install the same on every machine"
            )


def _sender(client: Client) -> Execute:
    def execute(folder: Path, shards: Sequence[Shard]) -> Iterator[Receipt]:
        poison.forgive(folder, {shard.key for shard in shards})
        try:
            yield from _send(client, folder.resolve(), shards)
        except CommClosedError as error:
            raise Incomplete(GONE) from error

    return execute


def _send(client: Client, folder: Path, shards: Sequence[Shard]) -> Iterator[Receipt]:
    """Do all shards; then those whose workers died, alone on the cluster, to know who is guilty."""
    failed: list[BaseException] = []
    suspects = yield from _round(client, folder, shards, failed)
    for suspect in suspects:
        for shard in (yield from _round(client, folder, [suspect], failed)):
            log.error("%s: shard %s kills its workers, left out", shard.phase, shard.key[:12])
            poison.quarantine(folder, shard)
    if failed:
        raise failed[0]


def _round(
    client: Client, folder: Path, shards: Sequence[Shard], failed: list[BaseException]
) -> Generator[Receipt, None, list[Shard]]:
    """Send every shard out; return those whose workers died, and append errors to `failed`.

    Every thread of the cluster has one shard, and no more than that are in flight: a longer queue
    would be blamed with the shard that kills its worker, and a plan of a million would flood the
    scheduler.
    """
    waiting, killers = iter(shards), []
    sent: dict[str, Shard] = {}
    flying = as_completed()
    kind = "GPU" if shards and shards[0].phase in GPU_PHASES else "CPU"

    def start() -> None:
        threads, asked = _able(client, kind)
        room = threads - flying.count()
        for shard in islice(waiting, max(room, 0 if flying.count() else 1)):
            sent[shard.key] = shard
            where = {"key": shard.key, "pure": False, "resources": asked}
            flying.add(client.submit(ledger.work, folder, shard, **where))

    start()
    for future in flying:
        shard = sent.pop(future.key)
        error = _error_of(future)
        if error is None:
            yield future.result()
        elif isinstance(error, KilledWorker):
            killers.append(shard)
        else:
            failed.append(error)
        future.release()
        if len(failed) < MAX_FAILED:
            start()
    return killers


def _able(client: Client, kind: str) -> tuple[int, dict[str, int] | None]:
    """Count the threads that may do shards of a kind, and say what a shard asks of its worker."""
    # not `client.scheduler_info`: that waits for a minute for a scheduler that is gone
    try:
        told = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=ASK_S)
    except OSError as error:  # refused, closed or no answer
        raise Incomplete(GONE) from error
    known = told["workers"].values()
    declared = [worker for worker in known if kind in worker["resources"]]
    asked = {kind: 1} if declared else None
    return sum(worker["nthreads"] for worker in declared or known), asked


def _error_of(future: Any) -> BaseException | None:
    """Return why a future has no result; a cluster that went away is a run to be resumed."""
    if future.status in ("cancelled", "lost"):
        return Incomplete(GONE)
    return None if future.status == "finished" else future.exception()


def _cuda_cluster() -> tuple[Any, int]:
    """Return the class of a cluster of GPUs, and how many there are."""
    try:
        nvml, cuda = import_module("pynvml"), import_module("dask_cuda")
    except ImportError as error:
        raise ValueError(
            f"--cluster cuda: {error.name} is not installed; pip install 'fingerprint[cuda]'"
        ) from error
    try:
        nvml.nvmlInit()
        found = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        raise ValueError(f"--cluster cuda: no GPU here ({error}); use --cluster local") from error
    if not found:
        raise ValueError("--cluster cuda: no GPU here; use --cluster local")
    return cuda.LocalCUDACluster, found


def _address_in(path: Path) -> str:
    """Return the address in a scheduler file."""
    try:
        return str(json.loads(path.read_text())["address"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"--cluster {path}: not a scheduler file: {error}") from error


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
