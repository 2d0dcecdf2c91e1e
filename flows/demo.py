"""The demo: a hospital of synthetic patients, a generated set with planted copies, one audit.

    OUT/hospital/   forty patients as DICOM and NIfTI, some files damaged
    OUT/generated/  images of nobody, and copies of some slices
    OUT/audit/      the run, with its report

An exact copy is found if it has r = 1 with a slice of its patient; any other one (noisy, with other
grey levels, turned and shifted, bent) if its patient comes first of all. An image of nobody must
not be among the findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fingerprint import phantom
from fingerprint.corpus import identity
from fingerprint.run import Run
from flows import chain, progress

SEED = 7
PATIENTS = 40
COPIES = (
    *[("exact", 0.0)] * 6,
    *[("noise", 8.0)] * 4,
    *[("gamma", 1.2)] * 4,
    *[("pose", 0.5)] * 3,
    *[("pose", 1.0)] * 3,
    *[("elastic", 6.0)] * 2,
)
NOVEL = 26
# the hospital holds some broken files on purpose
# half the size, and the few best pairs are registered: enough for the page, and it stays short
KNOBS = {
    "max_rejected_share_real": 0.2,
    "size_px": 256,
    "register_patients": 4,
    "elastic_patients": 1,
}


def run_demo(
    out: Path, *, patients: int = PATIENTS, novel: int = NOVEL, cluster: str = "local"
) -> dict[str, Any]:
    """Make the patients and the images, audit them, and compare the findings with the truth."""
    with progress.shown() as watch:
        watch("phantom", 0, 1)
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        hospital = phantom.write_hospital(out / "hospital", patients=patients, seed=SEED)
        truth = phantom.write_generated(
            out / "generated", hospital, COPIES, novel, seed=SEED, size_px=512
        )
        watch("phantom", 1, 1)
        audited = chain.audit_sets(
            str(out / "hospital"),
            str(out / "generated"),
            str(out / "audit"),
            knobs=KNOBS,
            key_file=str(out / "demo-key"),
            how=chain.How(cluster, watch),
        )
    key = identity.load_key(out / "demo-key", create=False)
    return judge(audited.run, truth, key)


def judge(run: Run, truth: Mapping[str, phantom.Truth], key: identity.Key) -> dict[str, Any]:
    """Compare the matches of a run with what was planted."""
    matches = run.matches[run.matches["query_set"] == "generated"]
    by_query = dict(iter(matches.groupby("query")))
    planted = found = false = 0
    for name, told in truth.items():
        rows = by_query.get(f"g_{identity.token(key, name)}")
        if told.kind == "novel":
            false += rows is not None and bool(rows["list"].notna().any())
            continue
        planted += 1
        who = identity.pseudonym(key, told.participant)
        found += rows is not None and _is_found(rows, told.kind, who)
    return {
        "report": str(run.report.resolve()),
        "found": found,
        "planted": planted,
        "novel": len(truth) - planted,
        "novel_among_findings": false,
        "passed": found == planted and not false,
    }


def _is_found(rows: pd.DataFrame, kind: str, who: str) -> bool:
    if kind == "exact":
        return bool(((rows["r_raw"] == 1) & (rows["participant"] == who)).any())
    first = rows.sort_values("rank").iloc[0]
    return bool(first["participant"] == who and pd.notna(first["list"]))
