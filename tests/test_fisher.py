"""Fisher z, the table of paper 000 as printed and as correct, and the maximum of a larger set."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.measure.fisher import (
    PRINTED,
    PRINTED_IMAGES,
    Z_IDENTICAL,
    expected_maximum,
    fisher_table,
    is_identical,
    largest_sd,
    r_of,
    r_of_truncated_normal,
    rarefied_maximum,
    sd_r_delta,
    z_of,
)


@given(st.floats(-1, 1, exclude_min=True, exclude_max=True))
def test_z_and_back_returns_the_correlation(r: float) -> None:
    assert abs(r_of(z_of(r)) - r) <= 1e-12 or abs(z_of(r)) == Z_IDENTICAL


def test_z_keeps_the_digits_of_numbers_near_zero_and_near_one() -> None:
    assert z_of(1e-17) == 1e-17
    assert z_of(1 - 2.0**-30) == pytest.approx(np.log(2.0**31 - 1) / 2, rel=1e-14)


def test_identical_images_are_flagged_capped_and_never_a_crash() -> None:
    r = np.array([1.0, -1.0, 0.5, np.nan])
    assert is_identical(r).tolist() == [True, True, False, False]
    assert z_of(r)[:2].tolist() == [Z_IDENTICAL, -Z_IDENTICAL]
    assert np.isnan(z_of(r)[3])


def test_one_grey_level_in_one_pixel_is_not_identical() -> None:
    # SD 127.5 is the largest an 8-bit image can have, so this is the largest z of two that differ
    image = np.zeros(512 * 512)
    image[::2] = 255
    other = image.copy()
    other[0] = 254
    n, sx, sy = image.size, image.sum(), other.sum()
    num = n * (image @ other) - sx * sy
    r = num / np.sqrt((n * (image @ image) - sx**2) * (n * (other @ other) - sy**2))
    assert r < 1
    assert 11 < z_of(r) < Z_IDENTICAL


def test_a_correlation_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[-1, 1\], got .*1\.5"):
        z_of([0.2, 1.5])


def test_table_is_that_of_the_definitions() -> None:
    r = np.random.default_rng(1).uniform(0.3, 0.99, 240)
    table = fisher_table(np.append(r, [np.nan, np.nan]))
    z = np.arctanh(r)
    assert (table.n, table.identical) == (240, 0)
    assert table.mean_z == pytest.approx(z.mean(), rel=1e-12)
    assert table.sd_z == pytest.approx(z.std(ddof=1), rel=1e-12)
    assert table.sd_r == pytest.approx(r.std(ddof=1), rel=1e-12)
    assert (table.min_r, table.max_r) == (r.min(), r.max())
    assert table.mean_r == pytest.approx(r.mean(), rel=1e-12)
    assert table.tanh_mean_z == pytest.approx(np.tanh(z.mean()), rel=1e-12)
    assert table.as_printed == pytest.approx(np.tanh(z.std(ddof=1)), rel=1e-12)


def test_identical_images_stay_out_of_z_and_in_r() -> None:
    table = fisher_table([1.0, 0.5, 0.7, 1.0])
    assert (table.n, table.identical, table.max_r) == (4, 2, 1.0)
    assert table.max_z == pytest.approx(np.arctanh(0.7))
    assert table.mean_z == pytest.approx(np.arctanh([0.5, 0.7]).mean())
    assert table.mean_r == pytest.approx(0.8)


@pytest.mark.parametrize(("r", "n"), [([], 0), ([np.nan], 0), ([0.4], 1), ([1.0, 1.0], 2)])
def test_too_few_images_give_no_number_and_no_warning(r: list[float], n: int) -> None:
    table = fisher_table(r)
    assert table.n == n
    assert np.isnan(table.sd_z)


def test_e02_printed_std_r_is_tanh_of_sd_z_and_impossible() -> None:
    factors = (2344, 34.9, 5.97, 3.23, 1.42)
    bounds = (0.000057, 0.01366, 0.08705, 0.12351, 0.12715)
    for row, factor, bound in zip(PRINTED, factors, bounds, strict=True):
        assert row.std_r == pytest.approx(np.tanh(row.sd_z), abs=1e-4)
        largest = largest_sd(np.tanh(row.min_z), np.tanh(row.max_z))
        assert largest == pytest.approx(bound, abs=6e-6)
        assert row.std_r > largest * np.sqrt(PRINTED_IMAGES / (PRINTED_IMAGES - 1))
        # 2344 is 0.1336 over the rounded bound; over the bound itself it is 2332
        assert row.std_r / largest == pytest.approx(factor, rel=6e-3)


@given(st.lists(st.floats(-0.999, 0.999), min_size=2, max_size=60))
def test_e02_our_sd_r_never_breaks_the_bound(r: list[float]) -> None:
    table = fisher_table(r)
    bound = largest_sd(table.min_r, table.max_r) * np.sqrt(table.n / (table.n - 1))
    assert table.sd_r <= bound * (1 + 1e-12) + 1e-15


def test_e03_sd_r_can_only_be_estimated_from_the_print() -> None:
    delta = (0.00002, 0.0027, 0.0270, 0.0318, 0.0562)
    normal = (0.00002, 0.0043, 0.0342, 0.0412, 0.0525)
    ratios = []
    for row, first, second in zip(PRINTED, delta, normal, strict=True):
        by_delta = sd_r_delta(row.mean_z, row.sd_z)
        _, by_normal = r_of_truncated_normal(row.mean_z, row.sd_z, row.min_z, row.max_z)
        assert by_delta == pytest.approx(first, abs=5e-5 if first > 1e-3 else 5e-6)
        assert by_normal == pytest.approx(second, abs=6e-5 if second > 1e-3 else 5e-6)
        ratios.append(by_normal / by_delta)
    assert max(ratios) == pytest.approx(1.6, abs=0.05)


def test_e04_printed_mean_r_is_tanh_of_mean_z_not_the_mean_of_r() -> None:
    means = (0.99992, 0.9959, 0.9652, 0.9490, 0.8274)
    for row, mean in zip(PRINTED, means, strict=True):
        ours, _ = r_of_truncated_normal(row.mean_z, row.sd_z, row.min_z, row.max_z)
        assert ours == pytest.approx(mean, abs=5e-5)
        assert ours < np.tanh(row.mean_z)
    rng = np.random.default_rng(4)
    table = fisher_table(np.tanh(rng.normal(1.968, 0.4231, 4000)))
    assert table.mean_r < table.tanh_mean_z - 0.005


def test_e05_every_printed_r_is_tanh_of_its_z_but_one() -> None:
    wrong = []
    for row in PRINTED:
        for name in ("mean", "min", "max"):
            z, r = getattr(row, f"{name}_z"), getattr(row, f"{name}_r")
            if abs(np.tanh(z) - r) > 5e-4 * (1 - r**2) + 1e-4:
                wrong.append((row.n, name))
    assert wrong == [(60, "mean")]
    assert np.tanh(3.316) == pytest.approx(0.9974, abs=5e-5)
    assert np.arctanh(0.9977) == pytest.approx(3.383, abs=5e-4)
    assert np.tanh(PRINTED[0].max_z) == pytest.approx(0.99996, abs=5e-6)


def test_rarefied_maximum_is_the_mean_over_all_subsets() -> None:
    values = np.random.default_rng(2).normal(size=8)
    values[3] = values[5]  # a tie
    for size in range(1, 9):
        oracle = np.mean([max(subset) for subset in combinations(values, size)])
        assert rarefied_maximum(values, [size])[0] == pytest.approx(oracle, rel=1e-12)


def test_rarefied_maximum_counts_each_row_by_itself() -> None:
    values = np.array([[1.0, 3.0, 2.0, np.nan], [4.0, 1.0, 0.0, 2.0], [np.nan] * 4])
    got = rarefied_maximum(values, [1, 3, 4])
    assert got[0, :2] == pytest.approx([2.0, 3.0])
    assert np.isnan(got[0, 2])
    assert got[1] == pytest.approx([1.75, np.mean([4, 4, 4, 2]), 4.0])
    assert np.isnan(got[2]).all()


def test_rarefied_maximum_holds_for_sets_too_large_for_plain_factorials() -> None:
    values = np.arange(1_000_000.0)
    # the expected largest of k drawn from 0 .. N-1 is k (N + 1) / (k + 1) - 1
    got = rarefied_maximum(values, [1, 240, 60_000, 1_000_000])
    oracle = [k * 1_000_001 / (k + 1) - 1 for k in (1, 240, 60_000, 1_000_000)]
    assert got == pytest.approx(oracle, rel=1e-6)


def test_expected_maximum_of_normal_values() -> None:
    printed = {6: 1.267, 60: 2.319, 600: 3.092, 6000: 3.724, 60000: 4.271}
    for n, e in printed.items():
        assert expected_maximum(n) == pytest.approx(e, abs=6e-4)
    assert expected_maximum(1) == pytest.approx(0, abs=1e-9)
    simulated = np.random.default_rng(3).normal(size=(40_000, 60)).max(axis=1).mean()
    assert expected_maximum(60) == pytest.approx(simulated, abs=0.01)


def test_the_best_r_of_strangers_rises_with_their_number() -> None:
    by_n = [np.tanh(0.5 + expected_maximum(n) / np.sqrt(50 - 3)) for n in (6, 60, 600, 6000, 60000)]
    assert by_n == pytest.approx([0.595, 0.685, 0.740, 0.779, 0.809], abs=6e-4)


@pytest.mark.parametrize("call", [lambda: expected_maximum(0), lambda: rarefied_maximum([1], [0])])
def test_an_empty_set_has_no_maximum(call) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        call()
