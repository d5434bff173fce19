"""Every error that dynstab raises on purpose.

DynstabError
|-- ConfigError     an option that cannot be served
|-- LoadError       a target that cannot be read
|   `-- UnsafePickle    a pickle that would run code
|-- InputError      example inputs that the model rejects, or a specification that cannot be read
|-- CaptureError    a model that cannot be traced
|-- StateError      a trajectory without the states or steps that were asked for
|-- MemoryBudgetError    not even one tangent fits into memory
|-- ReportError     a report file that cannot be read or written
`-- StoreError      the store of a training run that cannot be read or written
"""

from __future__ import annotations


class DynstabError(Exception):
    """A misuse or a limit, in one sentence: what was got, what is expected, what to do.

    A numerical outcome (diverged, not converged) is never an exception: it is an
    `Estimate` whose `outcome` says so.
    """

    def __init__(self, got: str, *, expected: str = "", remedy: str = "") -> None:
        self.got, self.expected, self.remedy = got, expected, remedy
        parts = [got, f"expected {expected}" if expected else "", remedy]
        sentence = "; ".join(part if part.endswith("...") else part.rstrip(".") for part in parts if part)
        super().__init__(sentence if sentence.endswith("...") else sentence + ".")


class ConfigError(DynstabError):
    """An option that cannot be served."""


class LoadError(DynstabError):
    """A target that cannot be read."""


class UnsafePickle(LoadError):
    """A pickle that would run code, not executed."""


class InputError(DynstabError):
    """Example inputs that the model rejects, or a specification that cannot be read."""


class CaptureError(DynstabError):
    """A model that cannot be traced."""


class StateError(DynstabError):
    """A trajectory without the states or steps that were asked for."""


class MemoryBudgetError(DynstabError):
    """Not even one tangent fits into memory."""


class ReportError(DynstabError):
    """A report file that cannot be read or written."""


class StoreError(DynstabError):
    """The store of a training run that cannot be read or written."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type's name where it has none: for a message of one sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
