"""Laws of normalising flows: the determinant and the inverse of couplings."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from truth import F64, Row, law, number, seeded

import dynstab


class RealNVP(nn.Module):
    """y = exp(s(m x)) x + t(m x) where the mask m is 0, masks in turn, factors and a permutation between."""

    masks: Tensor
    orders: Tensor

    def __init__(self, size: int, depth: int = 8) -> None:
        super().__init__()
        torch.manual_seed(size)
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 2 * size)) for _ in range(depth)
        )
        self.factors = nn.Parameter(0.2 * torch.randn(depth, size))
        self.register_buffer("masks", torch.stack([(torch.arange(size) + i) % 2 for i in range(depth)]).to(F64))
        self.register_buffer("orders", torch.stack([torch.randperm(size) for _ in range(depth)]))

    def layers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and ln |det J| at each input."""
        total = torch.zeros(len(x), dtype=x.dtype)
        for net, mask, order, factor in zip(self.nets, self.masks, self.orders, self.factors, strict=True):
            x = (x * factor.exp())[:, order]
            scale, shift = net(x * mask).chunk(2, dim=-1)
            scale = (1 - mask) * torch.tanh(scale)
            x = x * scale.exp() + (1 - mask) * shift
            total = total + scale.sum(dim=1) + factor.sum()
        return x, total

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[0]


@law
def couplings() -> Iterator[Row]:
    for size in (2, 8, 64):
        model, x = RealNVP(size).to(F64), torch.randn(4, size, generator=seeded(1), dtype=F64)
        structure = dynstab.analyze(model, x, config=dynstab.Config(k=2)).measurements.structure
        assert structure is not None
        assert structure.couplings is not None
        found, system = structure.couplings, f"RealNVP of {size} entries, 8 couplings"
        yield Row(system, "affine couplings found", float(found.affine), 8.0, 0.0, "by construction")
        value, error = number(found.log_determinant)
        exact = model.layers(x)[1].mean().item()
        yield Row(system, "ln |det J|", value, exact, error, "sum of s (Dinh et al. 2017)")
        value, _ = number(structure.reconstruction)
        yield Row(system, "error of running back", value, 0.0, 1e-12, "closed-form inverse, rounding apart")
