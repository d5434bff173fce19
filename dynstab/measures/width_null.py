"""What finite width alone does to the gain of a network at perfect criticality.

One random step with N features multiplies |v|^2 by a factor of mean 1 and relative variance V/N. For a
plain ReLU layer with He weights V = 5: 2 from the Gaussian weights, 3 from the rectifier. In a residual
step v + W v whose branch carries the share s of the gain, the cross term v.Wv adds 4 s (1 - s) to the
branch's own 5 s^2, together V(s) = s (4 + s). The logarithm of a long product of such factors is normal
with variance sum V/N and, since the mean of the product stays 1, mean -1/2 of it. In ln |v|, half of ln |v|^2:

    mean = -1/4 sum_l V(s_l)/N_l,   standard deviation = 1/2 sqrt(sum_l V(s_l)/N_l).

So a ReLU He chain of width 32 and depth 50 reads e^-2 in ln |v|, e^-4 in |v|^2.

N is the number of independent draws that one step averages over. Where `positions` share the weights,
d features at one position see d^2 weights in all: up to d positions with different features average
independently, more add nothing. So N = d min(positions, d), and N = d without positions.
The smaller of a step's two ends counts.

References:
    Hanin & Nica (2020), Products of many large random matrices and gradients in deep neural networks.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynstab.core.estimate import Estimate, Label
from dynstab.measures.tokens import shape_of_tokens
from dynstab.systems.trajectory import State


def mixed_features(state: State) -> int:
    """N of the module's docstring."""
    positions, features = shape_of_tokens(state)
    return features * min(positions, features)


def width_null(states: Sequence[State], shares: Sequence[float]) -> Estimate:
    """Mean of ln gain over random networks at criticality, with one standard deviation as its error.

    Args:
        shares: of each step, the share of the update in the gain, ||J - aI||_F^2 / ||J||_F^2 in [0, 1].
    """
    widths = [mixed_features(state) for state in states]
    total = 0.0
    for source, target, share in zip(widths, widths[1:], shares, strict=False):
        share = min(max(share, 0.0), 1.0)
        total += share * (4 + share) / max(1, min(source, target))
    return Estimate(
        value=-total / 4,
        error=total**0.5 / 2,
        unit="nat",
        method="log-normal width fluctuations, -1/4 sum s(4 + s)/N; error is one standard deviation",
        label=Label.ESTIMATE,
    )
