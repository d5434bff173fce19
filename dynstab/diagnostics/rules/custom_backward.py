"""DS905: a custom backward that is not the derivative of its forward."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.core.report import Choices
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import percent


def find(facts: Facts) -> Iterator[Finding]:
    choices = facts.system.choices
    names = ", ".join(choices.functions)
    if choices.backward_gap is not None:
        yield Finding(
            measure="system.choices.backward_gap",
            value=choices.backward_gap,
            threshold=0.0,
            where="network",
            message=f"The model's own gradient differs by {percent(choices.backward_gap)} from the derivative of its "
            f"forward, which is shown: {names} has a backward of its own.",
            evidence={"functions": names, "linearisation": choices.linearisation},
            advice=(
                "Read gains and gradients as those of the function, not of training; "
                "--linearisation backward shows what training sees.",
                "If the difference is not intended, test the backward with torch.autograd.gradcheck.",
            ),
        )
    elif choices.linearisation == "backward" and names:
        yield Finding(
            measure="system.choices.functions",
            value=float(len(choices.functions)),
            threshold=0.0,
            severity=Severity.INFO,
            where="network",
            message=f"Shown is what the backward of {names} says, which need not be the derivative of the forward.",
            evidence={"functions": names, "linearisation": choices.linearisation},
            advice=("--linearisation forward shows the derivative of the function itself.",),
        )


RULE = Rule(
    code="DS905",
    name="custom-backward",
    severity=Severity.WARNING,
    summary="A custom autograd Function has a backward that is not the derivative of its forward.",
    documentation=document(
        what_it_flags="""
            The model calls a `torch.autograd.Function`, and autograd's gradient of the model is not the derivative
            of what forward computes. With `--linearisation backward`, that the Functions' backward is what is shown.
            """,
        why_it_matters="""
            There are two answers then: how the signal of a small change spreads (the forward's derivative), and
            what the optimizer is told (the backward). Training follows the second; stability of the function
            itself, and its sensitivity to inputs, follow the first.
            """,
        known_problems="""
            The gap is measured for one random linear form of the output, in the norm of the gradient at the
            states that modules take or return. A backward that is no linear map of the incoming gradient (one
            that clips it) has no Jacobian, and only the forward can be shown.
            """,
        example="""
            A straight-through quantiser: zero almost everywhere by its forward, one by its backward. Gradient
            reversal for domain adaptation: plus one and minus one.
            """,
        what_to_do="""
            Decide which of the two is asked for, and name it with `--linearisation forward|backward`.
            """,
        references=(
            "Bengio, Leonard & Courville (2013), Estimating or propagating gradients through stochastic neurons",
            "Ganin & Lempitsky (2015), Unsupervised domain adaptation by backpropagation, ICML",
        ),
    ),
    find=find,
    fires_on=(
        Case(choices=Choices(functions=("Quantise",), backward_gap=0.4)),
        Case(choices=Choices(functions=("Quantise",), linearisation="backward")),
    ),
    silent_on=(Case(), Case(choices=Choices(functions=("Gate",))), Case(choices=Choices(linearisation="backward"))),
)
