"""How far can a pendulum be pushed and still come to rest? Two Lyapunov functions give two answers.

A quadratic V comes from the linearisation at rest and certifies a neighbourhood of it; the energy, which we know,
certifies nearly all that can be certified: up to the upright position, where the pendulum turns over.

    python examples/lyapunov_function.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import dynstab

FRICTION = 0.5


def pendulum(t: float, x: Tensor) -> Tensor:
    """Angle and speed."""
    return torch.stack([x[1], -torch.sin(x[0]) - FRICTION * x[1]])


def energy(x: Tensor) -> Tensor:
    return x[1] ** 2 / 2 + 1 - torch.cos(x[0])


def main(*, time: float = 20.0, samples: int = 64) -> tuple[float, float]:
    rest = torch.zeros(2, dtype=torch.float64)
    quadratic = dynstab.lyapunov_function(pendulum, rest, time=time, dt=0.05, reach=4.0, samples=samples)
    print(quadratic)
    assert quadratic.P is not None
    level = quadratic.level.value or math.nan
    push = math.sqrt(level / float(quadratic.P[0, 0]))
    print(f"V = x^T P x falls wherever V < {level:.3g}: a push of up to {push:.2f} rad at rest\n")

    reach = math.pi - 0.01
    known = dynstab.lyapunov_function(pendulum, rest, time=time, dt=0.05, reach=reach, samples=samples, V=energy)
    print(f"the energy falls in every step of {samples} trajectories from within {reach:.2f}: ", end="")
    print(f"{100 * (known.violations.value or 0.0):.2g} % against it")
    return push, known.violations.value or 0.0


if __name__ == "__main__":
    main()
