"""A shadow generator: trained here, on slices that are known not to have been used.

What it makes stands for "not used" where a classifier needs examples (METHOD.md, section 1.4).
Training and samples are kept in a folder, and are not made twice.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.window import fit
from fingerprint.ledger import Damaged, replacing
from fingerprint.membership import Images, blocks
from fingerprint.models import sampling, training
from fingerprint.models.recipe import Recipe
from fingerprint.models.resuming import TRAINED, WEIGHTS

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Shadow:
    """How a shadow generator is made, and where it is kept.

    Attributes
    ----------
    recipe : Recipe
    folder : Path
        Of this training alone.
    count : int
        Images that are drawn; paper 003 drew 802.
    """

    recipe: Recipe
    folder: Path
    count: int = 802

    def images(self, slices: Images, watch: training.Watch = lambda *_: None) -> Grey:
        """Return what the generator makes once it is trained on `slices`, uint8 (count, px, px).

        Raises
        ------
        ValueError
            No slice, or a folder with another training.
        ledger.Damaged
            Kept images are not as they were written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        trained = training.train(small(slices, self.recipe.px), self.recipe, self.folder, watch)
        kept = self.folder / f"made-{trained.weights[:12]}-{self.count}.npz"
        if not kept.exists():
            weights, seed = self.folder / WEIGHTS, self.recipe.seed
            drawn = sampling.sample(weights, trained.weights, 0, self.count, seed)
            with replacing(kept) as out:
                np.savez(out, images=drawn)
        return _read(kept)

    @property
    def told(self) -> dict[str, object]:
        """Return what its training said of itself: steps, seconds, loss, digests."""
        return dict(json.loads((self.folder / TRAINED).read_bytes()))


def small(images: Images, px: int) -> Grey:
    """Return images as area means of `px` pixels, uint8 (n, px, px)."""
    parts = [fit(block, px, 0)[0] for block in blocks(images)]
    return np.concatenate(parts) if parts else np.empty((0, px, px), np.uint8)


def _read(path: Path) -> Grey:
    data = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(data) as held:
            # the whole of it, so that its checksum is looked at: a changed head may ask for less
            whole = held.read("images.npy")
        images: Grey = np.load(io.BytesIO(whole), allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, KeyError, RuntimeError, ValueError) as error:
        raise Damaged(f"{path.name} is not as it was written; remove it and run again") from error
    return images
