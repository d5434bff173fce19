"""Normalising flows with a known determinant and inverse, and networks that only look like one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.report import Report
from dynstab.core.structure import Couplings, Structure
from dynstab.render.topics import topics

F64 = torch.float64
Halves = tuple[Tensor, Tensor]


class Conditioner(nn.Module):
    """s and t of x1."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, 2 * size))

    def forward(self, x: Tensor) -> Halves:
        s, t = self.layers(x).chunk(2, dim=-1)
        return torch.tanh(s), t


def affine(a: Tensor, b: Tensor, s: Tensor, t: Tensor) -> Halves:
    return a, b * torch.exp(s) + t


def additive(a: Tensor, b: Tensor, s: Tensor, t: Tensor) -> Halves:
    return a, b + t


def leaking(a: Tensor, b: Tensor, s: Tensor, t: Tensor) -> Halves:
    """Both halves change: the determinant is no sum of s."""
    return a + 0.3 * torch.sin(b), b * torch.exp(s) + t


def bent(a: Tensor, b: Tensor, s: Tensor, t: Tensor) -> Halves:
    """A monotone map of b: as triangular, not affine."""
    return a, 1.5 * b + torch.tanh(b) * torch.tanh(s) + t


class Step(nn.Module):
    """One of these maps, of the halves or of what a mask of every other entry passes, swapped at odd positions."""

    def __init__(self, size: int, kind: Callable[..., Halves], position: int, masked: bool = False) -> None:
        super().__init__()
        self.net, self.kind, self.odd, self.masked = Conditioner(size // 2), kind, position % 2, masked

    def split(self, x: Tensor) -> Halves:
        a, b = (x[..., ::2], x[..., 1::2]) if self.masked else x.chunk(2, dim=-1)
        return (b, a) if self.odd else (a, b)

    def scale(self, x: Tensor) -> Tensor:
        return self.net(self.split(x)[0])[0]

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.split(x)
        a, b = self.kind(a, b, *self.net(a))
        pair = (b, a) if self.odd else (a, b)
        return torch.stack(pair, dim=-1).flatten(-2) if self.masked else torch.cat(pair, dim=-1)


class ActNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias, self.log = nn.Parameter(torch.randn(size)), nn.Parameter(0.3 * torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bias) * self.log.exp()


class Permutation(nn.Module):
    order: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(size))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.order]


class Logit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        p = 0.05 + 0.9 * torch.sigmoid(x)
        return p.log() - (1 - p).log()


def flow(size: int, *kinds: Callable[..., Halves], masked: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[Step(size, kind, i, masked) for i, kind in enumerate(kinds)]).to(F64)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1))


def analysed(model: nn.Module, x: Tensor) -> tuple[Report, Structure | None, set[str]]:
    report = dynstab.analyze(model, x, config=dynstab.Config(k=2))
    return report, report.measurements.structure, {flag.code for flag in report.flags}


def couplings_of(structure: Structure | None, kept: int) -> Couplings:
    assert structure is not None
    assert structure.couplings is not None
    found = structure.named("coupling")
    assert found is not None
    assert found.kept == kept
    return structure.couplings


def log_determinant(model: nn.Sequential, x: Tensor) -> float:
    """The sum of s and of the factors of ActNorm, mean over the inputs."""
    total = torch.zeros(len(x), dtype=F64)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, ActNorm):
                total = total + layer.log.sum()
            elif isinstance(layer, Step) and layer.kind is affine:
                total = total + layer.scale(x).sum(dim=1)
            x = layer(x)
    return total.mean().item()


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_the_determinant_of_a_real_nvp_is_the_sum_of_its_scales_and_it_runs_back(size: int, masked: bool) -> None:
    model, x = flow(size, *[affine] * 6, masked=masked), normal(4, size)
    _, structure, flags = analysed(model, x)
    found = couplings_of(structure, kept=6)
    assert (found.affine, found.additive, found.other) == (6, 0, 0)
    exact = log_determinant(model, x)
    assert found.log_determinant.value == pytest.approx(exact, abs=1e-13)
    assert found.log_determinant.error is not None
    assert abs((found.log_determinant.value or 0.0) - exact) <= found.log_determinant.error < 1e-12
    assert found.determinant_gap.value is not None
    assert found.determinant_gap.value <= (found.determinant_gap.error or 0.0)
    assert structure is not None
    assert structure.reconstruction.value is not None
    assert structure.reconstruction.value < 1e-13
    assert structure.named("volume-preserving") is None
    assert not flags & {"DS511", "DS512", "DS513"}


@pytest.mark.parametrize("size", [2, 8])
def test_factors_and_permutations_between_couplings_belong_to_them(size: int) -> None:
    torch.manual_seed(0)
    layers = [
        layer for i in range(5) for layer in (ActNorm(size), Permutation(size), Step(size, affine, 0, masked=i > 2))
    ]
    model, x = nn.Sequential(*layers).to(F64), normal(4, size)
    _, structure, flags = analysed(model, x)
    found = couplings_of(structure, kept=5)
    assert found.affine == 5
    assert found.log_determinant.value == pytest.approx(log_determinant(model, x), abs=1e-13)
    assert structure is not None
    assert structure.reconstruction.value is not None
    assert structure.reconstruction.value < 1e-12
    assert "DS512" not in flags


def test_a_dense_mixing_between_couplings_is_passed_over() -> None:
    torch.manual_seed(0)
    layers = [layer for i in range(4) for layer in (nn.Linear(8, 8), Step(8, affine, i))]
    _, structure, flags = analysed(nn.Sequential(*layers).to(F64), normal(4, 8))
    assert couplings_of(structure, kept=4).affine == 4
    assert "DS512" not in flags


@pytest.mark.parametrize("masked", [False, True])
def test_additive_couplings_are_reversible_in_any_order_of_the_entries(masked: bool) -> None:
    _, structure, flags = analysed(flow(8, *[additive] * 6, masked=masked), normal(4, 8))
    assert structure is not None
    assert structure.couplings is None
    assert {each.name: each.kept for each in structure.properties} == {"reversible": 6, "volume-preserving": 6}
    assert structure.reconstruction.value is not None
    assert structure.reconstruction.value < 1e-13
    assert "DS512" not in flags


def test_additive_couplings_with_a_constant_factor_are_couplings_that_change_volume() -> None:
    def scaled(a: Tensor, b: Tensor, s: Tensor, t: Tensor) -> Halves:
        return a, 0.9 * b + t

    _, structure, _ = analysed(flow(8, *[scaled] * 6), normal(4, 8))
    found = couplings_of(structure, kept=6)
    assert (found.affine, found.additive) == (0, 6)
    assert found.log_determinant.value == pytest.approx(24 * math.log(0.9), abs=1e-13)


@pytest.mark.parametrize("kind", [leaking, bent])
def test_a_network_that_only_looks_like_one_is_not_taken_for_it(kind: Callable[..., Halves]) -> None:
    _, structure, _ = analysed(flow(8, *[kind] * 6), normal(4, 8))
    assert structure is None


def test_triangular_linear_layers_are_no_couplings() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)]).to(F64)
    with torch.no_grad():
        for layer in model:
            assert isinstance(layer, nn.Linear)
            layer.weight[0, 1] = 0.0
    assert analysed(model, normal(4, 2))[1] is None


def test_the_step_that_changes_both_halves_is_flagged() -> None:
    _, structure, flags = analysed(flow(8, affine, affine, affine, leaking, affine, affine), normal(4, 8))
    assert couplings_of(structure, kept=5).affine == 5
    assert structure is not None
    found = structure.named("coupling")
    assert found is not None
    assert [step.source for step in found.lost] == [3]
    assert 0.05 < (found.lost[0].defect.value or 0.0) < 0.3
    assert "DS512" in flags


@pytest.mark.parametrize("first", [[Logit(), Step(8, affine, 0)], [Step(8, bent, 0)]])
def test_a_triangular_step_that_is_no_coupling_adds_to_the_determinant_and_is_not_flagged(first: list) -> None:
    model = nn.Sequential(*first, *flow(8, *[affine] * 5)).to(F64)
    report, structure, flags = analysed(model, normal(4, 8))
    found = couplings_of(structure, kept=5)
    assert found.other == 1
    assert found.log_determinant.value == pytest.approx(report.measurements.network.log_determinant.value)
    assert "DS512" not in flags


def test_a_flow_of_images_has_its_determinant_where_no_jacobian_is_formed() -> None:
    class Checkerboard(nn.Module):
        mask: Tensor

        def __init__(self, odd: int) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            places = torch.arange(16)
            self.register_buffer("mask", ((places[:, None] + places + odd) % 2).to(F64))

        def scale(self, x: Tensor) -> Halves:
            s, t = self.net(x * self.mask).chunk(2, dim=1)
            return (1 - self.mask) * torch.tanh(s), (1 - self.mask) * t

        def forward(self, x: Tensor) -> Tensor:
            s, t = self.scale(x)
            return x * torch.exp(s) + t

    torch.manual_seed(0)
    layers = [Checkerboard(i % 2) for i in range(4)]
    x = normal(2, 4, 16, 16)
    report, structure, _ = analysed(nn.Sequential(*layers).to(F64), x)
    assert report.measurements.network.log_determinant.value is None
    found = couplings_of(structure, kept=4)
    exact, x = 0.0, x[: found.log_determinant.samples]  # spectra of large states are taken at fewer inputs
    with torch.no_grad():
        for layer in layers:
            exact, x = exact + layer.scale(x)[0].sum().item() / len(x), layer(x)
    assert found.log_determinant.value == pytest.approx(exact, abs=1e-9)
    assert found.determinant_gap.value is None
    assert structure is not None
    assert structure.reconstruction.value is not None
    assert structure.reconstruction.value < 1e-13


def test_a_state_of_zeros_has_no_relative_error_of_running_back() -> None:
    _, structure, flags = analysed(flow(8, *[affine] * 6), torch.zeros(4, 8, dtype=F64))
    assert couplings_of(structure, kept=6).affine == 6
    assert structure is not None
    assert structure.reconstruction.value is None
    assert "DS513" not in flags


def test_the_report_names_the_kinds_and_the_determinant() -> None:
    report, structure, _ = analysed(flow(8, *[affine] * 5, additive), normal(4, 8))
    (chapter,) = [topic for topic in topics(report) if topic.title == "Structure"]
    facts = {name: number for name, number, _ in chapter.facts}
    assert structure is not None
    assert structure.couplings is not None
    assert facts["ln |det J| of the couplings"] == structure.couplings.log_determinant
    assert math.isfinite(facts["error of running it back"].value or math.nan)
    assert ("couplings", "5 affine, 1 additive") in chapter.remarks
    assert ("run back", "6 couplings in a row, float64") in chapter.remarks
    assert Report.model_validate_json(report.model_dump_json()).measurements.structure == structure
