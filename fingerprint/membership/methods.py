"""Every method by its name, made from the settings: what is run, and what is not, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fingerprint.ledger import digest_of
from fingerprint.membership import Membership
from fingerprint.membership.calibrated import Calibrated
from fingerprint.membership.density import Density
from fingerprint.membership.embedding import Embedding, Network, network_of
from fingerprint.membership.noise import ARMS, Noise
from fingerprint.membership.shadow import Shadow
from fingerprint.membership.similarity import Similarity
from fingerprint.membership.texture import Texture
from fingerprint.membership.vcmi import Vcmi
from fingerprint.models import encoders, mae
from fingerprint.models.recipe import SIDES, Recipe
from fingerprint.models.resuming import WEIGHTS
from fingerprint.settings import METHODS, Settings

# score each slice by itself, and need little of the images for it; features would be made anew
BANDED = ("similarity", "calibrated")
BAND = 512  # asked slices of those in one shard
MAE, SHADOW, SAME_KIND = "mae", "shadow", "same-kind"
# a step of a DCGAN of two images, as paper 003; the same optimiser
DCGAN: dict[str, Any] = {"generator": "dcgan", "batch": 2, "learning_rate": 2e-4, "ema": 0.0}
# few steps, and velocity learns in fewer
DDPM: dict[str, Any] = {
    "generator": "ddpm", "batch": 8, "learning_rate": 2e-3, "ema": 0.98, "predicts": "velocity",
}  # fmt: skip
PAPER_002 = (
    *("vgg16", "inception_v3", "resnet50", "resnet101", "mobilenet_v2"),
    *("mobilenet_v3_large", "efficientnet_b0"),
)


@dataclass(frozen=True)
class Method:
    """One way to score, as it is sent to a worker.

    Attributes
    ----------
    name : str
        One of `settings.METHODS`.
    settings : Settings
    px : int
        Side of the slices.
    folder : Path
        Where what is trained for this question lies.
    mae : str
        SHA-256 of the weights of the masked autoencoder; "" where there is none.
    part : int
        Which of the `parts_of` a method.
    """

    name: str
    settings: Settings
    px: int
    folder: Path
    mae: str = ""
    part: int = 0

    @property
    def depends(self) -> dict[str, Any]:
        """What decides the scores besides the images, for the key of a shard."""
        known = self.settings.matters_to(*MATTERS[self.name])
        return {"method": self.name, "part": self.part, "px": self.px, "mae": self.mae} | known

    def made(self) -> Membership:
        """Make the method."""
        return _MAKERS[self.name](self)


def parts_of(name: str, settings: Settings, has_mae: bool) -> range:
    """Return into how many parts a method is cut: noise arms, networks."""
    if name == "similarity":
        return range(len(ARMS) if settings.noise else 1)
    if name == "embedding":
        return range(len(settings.networks) + has_mae)
    return range(1)


def not_run(name: str, settings: Settings) -> str:
    """Say why a method has no arm; "" if it has."""
    if name not in settings.methods:
        return "not asked for: see methods in the settings"
    if name == "embedding" and not settings.networks and not settings.mae_steps:
        return "no weights were given (networks) and no autoencoder was asked for (mae_steps)"
    return ""


def network(text: str) -> tuple[str, Path, str | None]:
    """Read one of the setting ``networks``: name, file, digest.

    Raises
    ------
    ValueError
        It is not ``name=file`` or ``name=file=sha256``, or no such network.
    """
    name, *rest = text.split("=")
    if name not in encoders.ENCODERS or not 1 <= len(rest) <= 2:
        raise ValueError(
            f"networks: name=file or name=file=sha256, name one of {', '.join(encoders.ENCODERS)}; "
            f"got {text!r}"
        )
    return name, Path(rest[0]), rest[1] if len(rest) == 2 else None


def mae_recipe(settings: Settings, px: int) -> Recipe:
    """Return how the masked autoencoder of paper 002 is trained here."""
    return Recipe(
        generator="mae",
        px=min(settings.mae_px, px - px % 16),
        steps=settings.mae_steps,
        batch=settings.mae_batch,
        learning_rate=settings.mae_learning_rate,
        width=settings.mae_width,
        ema=0.0,
        seed=_seed(settings, MAE),
        half=settings.half,
    )


def shadow(settings: Settings, px: int, folder: Path) -> Shadow:
    """Return the shadow generator of paper 003."""
    sides = sorted(SIDES["dcgan"])
    side = max(s for s in sides if s <= max(min(settings.shadow_px, px), sides[0]))
    how = DCGAN | {"width": settings.shadow_width}
    return _shadow(settings, how, side, folder / SHADOW, SHADOW)


def same_kind(settings: Settings, px: int, folder: Path) -> Shadow | None:
    """Return the shadow of the kind of the generator in question; None if none is asked for."""
    if settings.same_kind == "none":
        return None
    how = DCGAN if settings.same_kind == "dcgan" else DDPM
    how = how | {"width": settings.same_kind_width}
    side = shadow(settings, px, folder).recipe.px
    return _shadow(settings, how, side, folder / SAME_KIND, SAME_KIND)


def _shadow(settings: Settings, how: Mapping[str, Any], px: int, folder: Path, name: str) -> Shadow:
    recipe = Recipe(
        px=px, steps=settings.shadow_steps, seed=_seed(settings, name), half=settings.half, **how
    )
    return Shadow(recipe, folder, settings.shadow_images)


def _seed(settings: Settings, name: str) -> int:
    return int(digest_of([settings.seed, name])[:8], 16)


# -- one maker for each name


def _similarity(m: Method) -> Similarity:
    noise = ARMS[m.part] if m.settings.noise else Noise()
    return Similarity(m.settings.compare_px, m.settings.top_images, (noise,))


def _embedding(m: Method) -> Embedding:
    given = m.settings.networks
    made: Network
    if m.part < len(given):
        name, path, digest = network(given[m.part])
        made = network_of(encoders.load(name, path, digest))
    else:
        name, made = MAE, network_of(mae.load(m.folder.parent / MAE / WEIGHTS, m.mae))
    return Embedding({name: made}, m.settings.enhanced, m.settings.top_images)


def _texture(m: Method) -> Texture:
    networks = {
        name: partial(_encoded, name, path, digest)
        for name, path, digest in map(network, m.settings.networks)
        if name == "vgg16"
    }
    return Texture(
        shadow(m.settings, m.px, m.folder), same_kind(m.settings, m.px, m.folder), networks
    )


def _encoded(name: str, path: Path, digest: str | None, images: Any) -> Any:
    return encoders.encode(encoders.load(name, path, digest), images)


def _density(m: Method) -> Density:
    return Density(px=m.settings.compare_px)


def _vcmi(m: Method) -> Vcmi:
    return Vcmi(px=m.settings.compare_px, top=m.settings.top_images)


def _calibrated(m: Method) -> Calibrated:
    return Calibrated(m.settings)


_MAKERS: dict[str, Callable[[Method], Membership]] = dict(
    zip(METHODS, (_similarity, _embedding, _texture, _density, _vcmi, _calibrated), strict=True)
)
_POSE = (
    *("pose", "mirror", "angle_deg", "angle_step_deg", "scale", "scale_step"),
    *("shift_px", "shift_step_px"),
)
MATTERS: dict[str, tuple[str, ...]] = {
    "similarity": ("compare_px", "top_images", "noise", "seed"),
    "embedding": ("top_images", "networks", "enhanced"),
    "texture": (
        *("networks", "shadow_px", "shadow_steps", "shadow_width", "shadow_images", "seed"),
        *("same_kind", "same_kind_width"),
    ),
    "density": ("compare_px", "seed"),
    "vcmi": ("compare_px", "top_images", "seed"),
    "calibrated": (*_POSE, "controls", "seed"),
}
