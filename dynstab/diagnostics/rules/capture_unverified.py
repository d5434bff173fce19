"""DS902: the captured graph is not, or may not be, the model."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import count


def find(facts: Facts) -> Iterator[Finding]:
    failed = facts.failed_checks
    if not failed:
        return
    names = ", ".join(check.check for check in failed)
    only_gradient = facts.linearised_otherwise
    consequence = (
        "the numbers describe the derivative of the forward pass, not the model's own backward"
        if only_gradient
        else "the numbers may describe another function than the model"
    )
    errors = [check.error for check in failed if check.error is not None]
    yield Finding(
        measure="verification",
        value=float(len(failed)),
        threshold=0.0,
        severity=Severity.WARNING if only_gradient else Severity.ERROR,
        where="network",
        message=f"{count(len(failed), 'check')} of the capture failed ({names}): {consequence}.",
        evidence={"checks": len(facts.verification), "failed": names, "largest_error": max(errors, default=None)},
        advice=(
            "Look for a custom backward, a detach or a straight-through estimator: gradients differ there on purpose."
            if only_gradient
            else "Look for branches on data, state kept between calls, or randomness outside of dropout.",
            "Name the states yourself (--states GLOB) so that the chain of modules is used.",
        ),
    )


RULE = Rule(
    code="DS902",
    name="capture-unverified",
    severity=Severity.ERROR,
    summary="A verification of the captured graph failed.",
    documentation=document(
        what_it_flags="""
            One of the checks that every capture has to pass did not: the same output as the model, dependence
            on the input, the same output after the parameters are perturbed, the same gradient as the
            untouched model's.
            """,
        why_it_matters="""
            All numbers are those of the captured graph. If it is not the model, they are about something
            else. If the gradient alone differs, the model has a backward of its own, and the report shows the
            derivative of the forward pass.
            """,
        known_problems="""
            Models with randomness that cannot be replayed fail although the capture is right. Low precision
            widens the differences.
            """,
        example="""
            A quantiser with a straight-through gradient: outputs agree, gradients do not.
            """,
        what_to_do="""
            Remove data-dependent branches, or name the states, so that another way of capture is taken.
            """,
        references=("Griewank & Walther (2008), Evaluating derivatives, SIAM",),
    ),
    find=find,
    fires_on=(
        Case(failed=("output",)),
        Case(failed=("steps equal autograd",)),
        Case(failed=("steps equal autograd", "live")),
    ),
    silent_on=(Case(), Case(depth=1)),
)
