"""Where a training is, on disk: what lets it be cut off at any moment and end the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fingerprint.ledger import Damaged, digest_of, digest_of_file, replacing
from fingerprint.models import checkpoint
from fingerprint.models.checkpoint import Tensors
from fingerprint.models.learner import Learner

WEIGHTS, CHECKPOINT, TRAINED = "weights.safetensors", "checkpoint.safetensors", "trained.json"
FORMAT = 1  # of the last
About = Mapping[str, Any]  # recipe, images, n_images, torch, device: goes into every file
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training left in its folder.

    weights : sha256 of `weights.safetensors`
    snapshots : step -> sha256 of its file; see `snapshot`
    loss : last step of a stretch and the mean loss over it
    seconds : of training, without what was lost
    parameters : of the network that makes images
    """

    weights: str
    snapshots: Mapping[int, str]
    loss: tuple[tuple[int, float], ...]
    seconds: float
    parameters: int


@dataclass(frozen=True)
class State:
    """Where a training is; what is in it is changed in place.

    average : running mean of the weights that are kept, where the recipe asks for one
    losses : of each step that was done
    snapshots : as in `Trained`
    seconds : before this process
    """

    learner: Learner
    average: dict[str, Tensor] | None
    losses: list[float]
    snapshots: dict[int, str]
    seconds: float

    @property
    def weights(self) -> dict[str, Tensor]:
        """What images are made with."""
        return self.learner.kept.state_dict() if self.average is None else self.average


def snapshot(folder: Path, step: int) -> Path:
    """Where the weights after a step of `Recipe.snapshots` are."""
    return folder / f"step-{step:06d}.safetensors"


def keep(path: Path, state: State, about: About) -> str:
    """Write the weights as they are now; return the sha256 of the file."""
    return checkpoint.write(path, state.weights, {**about, "step": len(state.losses)})


def save(folder: Path, state: State, about: About, seconds: float) -> None:
    """Write all that the next step depends on, after `seconds` more."""
    tensors = {"losses": torch.tensor(state.losses, dtype=torch.float64)}
    tensors |= {f"average/{name}": value for name, value in (state.average or {}).items()}
    for name, network in state.learner.networks.items():
        tensors |= {f"network/{name}/{key}": v for key, v in network.state_dict().items()}
        moments = state.learner.optimisers[name].state_dict()["state"]
        tensors |= {f"adam/{name}/{i}/{k}": v for i, of in moments.items() for k, v in of.items()}
    snapshots = {str(step): sha256 for step, sha256 in state.snapshots.items()}
    more = {"snapshots": snapshots, "seconds": round(state.seconds + seconds, 1)}
    checkpoint.write(folder / CHECKPOINT, tensors, {**about, **more})


def resumed(learner: Learner, ema: float, folder: Path, about: About) -> State:
    """Return where a training in this folder was cut off, or its beginning.

    Raises
    ------
    ValueError
        The folder holds the checkpoint of another training.
    """
    average = {k: v.clone() for k, v in learner.kept.state_dict().items()} if ema else None
    if (found := _found(folder, about)) is None:
        return State(learner, average, [], {}, 0.0)
    tensors, head = found
    for name, network in learner.networks.items():
        network.load_state_dict(_under(tensors, f"network/{name}/"))
        _fill(learner.optimisers[name], _under(tensors, f"adam/{name}/"))
    for name, value in (average or {}).items():
        value.copy_(tensors[f"average/{name}"])
    snapshots = {int(step): sha256 for step, sha256 in head["snapshots"].items()}
    return State(learner, average, tensors["losses"].tolist(), snapshots, head["seconds"])


def finish(folder: Path, trained: Trained, about: About) -> None:
    """Write what was trained; only then the checkpoint goes."""
    text = json.dumps({"format": FORMAT, "about": about} | asdict(trained))
    left = json.loads(text)  # steps are now text, as they will be when the digest is looked at
    with replacing(folder / TRAINED) as out:
        out.write(json.dumps(left | {"sha256": digest_of(left)}, indent=1).encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)


def finished(folder: Path, about: About) -> Trained | None:
    """Return what an earlier call left, if it finished and its files are whole.

    Raises
    ------
    ValueError
        The folder holds another training.
    """
    path = folder / TRAINED
    if not path.is_file():
        return None
    try:
        left = json.loads(path.read_bytes())
        sound = left.pop("sha256") == digest_of(left)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        _again(path)
        return None
    if (version := left.pop("format")) > FORMAT:
        raise ValueError(
            f"train: {path.name} must have format {FORMAT} or less, got {version}: install a newer "
            "version of fingerprint"
        )
    _same(left.pop("about"), about, path)
    snapshots = {int(step): sha256 for step, sha256 in left.pop("snapshots").items()}
    loss = tuple((step, mean) for step, mean in left.pop("loss"))
    trained = Trained(snapshots=snapshots, loss=loss, **left)
    if not _are({folder / WEIGHTS: trained.weights} | _files(folder, snapshots)):
        return None
    (folder / CHECKPOINT).unlink(missing_ok=True)  # killed in `finish`
    return trained


def _found(folder: Path, about: About) -> tuple[Tensors, dict[str, Any]] | None:
    """Return the checkpoint of this training, if there is one that can be used."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        tensors, head = checkpoint.read(path)
    except Damaged:
        _again(path)
        return None
    _same(head, about, path)
    if not _are(_files(folder, head["snapshots"])):
        return None
    for key in ("torch", "device"):
        if head[key] != about[key]:
            logger.warning(
                "the training began with %s %s and goes on with %s: its weights will not be those "
                "of one that was never cut off", key, head[key], about[key],
            )  # fmt: skip
    return tensors, head


def _same(head: About, about: About, path: Path) -> None:
    """Raise unless a file is of this recipe and these images."""
    old, new = head["recipe"], about["recipe"]
    differ = [
        f"{key} {old.get(key)} there and {new.get(key)} here"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if head["images"] != about["images"]:
        differ.append(f"other images ({head['n_images']} there and {about['n_images']} here)")
    if differ:
        raise ValueError(
            f"train: {path.name} must be of the same training, got {', '.join(differ)}: "
            "name another folder"
        )


def _files(folder: Path, snapshots: Mapping[Any, str]) -> dict[Path, str]:
    return {snapshot(folder, int(step)): sha256 for step, sha256 in snapshots.items()}


def _are(files: Mapping[Path, str]) -> bool:
    """Whether files are there with their digests; the first that is not is named."""
    for file, sha256 in files.items():
        if not file.is_file() or digest_of_file(file) != sha256:
            _again(file)
            return False
    return True


def _again(path: Path) -> None:
    logger.warning("%s is damaged or gone: the training starts again", path.name)


def _under(tensors: Tensors, start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _fill(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, field = key.split("/")
        state.setdefault(int(i), {})[field] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
