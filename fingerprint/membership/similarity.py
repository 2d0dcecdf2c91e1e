"""Used or not used, by the similarity of pixels: the system of paper 001 (METHOD.md, section 1.2).

A real slice is compared with every generated image, by Euclidean distance, cosine, SSIM (the
paper's), Manhattan distance, Pearson r and 3-SSIM (ours), as it is and with noise. Where a measure
is made of products of grey levels it comes from the exact integer product of the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.corpus.scan import sums
from fingerprint.corpus.window import fit
from fingerprint.measure.similarity import MOST
from fingerprint.measure.structural import Windows, gradient, similarity_map, weighed, windows
from fingerprint.membership import Dev, Floats, Images, Scores, blocks
from fingerprint.membership.noise import ARMS, Noise, noisy
from fingerprint.membership.tops import REDUCTIONS, Tops, named
from fingerprint.search import device
from fingerprint.search.correlate import Pixels, correlate, cross, queries_from

MEASURES = ("euclidean", "manhattan", "cosine", "pearson", "ssim", "three_ssim")
TOGETHER = 64  # generated images that one real slice is compared with at a time
LEAST = -1.0  # of a pair without an answer: an image that is constant, or zero everywhere

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """Images with what every measure needs of each alone, on one device."""

    pixels: Pixels  # int8
    flat: Tensor  # (n, p) float32
    windows: Windows
    gradient: Tensor  # (n, 1, h, w)

    def __len__(self) -> int:
        return len(self.flat)


def prepared(images: Grey, where: str) -> Prepared:
    """Prepare uint8 images (n, h, w), h and w at least 11."""
    total, squares = (np.asarray(part, np.int64) for part in sums(images))
    grey = torch.from_numpy(np.ascontiguousarray(images)).to(where)[:, None].float()
    pixels = queries_from(np.ascontiguousarray(images), total, squares).to(where)
    return Prepared(pixels, grey.flatten(1), windows(grey), gradient(grey))


def similarities(asked: Prepared, generated: Prepared) -> Floats:
    """Compare every real slice with every generated image.

    Parameters
    ----------
    asked, generated : Prepared
        a and g images of one size, on one device.

    Returns
    -------
    float64, shape (6, a, g)
        In the order of `MEASURES`; larger is more alike, so distances are negative. A pair without
        an answer has `LEAST`.
    """
    products = cross(asked.pixels, generated.pixels).double()
    squares = [_squares(each.pixels) for each in (asked, generated)]
    both = squares[0][:, None] * squares[1][None]
    cosine = torch.where(both > 0, products / both.sqrt(), torch.nan)
    far = squares[0][:, None] + squares[1][None] - 2 * products
    city = torch.cdist(_whole(asked), _whole(generated), p=1).double()
    structure = torch.stack([_structure(asked, i, generated) for i in range(len(asked))], dim=1)
    out = torch.stack(
        [-far.sqrt(), -city, cosine, correlate(asked.pixels, generated.pixels), *structure]
    )
    return out.nan_to_num(nan=LEAST).cpu().numpy()


def _squares(pixels: Pixels) -> Tensor:
    """Sum of squared grey levels, from the sums of values less 128."""
    n, shift = pixels.values.shape[1], 128
    return (pixels.squares + 2 * shift * pixels.total + shift * shift * n).double()


def _whole(images: Prepared) -> Tensor:
    """Return what sums of whole grey levels are exact in: float32 up to 256 x 256 pixels."""
    exact = images.flat.shape[1] * MOST < 2**24
    return images.flat if exact else images.flat.double()


def _structure(asked: Prepared, i: int, generated: Prepared) -> Tensor:
    """Return SSIM and 3-SSIM of one real slice with every generated image, float64 (2, g)."""
    one = slice(i, i + 1)
    out = []
    for first in range(0, len(generated), TOGETHER):
        some = slice(first, first + TOGETHER)
        found = similarity_map(asked.windows[one], generated.windows[some])
        ssim = found.flatten(1).double().mean(1)
        # the real slice is the reference
        three = weighed(found, generated.gradient[some], asked.gradient[one])
        out.append(torch.stack([ssim, three]))
    return torch.cat(out, dim=1)


@dataclass(frozen=True)
class Similarity:
    """The method; it learns nothing from development data but which of its arms to use.

    Attributes
    ----------
    px : int
        Largest side at which images are compared: larger ones are reduced by area mean.
    top : int
        Generated images in the mean of the most similar.
    noise : tuple of Noise
    """

    px: int = 64
    top: int = 10
    noise: tuple[Noise, ...] = ARMS

    def fit(self, dev: Dev) -> Similarity:
        """Return the scorer: the method itself."""
        del dev
        return self

    def __call__(self, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
        """Score real slices: arms ``<measure>/<noise>/<max|top10|mean>``; see `Scorer`."""
        del control
        out: dict[str, Floats] = {}
        for noise in self.noise:
            out |= self._with(noise, asked, generated, seed)
        return out

    def _with(self, noise: Noise, asked: Images, generated: Images, seed: int) -> Scores:
        where = device.chosen()
        parts = []
        for block in self._images(asked, noise if noise.both else Noise(), seed):
            mine = prepared(block, where)
            tops = Tops.empty((len(MEASURES), len(mine)), self.top)
            for made in self._images(generated, noise, seed + 1):
                tops = tops.plus(similarities(mine, prepared(made, where)))
            parts.append(tops.reduced())
        return {
            f"{measure}/{noise.name}/{named(reduction, self.top)}": np.concatenate(
                [part[reduction][k] for part in parts]
            )
            for k, measure in enumerate(MEASURES)
            for reduction in REDUCTIONS
        }

    def _images(self, images: Images, noise: Noise, seed: int) -> Iterator[Grey]:
        for block in blocks(images):
            yield noisy(fit(block, min(self.px, block.shape[-1]), 0)[0], noise, seed)
