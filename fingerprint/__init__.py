"""Does a synthetic CT slice show one of your patients? Which one, where, and how sure are we?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fingerprint.run import Run, audit, open_run

__all__ = ["Run", "audit", "open_run"]


def __getattr__(name: str) -> Any:
    """Import on first use: `fingerprint --help` must not wait for torch."""
    if name in __all__:
        from fingerprint import run

        return getattr(run, name)
    raise AttributeError(f"module 'fingerprint' has no attribute {name!r}")
