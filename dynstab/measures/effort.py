"""How hard to try: one table, read by every measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynstab.linear.operator import LinearOperator

NEEDS_THOROUGH = "needs effort thorough"
NEEDS_STANDARD = "needs effort standard"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The budget of an analysis. A product is one column through one Jacobian of one input.

    Attributes:
        flow_probes: cotangents an input that are pulled through the whole trajectory.
        gain_probes: fresh cotangents an input at every step, at least `least_probes` over all inputs.
        dense_size: largest side of a Jacobian that is formed. dense_work: largest
            inputs * size^3 for which its decompositions are affordable.
        singular_products, symmetric_products, eigen_products: for one step, matrix-free; 0 skips.
        network_products: for the leading singular values of the whole propagator.
        block_size: largest features a token for which the token blocks are formed.
        transient_steps: powers of J searched for transient growth, 0 skips it and the Kreiss constant.
        power_size, kreiss_size: largest size for which powers and the Kreiss constant are searched.
        vectors_bytes: memory for one Krylov basis, and for all formed Jacobians. chunk_bytes: for a block of columns.
    """

    flow_probes: int
    gain_probes: int
    least_probes: int
    dense_size: int
    dense_work: float
    singular_products: int
    symmetric_products: int
    eigen_products: int
    network_products: int
    block_size: int
    transient_steps: int
    power_size: int
    kreiss_size: int
    vectors_bytes: int = 2**31
    chunk_bytes: int = 2**28


EFFORTS: dict[str, Effort] = {
    "quick": Effort(
        flow_probes=8,
        gain_probes=2,
        least_probes=8,
        dense_size=128,
        dense_work=2.0e8,
        singular_products=32,
        symmetric_products=0,
        eigen_products=0,
        network_products=0,
        block_size=0,
        transient_steps=0,
        power_size=0,
        kreiss_size=0,
        vectors_bytes=2**29,
    ),
    "standard": Effort(
        flow_probes=16,
        gain_probes=4,
        least_probes=16,
        dense_size=512,
        dense_work=2.0e10,
        singular_products=96,
        symmetric_products=64,
        eigen_products=48,
        network_products=96,
        block_size=256,
        transient_steps=64,
        power_size=192,
        kreiss_size=48,
    ),
    "thorough": Effort(
        flow_probes=64,
        gain_probes=16,
        least_probes=64,
        dense_size=1024,
        dense_work=4.0e11,
        singular_products=480,
        symmetric_products=320,
        eigen_products=320,
        network_products=480,
        block_size=1024,
        transient_steps=256,
        power_size=1024,
        kreiss_size=256,
        vectors_bytes=2**32,
    ),
}


@dataclass(frozen=True, kw_only=True)
class DensePlan:
    """Which Jacobians of a trajectory are formed.

    Attributes:
        formed: for each step. inputs: how many of the inputs have their matrices decomposed, the first ones.
    """

    formed: tuple[bool, ...]
    inputs: int

    @property
    def whole(self) -> bool:
        return bool(self.formed) and all(self.formed)


def plan_dense(operators: Sequence[LinearOperator], effort: Effort) -> DensePlan:
    """Every Jacobian whose longer side is small enough, for as many inputs as all of them together afford."""
    small = [operator for operator in operators if max(operator.shape) <= effort.dense_size]
    nothing = DensePlan(formed=(False,) * len(operators), inputs=0)
    if not small:
        return nothing
    work = sum(float(min(operator.shape)) ** 2 * max(operator.shape) for operator in small)
    entries = sum(operator.samples * operator.rows * operator.cols for operator in small)
    inputs = min(small[0].samples, int(effort.dense_work // max(1.0, work)))
    if inputs == 0 or entries * small[0].dtype.itemsize > effort.vectors_bytes:
        return nothing
    return DensePlan(formed=tuple(operator in small for operator in operators), inputs=inputs)


def plan_frame(operators: Sequence[LinearOperator], effort: Effort, k: int) -> int:
    """Tangents that are carried along a recurrence: all directions where their QR is affordable, else `k` of them."""
    first, size = operators[0], operators[0].cols
    affordable = first.samples * len(operators) * float(size) ** 3 <= effort.dense_work
    return size if affordable and size <= effort.dense_size else min(k, size)
