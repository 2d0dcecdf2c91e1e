"""What will run here, what will not, and why; and a broom for what our runs left behind."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from packaging.requirements import Requirement

from fingerprint.corpus import identity
from flows import state
from flows.cluster import cores

K = 65_536  # the longest inner product of the search


def examined(key_file: Path | None = None) -> dict[str, Any]:
    """Look at libraries, devices and the key; ``ok`` says whether an audit can run on this CPU."""
    wrong = bounds()
    exact = int_mm_is_exact("cpu")
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "libraries": "; ".join(wrong) or "within their bounds",
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_free_gib": round(psutil.virtual_memory().available / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "exact search, cpu": "yes" if exact else "NO: torch._int_mm is not exact here",
        "exact search, gpu": _gpu(),
        "--cluster local": f"{cores()} workers",
        "--cluster cuda": _cuda_cluster(),
        "faster corpus decoding": "yes" if find_spec("zarrs") else "no: install fingerprint[fast]",
        "prefect server": os.environ.get("PREFECT_API_URL") or "a child of each command",
        "key file": _key(key_file),
        "state folder": str(state.folder()),
    }
    return told | {"ok": exact and not wrong}


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


def int_mm_is_exact(device: str) -> bool:
    """Multiply the extremes of int8 over the longest inner product, and compare with the truth."""
    a = torch.full((32, K), -128, dtype=torch.int8, device=device)
    b = torch.full((K, 32), -128, dtype=torch.int8, device=device)
    b[:, 1] = 127
    product = torch._int_mm(a, b).cpu()
    return bool((product[:, 0] == 128 * 128 * K).all() and (product[:, 1] == -128 * 127 * K).all())


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "no: torch sees no GPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) if int_mm_is_exact("cuda") else f"NO: not exact on {names[0]}"


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
