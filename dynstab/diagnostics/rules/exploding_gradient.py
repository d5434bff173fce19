"""DS101: the gradient grows on its way back."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.advice import against_growth
from dynstab.diagnostics.case import Case, logarithm
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.gradient_finding import gradient_finding
from dynstab.diagnostics.rule import Finding, Rule, document


def find(facts: Facts) -> Iterator[Finding]:
    yield from gradient_finding(facts, sign=1, advice=against_growth)


RULE = Rule(
    code="DS101",
    name="exploding-gradient",
    severity=Severity.ERROR,
    summary="Gradients grow by more than a factor 20 from the output back to the first state.",
    documentation=document(
        what_it_flags="""
            G, the logarithm of the relative gradient gain from the last state back to the first, passes 3 (a
            warning: a factor 20) or 7 (an error: a factor 1000), and lies more than four standard errors
            above what finite width alone gives. *Relative* means that each gradient is multiplied by the size
            of its state, so that a rescaling of the states changes nothing.
            A stem and a head (a first or last step that changes the kind of state) are left out where they alone
            would decide; the message names them then.
            """,
        why_it_matters="""
            One learning rate serves all layers. Where the first layers receive gradients a thousand times
            larger than the last, the rate that suits the last makes the first diverge, and the loss becomes
            NaN; the rate that suits the first trains nothing else.
            """,
        known_problems="""
            Random cotangents stand for those of the loss unless a loss is given; a real loss can be milder or
            worse. A homogeneous network (ReLU without biases) has G near 0 whatever its scale: there look at
            exploding-signal. Under BatchNorm in training mode gradients explode by about 1.2 a layer even at
            perfect scale.
            """,
        example="""
            A tanh network of 50 layers with weights of variance 4/N: each layer multiplies the gradient by
            about 1.17, which makes e^7.7 in all.
            """,
        what_to_do="""
            In a plain stack divide the gain of each layer by exp(G/L), or initialise orthogonally; in a
            residual one multiply the branches by 1/sqrt(L). Clipping treats the symptom. If few steps hold
            most of the growth, begin there.
            """,
        references=(
            "Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, ICML",
            "Schoenholz, Gilmer, Ganguli & Sohl-Dickstein (2017), Deep information propagation, ICLR",
            "Yang & Schoenholz (2017), Mean field residual networks: on the edge of chaos, NeurIPS",
            "Yang et al. (2019), A mean field theory of batch normalization, ICLR",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(gradient_rate=0.4),
        Case(gradient_rate=0.9, kind="plain"),
        Case(gradient_rate=0.4, names="h.attn", network={"null_log_gain": None}),
        Case(time="time", gradient_rate=0.4, kind="plain"),
        Case(network={"log_gradient_gain": logarithm(float("inf"))}),
    ),
    silent_on=(
        Case(),
        Case(gradient_rate=0.2),
        Case(gradient_rate=0.4, network={"log_gradient_gain": logarithm(4.8, error=1.5)}),
        Case(network={"log_gradient_gain": None}),
        Case(network={"log_gradient_gain": logarithm(float("nan"))}),
    ),
)
