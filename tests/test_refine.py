"""One query brought onto many slices: planted poses come back, and no bit depends on the batch."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fingerprint import phantom, warp
from fingerprint.corpus.window import fit, to_uint8
from fingerprint.search import align as aligning
from fingerprint.search import refine
from fingerprint.search.align import Limits, align
from fingerprint.search.refine import LATTICE, Scored
from fingerprint.settings import IMAGES

LIMITS = Limits(20.0, 0.15, 56.0)
SLICES = 8
CORNERS = np.array([[0, 0, 1], [0, 511, 1], [511, 0, 1], [511, 511, 1]], float).T


@cache
def slices_512() -> np.ndarray:
    """One slice of each of some phantom patients."""
    hu = [phantom.one_slice(i, 3, seed=5, n_slices=8, size_px=512) for i in range(SLICES)]
    return np.stack([to_uint8(one, (-1000.0, 1000.0)) for one in hu])


def mids(images: np.ndarray) -> np.ndarray:
    return fit(images, 128, 0)[0]


def moved(image: np.ndarray, pose: np.ndarray, seed: int = 1) -> np.ndarray:
    """A copy that `pose` brings back onto its slice: bent, of other grey levels, moved."""
    bent = phantom.plant(phantom.plant(image, "elastic", 4.0, seed=seed), "gamma", 1.2, seed=seed)
    away = warp.apply(bent[None].astype(float), warp.inverse(pose))[0]
    # `apply` mirrors first: the inverse of a mirrored pose turns the other way and mirrors too
    return np.clip(np.rint(away), 0, 255).astype(np.uint8)


def drawn(rng: np.random.Generator, mirrored: int = 0) -> np.ndarray:
    way, far = rng.uniform(0, 2 * np.pi), 40 * math.sqrt(rng.uniform())
    shift = far * math.sin(way), far * math.cos(way)
    return np.array([rng.uniform(-15, 15), rng.uniform(0.9, 1.1), *shift, mirrored])


def off_by_half_a_step(pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    half = rng.choice([-1.0, 1.0], 4) * [2.5, 0.04, 8, 8]
    out = pose + np.array([*half, 0.0])
    return out


def corners_apart(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance in px of 512 between where two poses put the corners of the image."""
    away = (warp.matrix(found) - warp.matrix(truth)) @ CORNERS
    return np.hypot(away[..., 0, :], away[..., 1, :]).mean(-1)


def refined(
    query: np.ndarray, against: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coarse, then fine, of every slice."""
    asked = refine.coarse_images(query[None])
    poses, _ = refine.coarse(asked, refine.coarse_images(against), starts, LIMITS)
    return refine.fine(
        refine.scored_images(query[None]), refine.scored_images(against), poses, LIMITS
    )


# -- planted truth


@pytest.mark.parametrize("mirrored", [0, 1])
def test_a_moved_copy_is_brought_back_and_its_source_is_first(mirrored: int) -> None:
    rng = np.random.default_rng(3 + mirrored)
    against = mids(slices_512())
    for source in range(4):
        truth = drawn(rng, mirrored)
        query = mids(moved(slices_512()[source], truth, seed=source)[None])[0]
        start = off_by_half_a_step(truth, rng)
        poses, r = refined(query, against, np.repeat(start[None], SLICES, 0))
        assert corners_apart(poses[source], truth) < 6
        assert corners_apart(start, truth) > 10
        for image in IMAGES:
            assert r[IMAGES.index(image)].argmax() == source
        others = np.delete(r[IMAGES.index("highpass")], source)
        assert r[IMAGES.index("highpass"), source] > others.max() + 0.15
        assert poses[source, 4] == mirrored


def test_a_shift_is_found_to_a_fraction_of_a_pixel() -> None:
    """Smooth blobs whose shift is known: nothing to be found but that."""
    y, x = np.indices((128, 128)) - 63.5

    def blob(dy: float, dx: float) -> np.ndarray:
        one = np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * 14**2))
        two = np.exp(-((y - dy - 20) ** 2 + (x - dx + 30) ** 2) / (2 * 9**2))
        return np.rint(100 * one + 80 * two).astype(np.int8)

    start = np.array([warp.IDENTITY])
    poses, r = align(blob(2.25, -3.5), blob(0, 0)[None], start, steps=10, limits=LIMITS)
    assert poses[0, 2:4] == pytest.approx([-4 * 2.25, 4 * 3.5], abs=0.4)  # px of 512
    assert poses[0, :2] == pytest.approx([0, 1], abs=0.3)
    assert r[0] > 0.999


def test_an_identical_image_keeps_its_place_and_has_r_of_exactly_one() -> None:
    against = mids(slices_512())
    poses, r = refined(against[2], against, np.tile(warp.IDENTITY, (SLICES, 1)))
    assert poses[2].tolist() == list(warp.IDENTITY)
    assert r[:, 2].tolist() == [1.0, 1.0, 1.0]
    assert (np.delete(r, 2, 1) < 0.95).all()


def test_an_identical_image_is_seen_as_it_is_stored_wherever_the_search_began() -> None:
    images = refine.scored_images(mids(slices_512()[:4]))
    start = np.array([[6.0, 1.04, 8.0, -8.0, 0.0]] * 4)
    poses, r = refine.fine(images[1:2], images, start, LIMITS)
    assert poses[1].tolist() == list(warp.IDENTITY)
    assert (r[:, 1] == 1).all()
    assert (r[IMAGES.index("highpass"), [0, 2, 3]] < 1).all()


def test_it_comes_back_from_a_whole_step_of_the_grid_too() -> None:
    rng = np.random.default_rng(8)
    against = mids(slices_512())
    near = 0
    for source in range(SLICES):
        truth = drawn(rng)
        query = mids(moved(slices_512()[source], truth, seed=source)[None])[0]
        start = truth + np.array([*(rng.choice([-1.0, 1.0], 4) * [5, 0.06, 12, 12]), 0.0])
        poses, _ = refined(query, against[source : source + 1], start[None])
        near += corners_apart(poses[0], truth) < 6
    assert near >= SLICES - 1


def test_strangers_stay_low() -> None:
    against = mids(slices_512())
    starts = np.tile(warp.IDENTITY, (SLICES, 1))
    for i in range(SLICES):
        _, r = refined(against[i], against, starts)
        assert np.delete(r[IMAGES.index("highpass")], i).max() < 0.75


# -- when there is nothing to be found


def test_what_does_not_converge_keeps_the_best_that_it_met() -> None:
    rng = np.random.default_rng(2)
    query = rng.integers(-60, 60, (64, 64)).astype(np.int8)
    noise = rng.integers(-60, 60, (20, 64, 64)).astype(np.int8)
    starts = np.array([drawn(rng) for _ in noise])
    _, at_start = align(query, noise, starts, steps=0, limits=LIMITS)
    poses, r = align(query, noise, starts, steps=8, limits=LIMITS)
    assert (r >= at_start).all()
    unmoved = r == at_start
    assert np.array_equal(poses[unmoved], starts[unmoved])  # to the bit: nothing was recomputed
    assert (np.abs(poses[:, 0]) <= 20).all()
    assert (np.abs(poses[:, 1] - 1) <= 0.15).all()
    assert (np.abs(poses[:, 2:4]) <= 56).all()


def test_a_step_beyond_the_limits_is_not_taken() -> None:
    truth = np.array([9.0, 1.0, 0, 0, 0])
    query = refine.coarse_images(mids(moved(slices_512()[0], truth)[None])).wide[0]
    against = refine.coarse_images(mids(slices_512()[:1])).wide
    start = np.array([[4.0, 1.0, 0, 0, 0]])
    free, _ = align(query, against, start, steps=6, limits=LIMITS)
    held, _ = align(query, against, start, steps=6, limits=Limits(5.0, 0.15, 56.0))
    assert free[0, 0] == pytest.approx(9, abs=0.5)
    assert held[0, 0] <= 5


def test_a_constant_image_has_no_r() -> None:
    against = mids(slices_512())[:3].copy()
    against[1] = 80
    starts = np.tile(warp.IDENTITY, (3, 1))
    poses, r = refined(against[0], against, starts)
    assert np.isnan(r[:, 1]).all()
    assert not np.isnan(r[:, [0, 2]]).any()
    assert poses[1].tolist() == list(warp.IDENTITY)
    _, r = refined(against[1], against, starts)
    assert np.isnan(r).all()
    assert align(
        np.zeros((8, 8), np.int8), np.ones((2, 8, 8), np.int8), starts[:2], steps=3, limits=LIMITS
    )[1].tolist() == [-2.0, -2.0]


def test_no_candidates_are_no_results() -> None:
    against = mids(slices_512())[:0]
    poses, r = refined(mids(slices_512())[0], against, np.zeros((0, 5)))
    assert poses.shape == (0, 5)
    assert r.shape == (3, 0)


# -- the same bits


def test_no_bit_depends_on_how_many_are_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    against = mids(slices_512())[rng.integers(0, SLICES, 23)]
    query = mids(moved(slices_512()[1], drawn(rng))[None])[0]
    starts = np.array([drawn(rng, i % 3 == 0) for i in range(23)])
    poses, r = refined(query, against, starts)
    for held, look in ((4096, 4096), (5 * 4096, 2 * 4096), (2**30, 3 * 16384), (2**30, 2**30)):
        monkeypatch.setattr(aligning, "HELD", held)
        monkeypatch.setattr(aligning, "LOOK", look)
        for order in (np.arange(23), rng.permutation(23)):
            again = refined(query, against[order], starts[order])
            assert again[0].tobytes() == poses[order].tobytes()
            assert again[1].tobytes() == r[:, order].tobytes()
    one = [refined(query, against[i : i + 1], starts[i : i + 1]) for i in range(23)]
    assert np.concatenate([p for p, _ in one]).tobytes() == poses.tobytes()
    assert np.concatenate([v for _, v in one], 1).tobytes() == r.tobytes()


@pytest.mark.parametrize("side", [32, 48, 64, 128])
def test_sums_of_extreme_bytes_are_exact_at_every_size(side: int) -> None:
    """All that decides a step is a sum of integers: compared with the same in int64."""
    rng = np.random.default_rng(side)
    query = rng.choice([-127, 127], (side, side)).astype(np.int8)
    against = rng.choice([-127, 0, 127], (5, side, side)).astype(np.int8)
    against[0], against[1] = query, -query
    place = aligning._place(np.tile(warp.IDENTITY, (5, 1)), side)
    fixed = aligning._fixed(against)
    cross, squares = aligning._look(aligning._enlarged(query), fixed, place)
    n, w = side * side, query.astype(np.int64)
    for i, f in enumerate(against.astype(np.int64)):
        by_x = np.zeros((side, side))
        by_x[:, 1:-1] = np.rint((f[:, 2:] - f[:, :-2]) / 2)
        assert cross[i, 0] == (f * w).sum() - f.sum() * w.sum() / n
        assert cross[i, 3] == (by_x * w).sum() - by_x.sum() * w.sum() / n
        assert fixed.ff[i] == (f * f).sum() - f.sum() * f.sum() / n
    assert (squares == (w * w).sum() - w.sum() * w.sum() / n).all()


@given(
    angle=st.floats(-20, 20),
    scale=st.floats(0.85, 1.15),
    y=st.floats(-56, 56),
    x=st.floats(-56, 56),
    side=st.sampled_from([32, 64, 128]),
)
@examples(deadline=None, max_examples=60)
def test_a_place_is_a_pose(angle: float, scale: float, y: float, x: float, side: int) -> None:
    pose = np.array([[angle, scale, y, x, 0.0]])
    place = aligning._place(pose, side)
    assert aligning._pose(place, side)[0] == pytest.approx(pose[0, :4], abs=1e-7)
    a, b, u, v = place[:, 0]
    at_y, at_x = warp.points(pose[0], side)
    c = (side - 1) / 2
    # the point (0, side - 1) of the slice, from the middle: q = m p + u, complex
    q = complex(a, b) * complex(side - 1 - c, -c) + complex(u, v)
    assert at_x[0, -1] == pytest.approx(q.real + c, abs=1e-6)
    assert at_y[0, -1] == pytest.approx(q.imag + c, abs=1e-6)


def test_what_is_looked_up_is_the_posed_query() -> None:
    """Half an eighth of a pixel apart at most: on a smooth image nearly the same values."""
    y, x = np.indices((64, 64))
    query = np.rint(60 * np.sin(x / 9) * np.cos(y / 7)).astype(np.int8)
    rng = np.random.default_rng(6)
    poses = np.array([drawn(rng) for _ in range(5)])
    seen = aligning._seen(aligning._enlarged(query), aligning._place(poses, 64), 64)
    for pose, values in zip(poses, seen.reshape(5, 64, 64), strict=True):
        within = refine.inside(*warp.points(pose, 64))
        expected = warp.apply(query[None].astype(float), pose)[0]
        assert np.abs(values - expected)[within].max() < 3
        assert np.abs(values - expected)[within].mean() < 1


def test_matrices_are_inverted() -> None:
    rng = np.random.default_rng(1)
    g = rng.normal(size=(9, 30, 4)) * [1, 2, 3, 1]
    h = g.transpose(0, 2, 1) @ g
    assert np.abs(aligning._inverted(h) @ h - np.eye(4)).max() < 1e-3
    assert np.isfinite(aligning._inverted(np.zeros((1, 4, 4)))).all()


# -- r of the posed query


def test_r_equals_python_integers_and_slow_interpolation() -> None:
    rng = np.random.default_rng(9)
    side = 16
    query = rng.integers(0, 256, (1, side, side), dtype=np.uint8)
    against = rng.integers(0, 256, (4, side, side), dtype=np.uint8)
    poses = refine.on_lattice(np.array([drawn(rng, i % 2) for i in range(4)]))
    asked = Scored((query, query, query.astype(np.int16) - 128))
    held = Scored((against, against, against.astype(np.int16) - 128))
    r = refine.posed_r(asked, held, poses)
    for i, pose in enumerate(poses):
        for kind, shift in ((0, 0), (2, 128)):
            expected = slow_r(query[0].astype(int) - shift, against[i].astype(int) - shift, pose)
            assert r[kind, i] == expected  # to the last bit


def slow_r(query: np.ndarray, image: np.ndarray, pose: np.ndarray) -> float:
    """Pixel by pixel: where it comes from, its grey level, and sums of Python integers."""
    side = len(query)
    at_y, at_x = warp.points(pose, side)
    xs, ys = [], []
    for row in range(side):
        for column in range(side):
            y, x = at_y[row, column], at_x[row, column]
            if not (0 <= y <= side - 1 and 0 <= x <= side - 1):
                continue
            top, left = math.floor(y + 2) - 2, math.floor(x + 2) - 2
            v, u = (y + 2) - (top + 2), (x + 2) - (left + 2)
            around = [[grey(query, top + i, left + j) for j in (0, 1)] for i in (0, 1)]
            upper, lower = (float(a) * (1 - u) + float(b) * u for a, b in around)
            xs.append(round(upper * (1 - v) + lower * v))  # half to even, as rint
            ys.append(int(image[row, column]))
    n, sx, sy = len(xs), sum(xs), sum(ys)
    a = n * sum(v * v for v in xs) - sx * sx
    b = n * sum(v * v for v in ys) - sy * sy
    num = n * sum(p * q for p, q in zip(xs, ys, strict=True)) - sx * sy
    return num / math.sqrt(float(a) * float(b))


def grey(image: np.ndarray, row: int, column: int) -> int:
    within = 0 <= row < len(image) and 0 <= column < len(image)
    return int(image[row, column]) if within else 0


def test_what_is_around_the_query_does_not_count() -> None:
    """Half of the slice is beyond the query: r is that of the other half."""
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (1, 64, 64), dtype=np.uint8)
    query = np.zeros_like(image)
    query[0, :, :32] = image[0, :, 32:]
    pose = np.array([[0.0, 1.0, 0.0, 32 * 8.0, 0.0]])  # 32 of 64 px, in px of 512
    r = refine.posed_r(Scored((query,) * 3), Scored((image,) * 3), pose)
    assert r[:, 0].tolist() == [1.0, 1.0, 1.0]


def test_poses_are_rounded_to_the_lattice() -> None:
    rng = np.random.default_rng(7)
    poses = np.array([drawn(rng, 1) for _ in range(50)])
    poses[0] = [-0.001, 1.0001, -0.01, 0.0, 1]
    found = refine.on_lattice(poses)
    assert (found[:, 4] == 1).all()
    assert np.array_equal(found[:, :4] / LATTICE, np.rint(found[:, :4] / LATTICE))
    assert corners_apart(found, poses).max() < 0.25
    assert np.array_equal(refine.on_lattice(found), found)
    assert not np.signbit(found[0]).any()  # no negative zero: it would change a digest


# -- which are kept


@given(
    r=st.lists(st.sampled_from([-2.0, 0.0, 0.25, 0.5, 1.0]), max_size=12), keep=st.integers(1, 14)
)
@examples(deadline=None)
def test_the_best_are_those_of_a_full_sort(r: list[float], keep: int) -> None:
    found = refine.best_of(np.array(r), keep).tolist()
    assert found == sorted(sorted(range(len(r)), key=lambda i: (-r[i], i))[:keep])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="one start per slice"):
        align(
            np.zeros((8, 8), np.int8),
            np.zeros((2, 8, 8), np.int8),
            np.zeros((1, 5)),
            steps=1,
            limits=LIMITS,
        )
    with pytest.raises(ValueError, match="images of one size"):
        align(
            np.zeros((8, 8), np.int8),
            np.zeros((1, 4, 4), np.int8),
            np.zeros((1, 5)),
            steps=1,
            limits=LIMITS,
        )
    with pytest.raises(ValueError, match="even side"):
        refine.coarse_images(np.zeros((1, 9, 9), np.uint8))
