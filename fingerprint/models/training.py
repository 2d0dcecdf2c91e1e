"""Training of a network, which can be cut off at any moment and run again with the same end.

    checkpoint.safetensors     networks, mean weights, moments of Adam, losses: while it runs
    step-000500.safetensors    weights after a step of `Recipe.snapshots`
    weights.safetensors        weights at the end
    trained.json               what was trained, and the digests of the files: it is finished

All are for their owner alone: a network may hold patients, which is what an audit asks.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.models import dcgan, ddpm, mae
from fingerprint.models.checkpoint import LIBRARY
from fingerprint.models.learner import extra, placed, reproducible
from fingerprint.models.recipe import Recipe, chance
from fingerprint.models.resuming import (
    WEIGHTS,
    About,
    State,
    Trained,
    finish,
    finished,
    keep,
    resumed,
    save,
    snapshot,
)

__all__ = ["Trained", "snapshot", "train"]

CHECKPOINT_S = 120.0  # so much work is lost at most
LOSSES = 50  # means of as many stretches are kept, or the loss of every step of a short training
LEARNERS = {"ddpm": ddpm.learner, "dcgan": dcgan.learner, "mae": mae.learner}
Images = NDArray[np.uint8]
Watch = Callable[[int, int, float], None]  # steps done, steps in all, loss of the last


def train(
    images: Images,
    recipe: Recipe,
    folder: Path,
    watch: Watch = lambda step, steps, loss: None,
    *,
    device: str | None = None,
) -> Trained:
    """Train a network, from where an earlier call in the same folder was cut off.

    Parameters
    ----------
    images : uint8, shape (n, px, px)
        Grey levels. Their order counts; each is seen equally often, give or take once.
    recipe : Recipe
    folder : Path
        Of this training alone.
    watch : callable, optional
        Told the number of steps done, of all steps, and the loss, after each step.
    device : str, optional
        Where to compute; by default the GPU if there is one.

    Returns
    -------
    Trained
        With the same arguments the same `weights`, cut off or not, on the same kind of machine
        with the same torch.

    Raises
    ------
    ValueError
        Images that do not fit the recipe, a folder with another training (the message says what
        differs), a loss that is not finite.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (recipe.px,) * 2 or not len(images):
        raise ValueError(
            f"train: images must be uint8 (n, {recipe.px}, {recipe.px}), n >= 1; "
            f"got {images.dtype} {images.shape}"
        )
    place = placed(device)
    about = {
        "recipe": asdict(recipe) | {"snapshots": list(recipe.snapshots)},
        "images": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        "n_images": len(images),
        "torch": str(torch.__version__),
        "device": place.type,
    }
    if (done := finished(folder, about)) is not None:
        return done
    extra(LIBRARY)  # before the work: without it nothing of it can be kept
    with reproducible(place):
        learner = LEARNERS[recipe.generator](recipe, place)
        state = resumed(learner, recipe.ema, folder, about)
        return _train(images, recipe, folder, watch, state, about)


def _train(
    images: Images, recipe: Recipe, folder: Path, watch: Watch, state: State, about: About
) -> Trained:
    started = saved = time.monotonic()
    for k in range(len(state.losses), recipe.steps):
        state.losses.append(_step(state, images, recipe, k))
        step = k + 1
        if step in recipe.snapshots:
            state.snapshots[step] = keep(snapshot(folder, step), state, about)
        if step in recipe.snapshots or time.monotonic() - saved >= CHECKPOINT_S:
            save(folder, state, about, time.monotonic() - started)
            saved = time.monotonic()
        watch(step, recipe.steps, state.losses[-1])
    trained = Trained(
        weights=keep(folder / WEIGHTS, state, about),
        snapshots=dict(state.snapshots),
        loss=_means(state.losses),
        seconds=round(state.seconds + time.monotonic() - started, 1),
        parameters=sum(p.numel() for p in state.learner.kept.parameters()),
    )
    finish(folder, trained, about)
    return trained


def _step(state: State, images: Images, recipe: Recipe, k: int) -> float:
    device = next(state.learner.kept.parameters()).device
    chosen = torch.from_numpy(images[_order(len(images), recipe, k)])
    loss = float(state.learner.step(chosen[:, None].to(device) / 127.5 - 1, k))
    if not np.isfinite(loss):
        raise ValueError(
            f"train: the loss must be finite, got {loss} at step {k + 1}: a smaller learning_rate "
            f"than {recipe.learning_rate} may help"
        )
    if state.average is not None:
        # at first the mean is over few steps: the random first weights are soon forgotten
        _follow(state.average, state, min(recipe.ema, (1 + k) / (10 + k)))
    return loss


def _order(n: int, recipe: Recipe, k: int) -> NDArray[np.int64]:
    """Return which images step k sees: the next `batch` of one shuffled round after the other."""
    at = np.arange(k * recipe.batch, (k + 1) * recipe.batch)
    rounds = {e: chance(recipe.seed, "order", int(e)).permutation(n) for e in np.unique(at // n)}
    return np.array([rounds[i // n][i % n] for i in at])


@torch.no_grad()
def _follow(average: dict[str, torch.Tensor], state: State, decay: float) -> None:
    for name, value in state.learner.kept.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)  # how many batches a norm has seen


def _means(losses: list[float]) -> tuple[tuple[int, float], ...]:
    ends = sorted({round(i * len(losses) / LOSSES) for i in range(LOSSES + 1)})
    return tuple((b, float(np.mean(losses[a:b]))) for a, b in pairwise(ends))
