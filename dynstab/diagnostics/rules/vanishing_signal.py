"""DS202: the states shrink on their way forward."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.advice import against_decay
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.signal_finding import signal_finding


def find(facts: Facts) -> Iterator[Finding]:
    yield from signal_finding(facts, sign=-1, advice=against_decay)


RULE = Rule(
    code="DS202",
    name="vanishing-signal",
    severity=Severity.ERROR,
    summary="States shrink by more than a factor 20 through the depth.",
    documentation=document(
        what_it_flags="""
            The root mean square of the entries falls by more than e^3 (a warning) or e^7 (an error) from the
            first state to the state where it is smallest. A stem and a head do not count.
            """,
        why_it_matters="""
            Where the signal is small, biases and rounding take its place: all inputs give the same output.
            The gradients of the weights are products of signal and gradient and shrink with it.
            """,
        known_problems="""
            A normalisation behind the small state restores the scale; then only its epsilon and half
            precision see the difference. Sparse inputs may start with a small root mean square of their own.
            """,
        example="""
            A tanh network with weights of variance 0.5/N and no biases: each layer keeps a share 0.7 of the
            signal, and after 20 layers e^-7 of it is left.
            """,
        what_to_do="""
            Raise the initial scale of the weights to that of the nonlinearity, add skip connections or
            normalise.
            """,
        references=(
            "Poole, Lahiri, Raghu, Sohl-Dickstein & Ganguli (2016), Exponential expressivity, NeurIPS",
            "Glorot & Bengio (2010), Understanding the difficulty of training deep feedforward networks, AISTATS",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(signal_rate=-0.4, kind="plain"),
        Case(signal_rate=-0.8),
        Case(every_state={"rms": None}, network={"log_signal_gain": -5.0}, exponents=()),
    ),
    silent_on=(Case(), Case(signal_rate=-0.2), Case(signal_rate=0.4), Case(depth=1)),
)
