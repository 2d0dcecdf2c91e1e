"""What a training works on, whatever is trained; and under which conditions bits come back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fingerprint.models.recipe import chance


@dataclass(frozen=True)
class Learner:
    """Networks with their optimisers, and how one step is taken.

    kept : the network whose weights are left at the end; one of `networks`
    networks, optimisers : under the same names
    step : float32 (B, 1, px, px) in [-1, 1] and the number of the step, from 0 -> its loss
    """

    kept: nn.Module
    networks: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    step: Callable[[Tensor, int], Tensor]


def extra(name: str) -> Any:
    """Import a module of the study extra: late, for it takes seconds, and few commands need it.

    Raises
    ------
    ModuleNotFoundError
        With the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a generator needs {name.split('.')[0]}: pip install 'fingerprint[study]'"
        ) from error


def placed(device: str | None) -> torch.device:
    """Return the device that was asked for; without a wish the GPU, where there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Compute such that the same arguments give the same bits on the same kind of machine.

    One thread: sums over parts depend on how many parts there are, so with more the weights would
    depend on the number of cores; and a cluster trains one model per worker. On a GPU no
    convolution is chosen by a race, and attention adds in a fixed order: a fifth
    slower on a CPU, where one thread has but one order.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    ordered = sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()
    try:
        with exact, ordered:
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def first_weights(seed: int) -> Iterator[None]:
    """Let networks draw their first weights from a seed; torch's own generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(chance(seed, "weights", 0).integers(2**63)))
        yield
