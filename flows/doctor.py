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
from fingerprint.search.correlate import int8_is_exact
from flows import state
from flows.cluster import cores


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
        "exact search, cpu": _product("cpu"),
        "exact search, gpu": _gpu(),
        "--cluster local": f"{cores()} workers",
        "--cluster cuda": _cuda_cluster(),
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


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "no: torch sees no GPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{_product('cuda')} ({', '.join(names)})"


def _product(device: str) -> str:
    """Say which product the search will use: the same self-test decides there."""
    return "yes, int8" if int8_is_exact(device) else "yes, float64: int8 is not exact here, slower"


def _cuda_cluster() -> str:
    for name in ("dask_cuda", "cupy"):
        try:
            import_module(name)
        except ImportError:
            return f"no: {name} is not installed (fingerprint[cuda])"
    return "yes" if torch.cuda.is_available() else "no: no GPU"


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
