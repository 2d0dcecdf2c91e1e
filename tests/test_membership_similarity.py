"""Similarities of pixels, with noise: slow formulas, blocks, closed forms; copies, and none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity
from sklearn.metrics import roc_auc_score

from fingerprint.corpus.window import fit
from fingerprint.measure import similarity as pairwise
from fingerprint.measure import structural
from fingerprint.membership import Dev, Images, Real, Scores, similarity
from fingerprint.membership.noise import ARMS, Noise, attenuated, noisy
from fingerprint.membership.similarity import LEAST, MEASURES, Similarity, prepared, similarities
from fingerprint.membership.tops import REDUCTIONS, Tops, named

PX = 32
PLAIN = (Noise(),)
GAUSSIAN = [arm for arm in ARMS if arm.kind == "gaussian"]
SALT = [arm for arm in ARMS if arm.kind == "salt-and-pepper"]


def slices(n: int, seed: int, px: int = PX, smooth: float = 3.0) -> np.ndarray:
    """Return smooth grey images that have nothing to do with one another."""
    noise = np.random.default_rng(seed).normal(size=(n, px, px))
    wide = ndimage.gaussian_filter(noise, (0, smooth, smooth), mode="wrap")
    return np.clip(np.rint(127.5 + 40 * wide / wide.std()), 0, 255).astype(np.uint8)


def flat(*levels: int, px: int = PX) -> np.ndarray:
    return np.repeat(np.array(levels, np.uint8), px * px).reshape(-1, px, px)


def compared(asked: np.ndarray, generated: np.ndarray) -> dict[str, np.ndarray]:
    found = similarities(prepared(asked, "cpu"), prepared(generated, "cpu"))
    assert found.shape == (len(MEASURES), len(asked), len(generated))
    assert found.dtype == np.float64
    return dict(zip(MEASURES, found, strict=True))


def scored(asked: Images, generated: Images, seed: int = 1, **knobs) -> Scores:
    real = Real(flat(0), np.zeros(1, np.int64))
    scorer = Similarity(**knobs).fit(Dev(flat(0), real, real))
    return scorer(asked, generated, flat(0), seed=seed)


# -- measures, pair by pair


def whole(x: np.ndarray) -> list[int]:
    return [int(v) for v in x.ravel()]


def far(x: np.ndarray, y: np.ndarray) -> float:
    return -math.sqrt(sum((a - b) ** 2 for a, b in zip(whole(x), whole(y), strict=True)))


def city(x: np.ndarray, y: np.ndarray) -> float:
    return -float(sum(abs(a - b) for a, b in zip(whole(x), whole(y), strict=True)))


def angle(x: np.ndarray, y: np.ndarray) -> float:
    a, b = whole(x), whole(y)
    size = sum(v * v for v in a) * sum(v * v for v in b)
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(size) if size else LEAST


def linear(x: np.ndarray, y: np.ndarray) -> float:
    r = naive.pearson(x, y)
    return LEAST if math.isnan(r) else r


def ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return structural_similarity(
        x.astype(float),
        y.astype(float),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1]


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    return float(ssim_map(x, y)[5:-5, 5:-5].mean())


def three_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """3-SSIM of a real slice x, the reference, and a generated image y."""
    return naive.three_ssim(y.astype(float), x.astype(float), ssim_map(y, x))


SLOW: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], float]] = {
    "euclidean": (far, 0),
    "manhattan": (city, 0),
    "cosine": (angle, 4e-16),
    "pearson": (linear, 4e-16),
    "ssim": (ssim, 2e-5),  # float32 windows
    "three_ssim": (three_ssim, 2e-5),
}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_is_its_formula_pair_by_pair(name: str) -> None:
    asked = np.concatenate([slices(2, 1, 20), slices(1, 2, 20, 0.5)])
    generated = np.concatenate([noisy(asked[:1], Noise("gaussian", 20), 1), slices(3, 3, 20)])
    slow, rounding = SLOW[name]
    truth = np.array([[slow(x, y) for y in generated] for x in asked])
    np.testing.assert_allclose(compared(asked, generated)[name], truth, rtol=rounding, atol=1e-6)
    assert compared(asked, generated)[name].argmax(1)[0] == 0


def test_measures_are_those_of_pairs() -> None:
    asked, generated = slices(3, 4), slices(5, 5)
    x, y = (torch.from_numpy(images)[:, None].float() for images in (asked, generated))
    left, right = x.repeat_interleave(5, 0), y.repeat(3, 1, 1, 1)
    truth = {
        "euclidean": -pairwise.euclidean(left, right),
        "manhattan": -pairwise.manhattan(left, right),
        "cosine": pairwise.cosine(left, right),
        "pearson": pairwise.pearson(left, right),
        "ssim": structural.ssim(left, right),
        "three_ssim": structural.three_ssim(right, left),  # the real slice is the reference
    }
    for name, values in compared(asked, generated).items():
        np.testing.assert_allclose(values.ravel(), truth[name], rtol=1e-12, err_msg=name)


def test_manhattan_of_large_images_is_exact() -> None:
    """Beyond 256 x 256 pixels float32 holds no longer every sum of grey levels."""
    x, y = np.full((1, 11, 6001), 255, np.uint8), np.zeros((1, 11, 6001), np.uint8)
    assert compared(x, y)["manhattan"] == -(11 * 6001 * 255)  # odd, and above 2^24


def test_an_image_with_itself() -> None:
    images = slices(4, 6)
    for name, found in compared(images, images).items():
        best = 0 if name in ("euclidean", "manhattan") else 1
        exact = name not in ("ssim", "three_ssim")
        np.testing.assert_allclose(np.diag(found), best, rtol=0, atol=0 if exact else 1e-6)
        assert (found <= best + 1e-6).all(), name


def test_constant_and_black_images_have_finite_numbers() -> None:
    some = np.concatenate([flat(0, 255, 128), slices(2, 7)])
    found = compared(some, some)
    for name, values in found.items():
        assert np.isfinite(values).all(), name
    assert (found["pearson"][:3] == LEAST).all()
    assert (found["pearson"][:, :3] == LEAST).all()
    assert (found["cosine"][0] == LEAST).all()  # black
    assert found["cosine"][1, 2] == pytest.approx(1)  # of one direction
    assert (found["three_ssim"][:3] == LEAST).all()  # a reference without an edge
    assert all(np.isfinite(row).all() for row in scored(some, some).values())


def test_images_of_other_sizes_are_refused() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        compared(slices(1, 1, 32), slices(1, 1, 24))


# -- one number for each slice


def reduced(values: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return what `Tops` says, by sorting everything."""
    ordered = np.sort(values, axis=-1)[..., ::-1]
    return {
        "max": ordered[..., 0],
        "top": ordered[..., :k].mean(-1),
        "mean": values.mean(-1),
    }


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    k=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    twins=st.booleans(),
)
@examples(max_examples=60, deadline=None)
def test_neither_cuts_nor_order_of_blocks_matter(
    seed: int, n: int, k: int, cuts: Sequence[int], twins: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, 3, n))
    if twins:
        values = np.round(values)  # equal values at the border of the top
    tops = Tops.empty((2, 3), k)
    for part in np.split(values[..., rng.permutation(n)], sorted(min(c, n) for c in cuts), axis=-1):
        tops = tops.plus(part)  # some are empty
    found, truth = tops.reduced(), reduced(values, k)
    assert tops.n == n
    assert tuple(found) == REDUCTIONS
    np.testing.assert_array_equal(found["max"], truth["max"])
    np.testing.assert_array_equal(tops.best[..., : min(n, k)], np.sort(values)[..., ::-1][..., :k])
    np.testing.assert_array_equal(found["top"], tops.best[..., : min(n, k)].mean(-1))
    np.testing.assert_allclose(found["mean"], truth["mean"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["top"], truth["top"], rtol=1e-12, atol=1e-12)


def test_nothing_to_compare_with_is_an_error() -> None:
    with pytest.raises(ValueError, match="reduced: there must be at least one generated image"):
        Tops.empty((2,), 3).plus(np.empty((2, 0))).reduced()
    assert [named(r, 7) for r in REDUCTIONS] == ["max", "top7", "mean"]


# -- noise


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_noise_is_of_the_seed_and_the_image_alone(arm: Noise) -> None:
    images = slices(5, 8)
    found = noisy(images, arm, 3)
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    order = [3, 0, 4, 1, 2]
    np.testing.assert_array_equal(noisy(images[order], arm, 3), found[order])
    np.testing.assert_array_equal(noisy(images[2:4], arm, 3), found[2:4])
    np.testing.assert_array_equal(noisy(images[::2], arm, 3), found[::2])  # not side by side
    assert len(noisy(images[:0], arm, 3)) == 0
    other = noisy(images, arm, 4)
    assert (other == found).all() if arm.kind == "none" else (other != found).any((1, 2)).all()


def test_images_have_noise_of_their_own() -> None:
    images = np.concatenate([flat(128), flat(128)])
    images[1, 0, 0] = 129  # one grey level apart
    moved = noisy(images, Noise("gaussian", 20), 1).astype(float) - 128
    assert abs(np.corrcoef(moved.reshape(2, -1))[0, 1]) < 4 / PX


@pytest.mark.parametrize("arm", GAUSSIAN, ids=lambda arm: arm.name)
def test_gaussian_noise_has_its_sd(arm: Noise) -> None:
    moved = noisy(flat(128, px=128), arm, 2).astype(float) - 128
    n = moved.size
    assert abs(moved.mean()) < 4 * arm.level / math.sqrt(n)
    # rounding to whole grey levels adds a variance of 1 / 12
    assert moved.std() == pytest.approx(math.sqrt(arm.level**2 + 1 / 12), rel=4 / math.sqrt(2 * n))


@pytest.mark.parametrize("arm", SALT, ids=lambda arm: arm.name)
def test_salt_and_pepper_hits_its_share_half_white_half_black(arm: Noise) -> None:
    found = noisy(flat(128, px=128), arm, 2)
    n, hit = found.size, found != 128
    assert hit.mean() == pytest.approx(arm.level, abs=4 * math.sqrt(arm.level / n))
    assert set(np.unique(found)) == {0, 128, 255}
    white = (found == 255).sum() / hit.sum()
    assert white == pytest.approx(0.5, abs=2 / math.sqrt(hit.sum()))


def test_noise_is_cut_off_at_black_and_white() -> None:
    found = noisy(flat(0, 255), Noise("gaussian", 20), 1)
    assert (found[0] == 0).mean() == pytest.approx(0.5, abs=0.07)
    assert (found[1] == 255).mean() == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("sd", [5, 10, 20])
def test_noise_lowers_pearson_by_its_closed_form(sd: float) -> None:
    """METHOD 1.2: on both images, of mid grey, so that nothing is cut off."""
    px = 128
    common, own = slices(1, 9, px, 2)[0] / 255 - 0.5, slices(1, 10, px, 2)[0] / 255 - 0.5
    x = np.rint(128 + 120 * common).astype(np.uint8)
    y = np.rint(128 + 60 * common + 40 * own).astype(np.uint8)
    r, variance = naive.pearson(x, y), (float(x.var()), float(y.var()))
    truth = attenuated(r, variance, sd**2 + 1 / 12)
    arm = Noise("gaussian", sd, both=True)
    found = compared(noisy(x[None], arm, 1), noisy(y[None], arm, 2))["pearson"].item()
    assert truth < r
    assert found == pytest.approx(truth, abs=4 / px)  # SE of r is at most 1 / px


def test_attenuation_of_no_noise_and_of_equal_variances() -> None:
    assert attenuated(0.7, (3.0, 9.0), 0.0) == pytest.approx(0.7)
    assert attenuated(0.8, (50.0, 50.0), 50.0) == pytest.approx(0.4)


def test_bad_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Noise: kind must be one of .* got 'speckle'"):
        Noise("speckle")  # type: ignore[arg-type]
    for kind, level in (("gaussian", -1), ("gaussian", 256), ("salt-and-pepper", 1.5)):
        with pytest.raises(ValueError, match=r"Noise: level must be from 0 to \d+, got"):
            Noise(kind, level)
    with pytest.raises(ValueError, match="level must be"):
        Noise("gaussian", math.nan)


def test_arms_are_those_of_the_method() -> None:
    assert [arm.name for arm in ARMS] == [
        "none",
        *(f"gaussian-{sd}-{on}" for sd in (5, 10, 20) for on in ("both", "one")),
        *(f"salt-and-pepper-{p}-{on}" for p in (0.01, 0.05) for on in ("both", "one")),
    ]


# -- the method


def test_every_arm_has_a_score_for_every_slice() -> None:
    found = scored(slices(3, 1), slices(4, 2), top=2)
    assert list(found) == [
        f"{m}/{noise.name}/{r}" for noise in ARMS for m in MEASURES for r in ("max", "top2", "mean")
    ]
    assert all(v.shape == (3,) and v.dtype == np.float64 for v in found.values())


def test_scores_are_reductions_of_similarities() -> None:
    asked, generated = slices(3, 1), slices(12, 2)
    found = scored(asked, generated, noise=PLAIN)
    for name, values in compared(asked, generated).items():
        for reduction, truth in reduced(values, 10).items():
            arm = f"{name}/none/{named(reduction, 10)}"
            np.testing.assert_allclose(found[arm], truth, rtol=1e-12, err_msg=arm)


def test_one_says_generated_images_alone() -> None:
    asked, generated = slices(3, 1), slices(6, 2)
    for arm in (Noise("gaussian", 20), Noise("salt-and-pepper", 0.05)):
        found = scored(asked, generated, seed=5, noise=(arm,))[f"manhattan/{arm.name}/max"]
        one = compared(asked, noisy(generated, arm, 6))["manhattan"].max(1)
        np.testing.assert_array_equal(found, one)
        arm = Noise(arm.kind, arm.level, both=True)
        found = scored(asked, generated, seed=5, noise=(arm,))[f"manhattan/{arm.name}/max"]
        both = compared(noisy(asked, arm, 5), noisy(generated, arm, 6))["manhattan"].max(1)
        np.testing.assert_array_equal(found, both)
        assert (both != one).any()


def test_a_copy_has_other_noise_than_what_it_is_of() -> None:
    images, arm = slices(2, 1), Noise("gaussian", 10, both=True)
    assert (scored(images, images, noise=(arm,))[f"euclidean/{arm.name}/max"] < -100).all()


def test_scores_depend_on_the_seed_alone_not_on_blocks_or_order(monkeypatch) -> None:
    asked, generated = slices(5, 1, 24), slices(14, 2, 24)
    arms = (Noise(), Noise("gaussian", 20), Noise("salt-and-pepper", 0.05, both=True))
    truth = scored(asked, generated, top=3, noise=arms)
    again = scored(asked, generated, top=3, noise=arms)
    assert all((again[arm] == truth[arm]).all() for arm in truth)
    monkeypatch.setattr(similarity, "TOGETHER", 4)
    monkeypatch.setattr(
        similarity, "blocks", lambda images: (images[i : i + 3] for i in range(0, len(images), 3))
    )
    order = np.random.default_rng(3).permutation(len(generated))
    cut = scored(asked[::-1].copy(), generated[order], top=3, noise=arms)
    for arm, values in cut.items():
        np.testing.assert_allclose(values[::-1], truth[arm], rtol=1e-6, atol=1e-7, err_msg=arm)
    other = scored(asked, generated, seed=2, top=3, noise=arms)
    assert (other["pearson/none/max"] == truth["pearson/none/max"]).all()
    assert (other["pearson/gaussian-20-one/max"] != truth["pearson/gaussian-20-one/max"]).all()


def test_large_images_are_reduced_by_area_mean() -> None:
    asked, generated = slices(2, 1, 96, 6), slices(3, 2, 96, 6)
    small = [fit(images, 32, 0)[0] for images in (asked, generated)]
    np.testing.assert_array_equal(
        small[0], np.rint(asked.reshape(2, 32, 3, 32, 3).mean((2, 4))).astype(np.uint8)
    )
    found, truth = scored(asked, generated, px=32), scored(*small, px=32)
    assert all((found[arm] == truth[arm]).all() for arm in truth)  # noise comes after
    larger = scored(*small, px=64)  # small ones are left as they are
    assert all((larger[arm] == truth[arm]).all() for arm in truth)


# -- planted, and absent


def copies(images: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    twice = np.concatenate([images, images]).astype(float)
    return np.clip(np.rint(twice + rng.normal(0, 6, twice.shape)), 0, 255).astype(np.uint8)


def test_copies_are_told_by_every_measure_with_any_noise() -> None:
    people, n = slices(16, 11), 8
    found = scored(people, copies(people[:n], 1), top=2)
    used = np.arange(len(people)) < n
    for arm, values in found.items():
        measure, noise, reduction = arm.split("/")
        if reduction != "mean":
            # one black or white pixel spoils the 11 x 11 windows around it, in both images
            hidden = measure.endswith("ssim") and noise == "salt-and-pepper-0.05-both"
            assert roc_auc_score(used, values) >= (0.9 if hidden else 1), arm


def test_a_generator_of_the_population_tells_nothing() -> None:
    n, seeds, used = 10, 12, np.arange(20) < 10
    se = math.sqrt((2 * n + 1) / (12 * n * n * seeds))  # of a mean AUC without truth, n against n
    arms = (Noise(), Noise("gaussian", 10, both=True))
    found = []
    for seed in range(seeds):
        people = slices(4 * n, 100 + seed, 20)
        scores = scored(people[: 2 * n], people[2 * n :], seed=seed, top=3, noise=arms)
        found.append({arm: roc_auc_score(used, values) for arm, values in scores.items()})
    for arm in found[0]:
        assert abs(np.mean([one[arm] for one in found]) - 0.5) < 3 * se, arm
