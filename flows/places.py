"""How much machine there is: cores and GPUs that this process may use. Imports no scheduler."""

from __future__ import annotations

import os
from importlib import import_module

from fingerprint.settings import Settings


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes(settings: Settings) -> int:
    """Return how many shards are worked on side by side on this machine."""
    return settings.workers or cores()


def gpus() -> int:
    """Return how many GPUs the driver shows; 0 where there is no driver or no way to ask it."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return 0
    try:
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0
