"""Networks that keep a structure by construction, and the same ones with one step that loses it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.structure import Structure
from dynstab.estimators.halves import Halves
from dynstab.estimators.structure import (
    Probes,
    antisymmetric_defect,
    coupling_defect,
    hamiltonian_defect,
    identity_probes,
    scaled_antisymmetric_defect,
    symplectic_defect,
)
from dynstab.linear.operator import DenseOperator

F64 = torch.float64
HALF = 4
HALVES = Halves(first=torch.arange(HALF), second=torch.arange(HALF, 2 * HALF))


class Hamiltonian(nn.Module):
    """Leapfrog, or explicit Euler, of H(y, z) = sum ln cosh(K y) + ln cosh(K z)."""

    def __init__(self, *, depth: int = 6, step: float = 0.1, euler: bool = False, damped: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(HALF, HALF)) for _ in range(depth)])
        self.step, self.euler, self.damped = step, euler, damped

    def forward(self, x: Tensor) -> Tensor:
        y, z = x.chunk(2, dim=-1)
        for layer, weight in enumerate(self.weights):
            new = y + self.step * torch.tanh(z @ weight.T) @ weight
            z = z - self.step * torch.tanh((y if self.euler else new) @ weight.T) @ weight
            y = new
            if layer == self.damped:
                z = z + 0.3 * torch.sin(z)
        return torch.cat([y, z], dim=-1)


class Reversible(nn.Module):
    """RevNet: x1 + F(x2), x2 + G(y1)."""

    def __init__(self, depth: int = 5, scaled: int | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList([nn.Linear(HALF, HALF) for _ in range(2 * depth)])
        self.scaled, self.activation = scaled, activation or nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        for position, block in enumerate(self.blocks):
            if position % 2:
                b = b + self.activation(block(a)) + (0.2 * b if position == self.scaled else 0)
            else:
                a = a + self.activation(block(b))
        return torch.cat([a, b], dim=-1)


class Antisymmetric(nn.Module):
    """h + step tanh((W - W^T - damping I) h) (Chang et al. 2019)."""

    def __init__(self, *, activation: nn.Module, free: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(8, 8) / 3) for _ in range(6)])
        self.activation, self.free = activation, free

    def forward(self, x: Tensor) -> Tensor:
        for layer, weight in enumerate(self.weights):
            field = weight if layer == self.free else weight - weight.T - 0.1 * torch.eye(8)
            x = x + 0.1 * self.activation(x @ field.T)
        return x


def structure_of(model: nn.Module, **options: object) -> tuple[Structure | None, set[str]]:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    report = dynstab.analyze(model, x, config=dynstab.Config.model_validate({"k": 2, **options}))
    return report.measurements.structure, {flag.name for flag in report.flags}


def test_leapfrog_layers_are_symplectic_to_rounding_and_exponents_pair() -> None:
    found, flags = structure_of(Hamiltonian())
    assert found is not None
    symplectic = found.named("symplectic")
    assert symplectic is not None
    assert symplectic.kept == len(symplectic.steps) == 12
    assert max(step.defect.value or 0.0 for step in symplectic.steps) < 1e-6
    assert found.pairing.value is not None
    assert found.pairing.error is not None
    assert found.pairing.value <= found.pairing.error < 1e-5
    assert not flags & {"broken-symplecticity", "broken-structure", "inexact-inverse"}


def test_one_damped_layer_among_leapfrog_ones_is_named() -> None:
    found, flags = structure_of(Hamiltonian(damped=3))
    assert found is not None
    symplectic = found.named("symplectic")
    assert symplectic is not None
    assert len(symplectic.lost) == 1
    assert "broken-symplecticity" in flags


def test_euler_steps_of_a_hamiltonian_field_miss_symplecticity_by_the_square_of_the_step() -> None:
    defects = []
    for step in (0.1, 0.05):
        found, flags = structure_of(Hamiltonian(step=step, euler=True))
        assert found is not None
        field, symplectic = found.named("Hamiltonian field"), found.named("symplectic")
        assert field is not None
        assert symplectic is not None
        assert field.kept == len(field.steps)
        assert symplectic.kept == 0
        assert found.pairing.value is None and "no step is symplectic" in found.pairing.outcome
        assert "broken-symplecticity" in flags
        defects.append(max(each.defect.value or 0.0 for each in symplectic.steps))
    assert defects[0] / defects[1] == pytest.approx(4.0, rel=0.2)


def test_additive_couplings_keep_volume_and_run_back_though_they_are_not_symplectic() -> None:
    found, flags = structure_of(Reversible())
    assert found is not None
    assert found.named("symplectic") is None
    for name in ("reversible", "volume-preserving"):
        kept = found.named(name)
        assert kept is not None
        assert kept.kept == len(kept.steps) == 10
    assert found.reconstruction.value is not None
    assert found.reconstruction.value < 1e-5
    assert "broken-structure" not in flags


def test_the_coupling_that_scales_is_named() -> None:
    found, flags = structure_of(Reversible(scaled=5))
    assert found is not None
    coupling, volume = found.named("reversible"), found.named("volume-preserving")
    assert coupling is not None
    assert volume is not None
    assert [step.source for step in coupling.lost] == [step.source for step in volume.lost]
    # x2 -> 1.2 x2 + G(y1) changes the volume by 1.2 in each of its entries.
    assert volume.lost[0].defect.value == pytest.approx(HALF * torch.tensor(1.2).log().item(), rel=1e-3)
    assert "broken-structure" in flags


@pytest.mark.parametrize("activation", [nn.Identity(), nn.Tanh()])
def test_antisymmetric_fields_are_seen_through_damping_and_the_slopes_of_an_activation(activation: nn.Module) -> None:
    found, flags = structure_of(Antisymmetric(activation=activation))
    assert found is not None
    kept = found.named("antisymmetric field")
    assert kept is not None
    assert kept.kept == len(kept.steps) == 6
    assert "broken-structure" not in flags
    found, flags = structure_of(Antisymmetric(activation=activation, free=2))
    assert found is not None
    lost = found.named("antisymmetric field")
    assert lost is not None
    assert [step.source for step in lost.lost] == [2]
    assert "broken-structure" in flags


def test_orthogonal_layers_keep_volume_alone() -> None:
    torch.manual_seed(0)
    layers = [nn.utils.parametrizations.orthogonal(nn.Linear(8, 8)) for _ in range(4)]
    found, _ = structure_of(nn.Sequential(*layers))
    assert found is not None
    assert [each.name for each in found.properties] == ["volume-preserving"]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 0.0])
def test_an_ordinary_residual_network_means_to_keep_nothing(scale: float) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(4)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(5)])

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + scale * block(x)
            return x

    found, _ = structure_of(Residual())
    assert found is None


def test_quick_effort_leaves_structure_out() -> None:
    found, _ = structure_of(Hamiltonian(), effort="quick")
    assert found is None


def test_a_deep_expansive_reversible_stack_cannot_be_run_back() -> None:
    model = Reversible(depth=24, activation=nn.Identity())
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.mul_(3)
    found, flags = structure_of(model)
    assert found is not None
    assert found.reconstruction.value is not None
    assert found.reconstruction.value > 1e-2
    assert "inexact-inverse" in flags


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def omega() -> Tensor:
    zero, eye = torch.zeros(HALF, HALF, dtype=F64), torch.eye(HALF, dtype=F64)
    return torch.cat([torch.cat([zero, eye], dim=1), torch.cat([-eye, zero], dim=1)])


@pytest.mark.parametrize("name", ["symplectic", "hamiltonian", "antisymmetric"])
def test_defects_from_products_equal_those_of_the_matrices(name: str) -> None:
    matrix, eye, w = randn(2 * HALF, 2 * HALF), torch.eye(2 * HALF, dtype=F64), omega()
    field, operator = matrix - eye, DenseOperator(matrix)
    damping = field.trace() / (2 * HALF) * eye
    symmetric = (field + field.T) / 2
    norm = torch.linalg.matrix_norm
    twins = {
        "symplectic": (
            lambda probes: symplectic_defect(operator, HALVES, probes),
            min(norm(matrix.T @ w @ matrix - w), norm(matrix.T @ w @ matrix + w)) / norm(w),
        ),
        "hamiltonian": (
            lambda probes: hamiltonian_defect(operator, HALVES, probes),
            norm(w @ field - (w @ field).T) / (2 * norm(field)),
        ),
        "antisymmetric": (
            lambda probes: antisymmetric_defect(operator, probes),
            norm(symmetric - damping) / norm(field - damping),
        ),
    }
    defect, expected = twins[name]
    assert defect(identity_probes(operator)).values.item() == pytest.approx(expected.item())
    sampled = defect(Probes(columns=randn(1, 2 * HALF, 64, seed=5), exact=False))
    assert sampled.values.item() == pytest.approx(expected.item(), rel=0.35)


def test_a_coupling_is_recognised_in_either_order_and_as_half_of_one() -> None:
    eye, zero = torch.eye(HALF, dtype=F64), torch.zeros(HALF, HALF, dtype=F64)
    b, c = randn(HALF, HALF, seed=1), randn(HALF, HALF, seed=2)
    upper = torch.cat([torch.cat([eye, b], dim=1), torch.cat([zero, eye], dim=1)])
    lower = torch.cat([torch.cat([eye, zero], dim=1), torch.cat([c, eye], dim=1)])
    for matrix in (lower @ upper, upper @ lower, upper, lower):
        operator = DenseOperator(matrix)
        assert coupling_defect(operator, HALVES, identity_probes(operator)).values.item() < 1e-14
    operator = DenseOperator(lower @ upper @ lower)
    assert coupling_defect(operator, HALVES, identity_probes(operator)).values.item() > 0.1


def test_a_positive_diagonal_factor_is_found_and_a_symmetric_field_is_not_excused() -> None:
    weight, slopes = randn(8, 8, seed=3), 0.1 + torch.rand(8, generator=torch.Generator().manual_seed(4)).double()
    eye = torch.eye(8, dtype=F64)
    turning = slopes[:, None] * (weight - weight.T - 0.3 * eye)
    result = scaled_antisymmetric_defect((eye + turning)[None])
    assert result.values.item() <= result.errors.item()
    assert scaled_antisymmetric_defect((eye + weight)[None]).values.item() > 0.1
    assert scaled_antisymmetric_defect((eye + weight @ weight.T)[None]).values.item() > 0.1


def test_a_trajectory_that_settles_has_its_lyapunov_function(chain) -> None:
    from dynstab.core.config import Config
    from dynstab.measures import measure

    # Not normal: the Euclidean norm grows at first, the norm of P falls at every step.
    matrix = torch.tensor([[[0.5, 3.0], [0.0, 0.4]]], dtype=F64)
    trajectory = chain([matrix] * 30, torch.tensor([[0.0, 1.0]], dtype=F64), kind="time")
    assert trajectory.states[1].value[0].norm() > trajectory.states[0].value[0].norm()
    structure = measure(trajectory, Config(k=2)).structure
    assert structure is not None
    found = structure.lyapunov
    assert found is not None
    assert found.violations.value == 0
    assert found.spectral_radius.value == pytest.approx(0.5)
    assert found.metric_gain.value is not None
    assert found.largest_growth.value is not None
    assert found.largest_growth.value <= found.metric_gain.value < 1
    wandering = replace(trajectory, steps=trajectory.steps[:2], states=trajectory.states[:3])
    assert measure(wandering, Config(k=2)).structure is None
