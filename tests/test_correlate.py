"""The product of bytes is exact in every form, and r does not see the form."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import pearson

from fingerprint.search import correlate as c
from fingerprint.search import product
from fingerprint.search.product import PIECE, ROWS, STEP


def signed(rng: np.random.Generator, rows: int, depth: int) -> torch.Tensor:
    values = rng.integers(-128, 128, (rows, depth), dtype=np.int8)
    values[rng.integers(0, rows)] = rng.choice([-128, 127])
    return torch.from_numpy(values)


def pixels(images: np.ndarray, *, queries: bool) -> c.Pixels:
    flat = images.reshape(len(images), -1).astype(np.int64)
    make = c.queries_from if queries else c.slices_from
    return make(images, flat.sum(1), (flat * flat).sum(1))


def plainly(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Sum products of Python-sized integers; no matrix product is involved."""
    return (left.numpy().astype(np.int64)[:, None] * right.numpy().astype(np.int64)[None]).sum(2)


@pytest.fixture
def without_int8(monkeypatch):
    """Make this a machine whose int8 product is wrong."""
    monkeypatch.setattr(product, "int8_is_exact", lambda device: False)
    monkeypatch.setattr(c, "int8_is_exact", lambda device: False)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    s=st.integers(1, 40),
    n=st.integers(1, 40),
    k=st.integers(1, 200),
)
def test_int8_product_is_exact_for_any_shape(seed, s, n, k) -> None:
    rng = np.random.default_rng(seed)
    left, right = signed(rng, s, k), signed(rng, n, k)
    got = product.int8_product(left, right)
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), plainly(left, right))


def test_the_deepest_product_does_not_overflow() -> None:
    left = torch.full((3, PIECE), -128, dtype=torch.int8)
    left[1], left[2, ::2] = 127, 127
    got = product.int8_product(left, left)
    np.testing.assert_array_equal(got.numpy(), plainly(left, left))
    assert got[0, 0] == 2**30


def test_without_int8_the_product_is_the_same(rng, without_int8) -> None:
    left, right = signed(rng, 9, 333), signed(rng, 5, 333)
    got = product.int8_product(left, right)
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), plainly(left, right))


def test_without_int8_r_has_the_same_bits(rng, monkeypatch) -> None:
    images = rng.integers(0, 256, (12, 16, 16), dtype=np.uint8)
    queries, slices = pixels(images[:5], queries=True), pixels(images, queries=False)
    fast = c.correlate(queries, slices)
    monkeypatch.setattr(c, "int8_is_exact", lambda device: False)
    assert torch.equal(fast, c.correlate(queries, slices))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (torch.zeros((2, 4), dtype=torch.uint8), torch.zeros((2, 4), dtype=torch.int8)),
        (torch.zeros((2, 4), dtype=torch.int8), torch.zeros((2, 5), dtype=torch.int8)),
        (torch.zeros((1, PIECE + 1), dtype=torch.int8), torch.zeros((1, PIECE + 1)).to(torch.int8)),
    ],
)
def test_what_cannot_be_multiplied_exactly_is_an_error(left, right) -> None:
    with pytest.raises(ValueError, match="int8_product: int8 of one depth"):
        product.int8_product(left, right)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    s=st.integers(1, 50),
    n=st.integers(1, 50),
    k=st.integers(1, 100),
    skip=st.integers(0, 5),
)
def test_operands_filled_up_for_tensor_cores_change_nothing(seed, s, n, k, skip) -> None:
    """What the product on CUDA does, with the product of the CPU."""
    rng = np.random.default_rng(seed)
    held, right = signed(rng, s + skip + 3, k), signed(rng, n, k)
    left = held[skip : skip + s]
    wide, other = product._wide(left), product._wide(right)
    for full, part in ((wide, left), (other, right)):
        assert full.shape[0] % STEP == full.shape[1] % STEP == 0
        assert full.shape[0] >= ROWS
        assert torch.equal(full[: len(part), :k], part)
        assert full.stride(0) % STEP == 0
    got = torch._int_mm(wide, other.T)[:s, :n]
    np.testing.assert_array_equal(got.numpy(), plainly(left, right))


def test_queries_with_room_are_not_filled_up_again(rng) -> None:
    queries = signed(rng, 37, 2 * PIECE)
    held = product.with_room(queries, "cpu")
    assert torch.equal(held, queries)
    for k in (0, PIECE):
        piece = held[:, k : k + PIECE]
        wide = product._wide(piece)
        assert wide.data_ptr() == piece.data_ptr()
        assert wide.shape == (48, PIECE)


def test_a_block_inside_a_page_is_not_copied_and_at_its_end_it_is(rng) -> None:
    page = signed(rng, 100, 64)
    inside, end = page[10:30], page[90:]
    assert product._wide(inside).data_ptr() == inside.data_ptr()
    assert product._wide(end).data_ptr() != end.data_ptr()
    assert (product._wide(end)[10:] == 0).all()


def test_pieces_add_up_to_the_product(rng) -> None:
    p = 2 * PIECE + 160
    left, right = signed(rng, 5, p), signed(rng, 3, p)
    out = torch.full(product.shape_of_products(5, 3, p), 7, dtype=torch.int32)
    assert out.shape == (3, ROWS, ROWS)
    product.products(left, right, out)
    got = out[:, :5, :3].long().sum(0)
    np.testing.assert_array_equal(got.numpy(), plainly(left, right))


def test_shifted_slices_give_the_same_bits(rng) -> None:
    images = rng.integers(0, 256, (20, 16, 16), dtype=np.uint8)
    images[3], images[4] = 0, 255
    queries, slices = pixels(images[:7], queries=True), pixels(images, queries=False)
    other = c.shifted(slices)
    assert other.values.dtype == torch.int8
    np.testing.assert_array_equal(other.values.numpy(), images.reshape(20, -1) - np.int16(128))
    np.testing.assert_array_equal(other.total.numpy(), other.values.numpy().sum(1, dtype=np.int64))
    squared = other.values.numpy().astype(np.int64) ** 2
    np.testing.assert_array_equal(other.squares.numpy(), squared.sum(1))
    assert c.shifted(other) is other
    want = c.correlate(queries, slices)
    np.testing.assert_array_equal(c.correlate(queries, other).numpy(), want.numpy())
    assert want[0, 1].item() == pearson(images[0], images[1])


def test_the_self_test_sees_a_product_that_is_wrong(monkeypatch, caplog) -> None:
    right = torch._int_mm

    def loses_one(a, b):
        out = right(a, b)
        out[-1, -1] += 1
        return out

    assert product.int8_is_exact("cpu")
    assert product.chosen("cpu") == "int8"
    monkeypatch.setattr(torch, "_int_mm", loses_one)
    with caplog.at_level(logging.WARNING):
        assert not product.int8_is_exact.__wrapped__("cpu")
    assert "not exact on cpu" in caplog.text


def test_the_self_test_sees_a_product_that_is_missing(monkeypatch, caplog) -> None:
    monkeypatch.delattr(torch, "_int_mm")
    assert not product.int8_is_exact.__wrapped__("cpu")
    assert "not available on cpu" in caplog.text


def test_the_self_test_sees_sums_that_saturate(monkeypatch) -> None:
    """Processors without VNNI add pairs of products in 16 bits."""

    def saturating(a, b):
        pairs = a.double()[:, :, None] * b.double()[None]
        two = pairs[:, ::2] + pairs[:, 1::2]
        return two.clamp(-32768, 32767).sum(1).int()

    monkeypatch.setattr(torch, "_int_mm", saturating)
    monkeypatch.setattr(product, "_TRIALS", ((8, 64, 8),))
    assert not product.int8_is_exact.__wrapped__("cpu")
