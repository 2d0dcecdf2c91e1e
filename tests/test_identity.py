"""Pseudonyms are keyed, the key is guarded, and neither shows."""

from __future__ import annotations

import hashlib
import hmac
import logging
import multiprocessing
import os
import pickle
import re
import unicodedata
from pathlib import Path

import pytest

from fingerprint.corpus.identity import Key, load_key, pseudonym, scan_id, token

KEY = Key(b"sixteen bytes or more of secret")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FINGERPRINT_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_names_are_hmac_sha256_with_a_domain() -> None:
    expected = hmac.new(KEY.secret, b"fingerprint participant\0MRN 0012345", hashlib.sha256)
    assert pseudonym(KEY, "MRN 0012345") == "P" + expected.hexdigest()[:12]
    expected = hmac.new(KEY.secret, b"fingerprint key id", hashlib.sha256)
    assert KEY.key_id == expected.hexdigest()[:12]


def test_one_text_has_another_name_in_every_domain() -> None:
    names = [pseudonym(KEY, "0012345")[1:], scan_id(KEY, "0012345")[1:], token(KEY, "0012345")]
    assert len({*names, KEY.key_id}) == 4
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)
    assert scan_id(KEY, "x").startswith("S")


def test_another_key_makes_other_names() -> None:
    other = Key(KEY.secret + b"!")
    assert pseudonym(other, "1") != pseudonym(KEY, "1")
    assert other.key_id != KEY.key_id


def test_a_plain_hash_of_the_identifier_is_not_the_pseudonym() -> None:
    digest = hashlib.sha256(b"0012345").hexdigest()
    assert pseudonym(KEY, "0012345")[1:] not in digest


def test_accents_and_padding_do_not_split_a_patient() -> None:
    composed = unicodedata.normalize("NFC", "Müller/ü.png")
    decomposed = unicodedata.normalize("NFD", "Müller/ü.png")
    assert composed != decomposed
    assert token(KEY, composed) == token(KEY, decomposed)
    assert pseudonym(KEY, composed) == pseudonym(KEY, f" {decomposed} ")


@pytest.mark.parametrize("name", ["../../x<script>", "a\0b", os.fsdecode(b"\xff\xfe.png"), "日本"])
def test_hostile_names_get_a_harmless_token(name: str) -> None:
    assert re.fullmatch("[0-9a-f]{12}", token(KEY, name))


@pytest.mark.parametrize("name", ["", "  "])
def test_no_identifier_is_no_patient(name: str) -> None:
    with pytest.raises(ValueError, match="patient_id must not be empty"):
        pseudonym(KEY, name)


def test_the_secret_does_not_show(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        key = load_key(create=True)
    secret = key.secret.decode()
    assert secret not in repr(key) + str(key) + key.key_id + caplog.text
    assert str(home) not in caplog.text
    assert pickle.loads(pickle.dumps(key)) == key


def test_the_first_key_is_made_for_the_owner_only_and_says_to_back_it_up(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_key(create=False)
    with caplog.at_level(logging.INFO):
        key = load_key(create=True)
    path = home / "data" / "fingerprint" / "key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(key.secret) >= 32
    assert "back it up" in caplog.text
    caplog.clear()
    assert load_key(create=True) == load_key(create=False) == key
    assert not caplog.text
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_two_new_keys_differ(tmp_path: Path) -> None:
    assert load_key(tmp_path / "a", create=True) != load_key(tmp_path / "b", create=True)


def test_the_option_goes_before_the_variable_before_the_data_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = load_key(create=True)
    monkeypatch.setenv("FINGERPRINT_KEY_FILE", str(home / "variable"))
    variable = load_key(create=True)
    option = load_key(home / "option", create=True)
    assert len({default.secret, variable.secret, option.secret}) == 3
    assert load_key(create=False) == variable
    assert load_key(home / "option", create=False) == option


def test_a_relative_data_folder_is_ignored_for_the_one_at_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    load_key(create=True)
    assert (home / ".local" / "share" / "fingerprint" / "key").exists()


def test_a_named_folder_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        load_key(tmp_path / "typo" / "key", create=True)
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    load_key(path, create=True)
    path.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600"):
        load_key(path, create=False)


@pytest.mark.parametrize("content", [b"", b"short", b"fifteen bytes..\n", b"\n" * 99])
def test_a_short_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="16 bytes or more"):
        load_key(path, create=False)


def test_a_line_break_at_the_end_does_not_make_another_key(tmp_path: Path) -> None:
    keys = []
    for end in (b"", b"\n", b"\r\n"):
        path = tmp_path / f"key{len(end)}"
        path.write_bytes(b"a key that was typed" + end)
        path.chmod(0o600)
        keys.append(load_key(path, create=False))
    assert keys[0] == keys[1] == keys[2]


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        load_key(tmp_path, create=False)


def make(path: Path) -> bytes:
    return load_key(path, create=True).secret


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for i in range(5):
            assert len(set(pool.map(make, [tmp_path / f"key{i}"] * 8, chunksize=1))) == 1
