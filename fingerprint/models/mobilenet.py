"""MobileNetV2 and V3: thin residual blocks around a depthwise convolution.

Sandler et al. 2018, doi:10.1109/CVPR.2018.00474, Table 2; Howard et al. 2019,
doi:10.1109/ICCV.2019.00140, Tables 1 and 2.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fingerprint.models.blocks import Act, SqueezeExcite, conv_norm, pooled

# widened by, channels out, blocks, stride of the first
V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
EPS_V3 = 1e-3  # of every batch norm of V3


class Row(NamedTuple):
    """A block of V3."""

    kernel: int
    wide: int  # channels of the depthwise convolution
    out: int
    squeeze: bool
    hard: bool  # hard swish, else ReLU
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class MobileNetV2(nn.Module):
    """Width 1.0; keys ``features.N.conv``, ``classifier.1``.

    Parameters
    ----------
    classes : int
        Logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, stride=2, act=nn.ReLU6)]
        n_in = 32
        for widened, n_out, blocks, stride in V2:
            for i in range(blocks):
                layers.append(BlockV2(n_in, n_out, widened, stride if i == 0 else 1))
                n_in = n_out
        layers.append(conv_norm(n_in, 1280, act=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last convolution: (B, 3, H, W) -> (B, 1280)."""
        return pooled(self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, 3, H, W) float32, at least 32 px -> (B, classes)."""
        out: Tensor = self.classifier(self.penultimate(x))
        return out


class BlockV2(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, n_in: int, n_out: int, widened: int, stride: int) -> None:
        super().__init__()
        wide = n_in * widened
        parts = [] if widened == 1 else [conv_norm(n_in, wide, act=nn.ReLU6)]
        parts.append(conv_norm(wide, wide, 3, stride=stride, groups=wide, act=nn.ReLU6))
        # published keys number the last convolution and its norm among the parts
        self.conv = nn.Sequential(*parts, *conv_norm(wide, n_out, act=None))
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class MobileNetV3(nn.Module):
    """Width 1.0; keys ``features.N.block``, ``classifier.{0,3}``.

    Parameters
    ----------
    rows : tuple of Row
        `LARGE` or `SMALL`.
    last : int
        Channels of the layer before the logits.
    classes : int
        Logits.
    """

    def __init__(self, rows: tuple[Row, ...], last: int, classes: int = 1000) -> None:
        super().__init__()
        wide = 6 * rows[-1].out
        widths = [16, *(row.out for row in rows)]
        self.features = nn.Sequential(
            conv_norm(3, 16, 3, stride=2, eps=EPS_V3, act=nn.Hardswish),
            *(BlockV3(n_in, row) for n_in, row in zip(widths, rows, strict=False)),
            conv_norm(widths[-1], wide, eps=EPS_V3, act=nn.Hardswish),
        )
        self.classifier = nn.Sequential(
            nn.Linear(wide, last), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(last, classes)
        )

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the layer before the logits after its hard swish: (B, 3, H, W) -> (B, last).

        METHOD.md, section 1.3: 1280 (large) and 1024 (small), not the 960 and 576 pooled before.
        """
        out: Tensor = self.classifier[:2](pooled(self.features(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, 3, H, W) float32, at least 32 px -> (B, classes)."""
        out: Tensor = self.classifier[3](self.penultimate(x))
        return out


class BlockV3(nn.Module):
    """As `BlockV2`, with squeeze and excitation between in some."""

    def __init__(self, n_in: int, row: Row) -> None:
        super().__init__()
        act: Act = nn.Hardswish if row.hard else nn.ReLU
        parts: list[nn.Module] = []
        if row.wide != n_in:
            parts.append(conv_norm(n_in, row.wide, eps=EPS_V3, act=act))
        deep = {"stride": row.stride, "groups": row.wide}
        parts.append(conv_norm(row.wide, row.wide, row.kernel, **deep, eps=EPS_V3, act=act))
        if row.squeeze:
            squeezed = _eighths(row.wide // 4)
            parts.append(SqueezeExcite(row.wide, squeezed, nn.ReLU, nn.Hardsigmoid))
        parts.append(conv_norm(row.wide, row.out, eps=EPS_V3, act=None))
        self.block = nn.Sequential(*parts)
        self.adds = row.stride == 1 and n_in == row.out

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H / stride, W / stride)."""
        y: Tensor = self.block(x)
        return x + y if self.adds else y


def mobilenet_v3_small(classes: int = 1000) -> MobileNetV3:
    """Return the small V3; see `MobileNetV3`."""
    return MobileNetV3(SMALL, 1024, classes)


def mobilenet_v3_large(classes: int = 1000) -> MobileNetV3:
    """Return the large V3; see `MobileNetV3`."""
    return MobileNetV3(LARGE, 1280, classes)


def _eighths(channels: int) -> int:
    """Return the multiple of 8 nearest to `channels`, never below nine tenths of it."""
    near = max(8, (channels + 4) // 8 * 8)
    return near if 10 * near >= 9 * channels else near + 8
