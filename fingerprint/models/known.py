"""Published files of weights: name, size and digest (METHOD.md, section 5). None is shipped."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A published file.

    file : its published name
    network : name in `encoders.ENCODERS` of what it is for; "" if there is none here
    sha256 : 64 hexadecimal digits; or the 8 that its name holds, which only hint at it: 32 bits can
        be forged, so such a file needs the user's pin like one that is not listed
    size : bytes, where known
    script : it is TorchScript, that is, code: never a state dict
    """

    file: str
    network: str
    sha256: str
    size: int | None = None
    script: bool = False

    @property
    def whole(self) -> bool:
        """Whether all of the digest is known."""
        return len(self.sha256) == 64


KNOWN = (
    Known(
        "pt_inception-2015-12-05-6726825d.pth",
        "inception_fid",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        95_628_359,
    ),
    Known(
        "weights-inception-2015-12-05-6726825d.pth",
        "inception_fid",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        95_628_359,
    ),
    Known(
        "inception-2015-12-05.pt",
        "",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        95_607_719,
        script=True,
    ),
    Known(
        "vgg16-397923af.pth",
        "vgg16",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553_433_881,
    ),
    Known(
        "resnet50-0676ba61.pth",
        "resnet50",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102_530_333,
    ),
    Known(
        "resnet50-11ad3fa6.pth",
        "resnet50",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    ),
    Known("resnet101-63fe2227.pth", "resnet101", "63fe2227"),
    Known("resnet101-cd907fc2.pth", "resnet101", "cd907fc2"),
    Known("inception_v3_google-0cc3c7bd.pth", "inception_v3", "0cc3c7bd"),
    Known(
        "mobilenet_v2-7ebf99e0.pth",
        "mobilenet_v2",
        "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f",
        14_258_573,
    ),
    Known("mobilenet_v2-b0353104.pth", "mobilenet_v2", "b0353104"),
    Known(
        "mobilenet_v3_small-047dcff4.pth",
        "mobilenet_v3_small",
        "047dcff4addef86ea5bc2eff13c9614dc11f47ab1160d0a71a25e7db994f4e1f",
        10_306_551,
    ),
    Known(
        "mobilenet_v3_large-8738ca79.pth",
        "mobilenet_v3_large",
        "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
        22_139_423,
    ),
    Known(
        "efficientnet_b0_rwightman-7f5810bc.pth",
        "efficientnet_b0",
        "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
        21_444_401,
    ),
    Known(
        "dinov2_vits14_pretrain.pth",
        "dinov2_vits14",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        88_283_115,
    ),
    Known(
        "dinov2_vitb14_pretrain.pth",
        "dinov2_vitb14",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        346_378_731,
    ),
    Known(
        "dinov2_vitl14_pretrain.pth",
        "dinov2_vitl14",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        1_217_586_395,
    ),
    Known(
        "sscd_disc_mixup.torchscript.pt",
        "",
        "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56",
        98_791_638,
        script=True,
    ),
)
