"""Layers and wrappers out of the ordinary: their derivatives are autograd's, and every check of the capture holds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, skip_init

import dynstab
from dynstab.capture.capture import unwrap
from dynstab.capture.complex import as_complex, as_real
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.depth import DepthSystem, depth_system

WIDTH = 8


def mlp(wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Sequential:
    layers = [wrap(nn.Linear(WIDTH, WIDTH)), nn.Tanh(), wrap(nn.Linear(WIDTH, WIDTH)), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 3))


class Tied(nn.Module):
    """The head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embedding(tokens)
        return self.head(h + torch.tanh(self.mix(h)))


class Spectral(nn.Module):
    """A Fourier layer: complex weights on the lowest modes, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 3, dtype=torch.cfloat) / 4)
        self.skip = nn.Conv1d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(x)
        kept = torch.zeros_like(modes)
        kept[..., :3] = torch.einsum("bci,cdi->bdi", modes[..., :3], self.weight)
        return F.gelu(torch.fft.irfft(kept, n=x.shape[-1]) + self.skip(x))


class Complex(nn.Module):
    """Complex weights, states, inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH, dtype=torch.cfloat) for _ in range(3)])

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = layer(z)
            z = torch.complex(torch.tanh(z.real), torch.tanh(z.imag))
        return z


class ComplexInside(Complex):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.to(torch.cfloat)).abs()


class WeightOnly(nn.Module):
    """Weights in eight bits, made floats in forward."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.integers: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("integers", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.integers.to(x.dtype) * self.scale
        return F.linear(x, weight, self.bias)


class LowRank(nn.Module):
    """LoRA by hand."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base = layer.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, WIDTH) / 3), nn.Parameter(torch.randn(WIDTH, 2) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * (x @ self.down.mT @ self.up.mT)


class Mixed(nn.Module):
    """A scripted and a compiled part inside an ordinary module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.scripted = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()))
        self.compiled = torch.compile(nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.compiled(self.scripted(torch.tanh(self.first(x))))


def hooked() -> nn.Module:
    model = mlp()
    model[0].register_forward_hook(lambda _module, _inputs, output: 2 * output)
    model[2].register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    return model


class Reversible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = (nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        for f, g in zip(self.f, self.g, strict=True):
            a = a + torch.tanh(f(b))
            b = b + torch.tanh(g(a))
        return torch.cat([a, b], -1)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3 + 2 * i, 2, 3, padding=1) for i in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.elu(layer(x))], 1)
        return x


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.elu(self.down(x))
        return self.out(torch.cat([self.up(F.elu(self.deep(wide))), wide], 1))


def vectors() -> Tensor:
    return torch.randn(4, WIDTH)


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "weight norm, by hook": (lambda: mlp(nn.utils.weight_norm), vectors),
    "weight norm": (lambda: mlp(parametrizations.weight_norm), vectors),
    "spectral norm, by hook": (lambda: mlp(nn.utils.spectral_norm), vectors),
    "spectral norm": (lambda: mlp(parametrizations.spectral_norm), vectors),
    "orthogonal weights": (lambda: mlp(parametrizations.orthogonal), vectors),
    "tied weights": (Tied, lambda: torch.randint(0, 11, (4, 5))),
    "fourier layers": (lambda: nn.Sequential(Spectral(), Spectral()), lambda: torch.randn(4, 4, 16)),
    "complex": (Complex, lambda: torch.randn(4, WIDTH, dtype=torch.cfloat)),
    "complex inside": (ComplexInside, vectors),
    "integer weights": (lambda: nn.Sequential(WeightOnly(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 8)), vectors),
    "low-rank adapters": (lambda: mlp(LowRank), vectors),  # type: ignore[arg-type]
    "compiled": (lambda: torch.compile(mlp()), vectors),  # type: ignore[arg-type,return-value]
    "data parallel": (lambda: nn.DataParallel(mlp()), vectors),
    "scripted and compiled inside": (Mixed, vectors),
    "hooks": (hooked, vectors),
    "reversible": (Reversible, vectors),
    "densely connected": (Dense, images),
    "u-net": (UNet, images),
    "frozen": (lambda: mlp().requires_grad_(False), vectors),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    build, draw = MODELS[name]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return build(), draw()


def assert_gradients_agree(system: DepthSystem, model: nn.Module, x: Tensor) -> None:
    """J^T c of all steps together against autograd in eager mode, in float32."""
    assert all(check.passed for check in system.checks), system.checks
    trajectory = system.trajectory
    leaf = x.detach().clone().requires_grad_()
    with torch.compiler.set_stance("force_eager"):
        real = as_real(unwrap(model).eval()(leaf))
    cotangent = torch.randn(real.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(real, leaf, cotangent)
    moving: Any = (cotangent.unsqueeze(0),)
    for step in reversed(trajectory.steps):
        assert isinstance(step.jacobian, JacobianOperator)
        moving = step.jacobian.pull_tensors(moving)
    torch.testing.assert_close(moving[0][0], as_real(gradient), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in MODELS if name != "tied weights"])
def test_the_steps_together_have_autograds_gradient(name: str) -> None:
    model, x = made(name)
    system = depth_system(model, (x,))
    assert torch.equal(system.trajectory.states[0].value[0], as_real(x))
    assert_gradients_agree(system, model, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_the_report_is_verified_and_the_model_comes_back_as_it_was(name: str) -> None:
    model, x = made(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    report = dynstab.analyze(model, x, config=dynstab.Config(effort="quick", k=2))
    assert report.verification and all(check.passed for check in report.verification), report.verification
    assert report.system.steps and all(step.rms_gain.measured for step in report.measurements.steps)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_analysed_in_single(dtype: torch.dtype) -> None:
    report = dynstab.analyze(mlp().to(dtype), torch.randn(4, WIDTH).to(dtype), config=dynstab.Config(effort="quick"))
    assert all(check.passed for check in report.verification)
    assert (report.model.dtype, report.provenance.dtype) == (str(dtype).removeprefix("torch."), "float32")


def test_complex_numbers_are_pairs_of_real_columns() -> None:
    z = torch.randn(3, 5, dtype=torch.complex128)
    assert torch.equal(as_complex(as_real(z), z.ndim), z) and as_real(z).shape == (3, 10)
    assert as_real(z[0]).shape == (5, 2) and torch.equal(as_complex(as_real(z[0]), 1), z[0])
    model, x = made("complex")
    system = depth_system(model, (x,))
    assert [state.size for state in system.trajectory.states] == [2 * WIDTH] * 4
    # d(Wz) as a real map has every singular value of the complex W twice.
    linear = nn.Linear(WIDTH, WIDTH, dtype=torch.cfloat)
    step = depth_system(linear, (x,)).trajectory.propagator().dense()[0]
    own = torch.linalg.svdvals(linear.weight.detach()).repeat_interleave(2)
    torch.testing.assert_close(torch.linalg.svdvals(step), own, rtol=1e-4, atol=1e-5)


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inward, self.outward = kind, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (part.view(batch, tokens, 2, 8).transpose(1, 2) for part in self.inward(x).chunk(3, -1))
        if self.kind == "eager":
            mask = torch.full((tokens, tokens), -torch.inf).triu(1)
            mixed = torch.softmax(q @ k.mT / 8**0.5 + mask, -1) @ v
        elif self.kind == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            from torch.nn.attention.flex_attention import create_block_mask, flex_attention

            if self.kind == "flex, scores":
                mixed = flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s, -torch.inf))
            else:
                causal = create_block_mask(lambda b, h, i, j: i >= j, None, None, tokens, tokens, device="cpu")
                mixed = flex_attention(q, k, v, block_mask=causal)
        return x + self.outward(mixed.transpose(1, 2).reshape(batch, tokens, width))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sdpa", "flex, scores", "flex, block mask"])
def test_every_implementation_of_attention_has_the_same_jacobian(kind: str) -> None:
    torch.manual_seed(0)
    eager, x = Attention("eager"), torch.randn(2, 6, 16)
    other = Attention(kind)
    other.load_state_dict(eager.state_dict())
    expected, found = (depth_system(model, (x,)) for model in (eager, other))
    assert all(check.passed for check in found.checks), found.checks
    assert found.trajectory.causal and not any("transposition" in route for route in found.trajectory.routes)
    torch.testing.assert_close(found.trajectory.propagator().dense(), expected.trajectory.propagator().dense())


class Several(nn.Module):
    """Two inputs, three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(8, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Any]:
        h = torch.tanh(self.left(left)) * torch.sigmoid(self.right(right))
        return {"logits": self.head(h), "auxiliary": (h, right)}


def test_with_several_inputs_the_report_names_the_source_and_what_is_held_fixed() -> None:
    report = dynstab.analyze(Several(), (torch.randn(4, 8), torch.randn(4, 5)), config=dynstab.Config(effort="quick"))
    assert all(check.passed for check in report.verification)
    assert any("the chain from left, with right as context" in note for note in report.system.notes)


def test_a_vision_language_model_names_the_path_that_is_analysed() -> None:
    transformers = pytest.importorskip("transformers", reason="the model is from transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 64, "max_position_embeddings": 16},
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    inputs = {"input_ids": torch.randint(0, 64, (2, 8)), "pixel_values": torch.randn(2, 3, 16, 16)}
    report = dynstab.analyze(model, inputs, config=dynstab.Config(effort="quick", k=2))
    assert all(check.passed for check in report.verification), report.verification
    (note,) = (note for note in report.system.notes if "as context" in note)
    assert "this is the chain from" in note and ("pixel_values" in note or "text_model" in note)


@pytest.mark.filterwarnings("ignore")  # between the two libraries
def test_adapters_of_peft_are_part_of_the_steps() -> None:
    peft = pytest.importorskip("peft", reason="the adapters are peft's")
    transformers = pytest.importorskip("transformers", reason="the model is from transformers")
    torch.manual_seed(0)
    base = transformers.GPT2Model(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64))
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # zero at the start, when adapters change nothing
                parameter.normal_(std=0.1)
    tokens = {"input_ids": torch.randint(0, 64, (2, 8))}
    report = dynstab.analyze(adapted, tokens, config=dynstab.Config(effort="quick", k=2))
    assert all(check.passed for check in report.verification), report.verification
    assert sum(step.kind == "residual" for step in report.system.steps) == 4
    plain = dynstab.analyze(adapted.unload(), tokens, config=dynstab.Config(effort="quick", k=2))
    gains = [[step.rms_gain.value for step in each.measurements.steps] for each in (report, plain)]
    assert gains[0] != pytest.approx(gains[1], rel=1e-3)


def test_weights_that_were_skipped_are_numbers_too() -> None:
    layer = skip_init(nn.Linear, WIDTH, WIDTH)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(WIDTH))
        layer.bias.zero_()
    report = dynstab.analyze(layer, torch.randn(4, WIDTH), config=dynstab.Config(effort="quick", k=2))
    assert report.measurements.steps[0].largest_singular_value.value == pytest.approx(1.0)
