"""Many trajectories in one run: a parameter of the logistic map swept, and chaotic orbits of a Hamiltonian counted.

python examples/many_trajectories.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import dynstab

ONSET = 3.569946  # rates above have chaos between the windows (Feigenbaum 1978)
ENERGIES = (1 / 12, 1 / 8, 1 / 6)
GROWTH = 0.02  # nat per unit of time: regular orbits stretch tangents like t alone, ln(t) / t by then


def sweep(rates: Tensor, steps: int) -> Tensor:
    """The exponent of x -> r x (1 - x) at every r: each row of the batch has a parameter of its own."""
    spectra = dynstab.lyapunov_spectra(
        lambda x: rates * x * (1 - x), torch.full_like(rates, 0.3), steps=steps, discard=steps
    )
    for rate, spectrum in zip(rates[::40], spectra[::40], strict=True):
        print(f"  r = {rate:.3f}: {spectrum.qr[0]:+8.4f} nat per step, {spectrum.outcome}")
    return torch.stack([spectrum.qr[0] for spectrum in spectra])


def henon_heiles(t: Tensor, x: Tensor) -> Tensor:
    """Henon & Heiles (1964); t is not used. (trajectories, 4), so the parts are in the last dimension."""
    q1, q2, p1, p2 = x.unbind(-1)
    return torch.stack([p1, p2, -q1 - 2 * q1 * q2, -q2 - q1.square() + q2.square()], dim=-1)


def starts(energy: float, count: int) -> Tensor:
    """States with q1 = 0 at one energy, (count, 4), drawn evenly over the surface of section."""
    generator = torch.Generator().manual_seed(0)
    q2, p2 = torch.rand(2, 100 * count, generator=generator, dtype=torch.float64).mul(2).sub(1)
    left = 2 * energy - p2.square() - q2.square() + 2 / 3 * q2**3
    chosen = (left > 0).nonzero().flatten()[:count]
    q2, p2, p1 = q2[chosen], p2[chosen], left[chosen].sqrt()
    return torch.stack([torch.zeros_like(q2), q2, p1, p2], dim=1)


def chaotic_shares(orbits: int, time: float) -> list[float]:
    """Of so many orbits at each energy, all in one run, the share whose tangents grow exponentially."""
    states = torch.cat([starts(energy, orbits) for energy in ENERGIES])
    spectra = dynstab.lyapunov_spectra(henon_heiles, states, time=time, dt=0.1, k=1)
    grows = torch.tensor([float(spectrum.qr[0]) > GROWTH for spectrum in spectra])
    return grows.reshape(len(ENERGIES), orbits).double().mean(dim=1).tolist()


def main(*, steps: int = 2_000, orbits: int = 64, time: float = 1_000.0) -> tuple[float, list[float]]:
    rates = torch.linspace(2.9, 4.1, 1201, dtype=torch.float64)
    print("The logistic map, 1201 rates in one run:")
    exponents = sweep(rates, steps)
    onset = float(rates[exponents > 0][0])
    print(f"  first positive exponent at r = {onset:.3f}; the cascade ends at {ONSET:.4f}")
    print(f"Henon and Heiles, {len(ENERGIES) * orbits} orbits in one run:")
    shares = chaotic_shares(orbits, time)
    for energy, share in zip(ENERGIES, shares, strict=True):
        print(f"  energy {energy:.4f}: {share:4.0%} of the orbits are chaotic")
    return onset, shares


if __name__ == "__main__":
    main()
