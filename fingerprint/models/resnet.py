"""ResNet-50 and ResNet-101 (He et al. 2016, doi:10.1109/CVPR.2016.90, Table 1).

As in the published state dicts, a block that halves its image does so in its 3 x 3 convolution,
not in the 1 x 1 before it as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fingerprint.models.blocks import conv_norm, pooled

WIDER = 4  # a block's output over its inner width
STEM = 64


class ResNet(nn.Module):
    """Bottleneck residual network; keys ``conv1``, ``bn1``, ``layer1`` .. ``layer4``, ``fc``.

    Parameters
    ----------
    depths : four int
        Blocks of each stage.
    classes : int
        Logits; 0: the file has no last layer, and `forward` is not defined.
    """

    def __init__(self, depths: tuple[int, int, int, int], classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(STEM, 64, depths[0], stride=1)
        self.layer2 = _stage(256, 128, depths[1], stride=2)
        self.layer3 = _stage(512, 256, depths[2], stride=2)
        self.layer4 = _stage(1024, 512, depths[3], stride=2)
        self.fc = nn.Linear(2048, classes) if classes else None

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last stage: (B, 3, H, W) -> (B, 2048)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return pooled(self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, 3, H, W) float32, at least 32 px -> (B, classes)."""
        if self.fc is None:
            raise ValueError("ResNet.forward: classes must be > 0 for logits, got 0")
        out: Tensor = self.fc(self.penultimate(x))
        return out


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1, added to the input or to its 1 x 1 projection."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = WIDER * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        changes = stride != 1 or n_in != n_out
        self.downsample = conv_norm(n_in, n_out, stride=stride, act=None) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 width, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet50(classes: int = 1000) -> ResNet:
    """Return a ResNet-50; see `ResNet`."""
    return ResNet((3, 4, 6, 3), classes)


def resnet101(classes: int = 1000) -> ResNet:
    """Return a ResNet-101; see `ResNet`."""
    return ResNet((3, 4, 23, 3), classes)


def _stage(n_in: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(n_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(WIDER * width, width, 1) for _ in range(depth - 1)))
