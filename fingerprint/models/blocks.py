"""What the convolutional networks share: a convolution with its norm, and squeeze and excitation.

Names of parameters are those of the published state dicts, so that they load with `strict=True`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Act = Callable[[], nn.Module]


def conv_norm(
    n_in: int,
    n_out: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    eps: float = 1e-5,
    act: Act | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution (0), its batch norm (1) and an activation (2), padded to keep the size.

    Parameters
    ----------
    n_in, n_out, kernel, stride, groups : int
        Of the convolution, which has no bias: the norm has one.
    eps : float
        Of the norm; part of the published network, not of its file.
    act : callable or None
        Makes the activation; None: there is none.
    """
    padding = (kernel - 1) // 2
    conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=False)
    parts: list[nn.Module] = [conv, nn.BatchNorm2d(n_out, eps=eps)]
    return nn.Sequential(*parts, *([] if act is None else [act()]))


class SqueezeExcite(nn.Module):
    """Scale each channel by what all channels hold on average (Hu et al. 2018, section 3).

    Parameters
    ----------
    channels, squeezed : int
        In and out, and between the two layers.
    act, gate : callable
        Make the activations after the first and the second layer.
    """

    def __init__(self, channels: int, squeezed: int, act: Act, gate: Act) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same shape as `x`."""
        scale: Tensor = self.gate(self.fc2(self.act(self.fc1(pooled(x)[:, :, None, None]))))
        return scale * x


def pooled(x: Tensor) -> Tensor:
    """Return the mean over pixels: (B, C, H, W) -> (B, C)."""
    return torch.mean(x, dim=(2, 3))
