"""The reader process: whatever a file does, the others are read and every one has an outcome."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import dicoms
import nibabel as nib
import numpy as np
import psutil
import pytest

from fingerprint.corpus import child, dicom, readers
from fingerprint.corpus.readers import Died, Reader
from fingerprint.corpus.scan import CODES, ReadOptions, Rejected

SIZE = 64
OPTIONS = ReadOptions((-1000.0, 1000.0), SIZE)
AFFINE = np.diag([-0.7, -0.8, 2.5, 1.0])


@pytest.fixture(scope="module")
def reader():
    with Reader() as one:
        yield one


def outcome(answer):
    return answer.code if isinstance(answer, Rejected) else "ok"


def save_nifti(path, n=6):
    hu = np.stack([dicoms.picture(k) for k in range(n)])
    nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), AFFINE), path)
    return path


def sparse_nifti(path, n):
    """Write a volume of 512 x 512 x n that takes no room on disk: a file may be that large."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((512, 512, n))
    header.set_sform(AFFINE, 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(header.binaryblock)
    os.truncate(path, 352 + 512 * 512 * n * 2)
    return path


def ends(pid, within_s=10.0):
    """Wait until a process is gone or a zombie."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


# -- what a file is


def test_a_file_is_known_by_its_content_not_its_name(tmp_path):
    dicoms.write(tmp_path / "x.png")
    save_nifti(tmp_path / "x.nii.gz").rename(tmp_path / "noname")
    save_nifti(tmp_path / "x.nii").rename(tmp_path / "x.txt")
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.uint8))
    (tmp_path / "x.npy").rename(tmp_path / "x.dcm")
    (tmp_path / "x.csv").write_text("patient,age\n")
    kinds = {p.name: child.sniff(p) for p in tmp_path.iterdir()}
    assert kinds == {
        "x.png": "dicom",
        "noname": "nifti",
        "x.txt": "nifti",
        "x.dcm": "image",
        "x.csv": "other",
    }


def test_what_is_no_readable_file_has_a_code(tmp_path, reader):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("../../x<script>alert(1)</script>" * 9)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    names = ["empty", "text", "folder", "pipe", "missing"]
    found = reader.headers([tmp_path / name for name in names], OPTIONS)
    assert [outcome(a) for a in found] == ["empty_file", *["unreadable"] * 4]


def test_any_name_can_be_read(tmp_path, reader):
    names = ["x<script>", "line\nbreak", "ü", " ", b"\xff\xfe".decode(errors="surrogateescape")]
    paths = [dicoms.write(tmp_path / name) for name in names]
    assert [outcome(a) for a in reader.headers(paths, OPTIONS)] == ["ok"] * 5
    assert all(reader.read([path], "dicom", OPTIONS).scan for path in paths)


# -- the same as without a process between


def test_answers_come_in_order_and_equal_those_of_the_format(tmp_path, reader):
    paths = dicoms.series(tmp_path / "s", 5)
    assert reader.headers(paths, OPTIONS) == [dicom.headers(path, OPTIONS) for path in paths]


def test_a_series_equals_that_of_the_format(tmp_path, reader):
    paths = dicoms.series(tmp_path / "s", 5)
    paths.append(dicoms.write(tmp_path / "again", hu=dicoms.picture(2), z=-5.0))
    paths.append(tmp_path / "broken")
    paths[-1].write_bytes(paths[0].read_bytes()[:1200])
    got, plain = (
        r(paths, *k) for r, k in ((reader.read, ("dicom", OPTIONS)), (dicom.read, (OPTIONS,)))
    )
    assert np.array_equal(got.scan.pixels, plain.scan.pixels)
    assert np.array_equal(got.scan.source, plain.scan.source)
    assert np.array_equal(got.scan.z_mm, plain.scan.z_mm)
    for name in ("spacing_mm", "origin_mm", "native_px", "sex", "age_y", "notes"):
        assert getattr(got.scan, name) == getattr(plain.scan, name)
    assert got.excluded == plain.excluded
    assert {i: (w.code, w.detail) for i, w in got.rejected.items()} == {
        i: (w.code, w.detail) for i, w in plain.rejected.items()
    }
    got.scan.pixels[0] = 0  # it is ours


def test_files_of_every_kind_go_through_one_reader(tmp_path, reader):
    np.save(tmp_path / "a", np.arange(SIZE * SIZE, dtype=np.uint8).reshape(1, SIZE, SIZE))
    paths = [dicoms.write(tmp_path / "b"), save_nifti(tmp_path / "c.nii.gz"), tmp_path / "a.npy"]
    kinds = [answer[0].kind for answer in reader.headers(paths, OPTIONS)]
    assert kinds == ["dicom", "nifti", "image"]
    scans = [reader.read([p], k, OPTIONS).scan for p, k in zip(paths, kinds, strict=True)]
    assert [len(scan.pixels) for scan in scans] == [1, 6, 1]
    assert np.isnan(scans[2].spacing_mm[0])


# -- limits


def test_the_child_is_limited(reader, tmp_path):
    reader.headers([dicoms.write(tmp_path / "a")], OPTIONS)
    limits = Path(f"/proc/{reader.pid}/limits").read_text().splitlines()
    soft = {line[:25].strip(): line[26:47].strip() for line in limits}
    assert soft["Max address space"] == str(2 << 30)
    assert soft["Max core file size"] == "0"
    assert 60 <= int(soft["Max cpu time"]) <= 120
    assert psutil.Process(reader.pid).num_threads() == 1
    assert not psutil.Process(reader.pid).net_connections()


@pytest.mark.parametrize(
    "deed",
    [
        "import socket; socket.socket()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "open('made', 'w')",
        "import os; os.remove('made')",
        "import pickle; pickle.loads(b'cos\\nsystem\\n.')",
    ],
)
def test_the_child_may_not(deed, tmp_path):
    (tmp_path / "made").touch()
    script = (
        "import sys\nfrom fingerprint.corpus import child\nsys.addaudithook(child._refuse)\n"
        f"try:\n    {deed}\nexcept PermissionError:\n    sys.exit(77)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == 77
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_secret_in_the_environment_does_not_reach_the_child(monkeypatch, tmp_path):
    monkeypatch.setenv("FINGERPRINT_KEY_FILE", "/planted/secret")
    with Reader() as one:
        one.headers([dicoms.write(tmp_path / "a")], OPTIONS)
        assert b"planted" not in Path(f"/proc/{one.pid}/environ").read_bytes()


def test_a_reader_that_does_not_start_is_an_error_not_a_rejection(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Reader() as one, pytest.raises(RuntimeError, match="does not start"):
        one.headers([dicoms.write(tmp_path / "a")], OPTIONS)


@pytest.mark.parametrize("limits", [(0.01, 60), (2, 0)])
def test_limits_that_nothing_can_be_read_in_are_refused(limits):
    with pytest.raises(ValueError, match="memory_gib must be at least"):
        Reader(*limits)


def test_bombs_are_refused_in_bounded_memory(tmp_path):
    whole = save_nifti(tmp_path / "a.nii").read_bytes()
    for k in range(10):
        (tmp_path / f"{k}.nii.gz").write_bytes(gzip.compress(whole + bytes((k + 1) << 22), 9))
    long = dicoms.write(tmp_path / "long", implicit=True)
    where = long.read_bytes().index(b"\x10\x00\x20\x00") + 4  # the length of the PatientID
    long.write_bytes(long.read_bytes()[:where] + b"\xf0\xff\xff\x7f" + bytes(4000))
    paths = [*(tmp_path / f"{k}.nii.gz" for k in range(10)), long]
    with Reader() as one:
        found = [
            outcome(answer) if isinstance(answer, Rejected) else one.read([p], "nifti", OPTIONS)
            for p, answer in zip(paths, one.headers(paths, OPTIONS), strict=True)
        ]
        codes = [f if isinstance(f, str) else f.rejected[0].code for f in found]
        status = Path(f"/proc/{one.pid}/status").read_text()
    assert codes == ["bomb"] * 11
    peak_kib = int(next(s for s in status.splitlines() if s.startswith("VmHWM")).split()[1])
    assert peak_kib < 512 << 10


# -- deaths


def test_a_file_that_kills_the_reader_is_named_and_the_others_are_read(tmp_path):
    """A volume that is larger than the memory of the child: allowed by its size, not readable."""
    good = [save_nifti(tmp_path / f"{k}.nii") for k in range(2)]
    huge = sparse_nifti(tmp_path / "huge.nii", 1600)
    with Reader(memory_gib=0.5) as one:
        stacks = [one.read([path], "nifti", OPTIONS) for path in (good[0], huge, good[1])]
    assert [s.scan is not None for s in stacks] == [True, False, True]
    assert stacks[1].rejected[0].code == "reader_died"


def test_a_slice_that_kills_the_reader_leaves_the_rest_of_its_series(tmp_path):
    """A header of a million empty items, which takes the child's time; the gap is accounted for."""
    paths = dicoms.series(tmp_path / "s", 5, implicit=True)
    raw = paths[2].read_bytes()
    where = raw.index(b"\x20\x00\x0d\x00")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    methods = b"\x12\x00\x64\x00\xff\xff\xff\xff" + items
    paths[2].write_bytes(raw[:where] + methods + raw[where:])
    with Reader(cpu_s=0.2) as one:
        stack = one.read(paths, "dicom", OPTIONS)
        found = one.headers(paths, OPTIONS)
    assert {i: why.code for i, why in stack.rejected.items()} == {2: "reader_died"}
    assert [paths[i] for i in stack.scan.source] == [paths[k] for k in (0, 1, 3, 4)]
    assert stack.scan.spacing_mm[0] == 2.5
    assert [outcome(a) for a in found] == ["ok", "ok", "reader_died", "ok", "ok"]


def test_a_file_that_takes_too_long_is_named(tmp_path):
    slow, quick = sparse_nifti(tmp_path / "slow.nii", 700), save_nifti(tmp_path / "quick.nii")
    with Reader(cpu_s=0.2) as one:
        stacks = [one.read([path], "nifti", OPTIONS) for path in (slow, quick)]
    assert stacks[0].rejected[0].code == "reader_died"
    assert stacks[1].scan is not None


@pytest.mark.parametrize("seed", range(3))
def test_killing_the_child_while_it_reads_headers_loses_nothing(tmp_path, seed):
    paths = dicoms.series(tmp_path / "s", 300)
    with Reader() as one:
        one.headers(paths[:1], OPTIONS)
        killer = threading.Timer(0.005 + 0.03 * seed, os.kill, (one.pid, signal.SIGKILL))
        killer.start()
        found = one.headers(paths, OPTIONS)
        killer.join()
    assert [outcome(a) for a in found] == ["ok"] * 300
    assert [a[0].position_mm for a in found] == [-10 + 2.5 * k for k in range(300)]


@pytest.mark.parametrize("seed", range(2))
def test_killing_the_child_while_it_reads_a_series_loses_nothing(tmp_path, seed):
    paths = dicoms.series(tmp_path / "s", 120)
    expected = dicom.read(paths, OPTIONS)
    with Reader() as one:
        one.headers(paths[:1], OPTIONS)
        killer = threading.Timer(0.005 + 0.03 * seed, os.kill, (one.pid, signal.SIGKILL))
        killer.start()
        stack = one.read(paths, "dicom", OPTIONS)
        killer.join()
    assert not stack.rejected
    assert np.array_equal(stack.scan.pixels, expected.scan.pixels)


def test_killing_the_child_between_two_requests_loses_nothing(tmp_path, reader):
    paths = dicoms.series(tmp_path / "s", 5)
    for _ in range(3):
        reader.headers(paths, OPTIONS)
        os.kill(reader.pid, signal.SIGKILL)
        assert ends(reader.pid)
        assert len(reader.read(paths, "dicom", OPTIONS).scan.pixels) == 5


def test_an_interrupt_is_for_the_parent(tmp_path, reader):
    paths = [dicoms.write(tmp_path / "a")]
    reader.headers(paths, OPTIONS)
    before = reader.pid
    os.kill(before, signal.SIGINT)
    time.sleep(0.05)
    assert outcome(reader.headers(paths, OPTIONS)[0]) == "ok"
    assert reader.pid == before


def test_no_child_is_left_behind(tmp_path):
    with Reader() as one:
        one.headers([dicoms.write(tmp_path / "a")], OPTIONS)
        pid = one.pid
    assert ends(pid, 1.0)
    assert one.pid is None


def test_the_child_dies_with_its_parent(tmp_path):
    path = dicoms.write(tmp_path / "a")
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from fingerprint.corpus.readers import Reader\n"
        "from fingerprint.corpus.scan import ReadOptions\n"
        "reader = Reader()\n"
        "reader.headers([Path(sys.argv[1])], ReadOptions((-1000.0, 1000.0)))\n"
        "print(reader.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
        assert ends(pid)


# -- answers are input too


def test_an_unforeseen_error_names_its_kind_only(monkeypatch, tmp_path):
    class Format:
        @staticmethod
        def read(paths, options):
            raise KeyError("Name^Planted")

    monkeypatch.setattr(child, "reading", {"image": Format}.get)
    why = child.stack_of([tmp_path], "image", OPTIONS, 0)
    assert (why.code, why.detail) == ("unreadable", "KeyError")
    with pytest.raises(Died) as caught:
        readers._unless_failed({"failed": [why.code, why.detail]})
    assert caught.value.why.code == "unreadable"


@pytest.mark.parametrize(
    "answer",
    [
        {"rejected": {}, "excluded": {}, "scan": None},
        {"rejected": {"0": ["no_such_code", ""]}, "excluded": {}, "scan": None},
        {"rejected": {"7": ["unreadable", ""]}, "excluded": {}, "scan": None},
        {"rejected": {}, "excluded": {}, "scan": {"z_mm": [0], "source": [5]}},
        {"rejected": {}},
    ],
)
def test_an_answer_that_leaves_a_file_out_is_no_answer(answer):
    with pytest.raises((ValueError, KeyError)):
        readers._stack(answer, np.empty(0, np.uint8), 1, SIZE)


# -- hostile bytes


def mutants(seed, folder, n):
    """Write `n` damaged files: flipped bits and bytes, cuts, repeats, foreign pieces."""
    rng = np.random.default_rng(seed)
    seeds = [
        dicoms.write(folder / "a").read_bytes(),
        dicoms.write(folder / "b", implicit=True, signed=True, intercept=0).read_bytes(),
        dicoms.write(
            folder / "c", dicoms.enhanced(np.stack([dicoms.picture(k) for k in range(2)]))
        ).read_bytes(),
        save_nifti(folder / "d.nii", 2).read_bytes(),
        save_nifti(folder / "e.nii.gz", 2).read_bytes(),
    ]
    paths = []
    for k in range(n):
        raw = bytearray(seeds[k % len(seeds)])
        reach = len(raw) if rng.random() < 0.2 else min(len(raw), 1600)  # mostly the header
        for _ in range(rng.integers(1, 8)):
            at = int(rng.integers(reach))
            kind = rng.integers(5)
            if kind == 0:
                raw[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                raw[at : at + 4] = rng.bytes(4)
            elif kind == 2:
                raw[at : at + 4] = [b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"][rng.integers(3)]
            elif kind == 3:
                del raw[at : at + int(rng.integers(1, 64))]
            else:
                raw[at:at] = raw[at : at + int(rng.integers(1, 64))]
            reach = max(1, min(reach, len(raw)))
        paths.append(folder / f"mutant{k}")
        paths[-1].write_bytes(raw)
    return paths


def survive(folder, seed, n, caplog):
    """Read mutants as an ingest would; count what became of them."""
    paths = mutants(seed, folder, n)
    counts = Counter()
    with Reader() as one, caplog.at_level("DEBUG"):
        for path, answer in zip(paths, one.headers(paths, OPTIONS), strict=True):
            if isinstance(answer, Rejected):
                counts[answer.code] += 1
                assert "lanted" not in answer.detail
                assert "patient one" not in answer.detail
                continue
            stack = one.read([path], answer[0].kind, OPTIONS)
            assert bool(stack.scan) == (not stack.rejected)
            counts["accepted" if stack.scan else stack.rejected[0].code] += 1
    assert sum(counts.values()) == n
    assert set(counts) - {"accepted"} <= set(CODES)
    assert "Planted" not in caplog.text
    assert str(folder) not in caplog.text
    return counts


def test_damaged_files_are_accepted_or_rejected_and_nothing_dies(tmp_path, caplog):
    counts = survive(tmp_path, 20250123, 400, caplog)
    assert counts["reader_died"] == 0
    assert counts["accepted"] < 200


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path, caplog):
    counts = survive(tmp_path, 7, 10_000, caplog)
    assert counts["reader_died"] == 0


# -- real CT

REAL = ReadOptions((-1000.0, 1000.0))


@pytest.mark.slow
def test_a_hundred_slices_a_second_and_more(data):
    paths = sorted((data / "dicom_series" / "lidc-idri-0001").iterdir())
    with Reader() as one:
        one.read(paths, "dicom", REAL)
        start = time.process_time()
        before = sum(psutil.Process(one.pid).cpu_times()[:2])
        stack = one.read(paths, "dicom", REAL)
        spent = time.process_time() - start + sum(psutil.Process(one.pid).cpu_times()[:2]) - before
    assert len(stack.scan.pixels) == 133
    assert 133 / spent >= 100


def test_every_real_bad_input_has_a_code_or_is_read(data, reader):
    paths = sorted(p for p in (data / "bad_inputs").rglob("*") if p.is_file())
    found = Counter()
    for path, answer in zip(paths, reader.headers(paths, REAL), strict=True):
        if isinstance(answer, Rejected):
            found[answer.code] += 1
            continue
        stack = reader.read([path], answer[0].kind, REAL)
        found["accepted" if stack.scan else stack.rejected[0].code] += 1
    assert found == {
        "gantry_tilt": 6,
        "not_ct": 5,  # two without modality, NM, RGB secondary capture, MR
        "not_image": 2,  # segmentations
        "derived": 1,
        "bits": 1,
        "truncated": 1,
        "accepted": 2,  # the same slice in other bytes; a CT in JPEG 2000
    }
