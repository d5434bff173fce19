"""The options of an analysis, under the names that the command line gives them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from dynstab.core.frozen import Frozen


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
        select, ignore: rule codes or names; empty select means all.
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
    states: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
