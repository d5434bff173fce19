"""Diagonal token blocks are those of the dense Jacobian, from d tangents instead of T d."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig

from dynstab.capture.capture import capture_function
from dynstab.linear.evaluator import evaluate
from dynstab.linear.layout import Layout
from dynstab.linear.operator import DenseOperator, RelaidOperator
from dynstab.linear.tape import Tape
from dynstab.linear.tape_operator import TapeOperator
from dynstab.linear.tokens import token_blocks

BATCH, TOKENS, WIDTH = 2, 5, 8


def operator_of(f: Callable[[Tensor], Tensor], x: Tensor, *, samples: int = BATCH, dim: int = 0) -> TapeOperator:
    graph = capture_function(f, (x,))
    values = evaluate(graph.module, graph.arguments())
    tape = Tape(graph.module.graph.nodes, tuple(graph.input_nodes), graph.outputs[:1], values)
    dims = (dim,) if samples > 1 else ()
    source, target = (
        Layout(shapes=(tensors[0].shape,), samples=samples, sample_dims=dims)
        for tensors in (tape.source_values, tape.target_values)
    )
    return TapeOperator(tape, source, target)


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def dense_blocks(operator: TapeOperator, tokens: int) -> Tensor:
    """All token blocks of the dense Jacobian, (samples, T, d_out, T, d_in), from states with tokens first."""
    return operator.dense().unflatten(2, (tokens, -1)).unflatten(1, (tokens, -1))


def diagonal(blocks: Tensor) -> Tensor:
    return torch.stack([blocks[:, t, :, t] for t in range(blocks.shape[1])], dim=1)


def model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    common = {"num_hidden_layers": 1, "hidden_size": WIDTH, "intermediate_size": 12, "vocab_size": 7}
    config = {
        "GPT-2": lambda: GPT2Config(n_layer=1, n_embd=WIDTH, n_head=2, vocab_size=7),
        "Llama": lambda: LlamaConfig(**common, num_attention_heads=4, num_key_value_heads=2),
        "BERT": lambda: BertConfig(**common, num_attention_heads=2),
    }[kind]()
    return AutoModel.from_config(config, attn_implementation="sdpa").double().eval()


def run(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: net(inputs_embeds=x, use_cache=False)[0]


@pytest.mark.parametrize("kind", ["GPT-2", "Llama", "BERT"])
def test_blocks_of_a_transformer_are_the_diagonal_of_its_dense_jacobian(kind: str) -> None:
    # Llama rotates in float32 whatever its dtype.
    tolerance = 1e-5 if kind == "Llama" else 1e-10
    operator = operator_of(run(model(kind)), states(BATCH, TOKENS, WIDTH))
    found = token_blocks(operator, 1, 1)
    assert found.blocks is not None, found.reason
    assert found.blocks.shape == (BATCH, TOKENS, WIDTH, WIDTH)
    assert found.products < TOKENS * WIDTH
    dense = dense_blocks(operator, TOKENS)
    torch.testing.assert_close(found.blocks, diagonal(dense), rtol=0, atol=tolerance * float(dense.abs().max()))


@pytest.mark.parametrize("kind", ["GPT-2", "Llama"])
def test_causal_blocks_hold_the_eigenvalues_and_the_determinant(kind: str) -> None:
    net = model(kind)
    setattr(net, "ln_f" if kind == "GPT-2" else "norm", nn.Identity())  # a norm at the end has a null space
    operator = operator_of(run(net), states(BATCH, TOKENS, WIDTH))
    dense = dense_blocks(operator, TOKENS)
    for t in range(TOKENS):
        assert not dense[:, t, :, t + 1 :].any(), "strictly causal"
    blocks = token_blocks(operator, 1, 1).blocks
    assert blocks is not None
    matrix = operator.dense()
    ours = torch.linalg.eigvals(blocks).flatten(1).abs().sort(1).values
    torch.testing.assert_close(ours, torch.linalg.eigvals(matrix).abs().sort(1).values, rtol=1e-5, atol=1e-5)
    log_determinant = torch.linalg.slogdet(blocks).logabsdet.sum(1)
    torch.testing.assert_close(log_determinant, torch.linalg.slogdet(matrix).logabsdet, rtol=1e-5, atol=1e-5)


class Mixer(nn.Module):
    """One layer of each way in which tokens meet."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.form = form
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.register_buffer("average", torch.rand(TOKENS, TOKENS).tril())
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.form == "columns":  # the softmax runs over the rows: scores and values transposed
            return (v.mT @ torch.softmax(k @ q.mT, -2)).mT
        if self.form == "fixed weights":
            return self.average.expand(len(x), -1, -1) @ v
        if self.form == "fixed weights, columns":
            return (v.mT @ self.average.mT.expand(len(x), -1, -1)).mT
        if self.form == "per token":  # RMSNorm, an empty cache, a gate, heads in the batch of a product
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
            x = torch.cat([x.new_zeros(0), x], 1)[..., torch.arange(WIDTH).flip(0)]
            heads = q.unflatten(-1, (2, -1)) @ k.unflatten(-1, (2, -1)).mT
            return torch.nn.functional.glu(torch.cat([x, v], -1), -1).tanh() + heads.flatten(2).sum(-1, keepdim=True)
        if self.form == "tokens first":
            return self.v(x.transpose(0, 1).reshape(-1, WIDTH)).view(TOKENS, -1, WIDTH).transpose(0, 1).softmax(-1)
        if self.form == "sum over the tokens":
            return x + v.mean(1, keepdim=True)
        if self.form == "shift":
            return x + v.roll(1, 1)
        return x.flatten(1).cumsum(1).view_as(x)


@pytest.mark.parametrize("form", ["columns", "fixed weights", "fixed weights, columns", "per token", "tokens first"])
def test_every_way_in_which_tokens_meet(form: str) -> None:
    operator = operator_of(Mixer(form), states(BATCH, TOKENS, WIDTH))
    found = token_blocks(operator, 1, 1)
    assert found.blocks is not None, found.reason
    torch.testing.assert_close(found.blocks, diagonal(dense_blocks(operator, TOKENS)))


@pytest.mark.parametrize("form", ["sum over the tokens", "shift", "cumulative"])
def test_where_tokens_cannot_be_followed_there_is_a_reason_and_no_number(form: str) -> None:
    found = token_blocks(operator_of(Mixer(form), states(BATCH, TOKENS, WIDTH)), 1, 1)
    assert found.blocks is None
    assert found.reason


def test_tokens_may_come_before_the_inputs() -> None:
    mixer = Mixer("fixed weights")
    x = states(TOKENS, BATCH, WIDTH)
    found = token_blocks(operator_of(lambda x: mixer(x.transpose(0, 1)).transpose(0, 1), x, dim=1), 0, 0)
    other = token_blocks(operator_of(mixer, x.transpose(0, 1).contiguous()), 1, 1)
    assert found.blocks is not None and other.blocks is not None
    torch.testing.assert_close(found.blocks, other.blocks)


def test_one_input_without_a_batch() -> None:
    linear = nn.Linear(WIDTH, 3).double()
    found = token_blocks(operator_of(linear, states(TOKENS, WIDTH), samples=1), 0, 0)
    assert found.blocks is not None
    torch.testing.assert_close(found.blocks, linear.weight.detach().expand(1, TOKENS, 3, WIDTH))


def test_other_layouts_and_other_operators() -> None:
    operator = operator_of(Mixer("columns"), states(1, TOKENS, WIDTH), samples=1)
    same = RelaidOperator(operator, operator.source, operator.target)
    first, second = token_blocks(operator, 1, 1).blocks, token_blocks(same, 1, 1).blocks
    assert first is not None and second is not None
    torch.testing.assert_close(first, second)
    assert DenseOperator(operator.dense()).shape == operator.shape
    assert token_blocks(operator_of(nn.Identity(), states(BATCH, 1, WIDTH)), 1, 1).reason
