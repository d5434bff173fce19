"""Where a number stops being unremarkable. Every cut of every rule is here, with its reason.

Logarithms are natural. A gain G of a whole network is compared on a logarithmic scale,
because gains multiply along depth.
"""

from __future__ import annotations

from dataclasses import dataclass

HEALTHY = 3.0
"""|G| up to here, a factor 20, is the trainable depth of mean-field theory (Schoenholz et al. 2017)."""

SEVERE = 7.0
"""|G| beyond here, a factor 1000, is an error; between the two a warning."""

SIGNIFICANCE = 4.0
"""Standard errors that must lie between a number and its null before anything is claimed."""

CLAIM_SAMPLES = 8
"""Independent inputs that make a claim."""

CLAIM_TANGENTS = 16
"""Random cotangents an input that make a claim, where the gain is not exact."""

OUTLIER = 0.7
"""|ln chi| of one step beyond here, a factor 2 in the squared gain, is an outlier, not an explosion."""

KREISS = 3.0
"""A Kreiss constant beyond here, with a spectral radius below 1, is worth a warning."""

EULER_RADIUS = 1.0
"""|1 + lambda| beyond here grows under explicit Euler of step 1."""

ROUNDING = 1e-3
"""Distance from a stability limit that is put down to the eigenvalue solver."""

STABILITY_DISC = 2.0
"""Decay rates beyond here leave the disc |1 + lambda| <= 1 of explicit Euler of step 1."""

FLOW_ORDER = 0.8
"""An order of refinement below here means that there is no limit of small steps (a smooth stack has 1)."""

FLOW_CHANGE = 0.5
"""Weights that change by this share of their size from block to block are no samples of a function of depth.

Independent ones change by 1.41; a quarter of a turn over four blocks is 0.4 a block.
"""

SIMILAR_TOKENS = 0.95
"""A mean pairwise cosine of the tokens beyond here: they have become nearly parallel."""

SIMILAR_INPUT = 0.9
"""Tokens that enter with a similarity beyond here were parallel from the start."""

RANK_LOSS = 0.5
"""An effective rank below this share of the first state's is a loss of rank."""

SILENT = 0.25
"""Share of a step's rectifiers that are zero everywhere: beyond here it is worth knowing."""

DEAD = 0.6
"""Beyond here it is a warning: half, give or take, is what inputs that became parallel show by chance."""

ALL_DEAD = 0.99
"""Beyond here the step passes no gradient through its rectifiers."""

KINK = 0.01
"""Share of pre-activations exactly at a kink beyond which the derivative is a matter of convention."""

MANY_KINKS = 0.1
"""Beyond here the choice of the derivative decides the measured gains."""

LONG_ENOUGH = 50
"""Steps of a recurrence from which an exponent says something of its attractor."""

SHORT_MEMORY = 0.5
"""Share of a sequence that gradients reach back: below here it is worth knowing."""

LOST_MEMORY = 0.1
"""Below here it is a warning."""

HEADROOM = 10.0
"""Distance from a dtype's largest number that is asked for: other inputs are larger than the measured ones."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a floating-point type can hold.

    Attributes:
        largest: finite number. tiny: smallest normal number.
        half_ulp: an addend below this share of a number may leave it unchanged.
    """

    largest: float
    tiny: float
    half_ulp: float


RANGES = {
    "float16": Range(largest=65504.0, tiny=2.0**-14, half_ulp=2.0**-12),
    "bfloat16": Range(largest=3.3895313892515355e38, tiny=2.0**-126, half_ulp=2.0**-9),
    "float32": Range(largest=3.4028234663852886e38, tiny=2.0**-126, half_ulp=2.0**-25),
    "float64": Range(largest=1.7976931348623157e308, tiny=2.0**-1022, half_ulp=2.0**-54),
}

STIFF = 100.0
"""Integral of a field's fastest decay: beyond here an explicit solver's steps are set by stability."""

GROWN_BY_SOLVER = 0.1
"""Nat that a solver may add to modes of the field that do not grow, over all steps."""

ADJOINT_GAP = 0.01
"""Relative distance of the adjoint's gradient from the one through the solver."""

WRONG_GRADIENT = 0.5
"""Beyond here the adjoint's gradient is no descent direction to rely on."""

SOLUTION_ERROR = 0.05
"""Relative distance of a numerical solution from the solution: beyond here the solver is part of the model."""

SYMPLECTIC_DRIFT = 1e-3
"""Symplectic defects of all steps on a Hamiltonian field together, up to which a solver keeps what none promised."""

INTEGRATOR_CHANGE = 0.1
"""A midpoint step that changes more than this share of a stack's update means that its depth step is coarse."""

REVERSAL = 1e-2
"""An error of running a reversible stack back beyond here gives gradients at states that never were."""

VIOLATIONS = 0.05
"""A share of steps against a Lyapunov function beyond here: far from the fixed point, V is not the one that counts."""
