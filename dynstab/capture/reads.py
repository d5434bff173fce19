"""Where forward turns a tensor that depends on the input into a Python number, and so may take another path.

`bool(x.sum() > 0)`, `x.item()`, `range(int(length))`, `x[x > 0]`: a captured graph holds the numbers
and the path of one run.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# What reads values: a number, or as many entries as the values say.
_READING = "_local_scalar_dense nonzero masked_select unique_dim _unique2 unique_consecutive equal"
_READS = frozenset(_READING.split())
# What takes no more than a shape or a dtype from its argument.
_SHAPED = (
    "zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full new_empty "
    "new_empty_strided"
)
_SHAPE_ONLY = frozenset(_SHAPED.split())
_OWN = Path(__file__).parent.as_posix()


class ValueReads(TorchDispatchMode):
    """Follows what depends on `inputs` by data; `places` are where such a value was read, "net.py:12"."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.places: dict[str, None] = {}
        self._dependent: dict[int, weakref.ref[Tensor]] = {}
        self._mark(inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if name not in _SHAPE_ONLY and any(self._depends(each) for each in pytree.tree_leaves((args, kwargs))):
            self._mark(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
            if name in _READS:
                self.places[_place()] = None
        return result

    def _mark(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self._dependent[id(tensor)] = weakref.ref(tensor)

    def _depends(self, value: Any) -> bool:
        # An id may be used again after its tensor has gone; the reference tells.
        return isinstance(value, Tensor) and (known := self._dependent.get(id(value))) is not None and known() is value


def _place() -> str:
    """The line of the model's code that is running: the innermost one outside torch and this package."""
    frame: Any = sys._getframe(2)
    torch_folder = Path(torch.__file__).parent.as_posix()
    while frame is not None:
        path = Path(frame.f_code.co_filename).as_posix()
        if not path.startswith((torch_folder, _OWN)):
            return f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "forward"
