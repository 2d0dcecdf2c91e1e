"""The most similar pairs as pictures: generated, real, and where they differ."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fingerprint.ledger import Damaged
from fingerprint.report import figures

log = logging.getLogger(__name__)

LARGE_PX, SMALL_PX, FEW = 512, 384, 12
QUALITY = 80


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
) -> dict[int, tuple[str, str, str] | str]:
    """Return for each pair its pictures (generated, real, difference), or why there are none.

    The images are found by the digest of their pixels, so a changed corpus cannot put a wrong one
    on the page.
    """
    shown = int(findings.get("pairs.shown") or 0)
    px = LARGE_PX if shown <= FEW else SMALL_PX
    places = {str(digest): i for i, digest in enumerate(generated.label("digest"))}
    digests = real.label("digest")
    out: dict[int, tuple[str, str, str] | str] = {}
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
            out[k] = _three(generated.at([i])[0], real.at([j])[0], px)
        except Damaged as error:
            log.warning("pair %d is shown without pictures: %s", k, error)
            out[k] = "the stored bytes are damaged: run fingerprint verify on the corpora"
    return out


def _three(generated: NDArray[np.uint8], real: NDArray[np.uint8], px: int) -> tuple[str, str, str]:
    colours = figures.difference(generated, real)
    return webp(generated, px), webp(real, px), webp(colours, px)


def webp(pixels: NDArray[np.uint8], px: int) -> str:
    """Return a data URI of an image, made smaller if its side is above `px`."""
    image = Image.fromarray(pixels)
    if image.width > px:
        image = image.resize((px, px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.convert("RGB").save(out, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
