"""Elastic registration against SimpleITK and itk-elastix: endpoint error, folds, pairs per second.

    FINGERPRINT_DATA=... python tests/bench/elastic.py [SLICES]

Slices are bent by known smooth fields (6, 9, 12 px; sigma 32 px) and the fields are found again, on
one thread. Half of the slices are of a chest series as 8 bits of -1000 to 1000 HU, half are 8-bit
slices of another window; ellipses where FINGERPRINT_DATA names none. elastix is used where
``.venv-peers`` has it (`make bench-peers`). Errors are means inside what is seen of the body.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

# a GPU node may have neither this package nor its tests on its path
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from moved import SIDE, bends, bodies, identity, seen, slices_8bit, tensor
from ratios import counts, machine
from torch import Tensor

from fingerprint.register import energy, resample
from fingerprint.register.elastic import elastic

try:
    from fingerprint.register import reference
except ImportError:  # a GPU node has no SimpleITK
    reference = None
try:
    import itk
except ImportError:
    itk = None
try:
    import pydicom
except ImportError:  # nor has it CT
    pydicom = None

LEVELS = (6.0, 9.0, 12.0)
Way = Callable[[Tensor, Tensor], Tensor]


def chest(data: Path, count: int) -> np.ndarray:
    """Slices of a DICOM series, evenly over the lungs: uint8 (n, 512, 512)."""
    found = [pydicom.dcmread(p) for p in sorted((data / "dicom_series/lidc-idri-0001").iterdir())]
    found.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    out = []
    for i in np.linspace(25, len(found) - 10, count).astype(int):
        hu = found[i].pixel_array * float(found[i].RescaleSlope) + float(found[i].RescaleIntercept)
        out.append(np.clip(np.rint((np.clip(hu, -1000, 1000) + 1000) * 255 / 2000), 0, 255))
    return np.array(out).astype(np.uint8)


def slices(count: int) -> np.ndarray:
    """Return what is bent."""
    data = os.environ.get("FINGERPRINT_DATA")
    if not data:
        return bodies(count, SIDE)
    both = chest(Path(data), count - count // 2), slices_8bit(Path(data), count // 2, seed=4)
    return np.concatenate(both)


def by_elastix(moving: Tensor, fixed: Tensor) -> Tensor:
    """Find fields by elastix: its default B-spline map, one thread."""
    out = []
    settings = itk.ParameterObject.New()
    settings.AddParameterMap(itk.ParameterObject.GetDefaultParameterMap("bspline"))
    for one, other in zip(moving, fixed, strict=True):
        m, f = (itk.image_from_array(part[0].numpy()) for part in (one, other))
        found = itk.ElastixRegistrationMethod.New(f, m)
        found.SetParameterObject(settings)
        found.SetNumberOfThreads(1)
        found.SetLogToConsole(False)
        found.UpdateLargestPossibleRegion()
        field = itk.transformix_deformation_field(m, found.GetTransformParameterObject())
        x, y = np.moveaxis(itk.array_from_image(field), -1, 0)
        out.append(np.stack([y, x]))
    return torch.from_numpy(np.array(out, np.float32))


def ways() -> dict[str, Way]:
    """Return what is compared."""
    out: dict[str, Way] = {"ours": lambda m, f: elastic(m, f, start=identity(len(m))).field}
    if reference is not None:
        out["SimpleITK, B-splines"] = lambda m, f: (
            reference.elastic(m, f, start=identity(len(m))).field
        )
    if itk is not None:
        out["elastix, B-splines"] = by_elastix
    return out


def main() -> None:
    """Print one row for each way and length of the longest arrow."""
    (count,) = counts(6)
    torch.set_num_threads(1)
    print(machine())
    moving = tensor(slices(count))
    print(f"\n### {count} slices of {SIDE} px, bent by known fields\n")
    print("| longest arrow | way | mean error px | worst slice px | smallest Jacobian | s a pair |"
          f" times ours |\n|{'---|' * 7}")  # fmt: skip
    for level in LEVELS:
        truth = bends(level, count, seed=int(level))
        fixed = resample.warp_field(moving, truth).round()
        ours = 0.0
        for name, way in ways().items():
            start = time.perf_counter()
            # elastix leaves its field as a file where it runs
            with tempfile.TemporaryDirectory() as away_from_here, contextlib.chdir(away_from_here):
                found = way(moving, fixed)
            taken = (time.perf_counter() - start) / count
            ours = ours or taken
            away = (found - truth).norm(dim=1).numpy()
            errors = [e[seen(f[0])].mean() for e, f in zip(away, fixed.numpy(), strict=True)]
            least = energy.warp_of(found).min_jacobian.min().item()
            cells = [f"{np.mean(errors):.3f}", f"{max(errors):.3f}", f"{least:.3f}",
                     f"{taken:.2f}", f"{taken / ours:.1f}"]  # fmt: skip
            print(f"| {level:.0f} px | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
