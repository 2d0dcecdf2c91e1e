"""Slices that were copied are told from those that were not, at any pose; else nothing is."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from fingerprint.corpus.window import to_uint8
from fingerprint.measure.fisher import z_of
from fingerprint.membership import Dev, Real, Scores
from fingerprint.membership.calibrated import KEEP, Calibrated, standardised, tail
from fingerprint.membership.poses import MID, best_z, mids_of, searched
from fingerprint.phantom import patient, plant
from fingerprint.search.images import highpass
from fingerprint.settings import Settings

SIDE, SLICES = 32, 3
STORED = Settings(pose=False)
POSED = Settings(angle_deg=8, angle_step_deg=4, scale=0.05, scale_step=0.05, shift_px=16)
ARMS = {"relative", "standard", "tail", "nearest", "excess", "share"}


@lru_cache(maxsize=64)
def slices_of(number: int) -> np.ndarray:
    """Return a slice of each region of one phantom, uint8 (3, 32, 32)."""
    made = patient(number, seed=3, n_slices=SLICES, size_px=SIDE)
    return to_uint8(made.hu, (-1000.0, 1000.0))


def people(first: int, last: int) -> np.ndarray:
    return np.concatenate([slices_of(k) for k in range(first, last)])


USED, NOT_USED, OTHERS, CONTROL = (0, 3), (3, 6), (12, 15), (18, 21)


def moved(image: np.ndarray) -> np.ndarray:
    """Turn by 5 degrees and shift by 10 px of 512, about the centre."""
    turned = ndimage.rotate(image.astype(float), 5, reshape=False, order=1)
    return np.rint(ndimage.shift(turned, 10 * SIDE / 512, order=1)).clip(0, 255).astype(np.uint8)


COPIES = {
    "exact": lambda image: image,
    "noise": lambda image: plant(image, "noise", 8.0, seed=5),
    "blur": lambda image: plant(image, "blur", 0.7, seed=5),
    "moved": moved,
}


def score(
    asked: np.ndarray,
    generated: np.ndarray,
    control: np.ndarray,
    how: Settings = STORED,
    seed: int = 1,
) -> Scores:
    nobody = Real(asked[:0], np.empty(0, np.int64))
    scorer = Calibrated(how).fit(Dev(generated[:0], nobody, nobody))
    return scorer(asked, generated, control, seed=seed)


def answers(kind: str, how: Settings) -> tuple[Scores, np.ndarray]:
    used, others = people(*USED), people(*OTHERS)
    generated = np.concatenate([np.stack([COPIES[kind](image) for image in used]), others])
    asked = np.concatenate([used, people(*NOT_USED)])
    return score(asked, generated, people(*CONTROL), how), np.arange(len(asked)) < len(used)


@pytest.mark.parametrize("kind", ["exact", "noise", "blur"])
def test_copies_as_stored_are_found(kind: str):
    scores, used = answers(kind, STORED)
    assert set(scores) == ARMS
    for arm in ("nearest", "standard", "tail", "relative", "excess", "share"):
        assert roc_auc_score(used, scores[arm]) >= 0.95, arm


def test_moved_copies_are_found_at_their_pose_where_stored_slices_tell_nothing():
    (posed, used), (stored, _) = answers("moved", POSED), answers("moved", STORED)
    for arm in ("nearest", "standard", "tail", "relative"):
        assert roc_auc_score(used, posed[arm]) >= 0.95, arm
    assert roc_auc_score(used, stored["nearest"]) < 0.95


def test_without_copies_nothing_is_told():
    n = 12
    asked = people(0, n)  # even ones are called used, and no image shows them
    used = np.arange(n) % 2 == 0
    scores = score(asked, people(26, 29), people(12, 18))
    se = np.sqrt((n + 1) / 12 / (n / 2) ** 2)  # Mann-Whitney; patients, not slices, are independent
    for arm in ARMS:
        mean = scores[arm].reshape(n, SLICES).mean(1)
        assert abs(roc_auc_score(used, mean) - 0.5) < 3 * se, arm


def test_asked_and_control_slices_go_through_the_same_steps():
    """The control asked about itself stands in the middle of the controls, at every rank."""
    control, generated = people(18, 21), people(*OTHERS)
    told = score(control, generated, control, POSED)
    assert abs(np.median(told["standard"])) < 1e-9
    n = len(control)
    expected = -np.log10((1 + np.arange(1, n + 1)) / (n + 1))
    levels = np.sort(told["tail"] - 1e-3 * told["nearest"])[::-1]
    np.testing.assert_allclose(levels, expected, atol=1e-9)


def test_stored_path_is_pearson_of_highpass_images_one_by_one():
    asked, images = people(0, 2), people(12, 14)
    x, y = (highpass(mids_of(part)).reshape(len(part), -1) for part in (asked, images))
    r = np.array([[pearsonr(a, b).statistic for b in y] for a in x])
    found = best_z(searched(asked), searched(images), STORED, keep=4)
    np.testing.assert_allclose(found, z_of(-np.sort(-r, axis=1)[:, :4]), atol=1e-5)


def test_poses_never_make_a_slice_less_similar():
    asked, images = searched(people(0, 2)), searched(people(12, 16))
    posed = best_z(asked, images, POSED, keep=KEEP)
    stored = best_z(asked, images, STORED, keep=KEEP)
    assert (posed[:, 0] >= stored[:, 0] - 1e-5).all()
    assert (np.diff(posed, axis=1) <= 0).all()


@pytest.mark.parametrize("how", [STORED, POSED], ids=["stored", "posed"])
def test_each_slice_is_scored_by_itself_and_twice_the_same(how: Settings):
    asked, generated, control = people(0, 1), people(12, 14), people(18, 20)
    whole, again = (score(asked, generated, control, how) for _ in range(2))
    alone = score(asked[1:2], generated, control, how)
    for arm in ARMS:
        np.testing.assert_array_equal(whole[arm], again[arm])
        np.testing.assert_allclose(whole[arm][1], alone[arm][0], atol=1e-6)


@pytest.mark.parametrize("how", [STORED, POSED], ids=["stored", "posed"])
@pytest.mark.parametrize("images", [1, 3])
def test_few_images_and_one_control_are_enough(how: Settings, images: int):
    told = score(people(0, 1)[:1], people(12, 13)[:images], people(18, 19)[:1], how)
    assert all(row.shape == (1,) and np.isfinite(row).all() for row in told.values())


@pytest.mark.parametrize("how", [STORED, POSED], ids=["stored", "posed"])
def test_constant_slice_is_the_least_likely(how: Settings):
    asked, generated = people(0, 1).copy(), people(12, 14).copy()
    asked[0], generated[1] = 100, 7
    told = score(asked, generated, people(18, 20), how)
    assert all(np.isfinite(row).all() for row in told.values())
    assert told["nearest"].argmin() == 0
    assert told["nearest"][0] < -5


def test_larger_images_are_reduced_and_smaller_ones_enlarged():
    large = np.kron(people(0, 1), np.ones((8, 8), np.uint8))
    assert mids_of(large).shape == mids_of(people(0, 1)).shape == (SLICES, MID, MID)
    np.testing.assert_array_equal(mids_of(large), np.kron(people(0, 1), np.ones((4, 4), np.uint8)))


@pytest.mark.parametrize("name", ["generated", "control"])
def test_nothing_to_compare_with_is_refused(name: str):
    sets = {"generated": people(12, 13), "control": people(18, 19)}
    sets[name] = sets[name][:0]
    with pytest.raises(ValueError, match=f"{name} must hold an image"):
        score(people(0, 1), **sets)


def test_tail_and_standard_keep_the_order_of_z():
    rng = np.random.default_rng(0)
    z, normal = rng.normal(0.5, 2, 300), rng.normal(0, 1, 20)
    for told in (tail(z, normal), standardised(z, normal)):
        assert spearmanr(told, z).statistic == pytest.approx(1)
    np.testing.assert_allclose(
        tail(np.array([9.0, -9.0]), normal), [np.log10(21) + 9e-3, -9e-3], atol=1e-12
    )
    assert standardised(np.array([3.0]), np.array([1.0])) == 2  # no spread: the shift alone
