"""A file of weights is known by its digest, loaded from the bytes that were hashed, never run."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from fingerprint.models import weights
from fingerprint.models.encoders import ENCODERS
from fingerprint.models.known import KNOWN, Known
from fingerprint.models.weights import load_script, load_state


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save({"a.weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "some.pth")
    return tmp_path / "some.pth"


def refusal(path: Path, *, name: str = "resnet50", pin: str | None = None) -> str:
    with pytest.raises(ValueError, match="load_state") as caught:
        load_state(path, name=name, pinned_sha256=pin)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.parent) not in message
    return message


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: k.file)
def test_the_table_is_in_order(known: Known) -> None:
    assert len(known.sha256) == (64 if known.whole else 8)
    assert set(known.sha256) <= set("0123456789abcdef")
    assert known.network in ENCODERS or known.script
    suffix = known.file.removesuffix(".pth").rsplit("-", 1)[-1]
    if len(suffix) == 8 and known.file.endswith(".pth"):
        assert known.sha256.startswith(suffix)  # as torch names its files


def test_a_pinned_file_is_loaded_as_it_was_saved(saved: Path) -> None:
    state = load_state(saved, name="resnet50", pinned_sha256=digest(saved).upper())
    assert (state.file, state.sha256) == ("some.pth", digest(saved))
    assert torch.equal(state.tensors["a.weight"], torch.arange(6.0).reshape(2, 3))


def test_a_file_of_the_old_format_is_loaded_too(tmp_path: Path) -> None:
    old = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    assert load_state(old, name="vgg16", pinned_sha256=digest(old)).tensors["a"].sum() == 2


def test_a_known_digest_needs_no_pin_whatever_the_file_is_called(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "KNOWN", (Known("published.pth", "vgg16", digest(saved)),))
    assert load_state(saved, name="vgg16").sha256 == digest(saved)
    assert "is published.pth, of vgg16" in refusal(saved, name="resnet50")


def test_an_unknown_file_is_refused_with_the_digest_to_pin(saved: Path) -> None:
    message = refusal(saved)
    assert f"got sha256 {digest(saved)}" in message
    assert "if you trust its source, pin its sha256" in message


def test_a_wrong_pin_is_refused_even_for_a_known_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "KNOWN", (Known("some.pth", "vgg16", digest(saved)),))
    message = refusal(saved, name="vgg16", pin="0" * 64)
    assert message == f"load_state: some.pth must have the pinned sha256 {'0' * 64}; got " + digest(
        saved
    )


@pytest.mark.parametrize("pin", ["", "0676ba61", "g" * 64, "0" * 64 + "\n"])
def test_a_pin_is_a_whole_digest(saved: Path, pin: str) -> None:
    assert "64 hexadecimal digits" in refusal(saved, pin=pin)


def test_eight_known_digits_only_hint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known("resnet101-12345678.pth", "resnet101", digest(saved)[:8])
    monkeypatch.setattr(weights, "KNOWN", (known,))
    assert "only 8 digits are known" in refusal(saved, name="resnet101")
    assert load_state(saved, name="resnet101", pinned_sha256=digest(saved)).tensors


def test_a_damaged_download_is_told_from_an_unknown_file(saved: Path) -> None:
    named = saved.rename(saved.with_name("resnet50-0676ba61.pth"))
    assert "102,530,333 bytes" in refusal(named)


@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_is_one_line(saved: Path, damage: str) -> None:
    data = saved.read_bytes()
    content = {"empty": b"", "noise": b"nothing that torch knows", "cut": data[: len(data) // 2]}
    saved.write_bytes(content[damage])
    assert "whole state dict" in refusal(saved, pin=digest(saved))


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("how", ["bare", "in a zip", "in the old format"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, how: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    harm = {"a": Malicious(mark)}
    if how == "bare":
        path.write_bytes(pickle.dumps(harm))
    else:
        torch.save(harm, path, _use_new_zipfile_serialization=how == "in a zip")
    assert "without running code" in refusal(path, pin=digest(path))
    assert not mark.exists()
    pickle.loads(pickle.dumps(harm))
    assert mark.exists()  # it would have run


@pytest.mark.parametrize("content", [[1.0], {}, {"a": 1}, {1: torch.ones(1)}, torch.ones(2)])
def test_anything_but_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, path := tmp_path / "other.pth")
    assert "tensors under names" in refusal(path, pin=digest(path))


def test_no_file_and_too_large_a_one_are_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "must be a file" in refusal(saved.with_name("absent.pth"))
    assert "must be a file" in refusal(saved.parent)
    monkeypatch.setattr(weights, "MOST_BYTES", 10)
    assert "at most 10 bytes" in refusal(saved, pin=digest(saved))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A file that has what makes an archive TorchScript, written without its compiler."""
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        for name in ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"):
            archive.writestr(name, "")
    return tmp_path / "net.pt"


def test_torchscript_is_refused_even_pinned(script: Path) -> None:
    assert "TorchScript is code" in refusal(script, pin=digest(script))


def test_torchscript_runs_only_from_the_list(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="load_script: net.pt must be TorchScript that is on"):
        load_script(script)
    monkeypatch.setattr(weights, "KNOWN", (Known("net.pt", "", digest(script), script=True),))
    assert "TorchScript is code" in refusal(script)
    monkeypatch.setattr(torch.jit, "load", lambda file, map_location: (file.read(), map_location))
    assert load_script(script) == (script.read_bytes(), "cpu")


def test_what_is_loaded_is_what_was_hashed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest(saved)
    check = weights._check

    def swapped(*args: object) -> None:
        check(*args)
        torch.save({"a.weight": torch.zeros(2, 3)}, saved)

    monkeypatch.setattr(weights, "_check", swapped)
    state = load_state(saved, name="resnet50", pinned_sha256=expected)
    assert state.tensors["a.weight"].sum() == 15
    assert state.sha256 == expected != digest(saved)
