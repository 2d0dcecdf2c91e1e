"""The settings as a TOML page that can be fed back: every knob, its value, what it does."""

from __future__ import annotations

import json
from typing import Any

from fingerprint.settings import Settings


def as_toml(settings: Settings) -> str:
    """Return every knob with its value; one that is not set stands in a comment."""
    values = settings.model_dump(mode="json")
    blocks = []
    for name, field in Settings.model_fields.items():
        about = [f"# {field.description}"] if field.description else []
        value = values[name]
        line = f"# {name} =" if value is None else f"{name} = {_toml(value)}"
        blocks.append("\n".join([*about, line]))
    return "\n".join(blocks) + "\n"


def _toml(value: Any) -> str:
    """Return a JSON value as TOML; the knobs hold text, numbers, booleans and lists of these."""
    return json.dumps(value, ensure_ascii=False)
