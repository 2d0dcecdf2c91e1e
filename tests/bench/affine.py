"""Affine registration against SimpleITK: pairs per second and accuracy, on the same moved slices.

    FINGERPRINT_DATA=... python tests/bench/affine.py [SLICES TIMED]

Real 8-bit slices are moved at random (15 deg, 10 %, 40 px, shear 3 %; two seeds) and brought back,
from the identity and from what a pose search finds (off by 1 deg, 2 %, 4 px). One thread each: both
take one pair at a time, and either is run once per core. SimpleITK is shown as the oracle of the
tests, with ITK's own tolerances on a fifth of the pixels, and in a hurry (nothing above 128 px).
Ellipses, where FINGERPRINT_DATA names no slices. Where there is a GPU, it is compared with the CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

# a GPU node may have neither this package nor its tests on its path
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from moved import SIDE, bodies, corner_error, identity, maps, moved, nearby, slices_8bit, tensor
from ratios import compare, counts, machine
from torch import Tensor

from fingerprint.register.affine import Alignment, affine

try:
    from fingerprint.register import reference
except ImportError:  # a GPU node has no SimpleITK
    reference = None

SEEDS = (1, 2)
GOOD_PX = 0.5
Way = Callable[[Tensor, Tensor, Tensor], Alignment]


def ways() -> dict[str, Way]:
    """Return what is compared."""
    out: dict[str, Way] = {"ours": lambda m, f, s: affine(m, f, start=s)}
    if reference is not None:
        for name, descent in {
            "the oracle": reference.Descent(),
            "a fifth of the pixels": reference.Descent(
                last_px=1e-3, slope=1e-4, steps=200, sampled=0.2
            ),
            "in a hurry": reference.Descent(
                (8, 4), (4.0, 2.0), last_px=1e-2, slope=1e-4, steps=100
            ),
        }.items():
            out[f"SimpleITK, {name}"] = lambda m, f, s, d=descent: reference.affine(
                m, f, start=s, descent=d
            )
    return out


def slices(count: int) -> tuple[str, np.ndarray]:
    """Return what is moved, and what it is."""
    data = os.environ.get("FINGERPRINT_DATA")
    if not data:
        return "ellipses", bodies(count, SIDE)
    return "real slices", slices_8bit(Path(data), count)


def starts(truth: Tensor, seed: int) -> dict[str, Tensor]:
    """Return where registrations start."""
    return {"a pose": nearby(truth, SIDE, seed=seed + 100), "the identity": identity(len(truth))}


def accuracy(what: str, images: np.ndarray) -> None:
    """Print who finds what."""
    print(f"\n### {len(images)} {what}, moved at random\n")
    print(
        "| seed | start | way | < 0.5 px | median px | most px | converged | r >= ours - 0.001 |"
        f" ours >= its r - 0.001 |\n|{'---|' * 9}"
    )
    for seed in SEEDS:
        truth = maps(len(images), SIDE, seed=seed)
        fixed, moving = tensor(images), tensor(moved(images, truth))
        for start_name, start in starts(truth, seed).items():
            ours = None
            for name, way in ways().items():
                got = way(moving, fixed, start)
                ours = got if ours is None else ours
                error = corner_error(got.matrix, truth, SIDE)
                cells = [
                    f"{(error < GOOD_PX).mean():.2%}",
                    f"{np.median(error):.3f}",
                    f"{error.max():.2f}",
                    f"{got.converged.double().mean():.2%}",
                    f"{(got.r >= ours.r - 1e-3).double().mean():.2%}",
                    f"{(ours.r >= got.r - 1e-3).double().mean():.2%}",
                ]
                print(f"| {seed} | {start_name} | {name} | {' | '.join(cells)} |", flush=True)


def speed(what: str, images: np.ndarray) -> None:
    """Print how long the ways take, in turn."""
    truth = maps(len(images), SIDE, seed=SEEDS[0])
    fixed, moving = tensor(images), tensor(moved(images, truth))
    for name, start in starts(truth, SEEDS[0]).items():
        timed = {
            way: lambda go=go, start=start: go(moving, fixed, start) for way, go in ways().items()
        }
        compare(f"{len(images)} {what}, from {name}", "ours", timed, rounds=2)


def on_gpu(what: str, images: np.ndarray, times: int = 32) -> None:
    """Print the time on a GPU, of the same pairs many times over, and on one core per pair."""
    if not torch.cuda.is_available():
        print("\nno GPU: not compared with our own CPU path")
        return
    truth = maps(len(images), SIDE, seed=SEEDS[0])
    fixed, moving = tensor(images), tensor(moved(images, truth))
    for name, start in starts(truth, SEEDS[0]).items():
        there = [part.cuda().repeat(times, *[1] * (part.ndim - 1)) for part in (moving, fixed)]
        start_there = start.cuda().repeat(times, 1, 1)

        def gpu(there=there, start=start_there) -> None:
            affine(*there, start=start)
            torch.cuda.synchronize()

        title = f"{len(images)} {what} on one core, {times} times as many on a GPU, from {name}"
        both = {
            "GPU": gpu,
            "one core": lambda start=start: affine(moving, fixed, start=start),
        }
        ratio = compare(title, "GPU", both, rounds=3)["one core"]
        print(f"\npairs per second: {ratio * times:.0f} times those of one core")


def main() -> None:
    """Print the tables."""
    count, timed = counts(299, 12) if len(sys.argv) != 2 else (*counts(), 12)
    torch.set_num_threads(1)
    what, images = slices(count)
    print(machine())
    speed(what, images[:: max(1, len(images) // timed)][:timed])
    on_gpu(what, images[:timed])
    accuracy(what, images)


if __name__ == "__main__":
    main()
