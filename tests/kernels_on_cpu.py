"""The kernels of `finish.cu`, compiled by a C++ compiler and run thread by thread on the CPU.

Every thread of a block of the GPU is a thread here, with a barrier where the source has one: the
source itself is tested, its arithmetic, its indices and its atomics, on a machine without a GPU.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fingerprint.search import kernels

COMPILER = shutil.which("g++") or shutil.which("c++")
FLAGS = ("-std=c++20", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", "-w")

BEFORE = r"""
#include <barrier>
#include <climits>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>
#define __global__
#define __device__
#define __shared__ static
struct Index { int x, y, z; };
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::unique_ptr<std::barrier<>> everybody;
static int shown[1024];

static void __syncthreads() { everybody->arrive_and_wait(); }
static long long __double_as_longlong(double x) {
    long long bits;
    std::memcpy(&bits, &x, 8);
    return bits;
}
static double __ll2double_rn(long long x) { return (double)x; }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dmul_rn(double a, double b) { return a * b; }
static double __ddiv_rn(double a, double b) { return a / b; }
static double __dsqrt_rn(double x) { return std::sqrt(x); }
template <class T> T atomicAdd(T* at, T x) { return __atomic_fetch_add(at, x, __ATOMIC_SEQ_CST); }
template <class T, class B> T swap_if(T* at, T x, B better) {
    T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    while (better(x, old) && !__atomic_compare_exchange_n(at, &old, x, false, __ATOMIC_SEQ_CST,
                                                          __ATOMIC_SEQ_CST)) {}
    return old;
}
static long long atomicMax(long long* at, long long x) {
    return swap_if(at, x, [](long long a, long long b) { return a > b; });
}
static long long atomicMin(long long* at, long long x) {
    return swap_if(at, x, [](long long a, long long b) { return a < b; });
}
static int __shfl_xor_sync(unsigned, int value, int mask) {  // all threads of a block come here
    shown[threadIdx.x] = value;
    __syncthreads();
    int other = shown[threadIdx.x ^ mask];
    __syncthreads();
    return other;
}
"""

AFTER = r"""
template <class... A, size_t... I>
static void start(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    int threads = blockDim.x * blockDim.y;
    everybody = std::make_unique<std::barrier<>>(threads);
    std::vector<std::thread> all;
    for (int i = 0; i < threads; i++)
        all.emplace_back([=] {
            threadIdx = {i % blockDim.x, i / blockDim.x, 0};
            for (int y = 0; y < gridDim.y; y++)
                for (int x = 0; x < gridDim.x; x++) {
                    blockIdx = {x, y, 0};
                    kernel(*(A*)args[I]...);
                    everybody->arrive_and_wait();  // blocks one after the other
                }
        });
    for (auto& one : all) one.join();
}
template <class... A> static void start(void (*kernel)(A...), void** args) {
    start(kernel, args, std::index_sequence_for<A...>());
}
extern "C" int run(const char* name, int gx, int gy, int bx, int by, int n, void** args) {
    gridDim = {gx, gy, 1}, blockDim = {bx, by, 1};
#define OFFER(kernel, count) \
    if (!std::strcmp(name, #kernel)) return n == count ? (start(kernel, args), 0) : 2;
    OFFER(finish_product, 21)
    OFFER(finish_given, 15)
    OFFER(lowest, 10)
    OFFER(highest, 7)
    return 1;
}
"""


def compiled(folder: Path) -> ctypes.CDLL:
    """Compile the kernels into a library."""
    source = folder / "kernels.cpp"
    source.write_text(BEFORE + kernels.SOURCE.read_text() + AFTER)
    library = folder / "kernels.so"
    subprocess.run([str(COMPILER), *FLAGS, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def launch(
    library: ctypes.CDLL,
    name: str,
    grid: tuple[int, int, int],
    threads: tuple[int, int],
    args: tuple[Any, ...],
) -> None:
    """Stand in for `kernels.launch`; tensors lie on the CPU."""
    held = [_argument(arg) for arg in args]
    pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
    wrong = library.run(name.encode(), *grid[:2], *threads, len(held), pointers)
    assert wrong == 0, (name, wrong, len(held))


def _argument(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return ctypes.c_void_p(arg.data_ptr())
    return {np.int32: ctypes.c_int, np.int64: ctypes.c_longlong}[type(arg)](int(arg))
