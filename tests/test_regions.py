"""Regions: what was copied is found where it was planted, and nothing where nothing was."""

from __future__ import annotations

import functools
import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from fingerprint import phantom
from fingerprint.corpus.body import body_mask
from fingerprint.measure.fdr import benjamini_hochberg
from fingerprint.register import regions, tiles
from fingerprint.register.regions import Null, found

SIDE, STRANGERS = 256, 24
PX = tiles.tile_px(SIDE)


@functools.cache
def hearts() -> np.ndarray:
    """Slices at the heart of some patients, uint8, one of each."""
    out = []
    for k in range(2 * STRANGERS):
        one = phantom.patient(k, seed=5, n_slices=3, size_px=SIDE).hu[1]
        out.append(np.clip(np.rint((one + 1000.0) * 255 / 2000), 0, 255).astype(np.uint8))
    return np.stack(out)


def z_of(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    x, y = (torch.from_numpy(part).float()[None, None] for part in (moving, fixed))
    return tiles.local_z(x, y, torch.ones_like(x, dtype=torch.bool))[0]


@functools.cache
def strangers() -> Null:
    """The best of four slices of others for each control."""
    grey, z = hearts(), []
    for k in range(STRANGERS):
        others = [z_of(grey[k], grey[STRANGERS + (k + j) % STRANGERS]) for j in range(4)]
        z.append(max(others, key=np.nanmean))
    return Null(np.array(z), np.zeros((STRANGERS, *z[0].shape), int), np.arange(STRANGERS))


# -- the multiple test


@given(
    p=st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=30),
    q=st.sampled_from([0.01, 0.05, 0.2, 0.5]),
)
def test_benjamini_hochberg_is_its_definition(p: list[float], q: float) -> None:
    assert benjamini_hochberg(np.array(p), q).tolist() == naive.stepped_up(p, q)


def test_benjamini_hochberg_rejects_what_the_paper_rejects() -> None:
    # Benjamini and Hochberg 1995, section 4.1: four of fifteen at 0.05
    p = [.0001, .0004, .0019, .0095, .0201, .0278, .0298, .0344, .0459, .3240, .4262, .5719, .6528,
         .7590, 1.0]  # fmt: skip
    assert benjamini_hochberg(np.array(p), 0.05).sum() == 4
    assert not benjamini_hochberg(np.array(p), 0.0).any()
    with pytest.raises(ValueError, match="q must lie in"):
        benjamini_hochberg(np.array(p), 1.0)
    with pytest.raises(ValueError, match="p must lie in"):
        benjamini_hochberg(np.array([1.5]), 0.1)


# -- tiles


def test_z_of_a_tile_is_that_of_its_pixels() -> None:
    a, b = hearts()[:2]
    z = z_of(a, b)
    body = body_mask(b[None])[0]
    checked = 0
    for i, j in np.argwhere(~np.isnan(z))[::17]:
        at = (slice(i * PX, (i + 1) * PX), slice(j * PX, (j + 1) * PX))
        cut = [image[at].astype(float) for image in (a, b)]
        x, y = (part - ndimage.gaussian_filter(part, PX / 4, mode="nearest") for part in cut)
        r = np.corrcoef(x[body[at]], y[body[at]])[0, 1]
        assert z[i, j] == pytest.approx(np.arctanh(r), abs=0.02)  # ours in whole grey levels
        assert body[at].mean() >= tiles.LEAST_BODY
        checked += 1
    assert checked > 4
    share = body.reshape(16, PX, 16, PX).mean((1, 3))
    assert np.isnan(z[share < tiles.LEAST_BODY]).all()


def test_pixels_that_one_image_lacks_do_not_count() -> None:
    a, b = hearts()[:2]
    x, y = (torch.from_numpy(part).float()[None, None] for part in (a, b))
    inside = torch.ones_like(x, dtype=torch.bool)
    inside[..., : SIDE // 2] = False
    z = tiles.local_z(x, y, inside)[0]
    assert np.isnan(z[:, :8]).all()
    np.testing.assert_array_equal(z[:, 8:], z_of(a, b)[:, 8:])


def test_no_bit_of_a_tile_depends_on_the_batch() -> None:
    x, y = (torch.from_numpy(part.copy()).float()[:, None] for part in np.split(hearts()[:6], 2))
    inside = torch.ones_like(x, dtype=torch.bool)
    together = tiles.local_z(x, y, inside)
    alone = [tiles.local_z(x[k : k + 1], y[k : k + 1], inside[k : k + 1])[0] for k in range(3)]
    np.testing.assert_array_equal(together, np.array(alone))
    np.testing.assert_array_equal(together[::-1], tiles.local_z(x.flip(0), y.flip(0), inside))


@pytest.mark.parametrize("side", [32, 64, 96, 160, 512])
def test_tiles_cover_an_image_of_any_side(side: int) -> None:
    assert tiles.tiles_of(side) * tiles.tile_px(side) <= side
    x = torch.rand(1, 1, side, side) * 255
    along = tiles.tiles_of(side)
    assert tiles.local_z(x, x, torch.ones_like(x, dtype=torch.bool)).shape == (1, along, along)


def test_the_tissue_of_a_tile_is_what_fills_most_of_it() -> None:
    organs = np.zeros((8, 8), np.uint8)
    organs[:4, :4] = 3
    organs[0, 4] = 2
    organs[4:, :] = 1
    organs[4:, 6:] = 5
    organs[4, 6] = 1
    assert tiles.tissue(organs, 2).tolist() == [[3, 2], [1, 1]]
    assert tiles.tissue(organs, 4).tolist()[3] == [1, 1, 1, 5]
    with pytest.raises(ValueError, match="cut into 3"):
        tiles.tissue(organs, 3)


# -- what is found


def test_half_of_an_image_is_found_where_it_was_copied() -> None:
    grey, dice = hearts(), []
    for k in range(8):
        real, other = grey[STRANGERS + k], grey[STRANGERS + k + 9]
        half = np.where(np.arange(SIDE)[:, None] < SIDE // 2, real, other)
        z = z_of(half, real)
        regions_found = found(
            regions.compared(z, np.zeros(z.shape, int), strangers()), 0.05, tile_px=PX
        )
        flagged = {tuple(at) for r in regions_found if r.kind == "copied" for at in r.tiles}
        planted = {tuple(at) for at in np.argwhere(~np.isnan(z)) if at[0] < 8}
        dice.append(2 * len(flagged & planted) / (len(flagged) + len(planted)))
    assert min(dice) >= 0.8


def test_a_patch_is_found_with_four_fifths_of_its_tiles() -> None:
    grey, shares = hearts(), []
    for k in range(8):
        real, mixed = grey[STRANGERS + k], grey[STRANGERS + k + 9].copy()
        mixed[96:160, 80:144] = real[96:160, 80:144]  # 128 px of 512
        z = z_of(mixed, real)
        result = regions.compared(z, np.zeros(z.shape, int), strangers())
        flagged = {tuple(at) for r in found(result, 0.05, tile_px=PX) for at in r.tiles}
        patch = {(i, j) for i in range(6, 10) for j in range(5, 9) if not np.isnan(z[i, j])}
        shares.append(len(flagged & patch) / len(patch))
    assert np.median(shares) >= 0.8


def test_where_nothing_was_copied_few_pairs_have_a_region() -> None:
    """Draws of the null: the share of pairs with any region stays below q, within 3 sigma."""
    rng, runs, q = np.random.default_rng(8), 300, 0.1
    hits = np.zeros(2)
    for patients in (120, 40):  # tiles of their own, and pooled
        for _ in range(runs // 2):
            z = rng.normal(0.4, 0.2, (patients + 1, 6, 6)) + rng.normal(0, 0.1, (6, 6))
            z[0, 0, 0] = np.nan
            if patients < regions.ENOUGH:
                z = rng.permuted(z.reshape(len(z), -1), axis=1).reshape(z.shape)
            null = Null(z[1:], np.zeros((patients, 6, 6), int), np.arange(patients))
            result = regions.compared(z[0], np.zeros((6, 6), int), null)
            assert result.null == ("tile" if patients >= regions.ENOUGH else "tissue")
            kinds = {region.kind for region in found(result, q, tile_px=32)}
            hits += [kind in kinds for kind in regions.KINDS]
    assert (hits / runs <= q + 3 * math.sqrt(q * (1 - q) / runs)).all()


def test_what_differs_is_found_on_the_low_side() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(1, 0.1, (800, 8, 8))
    one = rng.normal(1, 0.1, (8, 8))
    one[2:4, 5:7] = -0.5
    null = Null(z, np.zeros(z.shape, int), np.arange(800) // 2)  # two slices of each patient
    result = regions.compared(one, np.zeros((8, 8), int), null)
    (region,) = found(result, 0.05, tile_px=32)
    assert region.kind == "differs"
    assert region.tiles == [[2, 5], [2, 6], [3, 5], [3, 6]]
    assert (region.area_px, region.y_px, region.x_px) == (4 * 32**2, 95.5, 191.5)


def test_patients_count_alike_however_many_slices_they_have() -> None:
    z = np.full((300, 1, 1), 0.0)
    z[:200] = 1.0  # of one patient
    who = np.concatenate([np.zeros(200, int), np.arange(1, 101)])
    result = regions.compared(np.array([[0.5]]), np.zeros((1, 1), int), Null(z, z.astype(int), who))
    assert result.p_copied[0, 0] == 2 / 102
    assert result.p_differs[0, 0] == 101 / 102


@pytest.mark.parametrize("patients", [40, 100, 150, 400])
def test_a_few_tiles_stand_out_with_any_number_of_controls(patients: int) -> None:
    rng, side = np.random.default_rng(5), 12
    z, one = rng.normal(0, 0.3, (patients, side, side)), rng.normal(0, 0.3, (side, side))
    one[2:6, 3:7] = 3
    tissue = np.zeros((side, side), int)
    null = Null(z, np.zeros(z.shape, int), np.arange(patients))
    result = regions.compared(one, tissue, null, regions.enough(side * side, 0.05))
    assert result.null == ("tile" if patients >= 359 else "tissue")
    flagged = {tuple(t) for r in found(result, 0.05, tile_px=32) for t in r.tiles}
    assert {(i, j) for i in range(2, 6) for j in range(3, 7)} <= flagged
    assert result.resolves(0.05)
    assert not result.resolves(1e-6)


def test_tissues_are_pooled_apart() -> None:
    z = np.stack([np.array([[0.0, 5.0]])] * 9)
    tissue = np.array([[1, 2]])
    null = Null(z, np.stack([tissue] * 9), np.arange(9))
    result = regions.compared(np.array([[1.0, 1.0]]), tissue, null)
    assert result.p_copied.tolist() == [[0.1, 1.0]]
    assert np.isnan(regions.compared(np.array([[1.0]]), np.array([[3]]), null).p_copied).all()


def test_a_region_is_named_by_the_organ_that_fills_most_of_it() -> None:
    organs = np.zeros((16, 16), np.uint8)
    organs[:8, :8], organs[:8, 8:], organs[8:, :] = 2, 3, 4
    names = {0: ("", ""), 2: ("lung", "right"), 3: ("lung", "left"), 4: ("heart", "")}
    p = np.ones((4, 4))
    p[0, 0] = p[0, 1] = p[1, 0] = p[3, 3] = 1e-6
    result = regions.Tested(p, np.ones((4, 4)), "tile", 0 * p)
    got = found(result, 0.05, tile_px=8, organs=organs, named=lambda code: names[code])
    assert [(r.organ, r.side, len(r.tiles)) for r in got] == [
        ("lung", "right", 3),
        ("heart", "", 1),
    ]
    assert got[0].as_json()["tiles"] == [[0, 0], [0, 1], [1, 0]]
