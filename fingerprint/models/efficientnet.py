"""EfficientNet-B0 (Tan and Le 2019, doi:10.48550/arXiv.1905.11946, Table 1)."""

from __future__ import annotations

from torch import Tensor, nn

from fingerprint.models.blocks import SqueezeExcite, conv_norm, pooled

# widened by, kernel, stride of the first, channels out, blocks
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNetB0(nn.Module):
    """Keys ``features.N.M.block``, ``classifier.1``.

    Parameters
    ----------
    classes : int
        Logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers = [conv_norm(3, 32, 3, stride=2, act=nn.SiLU)]
        n_in = 32
        for widened, kernel, stride, n_out, blocks in STAGES:
            first = Block(n_in, n_out, widened, kernel, stride)
            rest = [Block(n_out, n_out, widened, kernel, 1) for _ in range(blocks - 1)]
            layers.append(nn.Sequential(first, *rest))
            n_in = n_out
        layers.append(conv_norm(n_in, 1280, act=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last convolution: (B, 3, H, W) -> (B, 1280)."""
        return pooled(self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, 3, H, W) float32, at least 32 px -> (B, classes)."""
        out: Tensor = self.classifier(self.penultimate(x))
        return out


class Block(nn.Module):
    """Widen, filter each channel, squeeze and excite, narrow; blocks are never dropped."""

    def __init__(self, n_in: int, n_out: int, widened: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = n_in * widened
        parts: list[nn.Module] = [] if widened == 1 else [conv_norm(n_in, wide, act=nn.SiLU)]
        parts += [
            conv_norm(wide, wide, kernel, stride=stride, groups=wide, act=nn.SiLU),
            SqueezeExcite(wide, n_in // 4, nn.SiLU, nn.Sigmoid),
            conv_norm(wide, n_out, act=None),
        ]
        self.block = nn.Sequential(*parts)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H / stride, W / stride)."""
        y: Tensor = self.block(x)
        return x + y if self.adds else y
