"""Slices moved by known maps, for the tests and benchmarks of registration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

SIDE = 512


def bodies(count: int, side: int, *, seed: int = 1) -> NDArray[np.uint8]:
    """Ellipses in ellipses with texture, uint8 (n, side, side); a GPU node makes no phantoms."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    out = np.zeros((count, side, side))
    for image in out:
        image[(y / 0.3) ** 2 + (x / 0.4) ** 2 < 1] = 140
        for at, grey in zip(rng.uniform(-0.2, 0.2, (9, 2)), rng.uniform(20, 230, 9), strict=True):
            high, wide = rng.uniform(0.02, 0.12, 2)
            image[((y - at[0]) / high) ** 2 + ((x - at[1]) / wide) ** 2 < 1] = grey
        image += ndimage.gaussian_filter(rng.standard_normal(image.shape), 2) * 40 * (image > 0)
        ndimage.gaussian_filter(image, 1, output=image)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def slices_8bit(data: Path, count: int | None = None, *, seed: int = 0) -> NDArray[np.uint8]:
    """Real 8-bit slices, uint8 (n, 512, 512): all, or some drawn; wide ones are cut to a square."""
    files = sorted((data / "slices_8bit" / "iq_oth_nccd").glob("*.jpg"))
    if count is not None and count < len(files):
        drawn = np.random.default_rng(seed).choice(len(files), count, replace=False)
        files = [files[i] for i in sorted(drawn)]
    return np.stack([_square(np.asarray(Image.open(file).convert("L"))) for file in files])


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.zeros((SIDE, SIDE), np.uint8)
    height, width = (min(SIDE, n) for n in image.shape)
    top, left = ((n - m) // 2 for n, m in zip(image.shape, (height, width), strict=True))
    up, across = (SIDE - height) // 2, (SIDE - width) // 2
    out[up : up + height, across : across + width] = image[top : top + height, left : left + width]
    return out


def maps(count: int, side: int, *, seed: int, kind: str = "affine", level: float = 1.0) -> Tensor:
    """Random maps about the image centre: 15 deg, 10 %, 40 px at 512, shear 3 %, times level."""
    rng = np.random.default_rng(seed)
    out = np.empty((count, 2, 3))
    centre = np.full(2, (side - 1) / 2)
    for matrix in out:
        angle = np.deg2rad(rng.uniform(-15, 15) * level)
        scale = 1 + rng.uniform(-0.1, 0.1) * level * (kind != "rigid")
        shear = rng.uniform(-0.03, 0.03, 2) * level * (kind == "affine")
        shift = rng.uniform(-40, 40, 2) * level * side / 512
        c, s = np.cos(angle), np.sin(angle)
        turned = scale * np.array([[c, s], [-s, c]]) @ np.array([[1, shear[0]], [shear[1], 1]])
        matrix[:, :2], matrix[:, 2] = turned, centre + shift - turned @ centre
    return torch.from_numpy(out)


def nearby(truth: Tensor, side: int, *, seed: int) -> Tensor:
    """What a pose search makes of maps: similarities, off by 1 deg, 2 %, 4 px at 512."""
    rng = np.random.default_rng(seed)
    centre = (side - 1) / 2
    out = truth.clone()
    for matrix in out.numpy():
        (a, b), (c, d) = matrix[:, :2]
        at = matrix[:, :2] @ [centre, centre] + matrix[:, 2] + rng.uniform(-4, 4, 2) * side / 512
        angle = np.arctan2(b - c, a + d) + np.deg2rad(rng.uniform(-1, 1))
        scale = np.sqrt(a * d - b * c) * (1 + rng.uniform(-0.02, 0.02))
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        matrix[:, :2] = [[c, s], [-s, c]]
        matrix[:, 2] = at - matrix[:, :2] @ [centre, centre]
    return out


def moved(images: NDArray[np.uint8], truth: Tensor) -> NDArray[np.uint8]:
    """Images that show at M(p) what the given ones show at p; air comes in; rounded."""
    out = np.empty(images.shape)
    for shown, image, matrix in zip(out, images.astype(float), truth.numpy(), strict=True):
        back = np.linalg.inv(matrix[:, :2])
        ndimage.affine_transform(image, back, -back @ matrix[:, 2], order=1, output=shown)
    return np.rint(out).astype(np.uint8)


def tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, h, h) -> float32 (n, 1, h, h)."""
    return torch.from_numpy(images.astype(np.float32))[:, None]


def identity(count: int) -> Tensor:
    """(n, 2, 3) float64."""
    return torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1)


def corner_error(one: Tensor, other: Tensor, side: int) -> NDArray[np.float64]:
    """Mean distance of the four corners, px, (n,)."""
    last = side - 1
    corners = np.array([[0, 0, 1], [0, last, 1], [last, 0, 1], [last, last, 1]]).T
    apart = (one.cpu().numpy() - other.cpu().numpy()) @ corners
    return np.asarray(np.linalg.norm(apart, axis=1).mean(1))


def bends(level: float, count: int, side: int = SIDE, *, seed: int = 1) -> Tensor:
    """Smooth random fields (sigma 32 px of 512) whose longest arrow is `level` px: (n, 2, h, h)."""
    rng = np.random.default_rng(seed)
    out = np.empty((count, 2, side, side), np.float32)
    for field in out:
        for part in field:
            white = rng.standard_normal((side, side))
            part[:] = ndimage.gaussian_filter(white, 32 * side / 512, mode="wrap")
        field -= field.mean(axis=(1, 2), keepdims=True)
        field *= level / np.hypot(*field).max()
    return torch.from_numpy(out)


def seen(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell the body, also in a window that shows bone alone: what is bright, closed and filled."""
    dense = ndimage.binary_closing(np.pad(image > 20, 40), iterations=12)[40:-40, 40:-40]
    parts, count = ndimage.label(dense)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(parts == sizes.argmax()))
