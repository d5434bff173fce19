"""Diagonal token blocks of a Jacobian: all of them for the price of one block's columns.

Of a state of T tokens with d features each, J_tt says how token t of the target follows
token t of the source. In the causal transformers J is block lower triangular, so these
blocks alone hold its eigenvalues and its determinant. Instead of T * d tangents, d are
pushed in which every token moves at once, and wherever tokens meet only the influence of
a token on itself is passed on: a product of queries and keys adds the keys' part on its
diagonal, one of weights and values takes the values' part from its diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.linear.layout import Layout
from dynstab.linear.memory import in_chunks
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.record import Record
from dynstab.linear.rules.table import Call, Push
from dynstab.linear.tape import Instruction
from dynstab.linear.tape_operator import TapeOperator, on_tape
from dynstab.linear.token_axis import FOLLOW, Axis, Untracked, broadcast_axis

_PROBED = 2


@dataclass(frozen=True, kw_only=True)
class TokenBlocks:
    """The blocks, or why they cannot be had.

    Attributes:
        blocks: J_tt, (samples, T, d_out, d_in), exact up to rounding; None where tokens cannot be followed.
        reason: why not. products: tangents pushed, per input.
    """

    blocks: Tensor | None = None
    reason: str = ""
    products: int = 0


def token_blocks(operator: JacobianOperator, source_token: int, target_token: int) -> TokenBlocks:
    """Diagonal token blocks of a step between states of one tensor.

    Whether J is block triangular is another question: the blocks are its diagonal either way.
    Every result is compared with ordinary tangents of single tokens before it is given.

    Args:
        source_token, target_token: the dimensions of source and target that count the tokens.
    """
    if len(operator.source.shapes) != 1 or len(operator.target.shapes) != 1:
        return TokenBlocks(reason="a state of several tensors")
    source, target = operator.source.shapes[0], operator.target.shapes[0]
    tokens = source[source_token]
    if tokens < 2 or target[target_token] != tokens:
        return TokenBlocks(reason=f"{tokens} tokens at the source, {target[target_token]} at the target")
    inner = on_tape(operator)
    if inner is None:
        return TokenBlocks(reason="the step is not on a tape")
    ends = Axis(source_token, tokens), Axis(target_token, tokens)
    try:
        sweep = _Sweep(operator, inner, *ends, on_rows=True)
    except Untracked as why:
        try:
            sweep = _Sweep(operator, inner, *ends, on_rows=False)
        except Untracked:
            return TokenBlocks(reason=str(why))
    blocks = sweep.blocks()
    if not sweep.confirmed(blocks):
        return TokenBlocks(reason="the blocks do not agree with tangents of single tokens", products=_PROBED)
    return TokenBlocks(blocks=blocks, products=blocks.shape[3] + _PROBED)


class _Sweep:
    """The tape's program with the pushes exchanged where tokens meet.

    A score of two tokens belongs to that of its row or to that of its column: to the one over
    which its softmax does not run. `on_rows` says which.
    """

    def __init__(
        self, operator: JacobianOperator, inner: TapeOperator, source: Axis, target: Axis, *, on_rows: bool
    ) -> None:
        self.operator, self.inner, self.source, self.target = operator, inner, source, target
        self.tape = inner.tape
        self.program = self._translate(on_rows)

    def _translate(self, on_rows: bool) -> tuple[Instruction, ...]:
        plan, values = self.tape.plan, self.tape.values
        axes: dict[fx.Node, Axis] = {plan.source[0]: self.source}
        program = []
        for record, step in zip(plan.executed, self.tape.instructions(), strict=True):
            call = record.call(values)
            try:
                axis, push = _follow(record, call, tuple(axes[node] for node in record.reads), values, on_rows)
            except Untracked as why:
                raise Untracked(f"{record.rule or record.node.target} at {record.node.name}: {why}") from why
            axes.update((node, axis) for node in record.outputs if node is not None)
            program.append(step if push is None else replace(step, push=push))
        reached = axes.get(plan.target[0])
        if reached is not None and reached != self.target:
            raise Untracked(f"tokens arrive in dimension {reached.dim} of the target, not in {self.target.dim}")
        return tuple(program)

    def blocks(self) -> Tensor:
        """(samples, T, d_out, d_in): one tangent for each feature of a token, all tokens at once."""
        layout, like = self.operator.source, self.tape.source_values[0]
        width = layout.size // self.source.tokens
        directions = torch.eye(width, dtype=like.dtype, device=like.device)

        def push(chunk: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            everywhere = chunk[0].reshape(-1, 1, 1, width).expand(-1, layout.samples, self.source.tokens, width)
            (moved,) = self.tape.run(self.program, (_from_tokens(everywhere, layout, self.source.dim),))
            return (_to_tokens(moved, self.operator.target, self.target.dim),)

        (found,) = in_chunks(push, (directions,), self.inner.bytes_per_tangent, budget=self.inner.budget)
        return found.permute(1, 2, 3, 0).to(self.operator.dtype)

    def confirmed(self, blocks: Tensor) -> bool:
        """Whether random tangents of single tokens come out as the blocks say."""
        layout, like = self.operator.source, self.tape.source_values[0]
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(self.source.tokens, generator=generator)[:_PROBED]
        alone = torch.zeros(len(chosen), layout.samples, self.source.tokens, blocks.shape[3])
        for row, token in zip(alone, chosen, strict=True):
            row[:, token] = torch.randn(row[:, token].shape, generator=generator)
        alone = alone.to(like)
        (moved,) = self.tape.push((_from_tokens(alone, layout, self.source.dim),))
        arrived = _to_tokens(moved, self.operator.target, self.target.dim).to(blocks.dtype)
        # A slip in the bookkeeping is of order one; rounding inside may be float32's whatever the state's dtype.
        tolerance = 0.1 if torch.finfo(like.dtype).bits < 32 else 1e-3
        for token, given, found in zip(chosen, alone.to(blocks.dtype), arrived, strict=True):
            expected = (blocks[:, token] @ given[:, token].unsqueeze(2)).squeeze(2)
            if not torch.allclose(
                found[:, token], expected, rtol=0, atol=tolerance * float(found[:, token].abs().max())
            ):
                return False
        return True


def _to_tokens(tensor: Tensor, layout: Layout, token: int) -> Tensor:
    """(k, *shape) -> (k, samples, T, features)."""
    k = tensor.shape[0]
    if layout.samples == 1:
        return tensor.movedim(token + 1, 1).reshape(k, 1, tensor.shape[token + 1], -1)
    sample = layout.sample_dims[0]
    return tensor.movedim((sample + 1, token + 1), (1, 2)).flatten(3)


def _from_tokens(tensor: Tensor, layout: Layout, token: int) -> Tensor:
    """(k, samples, T, features) -> (k, *shape)."""
    k, shape = tensor.shape[0], layout.shapes[0]
    fixed = [token] if layout.samples == 1 else [layout.sample_dims[0], token]
    rest = [size for dim, size in enumerate(shape) if dim not in fixed]
    front = [shape[dim] for dim in fixed]
    return tensor.reshape(k, *front, *rest).movedim(tuple(range(1, len(fixed) + 1)), tuple(d + 1 for d in fixed))


def _follow(
    record: Record, call: Call, axes: tuple[Axis, ...], values: Mapping[fx.Node, Any], on_rows: bool
) -> tuple[Axis, Push | None]:
    """The axis of the result, and another push where the tape's own would mix tokens."""
    if record.pointwise:
        shapes = [values[node].shape for node in record.reads]
        return broadcast_axis(axes, shapes, values[record.result].shape), None
    if record.rule in ("bmm", "baddbmm"):
        return _meet(call, axes, on_rows)
    if record.rule not in FOLLOW:
        raise Untracked("an op that may mix tokens")
    return FOLLOW[record.rule](call, axes), None


def _meet(call: Call, axes: tuple[Axis, ...], on_rows: bool) -> tuple[Axis, Push | None]:
    """(N, m, p) times (N, p, n): tokens may be in N on both sides, in m, in n, or summed over in p."""
    first, second = ("batch1", "batch2") if "batch1" in call.arguments else ("self", "mat2")
    at = dict(zip((slot[0] for slot in call.slots), axes, strict=True))
    if set(at) - {first, second}:
        raise Untracked("a summand that moves")
    if all(axis.dim == 0 for axis in axes):
        if len(set(axes)) != 1:
            raise Untracked("batches count tokens in different ways")
        return axes[0], None
    if not all(axis.dim != 0 and axis.pure for axis in axes):
        raise Untracked("tokens are counted along with other things")
    left, right = at.get(first), at.get(second)
    a, b = call[first], call[second]
    where = (left.dim if left else None, right.dim if right else None)
    if where in ((1, None), (None, 2)):
        return axes[0], None
    if where == (1, 2):
        return Axis(1 if on_rows else 2, axes[0].tokens), _scores(call, a, b, on_rows)
    if where in ((1, 1), (None, 1)) and a.shape[1] == a.shape[2]:
        return Axis(1, axes[0].tokens), _weighted(call, b, a, tokens_left=False)
    if where in ((2, 2), (2, None)) and b.shape[1] == b.shape[2]:
        return Axis(2, axes[0].tokens), _weighted(call, a, b, tokens_left=True)
    raise Untracked("a sum over the tokens")


def _scores(call: Call, a: Tensor, b: Tensor, on_rows: bool) -> Push:
    """Of s_tu = a_t . b_u the row moves with a_t, and on the diagonal with b_t (or the column with b, and a_u)."""
    scale = float(call.get("alpha", 1))

    def push(tangents: Sequence[Tensor]) -> Tensor:
        da, db = tangents
        own, other = (da @ b, (a * db.mT).sum(3)) if on_rows else (a @ db, (da * b.mT).sum(3))
        own.diagonal(dim1=2, dim2=3).add_(other)
        return own.mul_(scale) if scale != 1.0 else own

    return push


def _weighted(call: Call, values: Tensor, weights: Tensor, *, tokens_left: bool) -> Push:
    """Of o_t = sum_u w_tu v_u the weights of t move with token t, and of the values only v_t (or mirrored)."""
    scale = float(call.get("alpha", 1))
    diagonal = weights.diagonal(dim1=1, dim2=2).unsqueeze(1 if tokens_left else 2)

    def push(tangents: Sequence[Tensor]) -> Tensor:
        dv, dw = (tangents[0], tangents[1:]) if tokens_left else (tangents[-1], tangents[:-1])
        out = dv * diagonal
        for moving in dw:
            out += values @ moving if tokens_left else moving @ values
        return out.mul_(scale) if scale != 1.0 else out

    return push
