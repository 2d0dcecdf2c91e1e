"""World Z: best z of queries and patients as numbers, without images (METHOD.md, section 3.0).

A patient is a point u ~ N(0, I_6); a control slice lies beside its own patient, a generated one
anywhere nearer to the middle; alike points have a high z. A generated image is smoother, so it
resembles everybody a little more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIMENSIONS = 6


@dataclass(frozen=True)
class WorldZ:
    """z of generated and control queries with the patients of T, then with those of H."""

    generated: np.ndarray  # (g, t + h)
    control: np.ndarray  # (c, t + h); NaN: its own patient
    owner: np.ndarray  # (c,) index of the patient of H of each control slice
    trained: np.ndarray  # (t + h,)
    copied: np.ndarray  # (g,) patient of T that each image copies; -1: none


def world_z(
    rng: np.random.Generator,
    *,
    trained: int,
    held: int,
    generated: int,
    slices: int = 1,
    copies: int = 0,
    copy_z: float = 2.5,
    copy_sd: float = 0.2,
    own_level: float = 0.05,
    smoother: float = 0.15,
    collapsed: int = 0,
    distinct: bool = False,
) -> WorldZ:
    """Draw a world; the first `copies` images copy a patient of T, the last `collapsed` are one."""
    u = rng.standard_normal((trained + held, DIMENSIONS))
    owner = np.repeat(np.arange(held), slices)
    controls = u[trained + owner] + 0.3 * rng.standard_normal((held * slices, DIMENSIONS))
    images = 0.8 * rng.standard_normal((generated, DIMENSIONS))
    if collapsed:
        images[-collapsed:] = images[-1]
    both = np.concatenate([images, controls])
    level = own_level * rng.standard_normal(len(both))
    level[:generated] += smoother if own_level else 0.0
    z = 1.2 - 0.04 * ((both[:, None] - u[None]) ** 2).sum(2) + level[:, None]
    z += 0.12 * rng.standard_normal(z.shape)
    if collapsed:
        z[generated - collapsed : generated] = z[generated - 1]
    copied = np.full(generated, -1)
    who = rng.permutation(trained)[:copies] if distinct else rng.integers(0, trained, copies)
    copied[:copies] = who
    z[np.arange(copies), who] = copy_z + copy_sd * rng.standard_normal(copies)
    control = z[generated:]
    control[np.arange(len(control)), trained + owner] = np.nan
    return WorldZ(z[:generated], control, owner, np.arange(trained + held) < trained, copied)
