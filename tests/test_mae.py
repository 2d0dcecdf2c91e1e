"""A masked autoencoder has the numbers of He et al., learns, resumes, and makes features."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generators import blobs, quick
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fingerprint.ledger import digest_of_file
from fingerprint.models import checkpoint, encoders, mae, masked, training
from fingerprint.models.masked import Autoencoder, error, joined, normalised, patches, positions
from fingerprint.models.recipe import Recipe, chance, recipe_of
from fingerprint.models.sampling import sample
from fingerprint.models.training import Trained, train

pytest.importorskip("safetensors", reason="the study extra is not installed")

WEIGHTS = "weights.safetensors"
N = 5


class CutOff(Exception):  # noqa: N818 - not a mistake of anyone
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Recipe, Path, Trained]:
    """Return a training that was never cut off."""
    recipe, folder = quick("mae", steps=6, ema=0.5), tmp_path_factory.mktemp("mae")
    return recipe, folder, train(blobs(N), recipe, folder)


@pytest.fixture(scope="module")
def loaded(whole) -> mae.Loaded:
    return mae.load(whole[1] / WEIGHTS, whole[2].weights)


def random_network(px: int = 64, width: int = 32) -> Autoencoder:
    torch.manual_seed(3)
    return Autoencoder(px, width).eval().requires_grad_(False)


# -- network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "sizes"),
    [
        (768, (768, 12, 12, 512, 8, 16)),
        (384, (384, 12, 6, 256, 4, 8)),
        (64, (64, 2, 1, 32, 1, 1)),
        (32, (32, 1, 1, 32, 1, 1)),
    ],
)
def test_sizes_are_those_of_the_method_and_of_the_stated_rule(width, sizes) -> None:
    assert tuple(asdict(masked.sizes(width)).values()) == sizes


@pytest.mark.parametrize("width", [32, *range(64, 1025, 64)])
def test_every_width_that_a_recipe_allows_can_be_built(width: int) -> None:
    recipe = quick("mae", width=width)
    s = masked.sizes(recipe.width)
    assert s.width % s.heads == s.decoder_width % s.decoder_heads == 0
    assert s.width % 4 == s.decoder_width % 4 == 0
    with torch.device("meta"):
        Autoencoder(recipe.px, width)


def test_the_large_network_has_as_many_parameters_as_its_layers_need() -> None:
    def block(w: int) -> int:
        return (3 * w * w + 3 * w) + (w * w + w) + (8 * w * w + 5 * w) + 4 * w

    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        network = Autoencoder(224, 768)
    encoder = 12 * block(768) + 768 + 197 * 768 + (256 + 1) * 768 + 2 * 768
    assert count(network.encoder) == encoder == 85_798_656 - 2 * 256 * 768  # one channel
    decoder = 8 * block(512) + 512 + 197 * 512 + (768 + 1) * 512 + 2 * 512 + 513 * 256
    assert count(network) == encoder + decoder


def test_patches_lie_row_by_row_and_join_again() -> None:
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    image = (y * 48 + x).float()[None, None]
    cut = patches(image)
    assert cut.shape == (1, 9, 256)
    for i in range(9):
        top, left = 16 * (i // 3), 16 * (i % 3)
        assert torch.equal(cut[0, i].view(16, 16), image[0, 0, top : top + 16, left : left + 16])
    assert torch.equal(joined(cut), image)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_cutting_and_joining_are_inverse(n: int, grid: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn((n, 1, 16 * grid, 16 * grid), generator=draw)
    assert torch.equal(joined(patches(images)), images)
    pieces = torch.randn((n, grid * grid, 256), generator=draw)
    assert torch.equal(patches(joined(pieces)), pieces)


@pytest.mark.parametrize(("grid", "width"), [(2, 32), (16, 384), (32, 768)])
def test_every_place_has_its_own_embedding_and_the_class_has_none(grid: int, width: int) -> None:
    found = positions(grid, width)[0].double()
    assert found.shape == (1 + grid * grid, width)
    assert (found[0] == 0).all()
    apart = torch.cdist(found, found) + 9 * torch.eye(len(found))
    assert apart.min() > 0.5
    # sin^2 + cos^2 of each of the frequencies, of the row and of the column
    torch.testing.assert_close(
        found[1:].square().sum(1), torch.full((grid * grid,), width / 2.0).double()
    )
    row, column = found[1:].unflatten(0, (grid, grid)).chunk(2, dim=2)
    assert (row == row[:, :1]).all()
    assert (column == column[:1]).all()
    assert torch.equal(row[:, 0], column[0])
    assert float(row[-1, 0, 0]) == pytest.approx(math.sin(grid - 1), abs=1e-6)
    assert float(row[-1, 0, width // 4]) == pytest.approx(math.cos(grid - 1), abs=1e-6)


def test_the_encoder_is_a_plain_transformer_as_torch_has_it() -> None:
    """Against torch's own layers, with the same numbers in them."""
    network = random_network(48, 64).encoder
    x = torch.randn(2, 1, 48, 48)
    kept = mae.seen(2, 9, np.random.default_rng(1))
    y = patches(x) @ network.patch_embed.proj.weight.flatten(1).T + network.patch_embed.proj.bias
    y = y + network.pos_embed[:, 1:]
    y = torch.stack([one[at] for one, at in zip(y, kept, strict=True)])
    y = torch.cat([network.cls_token.expand(2, -1, -1), y], dim=1)
    names = {"in_proj_": "qkv.", "out_proj.": "proj."}
    for block in network.blocks:
        layer = nn.TransformerEncoderLayer(
            64, 1, 256, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        ours = block.state_dict()
        theirs = {}
        for key in layer.state_dict():
            name = key.replace("self_attn.", "attn.").replace("linear", "mlp.fc")
            for old, new in names.items():
                name = name.replace(old, new)
            theirs[key] = ours.pop(name)
        assert not ours
        layer.load_state_dict(theirs)
        y = layer.train()(y)  # in evaluation torch takes another way
    want = nn.functional.layer_norm(y, (64,), network.norm.weight, network.norm.bias, 1e-6)
    torch.testing.assert_close(network.tokens(x, kept), want, rtol=1e-4, atol=1e-5)


def test_what_is_masked_is_not_seen_and_the_rest_is() -> None:
    network = random_network()
    x = torch.randn(1, 1, 64, 64)
    kept = mae.seen(1, 16, np.random.default_rng(1))
    said = network(x, kept)
    pieces = patches(x)
    hidden = next(i for i in range(16) if i not in kept)
    other = pieces.clone()
    other[0, hidden] += 1
    assert torch.equal(network(joined(other), kept), said)
    other = pieces.clone()
    other[0, kept[0, 0], ::2] += 1
    assert (network(joined(other), kept) != said).all(dim=2).all()


# -- loss, masks, schedule -------------------------------------------------------------------------


def test_a_perfect_prediction_has_no_loss_and_only_masked_patches_count() -> None:
    images = torch.from_numpy(blobs(3, 64))[:, None] / 127.5 - 1
    kept = mae.seen(3, 16, np.random.default_rng(2))
    truth = normalised(patches(images))
    assert float(error(truth, images, kept)) == 0
    spoilt = truth.clone()
    for i, at in enumerate(kept):
        spoilt[i, at] += 5
    assert float(error(spoilt, images, kept)) == 0
    assert float(error(truth + 2, images, kept)) == pytest.approx(4, rel=1e-5)
    # saying nothing costs the variance: 255/256 of that with one degree of freedom less
    assert float(error(0 * truth, images, kept)) == pytest.approx(255 / 256, rel=1e-2)


def test_patches_are_normalised_and_of_a_constant_one_nothing_is_left() -> None:
    images = torch.from_numpy(blobs(2, 32))[:, None].float() / 127.5 - 1
    images[0, 0, :16, :16] = -1
    found = normalised(patches(images))
    assert (found[0, 0] == 0).all()
    torch.testing.assert_close(found.mean(2), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1].std(1), torch.ones(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("grid", range(2, 33))
def test_of_the_patches_exactly_three_quarters_are_masked(grid: int) -> None:
    count = grid * grid
    kept = mae.seen(4, count, chance(1, "step", 0))
    assert kept.shape == (4, count // 4)
    if count % 4 == 0:
        assert 1 - kept.shape[1] / count == 0.75
    assert all(len(set(row.tolist())) == len(row) for row in kept)
    assert int(kept.min()) >= 0
    assert int(kept.max()) < count


def test_every_patch_is_seen_equally_often() -> None:
    counts = np.bincount(mae.seen(4000, 16, np.random.default_rng(5)).numpy().ravel())
    assert np.abs(counts - 1000).max() < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_the_rate_rises_for_a_twentieth_and_falls_as_a_cosine() -> None:
    rates = [mae.pace(k, 800) for k in range(800)]
    assert rates[:40] == [(k + 1) / 40 for k in range(40)]
    assert rates[40] == 1
    assert rates[420] == pytest.approx(0.5)
    assert rates[799] < 1e-5
    assert (np.diff(rates[40:]) < 0).all()
    assert [mae.pace(0, 1), mae.pace(0, 2), mae.pace(1, 2)] == [1, 1, 1]


def test_the_optimiser_is_that_of_the_method() -> None:
    recipe = quick("mae", batch=64, learning_rate=1.5e-4, steps=100)
    learner = mae.learner(recipe, torch.device("cpu"))
    adam = learner.optimisers["autoencoder"]
    assert isinstance(adam, torch.optim.AdamW)
    weights, rest = adam.param_groups
    assert weights["betas"] == rest["betas"] == (0.9, 0.95)
    assert (weights["weight_decay"], rest["weight_decay"]) == (0.05, 0)
    learnt = [p for p in learner.kept.parameters() if p.requires_grad]
    assert len(weights["params"]) + len(rest["params"]) == len(learnt)
    fixed = {name for name, p in learner.kept.named_parameters() if not p.requires_grad}
    assert fixed == {"pos_embed", "encoder.pos_embed"}
    images = torch.zeros(64, 1, 32, 32)
    learner.step(images, 20)
    assert weights["lr"] == rest["lr"] == pytest.approx(1.5e-4 / 4 * mae.pace(20, 100))


# -- training --------------------------------------------------------------------------------------


def test_a_training_cut_off_anywhere_ends_with_the_same_weights(
    whole, tmp_path, monkeypatch
) -> None:
    recipe, _, once = whole
    for often in (True, False):
        monkeypatch.setattr(training, "CHECKPOINT_S", 0.0 if often else 1e9)
        folder = tmp_path / str(often)
        for cut in (1, 3, 4, 6):

            def watch(step: int, steps: int, loss: float, cut: int = cut) -> None:
                if step == cut:
                    raise CutOff

            with pytest.raises(CutOff):
                train(blobs(N), recipe, folder, watch)
        assert replace(train(blobs(N), recipe, folder), seconds=once.seconds) == once


def test_training_lowers_the_loss_and_the_decoder_comes_to_say_what_is_hidden(tmp_path) -> None:
    """Few slices, learnt by heart: far below 1, which saying nothing costs."""
    images = blobs(4, 32, seed=2)
    recipe = Recipe("mae", 32, 400, 16, 0.08, 64, 0.0, seed=1, snapshots=(1,))
    trained = train(images, recipe, tmp_path)
    loss = [mean for _, mean in trained.loss]
    assert loss[0] > 0.9
    assert loss[-1] < 0.1
    r = []
    for path, sha256 in (
        (training.snapshot(tmp_path, 1), trained.snapshots[1]),
        (tmp_path / WEIGHTS, trained.weights),
    ):
        shown, rebuilt = mae.reconstructed(mae.load(path, sha256), images, seed=1)
        hidden = shown != images
        assert hidden.mean() == pytest.approx(0.75, abs=0.02)
        assert np.array_equal(rebuilt[~hidden & (shown != 128)], images[~hidden & (shown != 128)])
        r.append(float(np.abs(rebuilt[hidden].astype(float) - images[hidden]).mean()))
    assert r[1] < 0.2 * r[0]


def test_the_file_holds_the_whole_autoencoder_and_says_what_it_is_of(whole, loaded) -> None:
    recipe, folder, trained = whole
    tensors, about = checkpoint.read(folder / WEIGHTS, trained.weights)
    assert recipe_of(about["recipe"]) == recipe
    assert set(tensors) == set(Autoencoder(32, 32).state_dict())
    assert torch.equal(tensors["encoder.pos_embed"], positions(2, 32))
    assert (loaded.recipe, loaded.n_images, loaded.step) == (recipe, N, 6)
    assert mae.provenance(loaded) == {
        "encoder": "mae",
        "feature_dim": 32,
        "file": WEIGHTS,
        "sha256": trained.weights,
        "input_px": 32,
        "resize": "area mean; bilinear where enlarged",
        "n_images": N,
        "steps": 6,
        "torch": str(torch.__version__),
    }


def test_it_makes_no_images_and_a_generator_makes_no_features(whole, tmp_path) -> None:
    _, folder, trained = whole
    with pytest.raises(ValueError, match="sample: weights.safetensors must be of one of ddpm, dcg"):
        sample(folder / WEIGHTS, trained.weights, 0, 1, seed=1)
    about = {"recipe": asdict(quick("dcgan"))}
    sha256 = checkpoint.write(tmp_path / "gan", {"a": torch.zeros(1)}, about)
    with pytest.raises(ValueError, match="load: gan must be of a mae; got a dcgan"):
        mae.load(tmp_path / "gan", sha256)
    with pytest.raises(ValueError, match="must have sha256 0000"):
        mae.features(folder / WEIGHTS, "0" * 64, blobs(1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("px", 40), ("px", 16), ("px", 528), ("width", 48), ("width", 96), ("width", 0)],
)
def test_a_recipe_that_breaks_a_rule_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"Recipe: {field} must be"):
        quick("mae", **{field: value})


def test_its_recipe_survives_json() -> None:
    recipe = quick("mae", px=512, width=768)
    assert recipe_of(json.loads(json.dumps(asdict(recipe)))) == recipe


# -- features --------------------------------------------------------------------------------------


def test_features_do_not_depend_on_what_stands_beside_a_slice(whole, loaded) -> None:
    images = blobs(7)
    found = mae.features(whole[1] / WEIGHTS, whole[2].weights, images, batch=3)
    assert found.shape == (7, 32)
    assert found.dtype == np.float32
    assert found.std(axis=0).max() > 1e-3
    for batch in (1, 2, 16):
        np.testing.assert_allclose(mae.encode(loaded, images, batch=batch), found, atol=1e-5)
    assert np.array_equal(mae.encode(loaded, images, batch=3), found)
    assert mae.encode(loaded, images[:0]).shape == (0, 32)


def test_a_feature_is_the_mean_token_of_all_patches_and_slices_are_reduced_by_area(loaded) -> None:
    large = np.random.default_rng(1).integers(0, 256, (2, 96, 64), dtype=np.uint8)
    small = large.reshape(2, 32, 3, 32, 2).mean(axis=(2, 4))
    x = torch.from_numpy(small)[:, None].float() / 127.5 - 1
    every = torch.arange(4).expand(2, -1)
    want = loaded.network.encoder.tokens(x, every)[:, 1:].mean(1)
    np.testing.assert_allclose(mae.encode(loaded, large), want, atol=1e-5)
    flat = np.full((1, 20, 40), 90, np.uint8)
    same = np.full((1, 32, 32), 90, np.uint8)
    np.testing.assert_allclose(mae.encode(loaded, flat), mae.encode(loaded, same), atol=1e-6)


def test_masks_of_a_picture_belong_to_the_slice_and_bad_input_is_named(loaded) -> None:
    images = blobs(3)
    shown, rebuilt = mae.reconstructed(loaded, images, seed=4)
    for whole, part in zip(
        (shown, rebuilt), mae.reconstructed(loaded, images[:2], seed=4), strict=True
    ):
        assert np.abs(whole[:2].astype(int) - part).max() <= 1
    for bad in (images.astype(np.float32), images[0], images[:, :0]):
        for of in (mae.encode, lambda *a: mae.reconstructed(*a, seed=1)):
            with pytest.raises(ValueError, match=r"images must be \(n, h, w\) uint8"):
                of(loaded, bad)
    with pytest.raises(ValueError, match="encode: batch must be >= 1, got 0"):
        mae.encode(loaded, images, batch=0)


# -- the published encoder -------------------------------------------------------------------------


def test_the_published_file_is_an_encoder_and_cannot_rebuild_a_slice_e21() -> None:
    parts = (Autoencoder(32, 64), masked.Encoder(64, 1, 1, 2, 3))  # ours, and as published
    ours, published = ({name.split(".")[0] for name in of.state_dict()} for of in parts)
    assert {"pixels", "mask_token"} <= ours
    assert not {"pixels", "mask_token"} & published


def test_a_published_file_has_its_tensors_one_level_down(tmp_path, monkeypatch) -> None:
    def small() -> masked.Encoder:
        return masked.Encoder(64, 1, 1, 2, 3)

    tensors: dict[str, Tensor] = {k: torch.randn(v.shape) for k, v in small().state_dict().items()}
    encoder = replace(encoders.ENCODERS["mae_vitb16"], build=small, feature_dim=64, input_px=32)
    monkeypatch.setitem(encoders.ENCODERS, "mae_vitb16", encoder)
    path = tmp_path / "mae_pretrain_vit_base.pth"
    torch.save({"model": tensors}, path)
    with pytest.raises(ValueError, match="be known as weights of mae_vitb16, or pinned"):
        encoders.load("mae_vitb16", path)
    pin = digest_of_file(path)
    loaded = encoders.load("mae_vitb16", path, pin)
    found = encoders.encode(loaded, blobs(2))
    mean, std = (torch.tensor(v)[:, None, None] for v in encoders.IMAGENET)
    x = (torch.from_numpy(blobs(2))[:, None] / 255 - mean) / std
    want = loaded.network.tokens(x)[:, 1:].mean(1)
    np.testing.assert_allclose(found, want, atol=1e-5)
    torch.save({"model": tensors | {"decoder_pred.bias": torch.zeros(3)}}, path)
    pin = digest_of_file(path)
    with pytest.raises(ValueError, match="left over, the first 'decoder_pred.bias'"):
        encoders.load("mae_vitb16", path, pin)
