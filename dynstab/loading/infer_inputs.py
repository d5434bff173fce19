"""Example inputs for a model that came without any: made up, tried, and said so."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from dynstab.capture.isolate import isolated
from dynstab.core.errors import InputError
from dynstab.loading.admissible import refuse_module
from dynstab.loading.candidate import Candidate
from dynstab.loading.candidates import candidates
from dynstab.loading.inputs import make_inputs
from dynstab.loading.loaded import Inputs, LoadedModel

_SAMPLES = 8
_MOST_TRIALS = 40


def infer_inputs(loaded: LoadedModel, *, samples: int | None = None, seed: int = 0) -> Inputs:
    """The inputs that came with the model, or the first made-up ones that it accepts.

    Candidates come from a Hugging Face configuration or from the first layers; each is
    tried in evaluation mode without gradients, and the model is left as it was.

    Args:
        samples: independent inputs to make up, 8 by default.
        seed: of the values, which are the same for the same seed.

    Raises:
        InputError: the model rejects all candidates (the message lists their shapes and the model's own error),
            or its weights are not there (see `refuse_module`).
    """
    if loaded.inputs is not None:
        return loaded.inputs
    refuse_module(loaded.module, loaded.source)
    rejected: list[str] = []
    first = ""
    for candidate in candidates(loaded.module, samples or _SAMPLES):
        words = " ".join(map(str, candidate.specs))
        if words in rejected:
            continue
        if len(rejected) == _MOST_TRIALS:
            break
        inputs = realise(candidate, loaded.module, seed)
        error = try_inputs(loaded.module, inputs)
        if not error:
            return _described(inputs, candidate, rejected)
        first = first or error
        rejected.append(words)
    tried = "; ".join(rejected[:6]) + (f"; and {len(rejected) - 6} more" if len(rejected) > 6 else "")
    raise InputError(
        f"{loaded.source} accepts none of the inputs tried ({tried}); the answer to the first was: {first}",
        expected=_signature(loaded.module),
        remedy="give one with --input, e.g. --input randn:8,3,32,32 or --input input_ids=randint:8,16:0..1000",
    )


def realise(candidate: Candidate, module: nn.Module, seed: int) -> Inputs:
    """The tensors of a candidate, in the dtype and on the device of the model."""
    first = next((each for each in module.parameters() if each.is_floating_point()), None)
    dtype, device = (torch.float32, torch.device("cpu")) if first is None else (first.dtype, first.device)
    args, kwargs, lines = make_inputs(candidate.specs, seed=seed, dtype=dtype, device=device)
    return Inputs(args=args, kwargs=kwargs, description=lines, made_up=True)


def _described(inputs: Inputs, candidate: Candidate, rejected: list[str]) -> Inputs:
    if not rejected:
        after = ""
    elif len(rejected) == 1:
        after = f"; the model rejected {rejected[0]}"
    else:
        after = f"; the model rejected {rejected[0]} and {len(rejected) - 1} more"
    line = f"made up from {candidate.reason}: {' '.join(inputs.description)}{after}"
    return Inputs(args=inputs.args, kwargs=inputs.kwargs, description=(line,), made_up=True)


def try_inputs(module: nn.Module, inputs: Inputs) -> str:
    """Empty if the model accepts the inputs, else its own error in one line."""
    with isolated(module), torch.no_grad():
        try:
            module(*inputs.args, **inputs.kwargs)
        except Exception as error:
            # Whatever the model raises is its answer to these inputs.
            return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return ""


def _signature(module: nn.Module) -> str:
    try:
        return f"forward{inspect.signature(module.forward)}"
    except (TypeError, ValueError):
        return "inputs that the model's forward takes"
