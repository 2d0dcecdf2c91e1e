"""How much a field deforms (METHOD.md, section 3.17), and fields one after the other.

Fields are displacements u, float32 (B, 2, H, H), (y, x) px: the moving point is p + u(p). What an
affine map explains of u is no deformation: it is taken away first, by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fingerprint.register import resample
from fingerprint.register.bend import jacobian

ROUNDS = 60  # of the fixed point of an inverse: enough for gradients below a half


@dataclass(frozen=True)
class Warp:
    """What a field does, float64 (B,) each.

    Attributes
    ----------
    deformation : Tensor
        E1 = mean |grad u|^2, summed over both components.
    bending : Tensor
        E2 = mean (u_yy^2 + 2 u_xy^2 + u_xx^2), px^-2.
    min_jacobian : Tensor
        Smallest det(I + grad u) between pixels, relative to that of the affine part: above 0, the
        field does not fold.
    folded : Tensor
        Share of the pixels where it is not above 0.
    spread_log_jacobian : Tensor
        Standard deviation of its logarithm where it is above 0.
    """

    deformation: Tensor
    bending: Tensor
    min_jacobian: Tensor
    folded: Tensor
    spread_log_jacobian: Tensor


def warp_of(field: Tensor) -> Warp:
    """Measure fields.

    Parameters
    ----------
    field : Tensor, shape (B, 2, H, H), float32
        The affine part included; H at least 3.

    Raises
    ------
    ValueError
        Another shape.
    """
    _checked("warp_of", field)
    linear, left = _affine_part(field.double())
    whole = torch.eye(2, dtype=torch.float64, device=field.device) + linear
    det = whole[:, 0, 0] * whole[:, 1, 1] - whole[:, 0, 1] * whole[:, 1, 0]
    area = (jacobian(field.double()) / det[:, None, None]).flatten(1)
    sound = area > 0
    logs = torch.where(sound, area, 1.0).log()
    mean = logs.sum(1) / sound.sum(1)
    squares = ((logs - mean[:, None]) ** 2 * sound).sum(1) / sound.sum(1)
    return Warp(
        _deformation(left), _bending(left), area.amin(1), (~sound).double().mean(1), squares.sqrt()
    )


def _affine_part(field: Tensor) -> tuple[Tensor, Tensor]:
    """Return the linear part of the best affine fit (B, 2, 2) and what it leaves of u."""
    side = field.shape[-1]
    axis = torch.arange(side, dtype=field.dtype, device=field.device) - (side - 1) / 2
    # rows and columns are orthogonal to each other and to the mean
    size = side * (axis * axis).sum()
    down = (field * axis[:, None]).sum((2, 3)) / size
    across = (field * axis).sum((2, 3)) / size
    fit = down[..., None, None] * axis[:, None] + across[..., None, None] * axis
    left = field - field.mean((2, 3), keepdim=True) - fit
    return torch.stack([down, across], dim=2), left


def _deformation(u: Tensor) -> Tensor:
    """Mean of squared central differences, inside."""
    y = (u[..., 2:, 1:-1] - u[..., :-2, 1:-1]) / 2
    x = (u[..., 1:-1, 2:] - u[..., 1:-1, :-2]) / 2
    return (y * y + x * x).sum(1).flatten(1).mean(1)


def _bending(u: Tensor) -> Tensor:
    middle = u[..., 1:-1, 1:-1]
    yy = u[..., 2:, 1:-1] - 2 * middle + u[..., :-2, 1:-1]
    xx = u[..., 1:-1, 2:] - 2 * middle + u[..., 1:-1, :-2]
    xy = (u[..., 2:, 2:] - u[..., 2:, :-2] - u[..., :-2, 2:] + u[..., :-2, :-2]) / 4
    return (yy * yy + 2 * xy * xy + xx * xx).sum(1).flatten(1).mean(1)


# -- fields one after the other


def compose(second: Tensor, first: Tensor) -> Tensor:
    """Return the field that does `first`, then `second`: u1(p) + u2(p + u1(p)).

    Outside the grid the border of `second` is continued.
    """
    _checked("compose", second)
    _checked("compose", first)
    axis = torch.arange(first.shape[-1], dtype=first.dtype, device=first.device)
    last = first.shape[-1] - 1
    at = torch.stack([first[:, 0] + axis[:, None], first[:, 1] + axis], dim=1).clamp(0, last)
    return first + resample.sample(second, at)


def inverse(field: Tensor) -> Tensor:
    """Return the field that undoes `field`: the fixed point of v(p) = -u(p + v(p)).

    It is found for fields whose gradient stays well below 1, and only where p + v stays inside.
    """
    _checked("inverse", field)
    back = -field
    for _ in range(ROUNDS):
        back = back - compose(field, back)
    return back


def _checked(name: str, field: Tensor) -> None:
    square = field.ndim == 4 and field.shape[1] == 2 and field.shape[2] == field.shape[3]
    if not square or field.shape[2] < 3:
        raise ValueError(f"{name}: field must be (B, 2, H, H), H >= 3, got {tuple(field.shape)}")
