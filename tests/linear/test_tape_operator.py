"""Sweeps in chunks, columns per input, and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynstab.capture.capture import capture_function
from dynstab.core.errors import MemoryBudgetError
from dynstab.linear.evaluator import evaluate
from dynstab.linear.layout import Layout
from dynstab.linear.memory import available_bytes, in_chunks, is_out_of_memory
from dynstab.linear.tape import Tape
from dynstab.linear.tape_operator import TapeOperator


def operator_of(
    net: nn.Module, x: Tensor, *, budget: int | None = None, samples: int = 1, dtype: torch.dtype = torch.float64
) -> TapeOperator:
    graph = capture_function(net, (x,))
    values = evaluate(graph.module, [tensor.to(dtype) for tensor in graph.arguments()])
    tape = Tape(graph.module.graph.nodes, tuple(graph.input_nodes), graph.outputs, values)
    dims = (0,) if samples > 1 else ()
    layouts = [
        Layout(shapes=tuple(t.shape for t in tensors), samples=samples, sample_dims=dims)
        for tensors in (tape.source_values, tape.target_values)
    ]
    return TapeOperator(tape, layouts[0], layouts[1], budget=budget)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4)).double()


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_chunks_change_nothing_but_memory(chunk: int) -> None:
    net, x, tangents, cotangents = network(), randn(3, 6), randn(7, 3, 6), randn(7, 3, 4)
    whole = operator_of(net, x)
    pieces = operator_of(net, x, budget=chunk * whole.bytes_per_tangent)
    torch.testing.assert_close(pieces.push(tangents), whole.push(tangents))
    torch.testing.assert_close(pieces.pull(cotangents), whole.pull(cotangents))


def test_one_matrix_for_each_input() -> None:
    net, x = network(), randn(3, 6)
    dense = torch.func.vmap(torch.func.jacrev(net))(x)
    operator = operator_of(net, x, samples=3)
    torch.testing.assert_close(operator.dense(), dense)
    torch.testing.assert_close(operator.matmat(randn(3, 6, 2)), dense @ randn(3, 6, 2))
    torch.testing.assert_close(operator.rmatmat(randn(3, 4, 2)), dense.mT @ randn(3, 4, 2))


def test_not_even_one_tangent_fits() -> None:
    operator = operator_of(network(), randn(3, 6), budget=10)
    with pytest.raises(MemoryBudgetError, match="one tangent needs"):
        operator.push(randn(1, 3, 6))


def test_a_failed_allocation_halves_the_chunk() -> None:
    seen: list[int] = []

    def sweep(moving: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(moving[0].shape[0])
        if moving[0].shape[0] > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")
        return (moving[0] * 2,)

    moving = randn(7, 3)
    (result,) = in_chunks(sweep, (moving,), bytes_each=24)
    torch.testing.assert_close(result, moving * 2)
    assert seen == [7, 4, 2, 2, 2, 1]


def test_an_allocation_that_fails_for_a_single_tangent_is_an_error_of_ours() -> None:
    def sweep(moving: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryBudgetError):
        in_chunks(sweep, (randn(4, 3),), bytes_each=24)


def test_other_errors_pass_through() -> None:
    def sweep(moving: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_chunks(sweep, (randn(4, 3),), bytes_each=24)


def test_a_real_allocation_beyond_the_machine_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert available_bytes(torch.device("cpu")) > 2**20


def test_tangents_may_have_another_dtype_than_the_tape() -> None:
    plain = operator_of(network(), randn(3, 6), dtype=torch.bfloat16)
    wide = TapeOperator(plain.tape, plain.source, plain.target, dtype=torch.float32)
    tangents = randn(2, 3, 6).float()
    assert plain.push(tangents.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(wide.push(tangents), plain.push(tangents.bfloat16()).float())
