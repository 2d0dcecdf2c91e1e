"""Who is who, without saying who: keyed pseudonyms of patients, scans and files.

A plain hash of a patient number is undone in seconds by hashing all numbers; an HMAC is not, as
long as its key is secret. The key belongs to the user and lies outside every output. Whoever holds
key and source finds the patient behind a pseudonym; nobody else does.

Each kind of name has its own domain, so that a file called like a patient does not show it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

LEAST_BYTES = 16
HEX = 12  # 48 bits: among 10,000 patients two share a pseudonym once in 5.6 million corpora


@dataclass(frozen=True)
class Key:
    """The secret that makes pseudonyms; it never shows in a repr, a log or a file of ours."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Name of the key: tells two keys apart, gives neither away."""
        return hmac.digest(self.secret, b"fingerprint key id", "sha256").hex()[:HEX]


def pseudonym(key: Key, patient_id: str) -> str:
    """Return the name of a participant: ``P`` and 12 hex digits.

    Spaces around the identifier do not count (DICOM pads with them).
    """
    stripped = patient_id.strip()
    if not stripped:
        raise ValueError("pseudonym: patient_id must not be empty")
    return "P" + _hex(key, "participant", stripped)


def scan_id(key: Key, text: str) -> str:
    """Return the name of a scan: ``S`` and 12 hex digits."""
    return "S" + _hex(key, "scan", text)


def token(key: Key, text: str) -> str:
    """Return the name of a file: 12 hex digits, from its posix path relative to the source."""
    return _hex(key, "file", text)


def load_key(path: Path | None = None, *, create: bool) -> Key:
    """Read the key file, or make one.

    Parameters
    ----------
    path : Path, optional
        Else the variable ``FINGERPRINT_KEY_FILE``, else ``fingerprint/key`` in the user's data
        folder (``XDG_DATA_HOME``, by default ``~/.local/share``).
    create : bool
        Make the file if it is not there. Its folder is made only in the default place: a folder
        that was named and is missing is more often a slip of the pen.

    Raises
    ------
    ValueError
        The file is missing, readable by others than its owner, or shorter than 16 bytes.
    """
    named = path or _from_environment()
    path = named or _default_path()
    if not path.exists():
        if not create:
            raise ValueError(f"key file: {path} does not exist")
        _make(path, parents=named is None)
    return _read(path)


def _from_environment() -> Path | None:
    value = os.environ.get("FINGERPRINT_KEY_FILE", "")
    return Path(value).expanduser() if value else None


def _default_path() -> Path:
    home = os.environ.get("XDG_DATA_HOME", "")
    # the standard of these folders: a relative value is to be ignored
    data = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share"
    return data / "fingerprint" / "key"


def _make(path: Path, *, parents: bool) -> None:
    """Write a new key beside its place and link it there: it is never seen half written."""
    if parents:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    wip = path.with_name(f"{path.name}.{secrets.token_hex(8)}.wip")
    try:
        handle = os.open(wip, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(wip, path)
    except FileExistsError:
        return  # another process was first: its key is the key
    except OSError as error:
        raise ValueError(f"key file: cannot make {path}: {error.strerror}") from error
    finally:
        wip.unlink(missing_ok=True)
    log.warning(
        "a new key for pseudonyms was made; back it up: without it no pseudonym leads back to a "
        "patient, and later ingests make other pseudonyms"
    )


def _read(path: Path) -> Key:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(65_536).strip(b"\r\n")
    except OSError as error:
        raise ValueError(f"key file: cannot read {path}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        rights = stat.filemode(mode)
        raise ValueError(f"key file: {path} must be for its owner only (chmod 600), is {rights}")
    if len(secret) < LEAST_BYTES:
        raise ValueError(
            f"key file: {path} must hold {LEAST_BYTES} bytes or more, has {len(secret)}"
        )
    return Key(secret)


def _hex(key: Key, domain: str, text: str) -> str:
    """HMAC-SHA256 over domain and text; one name however its accents are composed."""
    # surrogates stand for bytes of a file name that are not UTF-8
    name = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
    message = f"fingerprint {domain}\0".encode() + name
    return hmac.new(key.secret, message, hashlib.sha256).hexdigest()[:HEX]
