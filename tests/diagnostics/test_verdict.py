"""The verdict of networks whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dynstab.core.estimate import Estimate, Label
from dynstab.diagnostics import Facts, diagnose, verdict
from dynstab.diagnostics.case import Case, logarithm


def judged(case: Case):
    facts = case.facts()
    return verdict(facts, diagnose(facts))


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (Case(), "stable"),
        (Case(depth=1), "stable"),
        (Case(gradient_rate=0.24), "stable"),
        (Case(gradient_rate=0.26), "exploding"),
        (Case(gradient_rate=-0.26), "vanishing"),
        (Case(gradient_rate=2.0), "exploding"),
        (Case(network={"log_gradient_gain": logarithm(math.inf)}), "exploding"),
        (Case(network={"log_gradient_gain": logarithm(-math.inf)}), "vanishing"),
        (Case(signal_rate=0.5, kind="plain"), "exploding"),
        (Case(signal_rate=-0.5, kind="plain"), "vanishing"),
        (Case(signal_rate=0.5, gradient_rate=-0.5), "mixed"),
        (Case(signal_rate=-0.5, gradient_rate=0.5), "mixed"),
        (Case(gradient_rate=-0.5, network={"raw_log_gradient_gain": logarithm(4.0)}), "mixed"),
        (Case(depth=0), "inconclusive"),
        (Case(gradient_rate=2.0, failed=("output equals eager",)), "inconclusive"),
        (Case(network={"log_gradient_gain": None}), "inconclusive"),
        (Case(network={"log_gradient_gain": logarithm(math.nan)}), "inconclusive"),
        (Case(network={"log_gradient_gain": logarithm(0.0, error=3.5)}), "inconclusive"),
        (Case(steps={3: {"rms_gain": math.nan}}), "inconclusive"),
    ],
)
def test_verdict_kinds(case, kind):
    assert judged(case).kind == kind


def test_narrow_relu_network_at_criticality_does_not_vanish():
    # N = 32, L = 50, He weights: E ln|Jv|^2 = -2.5 L/N, sd sqrt(5 L/N), half of both for ln|Jv|.
    null = Estimate(value=-1.25 * 50 / 32, error=0.5 * math.sqrt(5 * 50 / 32), unit="nat")
    case = Case(depth=50, kind="plain", gradient_rate=-4.0 / 50, network={"null_log_gain": null})
    assert diagnose(case.facts(), select=["vanishing-gradient"]) == ()
    assert judged(case).kind == "inconclusive"
    assert "finite width alone" in judged(case).summary
    wide = Case(depth=50, kind="plain", gradient_rate=-4.0 / 50)
    assert judged(wide).kind == "vanishing"


def test_width_excuses_signals_as_it_does_gradients():
    null = Estimate(value=-1.25 * 50 / 32, error=0.5 * math.sqrt(5 * 50 / 32), unit="nat")
    case = Case(depth=50, kind="plain", signal_rate=-4.0 / 50, network={"null_log_gain": null}, exponents=())
    assert diagnose(case.facts()) == ()
    assert judged(case).kind == "inconclusive"
    assert judged(Case(depth=50, kind="plain", signal_rate=-4.0 / 50)).kind == "vanishing"


def test_the_null_of_a_signal_grows_with_the_steps_passed():
    # The smallest state is halfway, where half of the null's mean of -4 and its spread of 0.5 sqrt(1/2) apply.
    dip = {i: {"rms": math.exp(-3.2 * (1 - abs(i - 6) / 6))} for i in range(13)}
    for mean, kind in ((-4.0, "inconclusive"), (0.0, "vanishing")):
        null = Estimate(value=mean, error=0.5, unit="nat")
        assert judged(Case(states=dip, network={"null_log_gain": null})).kind == kind


def test_four_standard_errors_from_the_null_decide():
    for error, kind in ((0.9, "exploding"), (1.1, "inconclusive")):
        null = Estimate(value=1.0, error=0.0)
        case = Case(network={"log_gradient_gain": logarithm(5.0, error=error), "null_log_gain": null})
        assert judged(case).kind == kind


def test_a_gain_beyond_the_cut_on_the_wrong_side_of_its_null_is_no_claim():
    case = Case(network={"log_gradient_gain": logarithm(-4.0), "null_log_gain": Estimate(value=-9.0, error=0.1)})
    assert judged(case).kind == "inconclusive"


def test_signals_that_grow_into_overflow_explode_and_sudden_nan_is_inconclusive():
    lost = {"nonfinite_fraction": 1.0, "rms": math.nan, "max_abs": math.nan}
    unknown = {"log_gradient_gain": logarithm(math.nan), "log_signal_gain": logarithm(math.nan)}
    growing = {i: {"rms": math.exp(4.0 * i), "max_abs": math.exp(4.0 * i + 1)} for i in range(9)}
    late = growing | {i: lost for i in range(9, 13)}
    assert judged(Case(states=late, network=unknown)).kind == "exploding"
    assert "state 9 is not finite" in judged(Case(states=late, network=unknown)).summary
    sudden = {i: lost for i in range(9, 13)}
    assert judged(Case(states=sudden, network=unknown)).kind == "inconclusive"


def test_margin_is_the_distance_to_the_cut_and_positive_inside():
    assert judged(Case(gradient_rate=0.1)).margin == pytest.approx(3 - 1.2)
    assert judged(Case(gradient_rate=0.5)).margin == pytest.approx(6 - 3)
    assert judged(Case(gradient_rate=-0.5)).margin == pytest.approx(6 - 3)
    assert judged(Case(gradient_rate=0.1, signal_rate=-0.2)).margin == pytest.approx(3 - 2.4)
    assert judged(Case(depth=0)).margin is None


def burst_between(first, last, total=6.0):
    """A network in which the gradient grows by `total` nat from one state to another and nowhere else."""
    flow = {i: total * min(1.0, max(0.0, (last - i) / (last - first))) for i in range(13)}
    facts = Case().facts()
    measured = facts.measurements.model_copy(
        update={
            "gradient_flow": tuple(
                entry.model_copy(update={"relative_gain": Estimate(value=math.exp(flow[entry.state]))})
                for entry in facts.measurements.gradient_flow
            ),
            "network": facts.measurements.network.model_copy(update={"log_gradient_gain": logarithm(total)}),
        }
    )
    return Facts(system=facts.system, measurements=measured, model=facts.model, verification=facts.verification)


def test_worst_stretch_is_named():
    burst = burst_between(3, 6)
    flags = diagnose(burst)
    found = verdict(burst, flags)
    assert flags[0].steps == (3, 4, 5)
    assert flags[0].where == "steps 3-5"
    assert "steps 3-5, blocks.3 to blocks.5, which make e^6" in found.summary
    assert "steps 3-5 first" in flags[0].advice[0]
    assert "The worst is blocks.3 (step 3), which makes e^6" in verdict(burst_between(3, 4), ()).summary


@pytest.mark.parametrize(
    ("case", "confidence", "reason"),
    [
        (Case(), "high", ""),
        (Case(gradient_rate=0.5), "high", ""),
        (Case(network={"log_gradient_gain": logarithm(0.5, samples=1)}), "medium", "1 input where 8 make a claim"),
        (Case(gradient_rate=0.26), "medium", "within four standard errors"),
        (Case(network={"null_log_gain": None}), "medium", "finite width alone"),
        (Case(partial=("lyapunov",)), "medium", "cut short"),
        (Case(failed=("product of the steps equals autograd",)), "medium", "own backward"),
        (Case(dtype="bfloat16"), "medium", "analysed in bfloat16"),
        (Case(network={"median_log_gradient_gain": logarithm(5.0)}), "medium", "median"),
        (
            Case(partial=("a",), network={"log_gradient_gain": logarithm(0.5, samples=1), "null_log_gain": None}),
            "low",
            "cut short",
        ),
        (Case(network={"log_gradient_gain": None}), "low", ""),
    ],
)
def test_confidence_falls_with_every_doubt_and_says_why(case, confidence, reason):
    found = judged(case)
    assert found.confidence == confidence
    assert reason in found.summary


def test_too_few_cotangents_are_a_doubt_unless_the_gain_is_exact():
    few = logarithm(0.5, products=4)
    silent = Case(network={"log_gradient_gain": few}, no_flow=True)
    assert "fewer than 16 cotangents" in judged(silent).summary
    exact = few.model_copy(update={"label": Label.EXACT})
    assert judged(Case(network={"log_gradient_gain": exact}, no_flow=True)).confidence == "high"


def test_coupled_inputs_count_as_one():
    gain = logarithm(0.5, samples=1)
    found = judged(Case(network={"log_gradient_gain": gain, "batch_coupled": True}))
    assert "the inputs influence each other" in found.summary


def test_verdict_does_not_depend_on_which_rules_were_asked():
    facts = Case(gradient_rate=0.5).facts()
    quiet, loud = verdict(facts), verdict(facts, diagnose(facts))
    assert (quiet.kind, quiet.confidence, quiet.margin) == (loud.kind, loud.confidence, loud.margin)


def test_summary_mentions_other_warnings_but_no_information():
    found = judged(Case(steps={3: {"dead_fraction": 0.7}}, network={"refinement_order": 0.1}))
    assert found.kind == "stable"
    assert "dead-units at blocks.3 (step 3)" in found.summary
    assert "not-a-flow" not in found.summary


def pooled(rate: float, head: float) -> Facts:
    """Ten inner steps of this rate between a stem and a head that adds `head` nat."""
    total = 10 * rate + head
    logs = {12: 0.0} | {i: head + rate * (11 - i) for i in range(1, 12)} | {0: total}
    facts = Case(network={"log_gradient_gain": logarithm(total), "median_log_gradient_gain": logarithm(total)}).facts()
    flow = tuple(
        entry.model_copy(update={"relative_gain": Estimate(value=math.exp(logs[entry.state]))})
        for entry in facts.measurements.gradient_flow
    )
    steps = tuple(
        step.model_copy(update={"kind": "transition"}) if step.index in (0, 11) else step for step in facts.system.steps
    )
    return replace(
        facts,
        system=facts.system.model_copy(update={"steps": steps}),
        measurements=facts.measurements.model_copy(update={"gradient_flow": flow}),
    )


def test_a_mean_over_positions_in_the_head_is_no_vanishing():
    found = verdict(pooled(rate=0.0, head=-3.9))
    assert (found.kind, found.confidence) == ("stable", "high")
    assert "the stem blocks.0 (step 0) and the head blocks.11 (step 11) left out" in found.summary
    assert diagnose(pooled(rate=0.0, head=-3.9), select=["vanishing-gradient"]) == ()


def test_a_head_does_not_hide_an_explosion():
    assert verdict(pooled(rate=0.5, head=-3.9)).kind == "exploding"


def test_a_head_that_changes_nothing_is_counted():
    assert "left out" not in verdict(pooled(rate=0.5, head=0.5)).summary


def test_a_first_state_of_zeros_is_no_explosion():
    unmeasured = {"log_gradient_gain": None, "median_log_gradient_gain": None, "log_signal_gain": None}
    found = judged(Case(kind="plain", states={0: {"rms": 0.0, "max_abs": 0.0}}, network=unmeasured))
    assert found.kind == "inconclusive"
    assert "No gradient gain" in found.summary


def test_where_a_state_is_nan_failed_derivatives_do_not_speak_against_the_capture():
    lost = {i: {"nonfinite_fraction": 1.0, "rms": math.nan, "max_abs": math.nan} for i in range(9, 13)}
    unknown = {"log_gradient_gain": logarithm(math.nan), "log_signal_gain": logarithm(math.nan)}
    derivatives = Case(states=lost, network=unknown, failed=("product of the steps equals autograd",))
    assert "NaN or infinity appears first in state 9" in judged(derivatives).summary
    output = Case(states=lost, network=unknown, failed=("output equals eager",))
    assert "failed its verification" in judged(output).summary


def test_the_summary_tells_the_confidence_only_with_reasons():
    assert "onfidence" not in judged(Case()).summary
    assert "Confidence is medium: " in judged(Case(dtype="bfloat16")).summary


def test_a_verdict_on_signals_names_the_end_that_the_gradient_leaves_out():
    shrinking = {i: Estimate(value=math.exp(-0.5 * i)) for i in range(13)}
    facts = pooled(rate=0.0, head=-3.9)
    states = tuple(
        state.model_copy(update={"rms": shrinking[state.index], "max_abs": shrinking[state.index]})
        for state in facts.measurements.states
    )
    found = verdict(replace(facts, measurements=facts.measurements.model_copy(update={"states": states})))
    assert found.summary.startswith("Signals vanish")
    assert "the head blocks.11 (step 11) left out" in found.summary
