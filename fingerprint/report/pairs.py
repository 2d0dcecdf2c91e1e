"""The most similar pairs as pictures: generated, at best pose, real, and where they differ."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fingerprint import warp
from fingerprint.ledger import Damaged
from fingerprint.report import raster

log = logging.getLogger(__name__)

LARGE_PX, SMALL_PX, FEW = 512, 384, 12
QUALITY = 80


@dataclass(frozen=True)
class Shown:
    """The pictures of one pair, as data URIs; `moved` is empty where the best pose is as stored."""

    generated: str
    real: str
    difference: str
    moved: str = ""


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
    findings: Mapping[str, Any], generated: Slices, real: Slices
) -> dict[int, Shown | str]:
    """Return for each pair its pictures, or why there are none.

    The images are found by the digest of their pixels, so a changed corpus cannot put a wrong one
    on the page.
    """
    shown = int(findings.get("pairs.shown") or 0)
    px = LARGE_PX if shown <= FEW else SMALL_PX
    places = {str(digest): i for i, digest in enumerate(generated.label("digest"))}
    digests = real.label("digest")
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
        try:
            out[k] = _shown(generated.at([i])[0], real.at([j])[0], pose_of(findings, k), px)
        except Damaged as error:
            log.warning("pair %d is shown without pictures: %s", k, error)
            out[k] = "the stored bytes are damaged: run fingerprint verify on the corpora"
    return out


def pose_of(findings: Mapping[str, Any], k: int) -> tuple[float, ...] | None:
    """Return the best pose of pair `k` in the order of `warp.POSE`; None: it was not refined."""
    found = [findings.get(f"pair.{k}.{name}") for name in warp.POSE]
    return None if None in found else tuple(float(x) for x in found if x is not None)


def _shown(
    generated: NDArray[np.uint8], real: NDArray[np.uint8], pose: tuple[float, ...] | None, px: int
) -> Shown:
    as_stored = webp(generated, px), webp(real, px)
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


def webp(pixels: NDArray[np.uint8], px: int) -> str:
    """Return a data URI of an image, made smaller if its side is above `px`."""
    image = Image.fromarray(pixels)
    if image.width > px:
        image = image.resize((px, px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.convert("RGB").save(out, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
