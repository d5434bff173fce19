"""DS201: the states grow on their way forward."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.advice import against_growth
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.signal_finding import signal_finding


def find(facts: Facts) -> Iterator[Finding]:
    yield from signal_finding(facts, sign=1, advice=against_growth)


RULE = Rule(
    code="DS201",
    name="exploding-signal",
    severity=Severity.ERROR,
    summary="States grow by more than a factor 20 through the depth.",
    documentation=document(
        what_it_flags="""
            The root mean square of the entries grows by more than e^3 (a warning) or e^7 (an error) from the
            first state to the state where it is largest. A stem and a head, a first or last step that changes
            the kind of state, do not count. In a residual network growth slower than exponential is
            information up to e^7, a warning beyond.
            """,
        why_it_matters="""
            Large states saturate nonlinearities and softmaxes, drown the updates of later residual branches,
            and leave the range of half precision. In a homogeneous network the gradients of the weights grow
            with them.
            """,
        known_problems="""
            Adding branches makes a residual stream grow like the root of the depth, and pre-norm networks are
            built for that. A final normalisation hides growth before it, which is why the largest state
            counts and not the last.
            """,
        example="""
            A ReLU network of 30 layers with weights of variance 4/N instead of 2/N: each layer multiplies the
            signal by 1.4, which makes e^10 in all.
            """,
        what_to_do="""
            Set the initial scale for the nonlinearity (2/N for ReLU), scale residual branches by 1/sqrt(L),
            normalise.
            """,
        references=(
            "Poole, Lahiri, Raghu, Sohl-Dickstein & Ganguli (2016), Exponential expressivity, NeurIPS",
            "He, Zhang, Ren & Sun (2015), Delving deep into rectifiers, ICCV",
            "Hanin & Rolnick (2018), How to start training: the effect of initialization and architecture, NeurIPS",
        ),
    ),
    find=find,
    silent_in=("training",),
    fires_on=(
        Case(signal_rate=0.4, kind="plain"),
        Case(signal_rate=0.8),
        Case(every_state={"rms": None}, network={"log_signal_gain": 5.0}),
    ),
    silent_on=(
        Case(),
        Case(signal_rate=0.2),
        Case(every_state={"rms": None}, network={"log_signal_gain": None}),
        Case(signal_rate=-0.4),
    ),
)
