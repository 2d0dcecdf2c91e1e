"""How much memory a worker needs, by method: from counts and settings, before an image is read.

What a module holds of every image is counted here; all else is bounded by the size of a block.
Trainings are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fingerprint.corpus.screen import PIXELS
from fingerprint.membership import BLOCK, methods, poses, similarity, vcmi
from fingerprint.membership.density import Density
from fingerprint.models.encoders import ENCODERS
from fingerprint.search import pose
from fingerprint.search.tiling import BASE_BYTES
from fingerprint.settings import Settings

KERNELS = 200 << 20  # of a support vector machine: its cache, as libsvm has it
LAYER = 64  # float32 channels of the widest layer of a network, at the side of its input
BATCH = 16  # images that a network sees together


@dataclass(frozen=True)
class Counts:
    """How many slices one shard asks about, and what it asks them with; and their side."""

    asked: int
    generated: int
    control: int
    px: int


def bytes_needed(counts: Counts, settings: Settings) -> dict[str, int]:
    """Return the largest memory of a worker beside its libraries, by method that is run.

    Parameters
    ----------
    counts : Counts
        Of the largest question: all slices that are asked, all that are the reference.
    settings : Settings
    """
    run = (name for name in settings.methods if not methods.not_run(name, settings))
    return {name: _NEED[name](counts, settings) for name in run}


def refuse_more(task: str, counts: Counts, settings: Settings) -> int:
    """Return the largest memory of a worker, libraries included; refuse a task that needs more.

    Raises
    ------
    ValueError
        Naming the method and what to do.
    """
    need = bytes_needed(counts, settings)
    if not need:
        return BASE_BYTES
    name = max(need, key=need.__getitem__)
    total = BASE_BYTES + need[name]
    if total > settings.memory_gib * 2**30:
        lower = "lower compare_px, " if name in ("similarity", "density", "vcmi") else ""
        raise ValueError(
            f"memory_gib: {name} of task {task} needs {total / 2**30:.2f} GiB, the limit is "
            f"{settings.memory_gib:g}; {lower}raise memory_gib, or leave it out of methods"
        )
    return total


def _similarity(c: Counts, s: Settings) -> int:
    images = 2 * BLOCK * 26 + similarity.TOGETHER * 60  # prepared; maps of one with many
    return images * _pixels(c, s) + 24 * len(similarity.MEASURES) * BLOCK**2


def _embedding(c: Counts, s: Settings) -> int:
    asked = [_network(text, c.asked, s) for text in s.networks]
    own = c.asked * s.mae_width * _row(s) + _through(s.mae_px, 0)
    return max([*asked, own]) + 2 * BLOCK * c.px**2 + 32 * c.asked * BLOCK


def _network(text: str, asked: int, s: Settings) -> int:
    encoder = ENCODERS[methods.network(text)[0]]
    features = asked * encoder.feature_dim * _row(s)
    return features + _through(encoder.input_px, encoder.parameters)


def _row(s: Settings) -> int:
    """Bytes for a number of a feature: every way to enhance, and one of them in float64, thrice."""
    return 4 * len(s.enhanced) + 24


def _through(px: int, parameters: int) -> int:
    return 8 * parameters + 3 * 4 * LAYER * BATCH * px**2  # the file and the network


def _texture(c: Counts, s: Settings) -> int:
    images = (c.asked + c.generated + 2 * s.shadow_images) * s.shadow_px**2
    vgg = any(methods.network(text)[0] == "vgg16" for text in s.networks)
    numbers = ENCODERS["vgg16"].feature_dim if vgg else 0
    rows = c.asked + c.generated + 2 * s.shadow_images
    weights = _through(ENCODERS["vgg16"].input_px, ENCODERS["vgg16"].parameters) if vgg else 0
    return images + KERNELS + 24 * rows * (54 + numbers) + weights


def _density(c: Counts, s: Settings) -> int:
    fitted = sum(min(n, Density.fitted) for n in (c.generated, c.control))
    held = c.asked + c.generated + c.control
    values = 3 * 8 * fitted + held + 3 * 8 * BLOCK  # components; a byte for a pixel; distances
    return values * _pixels(c, s) + 24 * c.asked * BLOCK


def _vcmi(c: Counts, s: Settings) -> int:
    images = 2 * BLOCK * 14 + vcmi.TOGETHER * 40  # two blocks prepared; maps of one with many
    return images * _pixels(c, s) + 4 * 8 * (c.asked + c.control) * BLOCK


def _calibrated(c: Counts, s: Settings) -> int:
    band, others = min(c.asked, methods.BAND), min(c.control, s.controls)
    most = max(c.generated, others)
    held = (band + c.generated + others) * (poses.MID**2 + 1024)
    stored = 24 * max(band, others) * most + 16 * poses.MID**2 * (max(band, others) + BLOCK)
    if not s.pose:
        return held + stored
    grid = len(pose.grid_of(s))
    met = 8 * min(most, poses.SCREENED)  # products, and their maximum
    return held + stored + grid * (2 * poses.QUERIES * PIXELS + met)


def _pixels(c: Counts, s: Settings) -> int:
    return min(s.compare_px, c.px) ** 2


_NEED: Mapping[str, Callable[[Counts, Settings], int]] = {
    "similarity": _similarity,
    "embedding": _embedding,
    "texture": _texture,
    "density": _density,
    "vcmi": _vcmi,
    "calibrated": _calibrated,
}
