"""The public surface: few names, each importable, none by accident."""

from __future__ import annotations

import importlib
import inspect

import pytest

import dynstab

PUBLIC = {
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
}


def test_the_public_names_are_these() -> None:
    assert set(dynstab.__all__) == set(dir(dynstab)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(dynstab, name))


def test_the_function_stays_when_its_module_is_imported() -> None:
    importlib.import_module("dynstab.analyze")
    assert inspect.isfunction(dynstab.analyze)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        dynstab.analyse  # noqa: B018


def test_every_error_is_a_dynstab_error() -> None:
    errors = importlib.import_module("dynstab.core.errors")
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(kind, dynstab.DynstabError) for kind in kinds)
