"""Matrix products: k is folded into the rows, so that k tangents are one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dynstab.linear.rules.shapes import align, broadcast, sum_to
from dynstab.linear.rules.table import Call, Linearisation, UnsupportedForm, rule


def left(tangents: Tensor, b: Tensor) -> Tensor:
    """(k, m, p) times (p, n) -> (k, m, n)."""
    k, m, p = tangents.shape
    return torch.mm(tangents.reshape(k * m, p), b).view(k, m, -1)


@rule("mm")
def mm(call: Call) -> Linearisation:
    return bilinear(call, "self", "mat2", left, lambda a, tangents: torch.matmul(a, tangents))


@rule("mv")
def mv(call: Call) -> Linearisation:
    if call.slots != (("vec",),):
        return _thin(call)
    matrix = call["self"]
    transposed = matrix.mT
    return Linearisation(
        lambda tangents: torch.mm(tangents[0], transposed),
        lambda cotangent: (torch.mm(cotangent, matrix),),
    )


@rule("dot vdot outer ger")
def vectors(call: Call) -> Linearisation:
    return _thin(call)


def _thin(call: Call) -> Linearisation:
    """Products with vectors, as products of matrices: (m, p) (p, 1), (1, p) (p, 1), (m, 1) (1, n)."""
    first, second = (name for name in call.arguments)
    a, b = call[first], call[second]
    outer = call.output.ndim == 2
    wide_a = a.unsqueeze(1) if outer else (a if a.ndim == 2 else a.unsqueeze(0))
    wide_b = b.unsqueeze(0) if outer else b.unsqueeze(1)

    def push(tangents: Sequence[Tensor]) -> Tensor:
        total = None
        for slot, tangent in zip(call.slots, tangents, strict=True):
            k = tangent.shape[0]
            if slot == (first,):
                term = left(tangent.reshape(k, *wide_a.shape), wide_b)
            elif outer:
                term = wide_a @ tangent.reshape(k, 1, -1)
            else:
                term = torch.mm(tangent.reshape(k, -1), wide_a.mT)
            term = term.reshape(k, *call.output.shape)
            total = term if total is None else total + term
        assert total is not None
        return total

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        k = cotangent.shape[0]
        wide = cotangent.reshape(k, wide_a.shape[0], wide_b.shape[1])
        return tuple(
            (left(wide, wide_b.mT) if slot == (first,) else left(wide.mT, wide_a)).reshape(k, *call.value(slot).shape)
            for slot in call.slots
        )

    return Linearisation(push, pull)


def bilinear(
    call: Call,
    first: str,
    second: str,
    times_b: Callable[[Tensor, Tensor], Tensor],
    times_a: Callable[[Tensor, Tensor], Tensor],
    scale: float = 1.0,
) -> Linearisation:
    """out = scale * first second, for matrices or batches of them.

    `times_b(tangents, b)` and `times_a(a, tangents)` are the products with tangents on one side.
    """
    a, b, slots = call[first], call[second], call.slots
    a, b = (a * scale, b * scale) if scale != 1.0 else (a, b)

    def push(tangents: Sequence[Tensor]) -> Tensor:
        terms = [
            times_b(tangent, b) if slot[0] == first else times_a(a, tangent)
            for slot, tangent in zip(slots, tangents, strict=True)
        ]
        return terms[0] if len(terms) == 1 else terms[0].add_(terms[1])

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        return tuple(times_b(cotangent, b.mT) if slot[0] == first else times_a(a.mT, cotangent) for slot in slots)

    return Linearisation(push, pull)


@rule("addmm baddbmm addmv")
def affine(call: Call) -> Linearisation:
    """beta * self + alpha * (first @ second)."""
    first, second = (name for name in call.arguments if name not in ("self", "alpha", "beta"))
    others = tuple(slot for slot in call.slots if slot != ("self",))
    product = _scaled_product(replace(call, slots=others), first, second) if others else None
    return with_summand(call, product) if call.moves("self") or product is None else product


def _scaled_product(call: Call, first: str, second: str) -> Linearisation:
    alpha = float(call.get("alpha", 1))
    if call.output.ndim == 1:
        return _matrix_vector(call, first, second, alpha)
    by_b, by_a = (batched_left, batched_right) if call.output.ndim == 3 else (left, torch.matmul)
    return bilinear(call, first, second, by_b, by_a, alpha)


def _matrix_vector(call: Call, first: str, second: str, alpha: float) -> Linearisation:
    matrix, vector = call[first] * alpha, call[second] * alpha

    def push(tangents: Sequence[Tensor]) -> Tensor:
        terms = [
            torch.mm(tangent, matrix.mT) if slot == (second,) else torch.matmul(tangent, vector)
            for slot, tangent in zip(call.slots, tangents, strict=True)
        ]
        return sum(terms[1:], terms[0])

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            torch.mm(cotangent, matrix) if slot == (second,) else cotangent.unsqueeze(2) * vector for slot in call.slots
        )

    return Linearisation(push, pull)


def with_summand(call: Call, product: Linearisation | None) -> Linearisation:
    """beta * self + product(the other slots); `self` comes first in the schema, so in the slots."""
    beta, shape, out = float(call.get("beta", 1)), call["self"].shape, call.output.shape

    def push(tangents: Sequence[Tensor]) -> Tensor:
        own = broadcast(tangents[0], out) * beta
        return own if product is None else own.add_(product.push(tangents[1:]))

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        others = () if product is None else product.pull(cotangent)
        return (sum_to(cotangent * beta, shape), *others)

    return Linearisation(push, pull)


@rule("bmm")
def bmm(call: Call) -> Linearisation:
    return bilinear(call, "self", "mat2", batched_left, batched_right)


def batched_left(tangents: Tensor, b: Tensor) -> Tensor:
    """(k, N, m, p) times (N, p, n) -> (k, N, m, n)."""
    return torch.matmul(tangents, b)


def batched_right(a: Tensor, tangents: Tensor) -> Tensor:
    """(N, m, p) times (k, N, p, n) -> (k, N, m, n)."""
    return torch.matmul(a, tangents)


@rule("linear")
def linear(call: Call) -> Linearisation:
    """input @ weight^T + bias."""
    x, weight = call["input"], call["weight"]
    rows = x.reshape(-1, x.shape[-1])

    def push(tangents: Sequence[Tensor]) -> Tensor:
        total = None
        for slot, tangent in zip(call.slots, tangents, strict=True):
            k = tangent.shape[0]
            if slot == ("input",):
                term = left(tangent.reshape(k, -1, x.shape[-1]), weight.mT)
            elif slot == ("weight",):
                term = torch.matmul(rows, tangent.mT)
            else:
                term = tangent.unsqueeze(1).expand(-1, rows.shape[0], -1)
            total = term if total is None else total + term
        assert total is not None
        return total.reshape(-1, *call.output.shape)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        wide = cotangent.reshape(cotangent.shape[0], rows.shape[0], -1)
        by_slot = {
            "input": lambda: left(wide, weight).reshape(-1, *x.shape),
            "weight": lambda: torch.matmul(wide.mT, rows),
            "bias": lambda: wide.sum(1),
        }
        return tuple(by_slot[slot[0]]() for slot in call.slots)

    return Linearisation(push, pull)


@rule("matmul")
def matmul(call: Call) -> Linearisation:
    """numpy's product, vectors promoted to matrices and batches broadcast."""
    a, b = call["self"], call["other"]
    row, column = a.ndim == 1, b.ndim == 1
    a, b = (a.unsqueeze(0) if row else a), (b.unsqueeze(1) if column else b)
    full = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + (a.shape[-2], b.shape[-1])

    def widen(tangent: Tensor, like: Tensor) -> Tensor:
        return align(tangent.reshape(tangent.shape[0], *like.shape), torch.Size(full))

    def push(tangents: Sequence[Tensor]) -> Tensor:
        terms = [
            torch.matmul(widen(tangent, a), b) if slot == ("self",) else torch.matmul(a, widen(tangent, b))
            for slot, tangent in zip(call.slots, tangents, strict=True)
        ]
        return sum(terms[1:], terms[0]).reshape(-1, *call.output.shape)

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        wide = cotangent.reshape(cotangent.shape[0], *full)
        return tuple(
            sum_to(wide @ b.mT, a.shape).reshape(-1, *call["self"].shape)
            if slot == ("self",)
            else sum_to(a.mT @ wide, b.shape).reshape(-1, *call["other"].shape)
            for slot in call.slots
        )

    return Linearisation(push, pull)


@rule("_grouped_mm")
def grouped_mm(call: Call) -> Linearisation:
    """Rows of `self`, in consecutive groups that end at `offs`, each times its own matrix (a mixture of experts)."""
    a, b, ends = call["self"], call["mat2"], [int(end) for end in call["offs"]]
    if a.ndim != 2 or b.ndim != 3 or call.get("bias") is not None:
        raise UnsupportedForm(f"_grouped_mm of a {a.ndim}-d with a {b.ndim}-d tensor")
    groups = list(zip([0, *ends[:-1]], ends, strict=True))

    def push(tangents: Sequence[Tensor]) -> Tensor:
        out = tangents[0].new_zeros((tangents[0].shape[0], *call.output.shape))
        for slot, tangent in zip(call.slots, tangents, strict=True):
            for group, (start, end) in enumerate(groups):
                if slot == ("self",):
                    out[:, start:end] += tangent[:, start:end] @ b[group]
                else:
                    out[:, start:end] += a[start:end] @ tangent[:, group]
        return out

    def pull(cotangent: Tensor) -> tuple[Tensor, ...]:
        results = []
        for slot in call.slots:
            out = cotangent.new_zeros((cotangent.shape[0], *call.value(slot).shape))
            for group, (start, end) in enumerate(groups):
                if slot == ("self",):
                    out[:, start:end] = cotangent[:, start:end] @ b[group].mT
                else:
                    out[:, group] = a[start:end].mT @ cotangent[:, start:end]
            results.append(out)
        return tuple(results)

    return Linearisation(push, pull)
