"""VGG16 (Simonyan and Zisserman 2015, doi:10.48550/arXiv.1409.1556, Table 1, column D)."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)  # a maximum pool after each
GRID = 7  # what the pictures of 224 px leave; other sizes are averaged to it


class VGG16(nn.Module):
    """Thirteen convolutions and three layers; keys ``features.N``, ``classifier.{0,3,6}``.

    Parameters
    ----------
    classes : int
        Logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions())
        self.avgpool = nn.AdaptiveAvgPool2d(GRID)
        self.classifier = nn.Sequential(
            nn.Linear(512 * GRID * GRID, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the second fully connected layer after its ReLU: (B, 3, H, W) -> (B, 4096).

        METHOD.md, section 1.3. ``fc2`` of Keras, which paper 003 used, is the same layer.
        """
        x = self.avgpool(self.features(x)).flatten(1)
        out: Tensor = self.classifier[:6](x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, 3, H, W) float32, at least 32 px -> (B, classes)."""
        out: Tensor = self.classifier[6](self.penultimate(x))
        return out


def _convolutions() -> list[nn.Module]:
    layers: list[nn.Module] = []
    n_in = 3
    for stage in WIDTHS:
        for n_out in stage:
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            n_in = n_out
        layers.append(nn.MaxPool2d(2))
    return layers
