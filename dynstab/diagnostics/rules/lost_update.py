"""DS405: residual updates that rounding drops."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.flag import Severity
from dynstab.diagnostics.case import Case
from dynstab.diagnostics.facts import Facts, finite
from dynstab.diagnostics.rule import Finding, Rule, document
from dynstab.diagnostics.words import also, number


def find(facts: Facts) -> Iterator[Finding]:
    limit = facts.range.half_ulp
    ratios = {step.index: finite(step.update_ratio) for step in facts.residual_steps()}
    # An update of exactly zero is a branch that starts at zero: nothing is lost.
    lost = {index: ratio for index, ratio in ratios.items() if ratio is not None and 0 < ratio < limit}
    if not lost:
        return
    worst = min(lost, key=lambda index: lost[index])
    yield Finding(
        measure="steps.update_ratio",
        value=lost[worst],
        threshold=limit,
        where=facts.place(worst) if len(lost) == 1 else None,
        steps=tuple(sorted(lost)),
        message=f"{facts.place(worst)} changes its state by a share of {number(lost[worst])}, less than the "
        f"{number(limit)} that {facts.trains_in} can resolve{also(len(lost))}.",
        evidence={"dtype": facts.trains_in, "worst_step": worst, "affected_steps": len(lost)},
        advice=(
            "Keep the residual stream in float32 and compute only the branches in half precision.",
            "Enlarge the branch's initial scale, or normalise the stream so that late updates are not drowned.",
        ),
    )


RULE = Rule(
    code="DS405",
    name="lost-update",
    severity=Severity.WARNING,
    summary="A residual update is smaller than the training dtype's rounding of the state it is added to.",
    documentation=document(
        what_it_flags="""
            The root mean square of a residual update, over that of its state, is below half a unit in the
            last place of the training dtype: 2^-9 for bfloat16, 2^-12 for float16. Updates of exactly zero do
            not count.
            """,
        why_it_matters="""
            The sum h + f(h) is rounded to h in most entries: the block costs its time and does nothing, in
            training as in inference.
            """,
        known_problems="""
            The ratio is of root mean squares: single entries with a small state still move. Many
            implementations keep the stream in float32, where nothing is lost.
            """,
        example="""
            A bfloat16 network of 100 blocks, branches scaled by 1/1000: each adds 0.1 % and rounding takes it
            away.
            """,
        what_to_do="""
            Keep the stream in float32, or enlarge the branch.
            """,
        references=(
            "Kalamkar et al. (2019), A study of BFLOAT16 for deep learning training, arXiv:1905.12322",
            "Goldberg (1991), What every computer scientist should know about floating-point, ACM Surveys 23",
        ),
    ),
    find=find,
    fires_on=(
        Case(training_dtype="bfloat16", every_step={"update_ratio": 1e-3}),
        Case(training_dtype="float16", steps={3: {"update_ratio": 1e-4}}),
    ),
    silent_on=(
        Case(),
        Case(every_step={"update_ratio": 1e-3}),
        Case(training_dtype="bfloat16", every_step={"update_ratio": 0.0}),
        Case(training_dtype="bfloat16", every_step={"update_ratio": None}),
    ),
)
