"""A module with its arguments as one function of flat tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from dynstab.capture.complex import as_complex, as_real
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.random import seed_everything
from dynstab.capture.trace import tracing_context
from dynstab.core.errors import InputError


class Subject:
    """A module with its arguments, seen as one function of flat tensors.

    Attributes:
        parameters: name -> tensor, parameters then buffers, in the dtype and on the device of the analysis.
        learned: the names among them that are parameters. cast, moved: their dtype, device is not the module's own.
        inputs, input_names: the tensors among the arguments, complex ones in their real view.
        own_backward: custom autograd Functions keep their backward in a trace, see `functions`.
    """

    def __init__(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        seed: int = 0,
        own_backward: bool = False,
    ) -> None:
        self.module, self.seed, self.own_backward = module, seed, own_backward
        learned = dict(module.named_parameters())
        named = {**learned, **dict(module.named_buffers())}
        self.learned = frozenset(learned)
        self.cast = any(t.is_floating_point() and dtype not in (None, t.dtype) for t in learned.values())
        self.moved = device is not None and any(tensor.device.type != device.type for tensor in named.values())
        self.parameters = {name: _cast(tensor, dtype, device) for name, tensor in named.items()}
        leaves, self._spec = pytree.tree_flatten((args, dict(kwargs)))
        self._leaves = [_cast(leaf, dtype, device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.inputs = tuple(as_real(self._leaves[i].detach()) for i in self._positions)
        self.input_names = _input_names(module, args, kwargs, len(self.inputs))
        self.output_paths: tuple[str, ...] = ()
        self.output_kind = ""
        self._written: set[int] = set()

    def __call__(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that forward returns, complex ones in their real view; notes their paths."""
        result = self.forward(parameters, inputs)
        self.output_kind = f"a tensor of {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        found = list(tensor_leaves(result))
        self.output_paths = tuple(path for path, _ in found)
        return [as_real(tensor) for _, tensor in found]

    def forward(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
        """What forward returns with these parameters and inputs in place, under the same random draws each time.

        Call it only where the random state is put back (see `isolated`).
        """
        seed_everything(self.seed)
        leaves = list(self._leaves)
        for position, value in zip(self._positions, inputs, strict=True):
            own = self._leaves[position]
            value = as_complex(value, own.ndim) if own.is_complex() else value
            leaves[position] = value.clone() if position in self._written else value
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        replaced = dict(zip(self.parameters, parameters, strict=True))
        return functional_call(self.module, replaced, args, kwargs)

    def _other_dtype(self) -> str:
        """That inputs are of another dtype than the weights, in words."""
        weights = {t.dtype for name, t in self.parameters.items() if name in self.learned and t.is_floating_point()}
        if not weights or all(t.dtype in weights for t in self.inputs):
            return ""
        return f" (the weights are {', '.join(sorted(str(w).removeprefix('torch.') for w in weights))})"

    def differentiable(self) -> list[Tensor]:
        """The parameters and buffers, the former as fresh leaves that require gradients."""
        return [
            tensor.detach().requires_grad_() if name in self.learned and tensor.is_floating_point() else tensor.clone()
            for name, tensor in self.parameters.items()
        ]

    def run(self, parameters: Sequence[Tensor] | None = None, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        """One eager run without gradients, in the context that tracing uses.

        Raises:
            InputError: forward raised.
        """
        values = list(self.parameters.values()) if parameters is None else parameters
        # Buffers are cloned: a forward that moves its statistics must not move those of the next run.
        fresh = [t if name in self.learned else t.clone() for name, t in zip(self.parameters, values, strict=True)]
        # So are the inputs, which forward may write into: the user's stay as they are.
        given = [t.clone() for t in (self.inputs if inputs is None else inputs)]
        with torch.no_grad(), tracing_context(self.module):
            try:
                outputs = self(fresh, given)
            except (Exception, SystemExit) as error:
                shapes = ", ".join(
                    f"{name}: {tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}"
                    for name, t in zip(self.input_names, self.inputs, strict=True)
                )
                raise InputError(
                    f"the model rejects the input ({shapes or 'no tensor'}): {one_line(error)}",
                    remedy="give inputs that its forward accepts, e.g. --input randn:8,3,32,32 or randint:8,16:0..1000"
                    + self._other_dtype()
                    + (", or analyse in another --dtype" if self.cast else "")
                    + (", or on --device cpu" if self.moved else ""),
                ) from error
        self._written |= {position for position, t in zip(self._positions, given, strict=True) if t._version}
        return outputs


def one_line(error: BaseException) -> str:
    """An exception's type and message in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"


def _cast(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
    if dtype is not None and tensor.is_floating_point():
        return tensor.detach().to(dtype=dtype, device=device)
    if dtype is not None and tensor.is_complex():
        return tensor.detach().to(dtype=dtype.to_complex(), device=device)
    return tensor.detach().to(device=device) if device is not None else tensor


def _input_names(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], count: int) -> tuple[str, ...]:
    try:
        order = list(inspect.signature(module.forward).parameters)
    except (AttributeError, TypeError, ValueError):  # a script whose forward is overloaded has none by that name
        order = []
    named = [(order[i] if i < len(order) else f"input {i}", value) for i, value in enumerate(args)]
    names = [
        key if path in ("", "output") else f"{key}.{path}"
        for key, value in [*named, *kwargs.items()]
        for path, _ in tensor_leaves(value)
    ]
    return tuple(names) if len(names) == count else tuple(f"input {i}" for i in range(count))
