"""The options of an analysis, under the names that the command line gives them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails

from dynstab.core.errors import ConfigError
from dynstab.core.frozen import Frozen


def _listed(value: Any) -> Any:
    """A lone string is a list of one."""
    return (value,) if isinstance(value, str) else value


def _words(value: Any) -> Any:
    """A lone string is a list with commas, as on the command line."""
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Config(Frozen):
    """What to measure and how hard to try.

    Attributes:
        k: how many exponents and singular values. seed: of every random draw.
        samples: independent inputs; None takes all that the inputs hold, or 8 where inputs are made up.
        effort: quick, standard or thorough. device: auto, cpu, cuda or cuda:N.
        dtype: of the analysis; None keeps the model's float32 or float64 and lifts half precision to float32.
        system: how the model is read. granularity: fine (every cut), step (every residual update), block.
        linearisation: of custom autograd Functions: the derivative of their forward, or what their backward says.
        states: globs of module paths that name the states, empty for automatic.
        select, ignore: rule codes or names, in one string with commas if you like; empty select means all.

    Raises:
        ConfigError: no such option, or a value that it cannot take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=8, ge=1)
    seed: int = 0
    samples: int | None = Field(default=None, ge=1)
    effort: Literal["quick", "standard", "thorough"] = "standard"
    device: str = "auto"
    dtype: Literal["float32", "float64", "bfloat16"] | None = None
    system: Literal["auto", "depth", "time", "flow"] = "auto"
    granularity: Literal["fine", "step", "block"] = "step"
    linearisation: Literal["forward", "backward"] = "forward"
    states: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    select: Words = ()
    ignore: Words = ()

    @model_validator(mode="wrap")
    @classmethod
    def _tell(cls, data: Any, handler: ModelWrapValidatorHandler[Config]) -> Config:
        try:
            return handler(data)
        except ValidationError as error:
            raise _error(error.errors()[0], tuple(cls.model_fields)) from None


def _error(found: ErrorDetails, known: tuple[str, ...]) -> ConfigError:
    """The first thing that is wrong, in a sentence."""
    name = str(found["loc"][0]) if found["loc"] else "config"
    if found["type"] == "extra_forbidden":
        close = get_close_matches(name, known, n=1)
        remedy = f"the nearest is {close[0]}" if close else ""
        return ConfigError(f"there is no option {name}", expected=", ".join(known), remedy=remedy)
    limits = found.get("ctx", {})
    if "ge" in limits:
        expected = f"{limits['ge']} or more"
    else:
        # pydantic says "Input should be a valid integer, unable to parse ..."
        expected = str(limits.get("expected") or found["msg"].removeprefix("Input should be ").partition(",")[0])
    return ConfigError(f"the option {name} is {found['input']!r}", expected=expected)
