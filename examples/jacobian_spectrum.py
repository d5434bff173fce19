"""The Jacobian of one residual block without ever forming it: products, and its largest singular values.

python examples/jacobian_spectrum.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import dynstab


class Block(nn.Module):
    """x + W_2 gelu(W_1 norm(x)), a pre-norm residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def main(*, width: int = 512, tokens: int = 32) -> tuple[dynstab.Estimate, ...]:
    torch.manual_seed(0)
    block, x = Block(width), torch.randn(tokens, width)
    jacobian = dynstab.jacobian(block, x)
    print(f"a Jacobian of {jacobian.shape[0]} x {jacobian.shape[1]}, by products alone")

    tangents, cotangents = torch.randn(4, tokens, width), torch.randn(4, tokens, width)
    pushed, pulled = jacobian.push(tangents), jacobian.pull(cotangents)
    difference = (pushed * cotangents).sum() - (tangents * pulled).sum()
    print(f"<J t, c> - <t, J^T c> = {difference.item():.1e} of {(pushed * cotangents).sum().item():.1f}")

    values = dynstab.singular_values(jacobian, k=4)
    for index, estimate in enumerate(values, start=1):
        print(f"sigma_{index} = {estimate.value:.4f}, error {estimate.error:.1g} ({estimate.label}, {estimate.method})")
    return values


if __name__ == "__main__":
    main()
