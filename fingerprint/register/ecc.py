"""One level of an affine registration: Gauss-Newton on the correlation, pair by pair.

ECC (Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113, sections 3 and 4) with the two
images exchanged (Baker and Matthews 2004), so that derivatives are those of the fixed image f. For
a small map delta of the fixed grid, f(p + delta) is f + G d. The d whose image correlates best with
w, the moving image as it is seen now, comes from the regression of w on f, G and a constant over
the overlap,

    w ~ alpha f + G beta + gamma        d = beta / alpha

which is the closed form of the paper (equations 19 and 20) written as one linear system; alpha and
gamma take up a change of contrast and brightness. The place becomes ``place o (1 + delta)^-1``.

Where images differ in more than a map, this is not quite the way up. On levels that hold
derivatives of the moving image, the regression is the paper's own: f on w, its derivatives and a
constant. It costs twice as much, and takes more steps where a map is all there is.

The sums of f and of ones are taken over the overlap anew at every step, those of G with G once for
each level: this changes how fast the top is reached, not where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fingerprint.register.pyramid import ROWS, Level, look, repeated, rows_of

FAR = 1 / 16  # of a side: a longer step is no small map, and is shortened
SQUEEZED = 4.0  # times the area, or a quarter: beyond, a map has run away
HIGHER = 1e-4  # in r, on one level
LOWER = 0.25  # what a step that lowers r is shortened to


@dataclass(frozen=True)
class Climb:
    """How to go up."""

    basis: Tensor  # (k, 6) float64: the small maps that are allowed, row by row [S | s]
    rigid: bool  # areas are kept exactly, not to first order
    steps: int
    tolerance_px: float
    least_overlap: float


def climb(level: Level, start: Tensor, how: Climb) -> tuple[Tensor, Tensor, Tensor]:
    """Follow r to its top; every pair stops by itself, so none depends on the others.

    Parameters
    ----------
    level : Level
    start : Tensor, shape (b, 2, 3), float64
        Places.

    Returns
    -------
    place : Tensor, shape (b, 2, 3), float64
        The best that were met, the starts among them.
    r : Tensor, shape (b,), float64
        On the level's images; -2 where it does not exist or the overlap is too small.
    settled : Tensor, shape (b,), bool
        No step of `tolerance_px` or more leads further up.
    """
    place, curved, here = start, None, look(level, start)
    if level.moving.shape[1] == 1:
        curved = _products(level.rows * here[1], level.rows)
    r, step, length = _towards(level, curved, place, here, how)
    share = torch.ones_like(r)
    for _ in range(how.steps):
        going = share * length >= how.tolerance_px  # not where there is no step: NaN
        if not bool(going.any()):
            break
        tried = _moved(place, share[:, None, None] * step, how.rigid)
        tried = torch.where(going[:, None, None], tried, place)
        new = _towards(level, curved, tried, look(level, tried), how)
        up = going & (new[0] > r) & _plausible(tried, start)
        place = torch.where(up[:, None, None], tried, place)
        r, length = torch.where(up, new[0], r), torch.where(up, new[2], length)
        step = torch.where(up[:, None, None], new[1], step)
        share = torch.where(up, torch.ones_like(share), torch.where(going, LOWER * share, share))
    return place, r, share * length < how.tolerance_px


def highest(level: Level, starts: Tensor, how: Climb) -> Tensor:
    """Climb from several places of each pair, (b, s, 2, 3); return the highest, (b, 2, 3).

    An earlier one is taken unless a later one is higher by `HIGHER`.
    """
    times = starts.shape[1]
    ends, r, _ = climb(repeated(level, times), starts.flatten(0, 1), how)
    ends, r = ends.unflatten(0, (-1, times)), r.unflatten(0, (-1, times))
    best, best_r = ends[:, 0], r[:, 0]
    for i in range(1, times):
        better = r[:, i] > best_r + HIGHER
        best = torch.where(better[:, None, None], ends[:, i], best)
        best_r = torch.where(better, r[:, i], best_r)
    return best


def _towards(
    level: Level, curved: Tensor | None, place: Tensor, here: tuple[Tensor, Tensor], how: Climb
) -> tuple[Tensor, Tensor, Tensor]:
    """Return r here (b,), the step that leads up (b, 2, 3), and its length (b,) or NaN."""
    seen, mask = here
    fixed = mask * level.rows[:, :1]
    if curved is None:
        left, right, squares = _forward(level, seen, fixed, mask, place)
    else:
        left, right, squares = _inverse(level, seen, fixed, mask, curved)
    r = _pearson(left, right, squares, how.least_overlap * fixed.shape[2])
    allowed = _allowed(how.basis)
    normal = allowed @ left @ allowed.T
    fit = torch.linalg.solve_ex(normal, allowed @ right[:, :, None])[0][:, :, 0]
    step = ((fit[:, 1:-1] / fit[:, :1]) @ how.basis).unflatten(1, (2, 3))
    if curved is None:
        step = -step
    length = _length(step)
    step = step * (FAR * level.side / length).clamp_max(1)[:, None, None]
    length = torch.where(fit[:, 0] > 0, length.clamp_max(FAR * level.side), torch.nan)
    # distances were counted in half sides
    step[:, :, :2] /= level.side / 2
    return r, step, length


def _inverse(
    level: Level, seen: Tensor, fixed: Tensor, mask: Tensor, curved: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums for w ~ alpha f + G beta + gamma: (b, ROWS, ROWS), (b, ROWS), of w w (b,)."""
    sums = _products(torch.cat([seen, fixed, mask], dim=1), level.rows)
    of_w, of_f, of_one = sums.unbind(1)
    left = curved.clone()
    left[:, 0], left[:, :, 0], left[:, -1], left[:, :, -1] = of_f, of_f, of_one, of_one
    return left, of_w, _products(seen, seen)[:, 0, 0]


def _forward(
    level: Level, seen: Tensor, fixed: Tensor, mask: Tensor, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums for f ~ alpha w + G beta + gamma, with G of w; the last is of f f."""
    # by the fixed y and x
    slopes = place[:, :, :2].transpose(1, 2).float() @ seen[:, 1:]
    parts = torch.cat([seen[:, :1], slopes, mask], dim=1).unflatten(2, (len(level.away), -1))
    w, by_y, by_x, ones = parts.unbind(1)
    own = rows_of(w, by_y, by_x, ones, level.away / (level.side / 2))
    rows = torch.cat([own, fixed], dim=1)
    sums = _products(rows, rows)
    return sums[:, :-1, :-1], sums[:, :-1, -1], sums[:, -1, -1]


def _pearson(left: Tensor, right: Tensor, squares: Tensor, least: float) -> Tensor:
    """R of the image of the first row and the other one, -2 where there is none."""
    n, a, b = left[:, -1, -1], left[:, 0, -1], right[:, -1]
    product = (left[:, 0, 0] - a * a / n) * (squares - b * b / n)
    return torch.where(
        (n >= least) & (product > 0), (right[:, 0] - a * b / n) / product.sqrt(), -2.0
    )


def _products(one: Tensor, other: Tensor) -> Tensor:
    """Sum products over pixels: (b, i, N), (b, j, N) -> float64 (b, i, j)."""
    return torch.bmm(one, other.transpose(1, 2)).double()


def _allowed(basis: Tensor) -> Tensor:
    """(k, 6) -> (k + 2, ROWS): f itself, the small maps, ones."""
    out = basis.new_zeros((len(basis) + 2, ROWS))
    out[0, 0], out[1:-1, 1:-1], out[-1, -1] = 1, basis, 1
    return out


def _length(step: Tensor) -> Tensor:
    """Mean movement of the four corners, px; distances in half sides."""
    signs = step.new_tensor([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]])
    return (step @ signs).norm(dim=1).mean(1)


def _moved(place: Tensor, step: Tensor, rigid: bool) -> Tensor:
    """Return place o (1 + step)^-1."""
    a, b, c, d = 1 + step[:, 0, 0], step[:, 0, 1], step[:, 1, 0], 1 + step[:, 1, 1]
    area = a * d - b * c
    over = area.sqrt() if rigid else area
    back = torch.stack([d, -b, -c, a], dim=1).unflatten(1, (2, 2)) / over[:, None, None]
    turned = place[:, :, :2] @ back
    return torch.cat([turned, place[:, :, 2:] - turned @ step[:, :, 2:]], dim=2)


def _plausible(place: Tensor, start: Tensor) -> Tensor:
    """Whether areas are about as at the start, and all is finite."""
    area = _area(place) / _area(start)
    return (area > 1 / SQUEEZED) & (area < SQUEEZED) & place.isfinite().flatten(1).all(1)


def _area(place: Tensor) -> Tensor:
    return place[:, 0, 0] * place[:, 1, 1] - place[:, 0, 1] * place[:, 1, 0]
