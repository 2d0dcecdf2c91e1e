"""What will run here, what will not, and why; and a broom for what our runs left behind."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch
from packaging.requirements import Requirement

from fingerprint.corpus import identity
from fingerprint.search import finish, pose, product
from fingerprint.settings import Settings
from flows import state
from flows.places import cores, gpus


def examined(key_file: Path | None = None) -> dict[str, Any]:
    """Look at libraries, devices and the key; ``ok`` says whether an audit can run on this CPU."""
    wrong = bounds()
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "libraries": "; ".join(wrong) or "within their bounds",
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_free_gib": round(psutil.virtual_memory().available / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "int8 product, cpu": product.chosen("cpu"),
        "--cluster local": f"{cores()} workers",
        **_gpus(),
        "--cluster cuda": _cuda_cluster(),
        "pose search": _pose_search(),
        "prefect server": os.environ.get("PREFECT_API_URL") or "a child of each command",
        "key file": _key(key_file),
        "state folder": str(state.folder()),
    }
    return told | {"ok": not wrong}


def bounds() -> list[str]:
    """Return the libraries of this package that are missing or outside the versions it needs."""
    wrong = []
    for text in requires("fingerprint") or ():
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(need.name)
        except PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} {have} is not {need.specifier}")
    return wrong


def _gpus() -> dict[str, str]:
    """Say of every GPU what it is, and of all how products are multiplied and finished there."""
    rows = {"cupy": _library("cupy"), "dask-cuda": _library("dask_cuda")}
    if not torch.cuda.is_available():
        return {"gpu": "none: torch sees no GPU"} | rows
    for i in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(i)
        free, total = (round(size / 2**30, 1) for size in torch.cuda.mem_get_info(i))
        major, minor = known.major, known.minor
        rows[f"gpu {i}"] = f"{known.name}, {free} of {total} GiB free, sm_{major}{minor}"
    rows["int8 product, gpu"] = product.chosen("cuda")
    rows["finish, gpu"] = finish.chosen("cuda")
    return rows


def _library(name: str) -> str:
    """Return the version of an optional library, or why it cannot be used."""
    try:
        found = import_module(name)
    except ImportError:
        return "not installed (fingerprint[cuda])"
    except Exception as error:
        # a wheel of another CUDA raises what it likes; a doctor says so and goes on
        return f"does not load ({type(error).__name__})"
    return str(getattr(found, "__version__", "installed"))


def _pose_search() -> str:
    """Say where the poses of a query are compared with the slices, and what that multiplies."""
    poses = len(pose.grid_of(Settings()))
    where = "GPU" if torch.cuda.is_available() else f"{cores()} cores"
    return f"{where}; {poses:,} poses a query"


def _cuda_cluster() -> str:
    if not torch.cuda.is_available():
        return "no: no GPU"
    if _library("dask_cuda").startswith(("not", "does")):
        return f"no: dask_cuda {_library('dask_cuda')}"
    return f"{gpus() or torch.cuda.device_count()} workers"


def _key(path: Path | None) -> str:
    try:
        key = identity.load_key(path, create=False)
    except (ValueError, OSError) as error:
        if "does not exist" in str(error):
            return "none yet: the first ingest makes one"
        return f"not usable: {error}"
    return f"key {key.key_id}; keep a copy of the file in a safe place"


# -- the broom


def cleaned() -> dict[str, Any]:
    """Remove scratch of dead runs, orphaned servers, and our Prefect home unless it is in use."""
    return {
        "scratch folders removed": state.sweep(),
        "orphans ended": _end_orphans(),
        "prefect home": _remove_home(),
    }


def _remove_home() -> str:
    home = state.folder("prefect")
    handle = state.lock(home / state.LOCK)
    if handle is None:
        return f"{home} is in use, left alone"
    shutil.rmtree(home)
    os.close(handle)
    return "removed"


def _end_orphans() -> int:
    """End servers of ours whose parent is gone; they end by themselves, unless stopped."""
    ended = 0
    for process in psutil.process_iter(["cmdline", "uids", "ppid"]):
        mine = process.info["uids"] and process.info["uids"].real == os.getuid()
        if mine and process.info["ppid"] == 1 and "flows.serve" in (process.info["cmdline"] or ()):
            process.kill()
            ended += 1
    return ended
