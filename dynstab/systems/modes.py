"""What eval mode, in which everything is analysed, changes in a model that came in train mode."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd


def mode_notes(module: nn.Module) -> tuple[str, ...]:
    """A sentence where a layer in train mode acts otherwise than it is analysed, and one on untouched BatchNorm."""
    training = [each for each in module.modules() if each.training]
    norms = any(isinstance(each, _NormBase) and each.track_running_stats for each in training)
    changes = [
        "BatchNorm by running statistics" if norms else "",
        "dropout off" if any(map(_drops, training)) else "",
    ]
    told = ", ".join(filter(None, changes))
    mode = f"the model came in train mode and was analysed in eval mode ({told})" if told else ""
    fresh = fresh_norms(module)
    warm_up = f"{fresh} BatchNorm layers have never seen a batch: in eval mode they do not normalise yet"
    return tuple(note for note in (mode, warm_up if fresh else "") if note)


def fresh_norms(module: nn.Module) -> int:
    """BatchNorm layers whose running statistics are still those that they were made with."""
    counters = [each.num_batches_tracked for each in module.modules() if isinstance(each, _BatchNorm)]
    return sum(counter is not None and int(counter) == 0 for counter in counters)


def _drops(module: nn.Module) -> bool:
    """By a layer of torch's, or by a probability of its own: recurrent layers, attention, many others' modules."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return any("dropout" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())
