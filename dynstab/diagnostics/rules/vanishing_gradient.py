"""DS102: the gradient shrinks on its way back."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.estimate import Estimate
from dynstab.core.flag import Severity
from dynstab.diagnostics.advice import against_decay
from dynstab.diagnostics.case import Case, logarithm
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.gradient_finding import gradient_finding
from dynstab.diagnostics.rule import Finding, Rule, document

_NARROW = Estimate(value=-1.95, error=1.4, unit="nat", method="ReLU He, N = 32, L = 50")


def find(facts: Facts) -> Iterator[Finding]:
    yield from gradient_finding(facts, sign=-1, advice=against_decay)


RULE = Rule(
    code="DS102",
    name="vanishing-gradient",
    severity=Severity.ERROR,
    summary="Gradients shrink by more than a factor 20 from the output back to the first state.",
    documentation=document(
        what_it_flags="""
            G, the logarithm of the relative gradient gain from the last state back to the first, falls below
            -3 (a warning: a factor 20) or -7 (an error: a factor 1000), and lies more than four standard
            errors below what finite width alone gives. A gradient of exactly zero is an error. *Relative* means that
            each gradient is multiplied by the size of its state.
            A stem and a head (a first or last step that changes the kind of state) are left out where they alone
            would decide; the message names them then.
            """,
        why_it_matters="""
            The first layers receive almost nothing and stay as they were initialised, while the last ones fit
            what these happen to pass on. Adaptive optimisers rescale the gradient, but not its noise.
            """,
        known_problems="""
            Structure is not vanishing: a LayerNorm removes 2 directions, an RMSNorm 1, a dead ReLU its own;
            the mean gain over random cotangents hardly notices them, and this rule looks at no smallest
            singular value. A narrow network at perfect scale shrinks too: ReLU with width 32 and 50 layers
            reads e^-2 on average and e^-4 often, which the null accounts for. Where layers shrink signals and
            gradients alike, the relative gain hides it until a bias, mostly the head's, takes the place of the
            signals: then the steps to blame are found by the raw gains up to there. Without such a bias
            vanishing-signal speaks.
            """,
        example="""
            A sigmoid network of 20 layers with weights of variance 1/N: the slope is at most 1/4, so the
            first layer receives less than 4^-20, a millionth of a millionth.
            """,
        what_to_do="""
            Replace saturating nonlinearities, initialise for the one in use (He, orthogonal), add skip
            connections, keep the skip path free of normalisation, and give recurrent cells a forget bias.
            """,
        references=(
            "Hochreiter (1991), Untersuchungen zu dynamischen neuronalen Netzen, TU Munich",
            "Glorot & Bengio (2010), Understanding the difficulty of training deep feedforward networks, AISTATS",
            "Schoenholz, Gilmer, Ganguli & Sohl-Dickstein (2017), Deep information propagation, ICLR",
            "Hanin & Nica (2020), Products of many large random matrices and gradients in deep neural networks, CMP",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(gradient_rate=-0.4),
        Case(gradient_rate=-0.9, kind="plain"),
        Case(gradient_rate=-0.4, names="h.attn"),
        Case(time="time", gradient_rate=-0.4, kind="plain"),
        Case(network={"log_gradient_gain": logarithm(float("-inf"))}),
    ),
    silent_on=(
        Case(),
        Case(gradient_rate=-0.2),
        Case(depth=50, kind="plain", gradient_rate=-0.08, network={"null_log_gain": _NARROW}),
        Case(every_step={"nullity": 2, "smallest_singular_value": 1e-5}),
        Case(network={"log_gradient_gain": None}),
        Case(network={"log_gradient_gain": logarithm(float("-inf"))}, states={12: {"nonfinite_fraction": 0.5}}),
    ),
)
