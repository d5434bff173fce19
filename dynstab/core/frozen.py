"""The base of all nouns: immutable, keyword-only, NaN and infinities kept in JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable record. Non-finite numbers are the strings "NaN", "Infinity", "-Infinity" in JSON."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", extra="ignore")
