"""Which weight variance keeps a deep tanh network trainable? Measure a few and compare with the theory.

Mean-field theory puts the edge between order and chaos at sigma_w^2 = 1.76 for biases of
variance 0.05: there chi, the mean squared gain of a layer's Jacobian, is 1 (Poole et al. 2016;
Schoenholz et al. 2017). Below it gradients vanish, above it they explode.

    python examples/choose_initialization.py
"""

from __future__ import annotations

import math
from statistics import geometric_mean
from typing import Literal

import torch
from torch import nn

import dynstab

CRITICAL = 1.76095
BIAS_VARIANCE = 0.05


def tanh_network(weight_variance: float, *, width: int, depth: int) -> nn.Sequential:
    """Layers h -> W tanh(h) + b with independent entries."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width)
        nn.init.normal_(linear.weight, std=math.sqrt(weight_variance / width))
        nn.init.normal_(linear.bias, std=math.sqrt(BIAS_VARIANCE))
        layers += [nn.Tanh(), linear]
    return nn.Sequential(*layers)


def gain_of_a_layer(report: dynstab.Report) -> float:
    """chi of one layer in the second half, where the size of the activations has settled.

    The last step is left out: no tanh follows its weights.
    """
    steps = report.measurements.steps
    return geometric_mean([step.rms_gain.value or math.nan for step in steps[len(steps) // 2 : -1]])


def crossing(variances: list[float], gains: list[float]) -> float:
    """Where ln chi passes 0, by linear interpolation; NaN where it does not."""
    logs = [math.log(gain) for gain in gains]
    for left, right, low, high in zip(variances, variances[1:], logs, logs[1:], strict=False):
        if low <= 0 < high:
            return left - low * (right - left) / (high - low)
    return math.nan


def main(*, width: int = 256, depth: int = 40, effort: Literal["quick", "standard", "thorough"] = "quick") -> float:
    variances = [1.0, 1.4, 1.6, 1.8, 2.0, 2.5]
    config = dynstab.Config(k=1, effort=effort)
    gains = []
    print("sigma_w^2    chi   verdict")
    for variance in variances:
        report = dynstab.analyze(tanh_network(variance, width=width, depth=depth), torch.randn(8, width), config=config)
        gains.append(gain_of_a_layer(report))
        print(f"{variance:9.2f}  {gains[-1]:5.3f}   {report.verdict.kind}")
    critical = crossing(variances, gains)
    print(f"measured edge: sigma_w^2 = {critical:.3f}; mean-field theory: {CRITICAL:.3f}")
    return critical


if __name__ == "__main__":
    main()
