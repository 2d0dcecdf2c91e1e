"""Our networks against those whose published weights they take: the same features and logits?

    python tests/bench/encoders.py [NETWORK ...]

Each peer (torchvision; pytorch-fid for the network of the FID; timm for DINOv2 and the masked
autoencoder) is given random weights. Its state dict must load into ours with nothing missing and
nothing left over, and both must give the same for the same images. A difference is relative to the
largest value; "spread" is how much the images differ in the same measure, so that agreement can be
seen to say something.
Exits with 1 where one disagrees, with 2 where the peers are missing (`make bench-encoders`).

Not compared: how DINOv2's position embedding is interpolated (its own code is in no package), and
numbers of the published files, which are not here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from ratios import machine
from torch import Tensor, nn

from fingerprint.models import encoders, vit
from fingerprint.models.encoders import ENCODERS, Encoder, Loaded, encode

AGREES = 1e-5
PEERS = ("torchvision", "timm", "pytorch_fid")
# what torchvision describes as it is imported; its compiled half, which has them, wants CUDA
OPERATORS = ("nms", "qnms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
OPERATORS += tuple(f"_{name}_backward" for name in OPERATORS[2:]) + ("qroi_align",)
GRID = 224 // vit.PATCH  # position embeddings at the size asked for: none is interpolated
VITS = {
    "dinov2_vits14": (vit.vit_small, "vit_small_patch14_dinov2"),
    "dinov2_vitb14": (vit.vit_base, "vit_base_patch14_dinov2"),
    "dinov2_vitl14": (vit.vit_large, "vit_large_patch14_dinov2"),
}


@contextmanager
def operators() -> Iterator[None]:
    """Declare torchvision's operators, which no network here calls, to a torch without CUDA."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    if torch.version.cuda is None:
        for name in OPERATORS:
            library.define(f"{name}() -> Tensor")
    yield
    del library


def drawn(network: nn.Module, seed: int) -> nn.Module:
    """Give a network random weights under which every layer matters."""
    draw = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=draw)
        elif value.is_floating_point():
            low, high = (-0.1, 0.1) if key.endswith(("bias", "mean")) else (0.9, 1.1)
            value.uniform_(low, high, generator=draw)
    return network.eval()


def from_torchvision(name: str) -> nn.Module:
    """Return torchvision's network."""
    import torchvision.models  # noqa: PLC0415 - a peer, not a dependency

    plain = {"init_weights": False} if name in ("vgg16", "inception_v3") else {}
    return drawn(torchvision.models.get_model(name, weights=None, **plain), 1)


def from_pytorch_fid() -> nn.Module:
    """Return the network of the FID, loaded by its own code from weights that we drew."""
    import pytorch_fid.inception as peer  # noqa: PLC0415

    state = drawn(ENCODERS["inception_fid"].build(), 1).state_dict()
    peer.load_state_dict_from_url = lambda *_, **__: state
    return peer.fid_inception_v3().eval()


def from_radimagenet() -> nn.Module:
    """Return a ResNet-50 as RadImageNet's file numbers it."""

    class Numbered(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(network.children())[:-1])

        def forward(self, x: Tensor) -> Tensor:
            return self.backbone(x).flatten(1)

    return Numbered(from_torchvision("resnet50"))


def from_timm(name: str) -> nn.Module:
    """Return a DINOv2 transformer."""
    import timm  # noqa: PLC0415

    return drawn(timm.create_model(name, img_size=224, num_classes=0), 1)


def mae_from_timm() -> nn.Module:
    """Return the encoder of a masked autoencoder: the mean token of all patches, normed first."""
    import timm  # noqa: PLC0415

    pooled = {"num_classes": 0, "global_pool": "avg", "fc_norm": False}
    return drawn(timm.create_model("vit_base_patch16_224", **pooled), 1)


def peer_of(name: str) -> tuple[Encoder, nn.Module]:
    """Return our encoder and its peer."""
    encoder = ENCODERS[name]
    if name in VITS:
        build, theirs = VITS[name]
        return replace(encoder, build=lambda: build(GRID)), from_timm(theirs)
    special: dict[str, Callable[[], nn.Module]] = {
        "inception_fid": from_pytorch_fid,
        "radimagenet_resnet50": from_radimagenet,
        "mae_vitb16": mae_from_timm,
    }
    return encoder, special[name]() if name in special else from_torchvision(name)


def taken(encoder: Encoder, peer: nn.Module) -> encoders.Network:
    """Return our network with the weights of the peer, by the way that files go."""
    state = {encoders._renamed(k, encoder.renames): v for k, v in peer.state_dict().items()}
    if encoder.name in VITS:  # in the published files, of use only in training: timm drops it
        state["mask_token"] = torch.zeros(1, encoder.feature_dim)
    return encoders._filled(encoder, state, "the peer's state")


def asked(peer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what goes into a peer's last layer, and what comes out, if it has one."""
    last = [m for m in peer.modules() if isinstance(m, nn.Linear)][-1:]
    if not last or last[0].out_features not in (1000, 1008):
        return peer(x), None
    caught: list[Tensor] = []
    hook = last[0].register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    logits = peer(x)
    hook.remove()
    return caught[0], logits


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare(name: str) -> bool:
    """Print a row of the table; return whether both agree."""
    encoder, peer = peer_of(name)
    ours = taken(encoder, peer)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, encoder.input_px, encoder.input_px, generator=draw)
    x[1] = nn.functional.avg_pool2d(x[1], 9, 1, padding=4)  # a smooth image and a rough one
    with torch.inference_mode():
        features, logits = asked(peer, x)
        differences = [apart(ours.penultimate(x), features)]
        differences += [] if logits is None else [apart(ours(x), logits)]
    spread = apart(features[:1], features[1:])
    shown = [f"{value:.1e}" for value in differences] + ["none"] * (2 - len(differences))
    agrees = max(differences) <= AGREES < spread
    verdict = "agrees" if agrees else "DISAGREES"
    print(
        f"| {name} | {encoder.parameters:,} | {' | '.join(shown)} | {spread:.1e} | {verdict} |",
        flush=True,
    )
    return agrees


def whole_way() -> bool:
    """Compare `encode` of grey slices with pytorch-fid, which resizes and normalises itself."""
    import pytorch_fid.inception as peer  # noqa: PLC0415

    encoder = ENCODERS["inception_fid"]
    loaded = Loaded(encoder, taken(encoder, from_pytorch_fid()), "", "")
    images = np.random.default_rng(3).integers(0, 256, (3, 512, 512), dtype=np.uint8)
    x = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1) / 255
    with torch.inference_mode():
        theirs = peer.InceptionV3([3], use_fid_inception=True).eval()(x)[0].flatten(1)
    difference = apart(torch.from_numpy(encode(loaded, images)), theirs)
    agrees = difference <= AGREES
    verdict = "agrees" if agrees else "DISAGREES"
    print(f"\nfrom grey slices of 512 px to features, pytorch-fid: {difference:.1e}, {verdict}")
    return agrees


if __name__ == "__main__":
    if missing := [name for name in PEERS if not importlib.util.find_spec(name)]:
        print(f"{', '.join(missing)}: not installed (make bench-encoders)")
        sys.exit(2)
    torch.set_num_threads(1)
    print(machine())
    print("\n| network | parameters | features | logits | spread | |\n|---|---|---|---|---|---|")
    with operators():
        agree = [compare(name) for name in sys.argv[1:] or ENCODERS]
        agree.append(whole_way())
    sys.exit(not all(agree))
