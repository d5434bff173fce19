"""Where the token positions of a state lie in every value that depends on it.

Of a value that holds T tokens among other things, the axis says which of its dimensions
counts them. A dimension may count more, as after (B, T, d) -> (B * T, d): then it has the
size outer * T * inner. Reshaping keeps the number of entries between two tokens; all
other ops move whole dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from torch import Size

from dynstab.linear.rules.table import Call
from dynstab.linear.rules.views import dimension_order


class Untracked(Exception):
    """The positions cannot be followed through an op; the text says where."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Dimension `dim` of a value counts outer x tokens x inner."""

    dim: int
    tokens: int
    outer: int = 1
    inner: int = 1

    @property
    def pure(self) -> bool:
        return self.outer == self.inner == 1

    def at(self, dim: int) -> Axis:
        return Axis(dim, self.tokens, self.outer, self.inner)

    def stride(self, shape: Sequence[int]) -> int:
        """Entries between two neighbouring tokens, in row-major order."""
        return self.inner * prod(shape[self.dim + 1 :])


def axis_at(shape: Sequence[int], tokens: int, stride: int) -> Axis:
    """The dimension in which neighbouring tokens are `stride` entries apart."""
    after = 1
    for dim in reversed(range(len(shape))):
        if after <= stride < after * shape[dim]:
            inner, left = divmod(stride, after)
            outer, rest = divmod(shape[dim], inner * tokens)
            if left == 0 and rest == 0 and outer > 0:
                return Axis(dim, tokens, outer, inner)
            break
        after *= shape[dim]
    raise Untracked(f"tokens do not fill one dimension of {tuple(shape)}")


Follow = Callable[[Call, tuple[Axis, ...]], Axis]
FOLLOW: dict[str, Follow] = {}


def follows(*names: str) -> Callable[[Follow], Follow]:
    def enter(function: Follow) -> Follow:
        FOLLOW.update(dict.fromkeys(" ".join(names).split(), function))
        return function

    return enter


def broadcast_axis(axes: Sequence[Axis], shapes: Sequence[Size], output: Size) -> Axis:
    """Of a pointwise op: the axis of its inputs, aligned from the right."""
    found = {axis.at(axis.dim + len(output) - len(shape)) for axis, shape in zip(axes, shapes, strict=True)}
    if len(found) != 1:
        raise Untracked("values that count tokens along different dimensions meet")
    return found.pop()


@follows("view _unsafe_view reshape _reshape_alias squeeze unsqueeze flatten unflatten view_copy")
def _reshaped(call: Call, axes: tuple[Axis, ...]) -> Axis:
    (axis,) = axes
    return axis_at(call.output.shape, axis.tokens, axis.stride(call.inputs[0].shape))


@follows("permute transpose t numpy_T mT movedim swapaxes")
def _permuted(call: Call, axes: tuple[Axis, ...]) -> Axis:
    (axis,) = axes
    return axis.at(dimension_order(call).index(axis.dim))


@follows("expand expand_copy broadcast_to")
def _expanded(call: Call, axes: tuple[Axis, ...]) -> Axis:
    return broadcast_axis(axes, [call.inputs[0].shape], call.output.shape)


@follows("_to_copy to")
def _unchanged(call: Call, axes: tuple[Axis, ...]) -> Axis:
    return axes[0]


@follows("_softmax _safe_softmax softmax _log_softmax log_softmax cumsum glu slice narrow")
@follows("topk sort")
@follows("split split_with_sizes chunk tensor_split split_copy unsafe_split unsafe_chunk")
def _along_another(call: Call, axes: tuple[Axis, ...]) -> Axis:
    """Ops along one dimension, which must not be that of the tokens."""
    (axis,) = axes
    _apart(axis, [call["dim"] % call.inputs[0].ndim])
    return axis


@follows("select unbind")
def _dropped(call: Call, axes: tuple[Axis, ...]) -> Axis:
    return _without(axes[0], [call["dim"] % call.inputs[0].ndim])


@follows("sum mean amax amin logsumexp linalg_vector_norm norm prod std var")
def _reduced(call: Call, axes: tuple[Axis, ...]) -> Axis:
    ndim, dims = call.inputs[0].ndim, call.get("dim")
    if dims is None or dims == []:
        raise Untracked("a reduction over everything")
    reduced = [d % ndim for d in ([dims] if isinstance(dims, int) else dims)]
    if call.get("keepdim", False):
        _apart(axes[0], reduced)
        return axes[0]
    return _without(axes[0], reduced)


@follows("index _unsafe_index index_select")
def _picked(call: Call, axes: tuple[Axis, ...]) -> Axis:
    """Entries of one dimension by a list of positions."""
    if "indices" in call.arguments:
        used = [dim for dim, index in enumerate(call["indices"]) if index is not None]
        if len(used) != 1 or call["indices"][used[0]].ndim != 1:
            raise Untracked("entries picked from several dimensions")
        _apart(axes[0], used)
    else:
        _apart(axes[0], [call["dim"] % call.inputs[0].ndim])
    return axes[0]


@follows("cat stack")
def _joined(call: Call, axes: tuple[Axis, ...]) -> Axis:
    if call.output.shape == call.inputs[0].shape:  # with nothing, as an empty cache
        return axes[0]
    if len(set(axes)) != 1:
        raise Untracked("values that count tokens along different dimensions are joined")
    dim = call.get("dim", 0) % call.output.ndim
    if call.op._schema.name == "aten::stack":
        return axes[0].at(axes[0].dim + (dim <= axes[0].dim))
    _apart(axes[0], [dim])
    return axes[0]


@follows("native_layer_norm")
def _normalised(call: Call, axes: tuple[Axis, ...]) -> Axis:
    if call.slots != (("input",),):
        raise Untracked("parameters that move")
    ndim = call["input"].ndim
    _apart(axes[0], range(ndim - len(call["normalized_shape"]), ndim))
    return axes[0]


@follows("mm addmm linear")
def _multiplied(call: Call, axes: tuple[Axis, ...]) -> Axis:
    """Rows that move, by a matrix that does not; the dimension of the sum is the last."""
    if len(call.slots) != 1 or call.slots[0][0] not in ("self", "mat1", "input"):
        raise Untracked("a product whose right side moves")
    if call.slots == (("self",),) and "mat1" in call.arguments:
        raise Untracked("a bias that moves")
    _apart(axes[0], [call.inputs[0].ndim - 1])
    return axes[0]


def _apart(axis: Axis, dims: Sequence[int]) -> None:
    if axis.dim in dims:
        raise Untracked("it acts along the tokens")


def _without(axis: Axis, dims: Sequence[int]) -> Axis:
    _apart(axis, dims)
    return axis.at(axis.dim - sum(d < axis.dim for d in dims))
