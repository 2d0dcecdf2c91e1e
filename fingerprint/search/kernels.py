"""The kernels of `finish.cu`: compiled by CuPy when first used, launched on the stream of torch."""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("finish.cu")
OPTIONS = ("--std=c++17", "--fmad=false")  # a fused multiply-add would round once, not twice


@functools.cache
def _kernel(name: str) -> Any:
    return _module().get_function(name)


@functools.cache
def _module() -> Any:
    return import_module("cupy").RawModule(code=SOURCE.read_text(), options=OPTIONS)


def lend(tensor: Tensor) -> Any:
    """Return a tensor on the GPU as an array of CuPy: the same memory (DLPack)."""
    cupy = import_module("cupy")
    with _stream(cupy):
        return cupy.from_dlpack(tensor)


def launch(
    name: str, grid: tuple[int, int, int], threads: tuple[int, int], args: tuple[Any, ...]
) -> None:
    """Queue a kernel on the current stream of torch.

    Parameters
    ----------
    args : tuple
        Of arrays that were lent, and numpy scalars of the types in the source.
    """
    with _stream(import_module("cupy")):
        _kernel(name)(grid, (*threads, 1), args)


def _stream(cupy: Any) -> Any:
    """Return the current stream of torch: nobody waits for anybody on one stream."""
    stream = torch.cuda.current_stream()
    if not stream.cuda_stream:
        return cupy.cuda.Stream.null
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream)  # until CuPy 13
