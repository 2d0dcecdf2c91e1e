"""What decides the weights of a network, besides the images; and all chance in its training.

Nothing is drawn from a generator that goes on from step to step: each draw has one of its own, made
from the seed, what it is for and a number. So a training that was cut off needs no state of chance
to go on as if it had not been, and image i of a pool is the same however the pool is cut.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

Kind = Literal["ddpm", "dcgan", "mae"]
Predicts = Literal["noise", "velocity"]
Use = Literal["weights", "order", "step", "pool"]
KINDS: tuple[Kind, ...] = get_args(Kind)
USES: tuple[Use, ...] = get_args(Use)
T = 1000  # noise levels of a diffusion model
SIDES: dict[Kind, Collection[int]] = {
    "ddpm": range(32, 257, 8),
    "dcgan": (32, 64, 128, 256),
    "mae": range(32, 513, 16),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, and sampled; ``dataclasses.asdict`` of it goes into its files.

    Attributes
    ----------
    generator : ``ddpm`` (METHOD.md, section 1.1), ``dcgan`` (section 1.4), or what is trained in
        the same way and makes no images, ``mae`` (section 1.3)
    px : side of the images; a multiple of 8 from 32 to 256, for a dcgan 32, 64, 128 or 256, for a
        mae a multiple of 16 from 32 to 512
    steps : of the optimiser
    batch : images a step
    learning_rate : of Adam; of a mae that of a step of 256 images, which becomes less in proportion
        where `batch` is smaller (1.5e-4 in its paper)
    width : channels at full resolution (ddpm), filters at the lowest (dcgan; 512 is the paper's);
        a multiple of 8. Of the tokens of a mae: 32 or a multiple of 64 (`mae.sizes`)
    ema : decay of the mean of the weights that is kept in place of the last ones; 0: the last ones
    seed : of first weights, order, noise, masks
    snapshots : steps after which the weights are kept too, rising
    sample_steps : of the sampler of a ddpm
    half : bfloat16 where that is safe, on a GPU only
    predicts : what the network of a ddpm says: the noise, as the method, or the velocity, which
        learns in fewer steps (`ddpm`)
    """

    generator: Kind
    px: int
    steps: int
    batch: int
    learning_rate: float
    width: int
    ema: float
    seed: int
    snapshots: tuple[int, ...] = ()
    sample_steps: int = 50
    half: bool = False
    predicts: Predicts = "noise"

    def __post_init__(self) -> None:
        """Raise ValueError with the field, its rule and its value."""
        sides = SIDES.get(self.generator, ())
        kept = (0, *self.snapshots)
        whole = self.width % 8 == 0
        width = "a multiple of 8, >= 8"
        if self.generator == "mae":  # what the heads of its attention share
            whole, width = self.width % 64 == 0 or self.width == 32, "32 or a multiple of 64"
        rules = {
            "generator": (self.generator in KINDS, f"one of {', '.join(KINDS)}"),
            "px": (
                self.px in sides,
                "32, 64, 128, 256, for a ddpm any multiple of 8 between, for a mae a multiple of "
                "16 from 32 to 512",
            ),
            "steps": (self.steps >= 1, ">= 1"),
            "batch": (self.batch >= 1, ">= 1"),
            "learning_rate": (0 < self.learning_rate < 1, "in (0, 1)"),
            "width": (self.width >= 8 and whole, width),
            "ema": (0 <= self.ema < 1, "in [0, 1)"),
            "seed": (self.seed >= 0, ">= 0"),
            "snapshots": (
                all(a < b for a, b in pairwise(kept)) and kept[-1] <= self.steps,
                f"rising steps from 1 to {self.steps}",
            ),
            "predicts": (self.predicts in get_args(Predicts), "noise or velocity"),
            "sample_steps": (1 <= self.sample_steps <= T, f"from 1 to {T}"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"Recipe: {name} must be {rule}; got {getattr(self, name)!r}")


def recipe_of(fields: Mapping[str, Any]) -> Recipe:
    """Make a recipe of what `dataclasses.asdict` and JSON made of one.

    Raises
    ------
    ValueError
        Fields that are missing, not known, or break a rule.
    """
    try:
        return Recipe(**{**fields, "snapshots": tuple(fields["snapshots"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"recipe_of: fields must be those of a Recipe; got {fields}") from error


def chance(seed: int, use: Use, number: int) -> np.random.Generator:
    """Return the generator of one draw: of step `number`, epoch `number`, image `number`.

    NumPy's, for all bits of the three count: torch's own takes 32 bits of a seed, and among 10,000
    images of a pool two would be the same with probability 0.01.
    """
    return np.random.default_rng([seed, USES.index(use), number])
