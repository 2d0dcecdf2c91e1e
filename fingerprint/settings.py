"""Every knob, once: read from a TOML file, ``FINGERPRINT_*`` variables and flags, in rising order.

Units stand in the names. A setting that changes a result is part of the digest of every shard that
depends on it (``matters_to``); one that only changes speed (``workers``, ``memory_gib``) is not.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

WINDOWS_HU: dict[str, tuple[float, float]] = {
    "full": (-1000.0, 1000.0),  # 7.84 HU per grey level
    "lung": (-1350.0, 150.0),  # centre -600, width 1500; 5.88 HU per grey level
}

Orient = Literal[
    "as-is", "flip-x", "flip-y", "turn-90", "turn-180", "turn-270", "transpose", "anti"
]
Image = Literal["raw", "body", "highpass"]
Engine = Literal["torch", "simpleitk"]
Score = Literal["excess", "gap", "r"]
Generator = Literal["ddpm", "dcgan"]
Predicts = Literal["noise", "velocity"]
Method = Literal["similarity", "embedding", "texture", "density", "vcmi", "calibrated"]
METHODS: tuple[Method, ...] = get_args(Method)
Enhanced = Literal["plain", "unsharp", "clahe"]
IMAGES: tuple[str, ...] = get_args(Image)  # score images, METHOD.md, section 3.0
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """One typed model of every knob; immutable, so a run can be named by its digest."""

    model_config = SettingsConfigDict(env_prefix="FINGERPRINT_", extra="forbid", frozen=True)

    # -- ingest: from files to slices
    window_hu: Annotated[tuple[float, float], NoDecode] = Field(
        WINDOWS_HU["full"], description="HU shown as 0 and as 255; or a name: full, lung"
    )
    size_px: Annotated[int, Field(ge=32, le=512, multiple_of=32)] = Field(
        512, description="side of a stored slice"
    )
    require: Annotated[tuple[Literal["age", "sex"], ...], NoDecode] = Field(
        (), description="exclude scans that lack these (paper 000 requires both)"
    )
    hu: bool = Field(False, description="16-bit images hold Hounsfield units")
    range: Annotated[tuple[float, float] | None, NoDecode] = Field(
        None, description="values of float images shown as 0 and as 255"
    )
    orient: Orient | None = Field(
        None, description="turn images before storing; if given, audit does not question it"
    )
    participant_from: str | None = Field(
        None, description="regular expression with one group: participant, from a relative path"
    )
    max_rejected_share_real: Share = 0.05
    max_rejected_share_control: Share = 0.05
    max_rejected_share_generated: Share = 0.0

    # -- limits of one reader child
    reader_memory_gib: Annotated[float, Field(gt=0)] = 2.0
    reader_cpu_s: Annotated[float, Field(gt=0)] = 60.0

    # -- search
    chunk_slices: Positive = Field(64, description="slices in one stored chunk")
    block_slices: Positive = Field(256, description="slices multiplied at a time")
    shard_slices: Positive = Field(4096, description="slices in one unit of search work")
    shard_pairs: Positive = Field(
        200_000_000, description="pairs in one unit, where a corpus is compared with itself"
    )
    band_queries: Annotated[int, Field(ge=0)] = Field(
        0, description="queries in one unit of search work; 0: what memory_gib holds"
    )
    capped_slices: Annotated[int, Field(ge=0)] = Field(
        0, description="slices per patient where patients are compared; 0: what every patient has"
    )
    controls: Positive = Field(
        240, description="control slices that are searched, evenly over their patients"
    )
    canaries: Annotated[int, Field(ge=0)] = Field(
        10,
        description="copies planted of each kind and grade, to find the detection limit; 0: none",
    )
    keep_patients: Positive = Field(32, description="best patients listed for each query")
    keep_itself: Positive = Field(
        8, description="best patients kept for each slice of a corpus compared with itself"
    )
    keep_matrix: bool = Field(False, description="also write r of every query and slice")
    keep_matrix_gib: Annotated[float, Field(gt=0)] = Field(4.0, description="largest such matrix")

    # -- pose: how far a copy may have been moved, and how closely that is searched
    pose: bool = Field(True, description="search every pose, not only the stored one")
    image: Image = Field("highpass", description="image of the primary score at best pose")
    mirror: bool = Field(False, description="search mirrored copies too")
    angle_deg: Annotated[float, Field(ge=0, le=45)] = Field(15.0, description="largest turn")
    angle_step_deg: Annotated[float, Field(gt=0)] = 6.0
    scale: Annotated[float, Field(ge=0, lt=0.5)] = Field(0.10, description="largest change of size")
    scale_step: Annotated[float, Field(gt=0)] = 0.07
    shift_px: Annotated[float, Field(ge=0, le=128)] = Field(
        40.0, description="largest shift, in pixels of a 512 x 512 image"
    )
    shift_step_px: Annotated[float, Field(gt=0)] = 8.0
    refine_64: Positive = Field(1024, description="patients whose pose is refined at 64 px")
    refine_128: Positive = Field(256, description="patients whose pose is refined at 128 px")

    # -- register: the listed pairs, put in correspondence
    register_patients: Annotated[int, Field(ge=0)] = Field(
        32, description="best patients of each query that are registered, affine; 0: none"
    )
    elastic_patients: Annotated[int, Field(ge=0)] = Field(
        4, description="of those, the most alike that are registered elastically too"
    )
    engine: Engine = Field("torch", description="what registers: torch, or simpleitk (slow)")

    # -- statistics
    q: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="false-discovery rate")
    drop_leaking: bool = Field(
        False, description="leave out controls that leak instead of refusing them"
    )
    score: Score = Field(
        "excess", description="what of an image is compared with the controls: excess, gap or r"
    )
    encoder: str = Field(
        "inception_fid", description="feature network of FID, if weights are given"
    )
    weights: Path | None = Field(None, description="its weights, a file; none: FID is not run")
    weights_sha256: str | None = Field(
        None, description="SHA-256 of that file, where it is not one of the published ones"
    )
    withhold: tuple[str, ...] = Field(
        (), description="generated images that will not be published, by name: not judged"
    )
    sample: Positive | None = Field(None, description="draw this many generated images")
    seed: int = 20250123

    # -- study: sets of slices, generators trained on them, and images that they make
    sizes: Annotated[tuple[Positive, ...], NoDecode] = Field(
        (6, 60, 600, 6_000, 60_000), description="slices in each training set"
    )
    ages: Annotated[tuple[int, int] | None, NoDecode] = Field(
        None, description="complete years of every set, both included; none: any age"
    )
    ages_largest: Annotated[tuple[int, int] | None, NoDecode] = Field(
        None, description="other ages for the largest set alone, as in paper 000"
    )
    balance_sex: bool = Field(True, description="exactly half of the slices of every set of women")
    classes: Annotated[tuple[Literal["c1", "c2", "c3"], ...], NoDecode] = Field(
        ("c1", "c2", "c3"), description="regions in equal parts; none: any slice"
    )
    nested: bool = Field(True, description="a smaller set lies within the next larger one")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="share of the patients that nothing is trained on"
    )
    sets: Annotated[int, Field(ge=0, le=20)] = Field(
        7, description="further training sets, each of other patients (paper 000, Fig. 4)"
    )
    set_size: Positive = Field(600, description="slices in each of them")
    shrink: bool = Field(False, description="make sets smaller than asked where slices are few")
    runs: Positive = Field(1, description="generators trained on each set, each of another seed")
    generator: Generator = Field("ddpm", description="what is trained: ddpm or dcgan")
    train_px: Annotated[int, Field(ge=32, le=256, multiple_of=32)] = Field(
        64, description="side of the images it is trained on"
    )
    train_steps: Positive = Field(20_000, description="steps of its optimiser")
    train_batch: Positive = Field(16, description="images in a step")
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    width: Positive = Field(64, description="channels of its first layer")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="decay of the mean of weights that samples are drawn with; 0: none"
    )
    predicts: Predicts = Field(
        "noise", description="what a ddpm's network says: noise, or velocity (fewer steps)"
    )
    half: bool = Field(True, description="train in mixed precision where there is a GPU")
    snapshots: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="earlier states that are kept, to see when copying begins"
    )
    sample_steps: Annotated[int, Field(ge=2, le=1_000)] = Field(
        50, description="steps of the diffusion that draws an image"
    )
    pool: Positive = Field(1_000, description="images drawn with each generator")

    # -- membership: was this real slice used for training
    methods: Annotated[tuple[Method, ...], NoDecode] = Field(
        METHODS, description="which methods are run"
    )
    generated_folder: str = Field("generated", description="name, in DEV and TEST, of the images")
    used_folder: str = Field("real_used", description="of slices that were used")
    not_used_folder: str = Field("real_not_used", description="of slices that were not")
    unknown_folder: str = Field("real_unknown", description="of slices that are asked about")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        2, description="parts of DEV, by patient: each is judged by what the others teach"
    )
    compare_px: Annotated[int, Field(ge=16, le=512)] = Field(
        64, description="side at which slices and images are compared pixel by pixel"
    )
    top_images: Positive = Field(10, description="images in the mean of the most similar")
    noise: bool = Field(True, description="also compare with noise, as paper 001")
    table_slices: Positive = Field(
        300, description="images of each set in the table of similarities between sets"
    )
    networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="feature networks of paper 002: name=file of weights, or name=file=sha256"
    )
    enhanced: Annotated[tuple[Enhanced, ...], NoDecode, Field(min_length=1)] = Field(
        ("plain", "unsharp"), description="how edges are brought out before features are made"
    )
    mae_px: Annotated[int, Field(ge=32, le=512, multiple_of=16)] = Field(
        64, description="side of the images of the masked autoencoder"
    )
    mae_width: Positive = Field(192, description="width of its encoder; 768 is the paper's")
    mae_steps: Annotated[int, Field(ge=0)] = Field(
        600, description="steps of its training on DEV; 0: it is not run"
    )
    mae_batch: Positive = 32
    mae_learning_rate: Annotated[float, Field(gt=0)] = Field(
        3e-3, description="for a step of 256 images; 1.5e-4 in its paper, of far more steps"
    )
    shadow_px: Annotated[int, Field(ge=32, le=256)] = Field(
        32, description="side of the images of shadow generators; 32, 64, 128 or 256"
    )
    shadow_steps: Positive = Field(500, description="steps of their training")
    shadow_width: Positive = Field(64, description="filters of the DCGAN; 512 is the paper's")
    shadow_images: Positive = Field(802, description="images drawn with each, as in paper 003")
    same_kind: Generator | Literal["none"] = Field(
        "ddpm", description="kind of the generators in question, for a shadow of the same kind"
    )
    same_kind_width: Positive = Field(16, description="width of that shadow")
    submission_header: bool = Field(False, description="begin a submission with a header")
    submission_extension: bool = Field(False, description="whole file names in a submission")

    # -- the machine: no influence on any number
    workers: Annotated[int, Field(ge=0)] = Field(0, description="processes; 0: one per core")
    memory_gib: Annotated[float, Field(gt=0)] = Field(4.0, description="memory of one worker")

    @field_validator(
        *("window_hu", "range", "require", "sizes", "ages", "ages_largest", "classes"),
        *("methods", "networks", "enhanced"),
        mode="before",
    )
    @classmethod
    def _written_plainly(cls, value: Any) -> Any:
        """Take ``lung`` and ``0,1`` as a person writes them in a variable or a flag."""
        if isinstance(value, str) and value in WINDOWS_HU:
            return WINDOWS_HU[value]
        if isinstance(value, str):
            return tuple(part.strip() for part in value.strip("[]() ").split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _rising(self) -> Settings:
        for name in ("window_hu", "range"):
            pair = getattr(self, name)
            if pair is not None and not pair[0] < pair[1]:
                raise ValueError(f"{name}: the first value must be below the second, got {pair}")
        return self

    def max_rejected_share(self, set_name: str) -> float:
        """Share of inputs of a set that may be rejected before the command exits with 3."""
        return float(getattr(self, f"max_rejected_share_{set_name}"))

    def matters_to(self, *names: str) -> dict[str, Any]:
        """Return the named settings as JSON values, for the key of a shard."""
        return self.model_dump(mode="json", include=set(names))


def load(path: Path | None = None, **flags: Any) -> Settings:
    """Read the settings: defaults, then environment, then the TOML file, then flags that are set.

    Raises
    ------
    ValueError
        One line per bad value: which knob, which rule, which value.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"settings: cannot read {path}: {error}") from error
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = (
            f"settings: {'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']} (got {e['input']!r})"
            for e in error.errors()
        )
        raise ValueError("; ".join(lines)) from error
