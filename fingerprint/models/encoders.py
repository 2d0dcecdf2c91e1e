"""Networks that turn a slice into features: what each is fed, and whose weights it takes.

Features are the penultimate layer (METHOD.md, section 1.3). They depend on the file, on how slices
are resized and on the version of torch: `provenance` says all of it, and no two rows that differ in
it are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.models import efficientnet, inception, masked, mobilenet, resnet, vgg, vit
from fingerprint.models.inputs import GREY, RESIZES, Colour, Resize, prepared
from fingerprint.models.known import KNOWN
from fingerprint.models.weights import load_state

Network = (
    vgg.VGG16
    | resnet.ResNet
    | mobilenet.MobileNetV2
    | mobilenet.MobileNetV3
    | efficientnet.EfficientNetB0
    | inception.Inception
    | vit.ViT
    | masked.Encoder
)

IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIGNED: tuple[Colour, Colour] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # 2x - 1
# RadImageNet's own torch file numbers the layers of a ResNet and leaves the last one out
RADIMAGENET = (
    ("backbone.0.", "conv1."),
    ("backbone.1.", "bn1."),
    *((f"backbone.{3 + i}.", f"layer{i}.") for i in range(1, 5)),
)


@dataclass(frozen=True)
class Encoder:
    """A network and what goes into it.

    name : its key in `ENCODERS`
    build : makes the network, with any weights
    feature_dim : length of a feature
    parameters : how many the network has, all of them in the file
    input_px : side of the square that a slice is resized to
    resize : one of `inputs.RESIZES`
    mean, std : of the three channels, where 0 .. 255 is 0 .. 1
    grey : how one channel becomes three
    renames : starts of keys in the file -> starts of our keys
    """

    name: str
    build: Callable[[], Network]
    feature_dim: int
    parameters: int
    input_px: int = 224
    resize: Resize = "bilinear-antialias"
    mean: Colour = IMAGENET[0]
    std: Colour = IMAGENET[1]
    grey: str = GREY
    renames: tuple[tuple[str, str], ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Published file names; empty: the user names and pins a file."""
        return tuple(known.file for known in KNOWN if known.network == self.name)


@dataclass(frozen=True)
class Loaded:
    """An encoder with the weights of a file."""

    encoder: Encoder
    network: Network  # in evaluation mode, float32, no gradients
    file: str
    sha256: str


_SIGNED: dict[str, Any] = {"mean": SIGNED[0], "std": SIGNED[1]}
_DINO: dict[str, Any] = {"resize": "bicubic-antialias"}
ENCODERS: dict[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        Encoder("vgg16", vgg.VGG16, 4096, 138_357_544),
        Encoder("resnet50", resnet.resnet50, 2048, 25_557_032),
        Encoder("resnet101", resnet.resnet101, 2048, 44_549_160),
        Encoder("mobilenet_v2", mobilenet.MobileNetV2, 1280, 3_504_872),
        Encoder("mobilenet_v3_small", mobilenet.mobilenet_v3_small, 1024, 2_542_856),
        Encoder("mobilenet_v3_large", mobilenet.mobilenet_v3_large, 1280, 5_483_032),
        Encoder(
            "efficientnet_b0",
            efficientnet.EfficientNetB0,
            1280,
            5_288_548,
            resize="bicubic-antialias",
        ),
        Encoder("inception_v3", inception.Inception, 2048, 27_161_264, 299, **_SIGNED),
        # resized as by pytorch-fid, whose file it is
        Encoder(
            "inception_fid", inception.inception_fid, 2048, 23_850_960, 299, "bilinear", **_SIGNED
        ),
        Encoder(
            "radimagenet_resnet50",
            lambda: resnet.resnet50(0),
            2048,
            23_508_032,
            renames=RADIMAGENET,
            **_SIGNED,
        ),
        Encoder("dinov2_vits14", vit.vit_small, 384, 22_056_576, **_DINO),
        Encoder("dinov2_vitb14", vit.vit_base, 768, 86_580_480, **_DINO),
        Encoder("dinov2_vitl14", vit.vit_large, 1024, 304_368_640, **_DINO),
        # published without its decoder; no whole digest is known, so the user pins the file
        Encoder("mae_vitb16", masked.published_base, 768, 85_798_656, **_DINO),
    )
}


def load(
    name: str, path: Path, pinned: str | None = None, *, resize: Resize | None = None
) -> Loaded:
    """Return an encoder with the weights of a file, every one of them and no other.

    Parameters
    ----------
    name : str
        A key of `ENCODERS`.
    path : Path
        The user's file; see `weights.load_state`.
    pinned : str, optional
        Its sha256, for a file that is not known.
    resize : str, optional
        One of `inputs.RESIZES` in place of the encoder's own; it goes into `provenance`.

    Raises
    ------
    ValueError
        A name or resize mode that is not known, a file that is refused, tensors that are missing,
        left over or of another shape.
    """
    if name not in ENCODERS:
        raise ValueError(f"load: name must be one of {', '.join(ENCODERS)}; got {name!r}")
    if resize is not None and resize not in RESIZES:
        raise ValueError(f"load: resize must be one of {', '.join(RESIZES)}; got {resize!r}")
    encoder = ENCODERS[name]
    state = load_state(path, name=name, pinned_sha256=pinned)
    tensors = {_renamed(key, encoder.renames): value for key, value in state.tensors.items()}
    network = _filled(encoder, tensors, state.file)
    encoder = replace(encoder, resize=resize or encoder.resize)
    return Loaded(encoder, network, state.file, state.sha256)


def encode(
    loaded: Loaded,
    images: NDArray[np.uint8],
    *,
    batch: int = 16,
    device: str | torch.device | None = None,
) -> NDArray[np.float32]:
    """Return the features of slices, one row each.

    Parameters
    ----------
    loaded : Loaded
    images : uint8, shape (n, H, W)
        Grey levels.
    batch : int
        Slices at a time: memory, not features (the sums of another batch differ by rounding only).
    device : str or device, optional
        Where to compute; the network is moved there and stays. None: where the network is.

    Returns
    -------
    float32, shape (n, feature_dim)
        The same bits for the same arguments on the same machine.

    Raises
    ------
    ValueError
        Images that are not (n, H, W) uint8 with pixels, `batch` < 1, features that are not finite.
    """
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(
            f"encode: images must be (n, H, W) uint8, got {images.shape} {images.dtype}"
        )
    if batch < 1:
        raise ValueError(f"encode: batch must be >= 1, got {batch}")
    if device is not None:
        loaded.network.to(device)
    out = np.empty((len(images), loaded.encoder.feature_dim), np.float32)
    for i in range(0, len(images), batch):
        out[i : i + batch] = _features(loaded, images[i : i + batch])
    if not np.isfinite(out).all():
        raise ValueError(f"encode: features of {loaded.file} must be finite, got some that are not")
    return out


def provenance(loaded: Loaded) -> dict[str, str | int | list[float]]:
    """Return what features depend on: goes beside every number that is made of them."""
    encoder = loaded.encoder
    return {
        "encoder": encoder.name,
        "feature_dim": encoder.feature_dim,
        "file": loaded.file,
        "sha256": loaded.sha256,
        "input_px": encoder.input_px,
        "resize": RESIZES[encoder.resize],
        "grey_to_rgb": encoder.grey,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "torch": str(torch.__version__),
    }


def _features(loaded: Loaded, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    how = loaded.encoder
    device = next(loaded.network.parameters()).device
    x = torch.from_numpy(np.array(images)).to(device)  # a copy: the caller's may be read-only
    # by default a GPU rounds what it convolves to ten bits, and may choose another way each time
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.inference_mode(), exact:
        x = prepared(x, px=how.input_px, resize=how.resize, mean=how.mean, std=how.std)
        out: NDArray[np.float32] = loaded.network.penultimate(x).cpu().numpy()
    return out


def _filled(encoder: Encoder, tensors: dict[str, Tensor], file: str) -> Network:
    """Return the network with these tensors; raise one line where they do not fit."""
    with torch.device("meta"):  # the file brings every number: none is drawn, and none left over
        network = encoder.build()
    wanted = network.state_dict()
    # files from before torch 0.4.1 lack the counter of a norm, which only training reads
    missing = [k for k in wanted if k not in tensors and not k.endswith("num_batches_tracked")]
    left = [k for k in tensors if k not in wanted]
    other = [k for k in wanted if k in tensors and not _fits(tensors[k], wanted[k])]
    for keys, what in ((missing, "missing"), (left, "left over"), (other, "of another shape")):
        if keys:
            raise ValueError(
                f"load: {file} must hold the tensors of {encoder.name} and no other; got "
                f"{len(keys)} {what}, the first {keys[0]!r}"
            )
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.float().eval().requires_grad_(False)


def _fits(found: Tensor, wanted: Tensor) -> bool:
    kinds = [(t.shape, t.is_floating_point(), t.layout) for t in (found, wanted)]
    return kinds[0] == kinds[1]


def _renamed(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for old, new in renames:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
