"""A guess at what a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from dynstab.loading.inputs import InputSpec

TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One set of arguments and the fact that suggested it."""

    specs: tuple[InputSpec, ...]
    reason: str
