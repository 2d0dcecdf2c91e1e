"""Registration by SimpleITK, one pair at a time and one thread: the oracle for ours.

`affine`: correlation, regular-step gradient descent scaled by physical shift, three sizes. Plain
gradient descent and the line search of conjugate gradients came out worse on moved slices.
`elastic`: cubic B-splines, mutual information by Mattes, L-BFGS-B, three sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its documentation uses
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.register.affine import Affine, Alignment, Kind
from fingerprint.register.elastic import Deformation, Elastic, through
from fingerprint.register.overlap import checked_pairs, overlap
from fingerprint.register.resample import warp_affine

SEED = 20250123


@dataclass(frozen=True)
class Descent:
    """How ITK goes down, at each of some sizes.

    shrink, smooth_px : of the images at each size
    first_px, last_px : length of a step, halved when the slope turns
    slope : where it is flat enough; with ITK's own 1e-4, descent ends up to 5 px too early
    steps : the most at a size
    sampled : share of the pixels that are compared, drawn at random by `SEED`
    """

    shrink: tuple[int, ...] = (8, 4, 2)
    smooth_px: tuple[float, ...] = (4.0, 2.0, 1.0)
    first_px: float = 1.0
    last_px: float = 1e-4
    slope: float = 1e-8
    steps: int = 500
    sampled: float = 1.0


def affine(
    moving: Tensor,
    fixed: Tensor,
    *,
    start: Tensor,
    spec: Affine = Affine(),  # noqa: B008
    descent: Descent = Descent(),  # noqa: B008
) -> Alignment:
    """Find affine maps as `fingerprint.register.affine.affine` does: same arguments, same result.

    Of `spec`, the kind and the least overlap are used. `converged` says that r has not become
    lower and that enough is in common.
    """
    checked_pairs("reference.affine", moving, fixed, start)
    found = start.clone()
    for i in range(len(moving)):
        one, other = moving[i, 0].cpu().numpy(), fixed[i, 0].cpu().numpy()
        placed = _found(one, other, start[i].cpu().numpy(), spec.kind, descent)
        found[i] = torch.from_numpy(placed)
    start_r, _ = overlap(moving, fixed, start)
    found_r, share = overlap(moving, fixed, found)
    good = found_r.isfinite() & ~(found_r < start_r) & (share >= spec.least_overlap)
    matrix = torch.where(good[:, None, None], found, start)
    return Alignment(matrix, torch.where(good, found_r, start_r), good)


def _found(
    moving: NDArray[np.float32],
    fixed: NDArray[np.float32],
    start: NDArray[np.float64],
    kind: Kind,
    how: Descent,
) -> NDArray[np.float64]:
    """Return start o T, (2, 3) in (y, x); T is what is optimised. The start where that fails."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    if how.sampled < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(how.sampled, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        how.first_px, how.last_px, how.steps, gradientMagnitudeTolerance=how.slope
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(how.shrink)
    method.SetSmoothingSigmasPerLevel(how.smooth_px)
    added = _transform(kind, fixed.shape[0])
    # an affine map takes the start up: a second transform in the chain makes ITK five times slower
    chained = kind != "affine"
    if chained:
        first = sitk.AffineTransform(2)
        _set(first, start)
        method.SetMovingInitialTransform(first)
    else:
        _set(added, start)
    method.SetInitialTransform(added, inPlace=True)
    if not _executed(method, moving, fixed):
        return start
    return _composed(start, added) if chained else _matrix(added)


def _executed(method: Any, moving: NDArray[np.float32], fixed: NDArray[np.float32]) -> bool:
    """Run a registration on one thread; False if ITK gives up."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        method.Execute(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moving))
    except RuntimeError:  # all samples outside, or images without structure
        return False
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return True


@dataclass(frozen=True)
class Splines:
    """How ITK bends: cells of the mesh along a side, bins, share of the pixels, steps at a size."""

    mesh: int = 12
    bins: int = 50
    sampled: float = 0.2
    steps: int = 100


def elastic(
    moving: Tensor,
    fixed: Tensor,
    *,
    start: Tensor,
    spec: Elastic = Elastic(),  # noqa: B008
    splines: Splines = Splines(),  # noqa: B008
) -> Deformation:
    """Find fields as `fingerprint.register.elastic.elastic` does: same arguments, same result.

    `spec` is not used: nothing here keeps a field from folding.
    """
    del spec
    checked_pairs("reference.elastic", moving, fixed, start)
    shown = warp_affine(moving, start)
    bent = torch.zeros(len(fixed), 2, *fixed.shape[2:], device=fixed.device)
    for i in range(len(fixed)):
        one, other = shown[i, 0].cpu().numpy(), fixed[i, 0].cpu().numpy()
        bent[i] = torch.from_numpy(_bent(one, other, splines))
    return Deformation(through(start, bent))


def _bent(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], how: Splines
) -> NDArray[np.float32]:
    """Return a displacement (2, h, h) in (y, x); none where ITK gives up."""
    mesh = [how.mesh] * 2
    transform = sitk.BSplineTransformInitializer(sitk.GetImageFromArray(fixed), mesh, 3)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(how.bins)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(how.sampled, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsLBFGSB(1e-5, how.steps)
    method.SetShrinkFactorsPerLevel((4, 2, 1))
    method.SetSmoothingSigmasPerLevel((2.0, 1.0, 0.0))
    method.SetInitialTransform(transform, inPlace=True)
    if not _executed(method, moving, fixed):
        return np.zeros((2, *fixed.shape), np.float32)
    size = list(fixed.shape)
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, size)
    x, y = np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)
    return np.stack([y, x]).astype(np.float32)


def _transform(kind: Kind, side: int) -> Any:
    transform: Any = sitk.AffineTransform(2)
    if kind != "affine":
        transform = sitk.Euler2DTransform() if kind == "rigid" else sitk.Similarity2DTransform()
    transform.SetCenter([(side - 1) / 2] * 2)
    return transform


def _set(transform: Any, matrix: NDArray[np.float64]) -> None:
    """Make an affine transform send points where a (2, 3) matrix does; ITK speaks of (x, y)."""
    linear, centre = matrix[::-1, 1::-1], np.array(transform.GetCenter())
    transform.SetMatrix(linear.ravel().tolist())
    transform.SetTranslation((matrix[::-1, 2] + linear @ centre - centre).tolist())


def _matrix(transform: Any) -> NDArray[np.float64]:
    """Undo `_set`."""
    linear, centre = np.reshape(transform.GetMatrix(), (2, 2)), np.array(transform.GetCenter())
    shift = centre + np.array(transform.GetTranslation()) - linear @ centre
    return np.column_stack([linear[::-1, ::-1], shift[::-1]])


def _composed(start: NDArray[np.float64], added: Any) -> NDArray[np.float64]:
    """Return start o added, (2, 3)."""
    last = [[0.0, 0.0, 1.0]]
    whole: NDArray[np.float64] = np.vstack([start, last]) @ np.vstack([_matrix(added), last])
    return whole[:2]
