"""torchdiffeq's solvers, and the Runge-Kutta methods behind them."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from dynstab.core.errors import ConfigError
from dynstab.linear.runge_kutta import DOPRI5, EULER, MIDPOINT, Tableau

_THREE_EIGHTHS = Tableau(
    name="rk4", order=4, a=((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    c=(0.0, 1 / 3, 2 / 3, 1.0),
)  # fmt: skip
FIXED = {
    "euler": EULER,
    "midpoint": MIDPOINT,
    "rk4": _THREE_EIGHTHS,
    "heun2": Tableau(name="heun2", order=2, a=((1.0,),), b=(0.5, 0.5), c=(0.0, 1.0)),
    "heun3": Tableau(
        name="heun3", order=3, a=((1 / 3,), (0.0, 2 / 3)), b=(0.25, 0.0, 0.75), c=(0.0, 1 / 3, 2 / 3)
    ),
}  # fmt: skip
"""Of fixed steps: torchdiffeq's rk4 is Kutta's rule of 3/8."""


def installed() -> ModuleType | None:
    """torchdiffeq, where some model has already imported it."""
    return sys.modules.get("torchdiffeq")


def solvers() -> dict[str, type]:
    """torchdiffeq's table of solvers by name, the live one.

    Raises:
        ConfigError: this torchdiffeq keeps none.
    """
    odeint = getattr(installed(), "odeint", None)
    table = getattr(inspect.getmodule(odeint), "SOLVERS", None)
    if not isinstance(table, dict):
        raise ConfigError(
            "this torchdiffeq has no table of solvers to watch",
            expected="torchdiffeq 0.2",
            remedy="give the vector field f(t, x) itself",
        )
    return table


def is_known(method: str) -> bool:
    """Whether it is an adaptive Runge-Kutta method, whose tableau torchdiffeq tells."""
    return hasattr(solvers()[method], "tableau")


def tableau_of(method: str) -> Tableau:
    """Of the method's steps; dopri5's for a method without Runge-Kutta steps."""
    if method in FIXED:
        return FIXED[method]
    if not is_known(method):
        return DOPRI5
    solver: Any = solvers()[method]
    given = solver.tableau
    return Tableau(
        name=method,
        order=solver.order,
        a=tuple(tuple(row.tolist()) for row in given.beta),
        b=tuple(given.c_sol.tolist()),
        c=(0.0, *given.alpha.tolist()),
        error=tuple(given.c_error.tolist()),
    )
