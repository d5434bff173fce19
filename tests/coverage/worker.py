"""One architecture through `dynstab.analyze`, as a row of the table."""

from __future__ import annotations

import resource
import time
import traceback
import warnings
from typing import Any

import torch
from architectures import Architecture, NotSmall, build
from declared import declared
from timm_families import TASK, build_family
from torch import nn

import dynstab
from dynstab.core.errors import DynstabError, InputError
from dynstab.loading import Inputs

SAMPLES = 2
Row = dict[str, Any]


def row(architecture: Architecture) -> Row:
    """What happened to one architecture; never raises."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    result: Row = {"family": architecture.family, "task": architecture.task}
    try:
        built = (build_family if architecture.task == TASK else build)(architecture, SAMPLES)
    except NotSmall as error:
        return {**result, "status": "not small", "reason": str(error)}
    except InputError as error:
        return {**result, "status": "no input", "reason": _line(error)}
    module = built.module
    result |= {"class": built.name or type(module).__name__, "inputs": list(built.inputs.description)}
    result |= {"parameters": sum(parameter.numel() for parameter in module.parameters()), **_traits(module)}
    return {**result, **_analyzed(module, built.inputs)}


def _traits(module: nn.Module) -> dict[str, bool]:
    """What tells kinds of architecture apart that share their tasks."""
    names = [type(each).__name__.lower() for each in module.modules()]
    convolutions = sum(isinstance(each, nn.Conv2d) for each in module.modules())
    stages = any("stage" in name for name, _ in module.named_modules())
    return {
        "experts": any("expert" in name or "moe" in name for name in names),
        "convolutional": convolutions > 3 or stages,
    }


def _analyzed(module: Any, inputs: Inputs) -> Row:
    started = time.perf_counter()
    try:
        report = dynstab.analyze(module, inputs, config=dynstab.Config(effort="quick", samples=SAMPLES))
    except DynstabError as error:
        return {"status": "refused", "reason": _line(error), "seconds": _since(started)}
    except Exception as error:  # a crash is a finding of its own kind
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {_line(error)} ({where.filename.split('/dynstab/')[-1]}:{where.lineno})"
        return {
            "status": "crash",
            "reason": reason,
            "seconds": _since(started),
            "trace": traceback.format_exc()[-3000:],
        }
    seconds = _since(started)
    failed = [f"{c.check}: {c.detail} (error {c.error})" for c in report.verification if not c.passed]
    steps = report.system.steps
    depth = declared(module, getattr(module, "config", None), steps, inputs)
    return {
        "status": "checks failed" if failed else "analyzed" if steps else "no steps",
        "reason": "; ".join(failed if steps else report.system.notes),
        "rung": report.system.rung,
        "states": len(report.system.states),
        "steps": len(steps),
        "kinds": {kind: sum(step.kind == kind for step in steps) for kind in ("residual", "plain", "transition")},
        "names": [step.name for step in steps],
        "blocks": depth.blocks,
        "updates": depth.updates,
        "plain blocks": depth.plain,
        "broken": list(depth.broken),
        "checks": len(report.verification),
        "errors": {check.check: check.error for check in report.verification},
        "routes": report.provenance.routes,
        "notes": list(report.system.notes),
        "verdict": report.verdict.kind,
        "seconds": seconds,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 2)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
