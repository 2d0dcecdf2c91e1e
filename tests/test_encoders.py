"""Networks take the published weights whole, and features depend on slices and weights only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fingerprint.models import encoders, inception, vit
from fingerprint.models.encoders import ENCODERS, Loaded, encode, load, provenance
from fingerprint.models.inputs import RESIZES, Resize, prepared

# too large to be run in a test; `tests/bench/encoders.py` runs them
DEEP = ("vgg16", "resnet101", "dinov2_vitb14", "dinov2_vitl14", "mae_vitb16")
QUICK = [name for name in ENCODERS if name not in DEEP]
# totals as published; those of DINOv2 added up by hand from width, depth and grid
PUBLISHED = {
    "vgg16": 138_357_544,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "efficientnet_b0": 5_288_548,
    "inception_v3": 27_161_264,
    "inception_fid": 27_161_264 - 3_326_696 + 8 * 2049,  # no side branch, eight more logits
    "radimagenet_resnet50": 25_557_032 - 1000 * 2049,  # no logits
    "dinov2_vits14": 22_056_576,
    "dinov2_vitb14": 86_580_480,
    "dinov2_vitl14": 304_368_640,
    "mae_vitb16": 85_798_656,
}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return ENCODERS[name].build()


def random_state(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Return weights under which every layer matters and features differ from slice to slice."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for key, like in on_meta(name).state_dict().items():
        if not like.is_floating_point():
            state[key] = torch.zeros(like.shape, dtype=like.dtype)
        elif like.ndim > 1 and "token" not in key:
            fan = like[0].numel()
            state[key] = torch.randn(like.shape, generator=draw) * (2 / fan) ** 0.5
        elif key.endswith("bias") or "mean" in key:
            state[key] = torch.randn(like.shape, generator=draw) * 0.1
        else:
            state[key] = torch.rand(like.shape, generator=draw) * 0.2 + 0.9
    return state


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of(name: str, px: int | None = None) -> Loaded:
    """Return an encoder with random weights, as if it had been loaded; smaller input on request."""
    encoder = ENCODERS[name]
    network = encoders._filled(encoder, random_state(name), "random.pth")
    return Loaded(
        replace(encoder, input_px=px or encoder.input_px), network, "random.pth", "0" * 64
    )


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a machine that does other work two threads wait for each other: ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    """Five smooth slices that differ."""
    rng = np.random.default_rng(5)
    small = rng.uniform(0, 255, (5, 9, 9)).astype(np.float32)
    large = nn.functional.interpolate(torch.from_numpy(small)[:, None], (96, 96), mode="bilinear")
    return large[:, 0].round().to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.save(random_state("mobilenet_v3_small"), path := tmp_path_factory.mktemp("w") / "v3.pth")
    return path


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_are_those_of_the_published_network(name: str) -> None:
    count = sum(parameter.numel() for parameter in on_meta(name).parameters())
    assert count == PUBLISHED[name] == ENCODERS[name].parameters


RESNET = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}
VIT = {"cls_token", "pos_embed", "mask_token", "patch_embed", "blocks", "norm"}


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("resnet50", RESNET),
        ("resnet101", RESNET),
        ("radimagenet_resnet50", RESNET - {"fc"}),
        ("dinov2_vits14", VIT),
        ("dinov2_vitb14", VIT),
        ("dinov2_vitl14", VIT),
        ("mae_vitb16", VIT - {"mask_token"}),
        *(
            (name, {"features", "classifier"})
            for name in PUBLISHED
            if name[:6] in ("mobile", "effici")
        ),
    ],
)
def test_keys_start_as_in_the_published_files(name: str, starts: set[str]) -> None:
    assert {key.split(".")[0] for key in on_meta(name).state_dict()} == starts


def test_layers_of_vgg_are_numbered_as_in_its_file() -> None:
    wanted = {f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
    wanted |= {f"classifier.{i}" for i in (0, 3, 6)}
    assert {key.rsplit(".", 1)[0] for key in on_meta("vgg16").state_dict()} == wanted


def test_the_last_layer_of_the_fid_network_has_the_shape_of_its_file() -> None:
    network = inception.inception_fid()
    assert network.fc.weight.shape == (1008, 2048)
    assert network.Mixed_7c.pool == "maximum"
    assert network.Mixed_7b.pool == network.Mixed_5b.pool == "inner mean"


@pytest.mark.parametrize("name", QUICK)
def test_features_are_finite_of_the_stated_length_and_tell_slices_apart(
    name: str, slices: np.ndarray
) -> None:
    loaded = of(name, 84 if name.startswith(("inception", "dino")) else 64)
    features = encode(loaded, slices, batch=3)
    assert features.shape == (5, ENCODERS[name].feature_dim)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 1e-3 * np.abs(features).max()
    one = np.concatenate([encode(loaded, slices[i : i + 1]) for i in range(5)])
    assert np.abs(one - features).max() <= 1e-5 * np.abs(features).max()
    assert np.array_equal(encode(loaded, slices, batch=3), features)


def test_vgg_gives_its_second_layer_after_the_relu(slices: np.ndarray) -> None:
    with torch.device("meta"):
        network = ENCODERS["vgg16"].build()
    network.to_empty(device="cpu")  # its half a gigabyte need not be drawn to be gone through
    for parameter in network.parameters():
        parameter.data.fill_(1e-3)
    loaded = Loaded(replace(ENCODERS["vgg16"], input_px=32), network.eval(), "same.pth", "")
    features = encode(loaded, slices[:2])
    assert features.shape == (2, 4096)
    assert (features > 0).all()
    for parameter in network.classifier[3].parameters():
        parameter.data.fill_(-1e-3)
    assert (encode(loaded, slices[:2]) == 0).all()


def test_a_file_of_random_weights_comes_back_bit_for_bit(small_file: Path) -> None:
    loaded = load("mobilenet_v3_small", small_file, digest(small_file))
    found, saved = loaded.network.state_dict(), random_state("mobilenet_v3_small")
    assert list(found) == list(saved)
    assert all(torch.equal(found[key], saved[key]) for key in saved)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())


def saved_as(folder: Path, state: dict[str, Tensor]) -> tuple[Path, str]:
    torch.save(state, path := folder / "changed.pth")
    return path, digest(path)


def test_a_missing_an_extra_and_a_misshapen_tensor_are_each_named(tmp_path: Path) -> None:
    name = "mobilenet_v3_small"
    state = random_state(name)
    key = "features.0.0.weight"
    without = {k: v for k, v in state.items() if k != key}
    for changed, words in (
        (without, f"1 missing, the first '{key}'"),
        (state | {"more.bias": torch.ones(1)}, "1 left over, the first 'more.bias'"),
        (state | {key: state[key][1:]}, f"1 of another shape, the first '{key}'"),
        (state | {key: state[key].int()}, f"1 of another shape, the first '{key}'"),
    ):
        with pytest.raises(ValueError, match="load: changed.pth must hold the tensors of") as error:
            load(name, *saved_as(tmp_path, changed))
        assert words in str(error.value)


def test_an_old_file_without_counters_of_norms_is_whole(tmp_path: Path, slices: np.ndarray) -> None:
    state = random_state("mobilenet_v3_small")
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    features = encode(load("mobilenet_v3_small", *saved_as(tmp_path, old)), slices)
    assert np.array_equal(features, encode(of("mobilenet_v3_small"), slices))


def test_half_precision_weights_are_computed_with_in_float32(tmp_path: Path) -> None:
    state = {
        k: v.half() if v.is_floating_point() else v
        for k, v in random_state("mobilenet_v3_small").items()
    }
    loaded = load("mobilenet_v3_small", *saved_as(tmp_path, state))
    assert {parameter.dtype for parameter in loaded.network.parameters()} == {torch.float32}


def test_the_side_branch_of_inception_is_loaded_and_not_asked(slices: np.ndarray) -> None:
    state = random_state("inception_v3")
    other = {k: v + 1 if k.startswith("AuxLogits") else v for k, v in state.items()}
    assert sum(k.startswith("AuxLogits") for k in state) == 14
    encoder = replace(ENCODERS["inception_v3"], input_px=80)
    both = [
        encode(Loaded(encoder, encoders._filled(encoder, s, "x"), "x", ""), slices[:1])
        for s in (state, other)
    ]
    assert np.array_equal(*both)


def test_the_fid_network_is_not_inception_v3_with_other_numbers(slices: np.ndarray) -> None:
    state = random_state("inception_fid")
    rest = {k: v for k, v in state.items() if not k.startswith("fc.")}
    as_v3 = random_state("inception_v3") | rest
    ours = encode(of("inception_fid", 80), slices[:1])
    encoder = replace(ENCODERS["inception_v3"], input_px=80, resize="bilinear")
    theirs = encode(Loaded(encoder, encoders._filled(encoder, as_v3, "x"), "x", ""), slices[:1])
    assert np.abs(ours - theirs).max() > 1e-2 * np.abs(ours).max()


def test_radimagenet_names_become_those_of_a_resnet(tmp_path: Path, slices: np.ndarray) -> None:
    ours = random_state("radimagenet_resnet50")
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    theirs = {}
    for key, value in ours.items():
        first, rest = key.split(".", 1)
        theirs[f"backbone.{places[first]}.{rest}"] = value
    loaded = load("radimagenet_resnet50", *saved_as(tmp_path, theirs))
    assert torch.equal(
        loaded.network.state_dict()["layer4.2.conv3.weight"], ours["layer4.2.conv3.weight"]
    )
    with pytest.raises(ValueError, match="classes must be > 0 for logits, got 0"):
        loaded.network(torch.zeros(1, 3, 32, 32))


def test_bad_arguments_are_named(small_file: Path, slices: np.ndarray) -> None:
    pin = digest(small_file)
    with pytest.raises(ValueError, match="load: name must be one of vgg16, .*; got 'alexnet'"):
        load("alexnet", small_file, pin)
    with pytest.raises(ValueError, match="load: resize must be one of bilinear, .*; got 'area'"):
        load("vgg16", small_file, pin, resize="area")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prepared: resize must be one of .* got 'area'"):
        prepared(
            torch.zeros(1, 8, 8, dtype=torch.uint8),
            px=8,
            resize="area",
            mean=(0,) * 3,
            std=(1,) * 3,
        )  # type: ignore[arg-type]
    loaded = of("mobilenet_v3_small")
    for bad in (slices.astype(np.float32), slices[0], slices[:, :0]):
        with pytest.raises(ValueError, match=r"encode: images must be \(n, H, W\) uint8, got"):
            encode(loaded, bad)
    with pytest.raises(ValueError, match="encode: batch must be >= 1, got 0"):
        encode(loaded, slices, batch=0)
    assert encode(loaded, slices[:0]).shape == (0, 1024)


def test_features_that_are_not_finite_are_refused(slices: np.ndarray) -> None:
    loaded = of("mobilenet_v3_small", 64)
    loaded.network.get_parameter("features.0.0.weight").data.fill_(torch.nan)
    with pytest.raises(ValueError, match="features of random.pth must be finite"):
        encode(loaded, slices)


def test_provenance_says_all_that_features_depend_on(small_file: Path) -> None:
    loaded = load("mobilenet_v3_small", small_file, digest(small_file), resize="bilinear-tf1")
    assert provenance(loaded) == {
        "encoder": "mobilenet_v3_small",
        "feature_dim": 1024,
        "file": "v3.pth",
        "sha256": digest(small_file),
        "input_px": 224,
        "resize": "bilinear, pixel centres at integers, not antialiased (as TensorFlow 1)",
        "grey_to_rgb": "three equal channels",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "torch": str(torch.__version__),
    }
    assert ENCODERS["mobilenet_v3_small"].resize == "bilinear-antialias"


@pytest.mark.parametrize("resize", RESIZES)
def test_grey_becomes_three_equal_channels(resize: Resize, slices: np.ndarray) -> None:
    images = torch.from_numpy(slices)
    x = prepared(images, px=40, resize=resize, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert x.shape == (5, 3, 40, 40)
    assert x.dtype == torch.float32
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])
    mean, std = encoders.IMAGENET
    y = prepared(images, px=40, resize=resize, mean=mean, std=std)
    grey = y * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    torch.testing.assert_close(grey, (x[:, :1] / 2 + 0.5).expand(-1, 3, -1, -1))


def resized(images: np.ndarray, px: int, resize: Resize) -> np.ndarray:
    x = prepared(torch.from_numpy(images), px=px, resize=resize, mean=(0,) * 3, std=(1 / 255,) * 3)
    return x[:, 0].numpy()


@pytest.mark.parametrize("px", [40, 96, 130])
@pytest.mark.parametrize(
    ("resize", "pil"),
    [
        ("bilinear-antialias", Image.Resampling.BILINEAR),
        ("bicubic-antialias", Image.Resampling.BICUBIC),
    ],
)
def test_antialiased_resizing_is_that_of_pil(
    resize: Resize, pil: Image.Resampling, px: int, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (2, 96, 96), dtype=np.uint8)
    expected = [
        np.asarray(Image.fromarray(image.astype(np.float32)).resize((px, px), pil))
        for image in images
    ]
    np.testing.assert_allclose(resized(images, px, resize), expected, atol=1e-2)


def test_resizing_as_tensorflow_1_pixel_by_pixel(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (1, 11, 7), dtype=np.uint8)
    expected = np.empty((5, 5))
    for i, j in np.ndindex(5, 5):
        y, x = i * 11 / 5, j * 7 / 5
        top, left = int(y), int(x)
        low, right = min(top + 1, 10), min(left + 1, 6)
        a, b, c, d = (float(image[0, p, q]) for p in (top, low) for q in (left, right))
        upper, lower = a + (b - a) * (x - left), c + (d - c) * (x - left)
        expected[i, j] = upper + (lower - upper) * (y - top)
    np.testing.assert_allclose(resized(image, 5, "bilinear-tf1")[0], expected, atol=1e-3)


def test_position_embedding_is_read_on_the_shifted_grid_of_dinov2() -> None:
    network = vit.ViT(2, 1, 1)
    ramp = torch.arange(vit.GRID, dtype=torch.float32)
    rest = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"), dim=-1).reshape(-1, 2)
    network.pos_embed.data = torch.cat([torch.full((1, 2), -7.0), rest])[None]
    with torch.inference_mode():
        found = network.positions(16, 20)[0]
    assert (found[0] == -7).all()
    rows, columns = found[1:].reshape(16, 20, 2).unbind(-1)
    # torch's bicubic (a = -0.75) bends a ramp by 0.05 at most; without the shift it were 0.2 off
    for values, n in ((rows[:, 5], 16), (columns[5], 20)):
        at = (np.arange(n) + 0.5) * vit.GRID / (n + 0.1) - 0.5
        np.testing.assert_allclose(values[1:-1], at[1:-1], atol=0.06)
    assert network.positions(vit.GRID, vit.GRID) is network.pos_embed
    with pytest.raises(ValueError, match="sides must be multiples of 14 px, got 28 x 30"):
        network(torch.zeros(1, 3, 28, 30))
