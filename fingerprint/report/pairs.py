"""The most similar pairs as pictures: real, generated, moved onto it, and where they differ.

Where a pair was registered these are the pictures of Fig. 5 of paper 000; the arrows that it draws
by hand are regions here, found by measurement.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fingerprint import warp
from fingerprint.ledger import Damaged
from fingerprint.register import kept
from fingerprint.report import raster

log = logging.getLogger(__name__)

LARGE_PX, SMALL_PX, FEW = 512, 384, 12
QUALITY = 80


@dataclass(frozen=True)
class Shown:
    """The pictures of one pair, as data URIs; one that does not exist is empty.

    `moved` is the generated image at its best pose, where that is not as stored; `affine` and
    `elastic` are registered; `regions` is the real slice with what was copied and what differs.
    """

    generated: str
    real: str
    difference: str
    moved: str = ""
    affine: str = ""
    elastic: str = ""
    regions: str = ""


class Slices(Protocol):
    """What a page asks of a corpus; `corpus.store.Corpus` is one."""

    @property
    def digest(self) -> str:
        """Digest of the content."""

    @property
    def summary(self) -> dict[str, Any]:
        """The data table."""

    def label(self, name: str) -> NDArray[Any]:
        """Return one label of every slice."""

    def at(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return single slices, verified: uint8 (n, size, size)."""


def pictures(
    findings: Mapping[str, Any],
    generated: Slices,
    real: Slices,
    registration: xr.Dataset | None = None,
) -> dict[int, Shown | str]:
    """Return for each pair its pictures, or why there are none.

    `registration` is what `register.kept.load` gives.

    The images are found by the digest of their pixels, so a changed corpus cannot put a wrong one
    on the page.
    """
    shown = int(findings.get("pairs.shown") or 0)
    px = LARGE_PX if shown <= FEW else SMALL_PX
    places = {str(digest): i for i, digest in enumerate(generated.label("digest"))}
    digests = real.label("digest")
    rows = {} if registration is None else kept.places(registration)
    out: dict[int, Shown | str] = {}
    for k in range(1, shown + 1):
        i = places.get(findings[f"pair.{k}.query_digest"])
        j = int(findings[f"pair.{k}.slice"])
        if (
            i is None
            or not 0 <= j < len(digests)
            or digests[j] != findings[f"pair.{k}.slice_digest"]
        ):
            out[k] = "the corpora no longer hold these images"
            continue
        row = rows.get((findings[f"pair.{k}.query"], j))
        try:
            out[k] = _shown(
                generated.at([i])[0],
                real.at([j])[0],
                pose_of(findings, k),
                None if registration is None or row is None else registration.isel(query=row),
                findings.get(f"pair.{k}.regions.list") or [],
                px,
            )
        except Damaged as error:
            log.warning("pair %d is shown without pictures: %s", k, error)
            out[k] = "the stored bytes are damaged: run fingerprint verify on the corpora"
    return out


def pose_of(findings: Mapping[str, Any], k: int) -> tuple[float, ...] | None:
    """Return the best pose of pair `k` in the order of `warp.POSE`; None: it was not refined."""
    found = [findings.get(f"pair.{k}.{name}") for name in warp.POSE]
    return None if None in found else tuple(float(x) for x in found if x is not None)


def _shown(
    generated: NDArray[np.uint8],
    real: NDArray[np.uint8],
    pose: tuple[float, ...] | None,
    registered: xr.Dataset | None,
    regions: Sequence[Mapping[str, Any]],
    px: int,
) -> Shown:
    as_stored = webp(generated, px), webp(real, px)
    if registered is not None:
        stages = [
            aligned(generated, registered["matrix"].to_numpy(), field)
            for field in (None, registered["field"].to_numpy())
            if field is None or np.isfinite(field).all()
        ]
        closest, inside = stages[-1]
        return Shown(
            *as_stored,
            webp(raster.difference(closest, real, inside), px),
            affine=webp(stages[0][0], px),
            elastic=webp(closest, px) if len(stages) > 1 else "",
            regions=webp(raster.outlined(real, regions), px) if regions else "",
        )
    if pose is None or pose == warp.IDENTITY:
        return Shown(*as_stored, webp(raster.difference(generated, real), px))
    moved, inside = at_pose(generated, pose)
    return Shown(*as_stored, webp(raster.difference(moved, real, inside), px), webp(moved, px))


def at_pose(
    image: NDArray[np.uint8], pose: tuple[float, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return an image (y, x) at a pose, rounded, and which of its pixels lie inside the image."""
    both = np.stack([image.astype(np.float64), np.ones(image.shape)])
    moved, covered = warp.apply(both, np.array([pose, pose]))
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8), covered > 0.5


def aligned(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], field: NDArray[np.float32] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a registered image (y, x), rounded, and which of its pixels lie inside the image.

    Parameters
    ----------
    image : uint8, shape (h, h)
    matrix : float64, shape (2, 3)
        (y, x, 1) of the slice -> (y, x) of the image.
    field : float32, shape (2, k, k), optional
        What the elastic step adds, on a coarser grid, as `register.kept` has it.
    """
    at = np.indices(image.shape, np.float64)
    y, x = (row[0] * at[0] + row[1] * at[1] + row[2] for row in matrix)
    if field is not None:
        small = (at + 0.5) * (field.shape[-1] / len(image)) - 0.5
        y, x = (
            grid + ndimage.map_coordinates(part, small, order=1, mode="nearest")
            for grid, part in zip((y, x), field, strict=True)
        )
    moved = warp.sample(image[None], y, x)[0]
    last = len(image) - 1
    inside = (y >= 0) & (y <= last) & (x >= 0) & (x <= last)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8), inside


def webp(pixels: NDArray[np.uint8], px: int) -> str:
    """Return a data URI of an image, made smaller if its side is above `px`."""
    image = Image.fromarray(pixels)
    if image.width > px:
        image = image.resize((px, px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.convert("RGB").save(out, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
