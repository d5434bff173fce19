"""Stability analysis of neural networks as dynamical systems.

    report = dynstab.analyze(model, inputs)
    print(report)

Every public name is imported when it is first used, so that `import dynstab` and
`dynstab --help` cost nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dynstab.analyze import analyze, inspect
    from dynstab.analyze_training import analyze_training
    from dynstab.core.config import Config
    from dynstab.core.errors import DynstabError
    from dynstab.core.estimate import Estimate
    from dynstab.core.flag import Flag
    from dynstab.core.report import Report
    from dynstab.estimators.lyapunov import LyapunovSpectrum, lyapunov_spectra, lyapunov_spectrum
    from dynstab.estimators.lyapunov_function import LyapunovFunction, lyapunov_function
    from dynstab.estimators.sharpness import sharpness, training_stability
    from dynstab.estimators.singular_values import singular_values
    from dynstab.linear.jacobian import jacobian
    from dynstab.loading import LoadedModel, load
    from dynstab.monitor.monitor import Monitor
    from dynstab.monitor.stopping import StopTraining
    from dynstab.systems.trajectory import Trajectory

_HOMES = {
    "analyze": "dynstab.analyze",
    "analyze_training": "dynstab.analyze_training",
    "inspect": "dynstab.analyze",
    "Config": "dynstab.core.config",
    "DynstabError": "dynstab.core.errors",
    "Estimate": "dynstab.core.estimate",
    "Flag": "dynstab.core.flag",
    "Report": "dynstab.core.report",
    "LyapunovSpectrum": "dynstab.estimators.lyapunov",
    "lyapunov_spectra": "dynstab.estimators.lyapunov",
    "lyapunov_spectrum": "dynstab.estimators.lyapunov",
    "LyapunovFunction": "dynstab.estimators.lyapunov_function",
    "lyapunov_function": "dynstab.estimators.lyapunov_function",
    "sharpness": "dynstab.estimators.sharpness",
    "singular_values": "dynstab.estimators.singular_values",
    "training_stability": "dynstab.estimators.sharpness",
    "jacobian": "dynstab.linear.jacobian",
    "LoadedModel": "dynstab.loading",
    "load": "dynstab.loading",
    "Monitor": "dynstab.monitor.monitor",
    "StopTraining": "dynstab.monitor.stopping",
    "Trajectory": "dynstab.systems.trajectory",
}

__all__ = [
    "Config",
    "DynstabError",
    "Estimate",
    "Flag",
    "LoadedModel",
    "LyapunovFunction",
    "LyapunovSpectrum",
    "Monitor",
    "Report",
    "StopTraining",
    "Trajectory",
    "__version__",
    "analyze",
    "analyze_training",
    "inspect",
    "jacobian",
    "load",
    "lyapunov_function",
    "lyapunov_spectra",
    "lyapunov_spectrum",
    "sharpness",
    "singular_values",
    "training_stability",
]


def __getattr__(name: str) -> Any:
    if name == "monitor":
        return import_module("dynstab.monitor")
    if name not in _HOMES:
        raise AttributeError(f"module 'dynstab' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps `dynstab.analyze` the function: importing the module of that name would bind the module instead."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
