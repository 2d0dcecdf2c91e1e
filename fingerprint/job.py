"""One audit as it lies on disk: its inputs, its settings, how far it is.

OUT holds one run. The run is named by the digest of its inputs and of the settings that decide a
result: the same inputs and settings resume, others are an error that names what differs.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import blocks
from fingerprint.search.sets import Against, Reference
from fingerprint.settings import Settings

FORMAT = (1, 0)
POSE = (
    "pose",
    "mirror",
    "angle_deg",
    "angle_step_deg",
    "scale",
    "scale_step",
    "shift_px",
    "shift_step_px",
)
DECIDES = (
    *("capped_slices", "controls", "keep_patients", "keep_itself", "q", "sample", "seed"),
    *("score", "canaries", "drop_leaking", "withhold", "encoder", "weights_sha256"),
    *("image", *POSE, "refine_64", "refine_128"),
    *("register_patients", "elastic_patients", "engine"),
)
BEFORE = "before"  # folder of what earlier runs in the same OUT stated
STATED = (
    *("run.json", "findings.json", "report.html", "report-without-real-images.html", "card.md"),
    *("queries.parquet", "matches.parquet", "drop.tsv", "leaks.tsv", "canaries.tsv"),
    *("rejections.tsv", "manifest.json"),
)
PACKAGES = (
    "fingerprint",
    "numpy",
    "torch",
    "zarr",
    "numcodecs",
    "xarray",
    "pandas",
    "pydicom",
    "nibabel",
    "simpleitk",
    "dask",
    "prefect",
)


@dataclass(frozen=True)
class OnDisk:
    """A folder that a command works in, and the document in it that says how far it is."""

    out: Path

    DOCUMENT: ClassVar[str] = "run.json"

    @property
    def ledger(self) -> Path:
        """The folder of finished shards."""
        return self.out / "ledger"

    def read(self) -> dict[str, Any]:
        """Return the document."""
        return read_run(self.out, self.DOCUMENT)

    def update(self, **changes: Any) -> None:
        """Change the document in one rename."""
        write_json(self.out / self.DOCUMENT, self.read() | changes)

    def record(self, phase: str, planned: int, done: int) -> None:
        """Note how many shards of a phase there are and how many are finished."""
        phases = self.read()["phases"] | {phase: {"planned": planned, "done": done}}
        self.update(phases=phases)


@dataclass(frozen=True)
class AuditJob(OnDisk):
    """Which corpora are compared, with which settings, into which folder. Made by `audit_job`."""

    real: Path
    generated: Path
    controls: Path | None
    settings: Settings
    positives: Path | None = None
    name: str = ""  # of one of several, where a study makes them

    @cached_property
    def corpora(self) -> dict[str, store.Corpus]:
        """The opened corpora by role; ``controls`` only if there are any."""
        paths = {"real": self.real, "generated": self.generated, "controls": self.controls}
        return {role: store.open_corpus(path) for role, path in paths.items() if path}

    @property
    def itself(self) -> bool:
        """Whether a corpus is audited against itself."""
        return self.corpora["real"].digest == self.corpora["generated"].digest

    @property
    def given(self) -> bool:
        """Whether CONTROLS were given: patients who are not in the real corpus."""
        return "controls" in self.corpora

    @property
    def searches_poses(self) -> bool:
        """Whether this run looks at other poses than the stored one."""
        return self.settings.pose and not self.itself

    @property
    def registers(self) -> bool:
        """Whether this run puts its listed pairs in correspondence."""
        return self.settings.register_patients > 0 and not self.itself

    @property
    def plants(self) -> bool:
        """Whether this run plants copies to find its detection limit."""
        return (self.settings.canaries > 0 or self.positives is not None) and not self.itself

    @property
    def canaries(self) -> store.Corpus | None:
        """The planted copies, once they are made; None where there are none."""
        path = self.out / "corpora" / "canary"
        return store.open_corpus(path) if self.plants and store.is_corpus(path) else None

    @cached_property
    def sampled(self) -> store.Corpus | None:
        """Images that a generator is known to have copied: planted as they are."""
        return store.open_corpus(self.positives) if self.positives and self.plants else None

    @cached_property
    def against(self) -> list[Against]:
        """Who is compared with whom; not for a corpus against itself."""
        corpora = self.corpora
        return blocks.five_blocks(
            corpora["real"],
            corpora["generated"],
            corpora.get("controls"),
            self.canaries,
            self.settings,
            self.sampled,
        )

    @cached_property
    def reference(self) -> Reference:
        """The real corpus as the search sees it."""
        if self.itself:
            return blocks.reference_of(self.corpora["real"], self.settings.capped_slices)[0]
        return self.against[0].reference


def audit_job(
    real: Path,
    generated: Path,
    controls: Path | None,
    out: Path,
    settings: Settings,
    *,
    positives: Path | None = None,
    name: str = "",
    update: bool = False,
) -> AuditJob:
    """Open or create the run in `out`.

    Parameters
    ----------
    positives : Path, optional
        A corpus of images that a generator copied from slices, planted among the canaries: each
        has the patient of its slice, and as ``scan`` the token of that slice.
    update : bool
        If `out` holds another run, keep what that stated in ``OUT/before`` and make this one of
        its shards, as far as they are the same.

    Raises
    ------
    ValueError
        Corpora that cannot be compared (two keys, two sizes), or another run in `out`.
    ledger.Damaged
        A corpus or ``run.json`` is not what was written.
    """
    # whole paths: a worker may have been started in another folder
    job = AuditJob(
        Path(out).resolve(),
        Path(real).resolve(),
        Path(generated).resolve(),
        controls and Path(controls).resolve(),
        settings,
        positives and Path(positives).resolve(),
        name,
    )
    _comparable(job.corpora)
    if job.itself and (job.controls or settings.sample or settings.keep_matrix):
        raise ValueError(
            "audit: a corpus against itself takes no --controls, --sample or --keep-matrix"
        )
    fresh = _document(job)
    job.out.mkdir(parents=True, exist_ok=True)
    os.chmod(job.out, 0o700)
    if (job.out / "run.json").exists():
        if update and read_run(job.out)["run"] != fresh["run"]:
            _set_aside(job.out, fresh)
        _same_run(read_run(job.out), fresh, job.out)
        (job.out / "manifest.json").unlink(missing_ok=True)  # unsealed before anything changes
        job.update(status="running")
    else:
        write_json(job.out / "run.json", fresh)
    ledger.clean(job.ledger)
    return job


def claim(out: Path, name: str = "run.json") -> None:
    """Refuse to make a run in a folder that holds something else.

    Raises
    ------
    ValueError
    """
    ours = {"corpora", "ledger", "log.jsonl", ".lease"}
    if (out / name).exists() or not out.exists():
        return
    if not out.is_dir() or any(p.name not in ours for p in out.iterdir()):
        raise ValueError(f"out: {out} holds something else than a run; choose another folder")


def _comparable(corpora: Mapping[str, store.Corpus]) -> None:
    first = corpora["real"]
    for role, corpus in corpora.items():
        for what in ("key_id", "size_px"):
            mine, theirs = getattr(first, what), getattr(corpus, what)
            if mine != theirs:
                raise ValueError(
                    f"{role}: {what} is {theirs}, of the real corpus {mine}; "
                    f"ingest both with the same {'key' if what == 'key_id' else 'settings'}"
                )
        if corpus.n == 0:
            raise ValueError(f"{role}: {corpus.path} holds no slice")


def digest_of_run(job: AuditJob) -> str:
    """Return the name of a run: the digest of its inputs and of the settings that decide."""
    digests = {role: corpus.digest for role, corpus in job.corpora.items()}
    if job.sampled:
        digests["positives"] = job.sampled.digest
    return ledger.digest_of({"inputs": digests, "settings": job.settings.matters_to(*DECIDES)})


def _document(job: AuditJob) -> dict[str, Any]:
    inputs = {role: input_of(job.out, corpus) for role, corpus in job.corpora.items()}
    return {
        "format": list(FORMAT),
        "run": digest_of_run(job),
        "inputs": inputs | {"controls": inputs.get("controls")},
        "notes": [],
    } | begun(job.settings)


def begun(settings: Settings) -> dict[str, Any]:
    """Return what every document begins with: settings, versions, machine, and no phase done."""
    return {
        "status": "running",
        "settings": _named(settings),
        "versions": _versions(),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "seeds": {"seed": settings.seed},
        "started": now(),
        "ended": None,
        "phases": {},
    }


def _named(settings: Settings) -> dict[str, Any]:
    """Return the settings as they are kept: of files of weights their names, not where they lie."""
    known = settings.model_dump(mode="json")
    networks = ["=".join([name, Path(file).name, *digest]) for name, file, *digest in _files(known)]
    return known | {"weights": settings.weights and settings.weights.name, "networks": networks}


def _files(known: Mapping[str, Any]) -> list[list[str]]:
    parts = [text.split("=") for text in known["networks"]]
    return [part for part in parts if len(part) > 1]


def input_of(out: Path, corpus: store.Corpus) -> dict[str, Any]:
    """Return what a document says of a corpus: digest, place, number of slices and patients."""
    path = corpus.path.resolve()
    inside = path.is_relative_to(out.resolve())
    return {
        "digest": corpus.digest,
        "path": path.relative_to(out.resolve()).as_posix() if inside else str(path),
        "key_id": corpus.key_id,
        "n": corpus.n,
        "patients": corpus.summary["participants"],
    }


def _set_aside(out: Path, fresh: dict[str, Any]) -> None:
    """Move what the run that is there stated into ``OUT/before``, and begin the new one."""
    folder = out / BEFORE / str(read_run(out)["run"])[:12]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in STATED:
        if (out / name).exists():
            (out / name).replace(folder / name)
    write_json(out / "run.json", fresh)


def _same_run(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    if old["run"] == new["run"]:
        return
    differs = [
        f"{role} corpus"
        for role in new["inputs"]
        if (old["inputs"][role] or {}).get("digest") != (new["inputs"][role] or {}).get("digest")
    ]
    differs += [name for name in DECIDES if old["settings"].get(name) != new["settings"][name]]
    raise ValueError(
        f"out: {out} holds a run with other {', '.join(differs)}; choose another, or give --update "
        "to reuse its shards"
    )


def read_run(out: Path, name: str = "run.json") -> dict[str, Any]:
    """Read the document of a run folder.

    Raises
    ------
    ValueError, ledger.Damaged
        There is none, or it was made by a newer version; or it is not readable.
    """
    try:
        document = json.loads((out / name).read_bytes())
        major = document["format"][0]
    except FileNotFoundError as error:
        command = "audit" if name == "run.json" else "study"
        raise ValueError(f"{out}: not a run (no {name}); make one with {command}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ledger.Damaged(f"{out.name}: {name} is not readable") from error
    if major > FORMAT[0]:
        raise ValueError(f"{out}: run format {major}; install fingerprint >= {major}.0")
    return dict(document)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document in one rename."""
    with ledger.replacing(path) as out:
        out.write(json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")


def now() -> str:
    """Return the time, UTC, in whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
