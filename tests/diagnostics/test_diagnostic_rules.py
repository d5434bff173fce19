"""Every rule against its own cases, its documentation and the promises that all findings keep."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest

from dynstab.core.flag import Severity
from dynstab.diagnostics import HEADINGS, all_rules, diagnose, matching_rules
from dynstab.diagnostics.case import Case, logarithm
from dynstab.diagnostics.thresholds import EULER_RADIUS

RULES = all_rules()
REQUIRED = {
    "exploding-gradient",
    "vanishing-gradient",
    "exploding-signal",
    "vanishing-signal",
    "euler-unstable-step",
    "stiff-step",
    "non-normal-growth",
    "rank-collapse",
    "outlier-step",
    "dead-units",
    "dtype-overflow-risk",
    "dtype-underflow-risk",
    "non-finite",
    "kinked-derivative",
    "not-a-flow",
    "nothing-to-analyze",
    "capture-unverified",
    "path-taken",
    "custom-backward",
}
FIRING = [pytest.param(rule, case, id=f"{rule.name}-{i}") for rule in RULES for i, case in enumerate(rule.fires_on)]
SILENT = [pytest.param(rule, case, id=f"{rule.name}-{i}") for rule in RULES for i, case in enumerate(rule.silent_on)]


@pytest.mark.parametrize(("rule", "case"), FIRING)
def test_rule_and_no_other_fires_on_its_cases(rule, case):
    assert {flag.code for flag in diagnose(case.facts())} == {rule.code}


@pytest.mark.parametrize(("rule", "case"), SILENT)
def test_rule_is_silent_on_its_other_cases(rule, case):
    assert rule.check(case.facts()) == ()


@pytest.mark.parametrize(("rule", "case"), FIRING)
def test_findings_are_sentences_with_number_threshold_and_advice(rule, case):
    facts = case.facts()
    for flag in rule.check(facts):
        assert re.fullmatch(r"[^\n]+[^\s.]\.", flag.message), flag.message
        assert "  " not in flag.message
        assert {"measure", "value", "threshold"} <= flag.evidence.keys()
        assert flag.evidence["measure"].split(".")[0] in {"system", "verification", "partial", "measurements"} | set(
            type(facts.measurements).model_fields
        )
        assert set(flag.steps) <= {step.index for step in facts.system.steps}
        assert flag.where
        assert all(text.endswith(".") for text in flag.advice)
        assert flag.advice or flag.severity is Severity.INFO


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_documentation_is_complete(rule):
    assert tuple(rule.documentation) == HEADINGS
    assert all(len(text) > 40 for heading, text in rule.documentation.items() if heading != "References")
    assert re.search(r"^- .{10,}", rule.documentation["References"], flags=re.M)
    assert rule.summary.endswith(".")
    assert rule.fires_on and rule.silent_on


def test_codes_and_names_are_unique_and_the_required_rules_exist():
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)
    assert all(re.fullmatch(r"DS[1-79]\d\d", rule.code) for rule in RULES)
    assert {rule.name for rule in RULES} >= REQUIRED


def test_healthy_networks_of_every_kind_have_no_flag():
    for case in (Case(), Case(kind="plain"), Case(names="h.attn"), Case(depth=1), Case(time="time", kind="plain")):
        assert diagnose(case.facts()) == ()


def test_normalisation_null_spaces_are_structure_and_not_vanishing():
    case = Case(every_step={"nullity": 2, "smallest_singular_value": 1e-9, "log_determinant": -math.inf})
    assert diagnose(case.facts()) == ()


@pytest.mark.parametrize(("total", "severity"), [(3.1, "warning"), (6.9, "warning"), (7.1, "error"), (50.0, "error")])
@pytest.mark.parametrize(("sign", "name"), [(1, "exploding-gradient"), (-1, "vanishing-gradient")])
def test_gradient_cuts_are_three_and_seven_nat(total, severity, sign, name):
    (flag,) = diagnose(Case(depth=10, gradient_rate=sign * total / 10).facts())
    assert (flag.name, flag.severity) == (name, severity)
    assert flag.evidence["threshold"] == sign * (7.0 if severity == "error" else 3.0)
    assert flag.evidence["value"] == pytest.approx(sign * total)


@pytest.mark.parametrize("law", ["square-root", "logarithmic", "none", "exponential"])
def test_only_an_exponential_fit_is_called_exponential(law):
    from dynstab.core.measurements import GrowthFit

    case = Case(gradient_rate=0.5, network={"growth": GrowthFit(law=law, rate=0.5, errors={})})
    (flag,) = diagnose(case.facts())
    assert ("exponential in depth at 0.5 nat per step" in flag.message) == (law == "exponential")


def test_gradient_message_names_direction_factor_and_rate():
    (flag,) = diagnose(Case(depth=48, gradient_rate=9.2 / 48).facts())
    assert flag.message == (
        "Gradients grow by e^9.2 (a factor 9.9e3) from the output back to the first state, "
        "exponential in depth at 0.192 nat per step."
    )


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case(kind="plain", gradient_rate=0.5), "0.607"),
        (Case(depth=16, gradient_rate=0.5), "residual branch by 0.25"),
        (Case(depth=16, gradient_rate=0.5, names="h.self_attention"), "output projections"),
        (Case(time="time", kind="plain", gradient_rate=-0.5), "gated cell"),
    ],
)
def test_advice_fits_the_kind_of_network(case, words):
    (flag,) = diagnose(case.facts())
    assert words in flag.advice[0]


def test_a_signal_that_grows_like_the_root_of_depth_is_what_residual_streams_do():
    grown = {i: {"rms": math.exp(1.2 * math.sqrt(i)), "max_abs": 100.0} for i in range(13)}
    (flag,) = diagnose(Case(states=grown).facts())
    assert (flag.name, flag.severity) == ("exploding-signal", "info")
    (flag,) = diagnose(Case(states=grown, kind="plain").facts())
    assert (flag.name, flag.severity) == ("exploding-signal", "warning")


def test_growth_hidden_by_a_final_normalisation_is_seen():
    grown = {i: {"rms": math.exp(0.5 * min(i, 11) if i < 12 else 0.0)} for i in range(13)}
    (flag,) = diagnose(Case(states=grown, kind="plain", network={"log_signal_gain": 0.0}).facts())
    assert flag.name == "exploding-signal"
    assert "state 11" in flag.message
    assert flag.steps == tuple(range(11))


def test_non_finite_names_the_first_state_and_the_step_before_it():
    broken = {i: {"nonfinite_fraction": 0.5, "rms": math.nan, "max_abs": math.inf} for i in range(7, 13)}
    (flag,) = diagnose(Case(states=broken).facts())
    assert (flag.name, flag.severity, flag.steps) == ("non-finite", "error", (6,))
    assert "first in state 7" in flag.message


def test_states_that_grow_into_infinity_are_told_as_overflow_and_not_as_a_stray_nan():
    broken = {i: {"nonfinite_fraction": 0.5, "rms": math.inf, "max_abs": math.inf} for i in range(7, 13)}
    (rule,) = matching_rules("non-finite")
    grown, stray = (rule.check(Case(states=broken, signal_rate=rate).facts())[0].advice[0] for rate in (8.0, 0.0))
    assert "overflow" in grown and "exploding-signal" in grown
    assert stray.startswith("Look for NaN in the weights")


def test_gradients_that_come_back_through_infinity_are_no_gain():
    broken = {i: {"nonfinite_fraction": 0.5, "rms": math.inf, "max_abs": math.inf} for i in range(7, 13)}
    for gain in (-math.inf, math.inf, 20.0):
        facts = Case(states=broken, network={"log_gradient_gain": logarithm(gain)}).facts()
        assert {flag.name for flag in diagnose(facts)} == {"non-finite"}


@pytest.mark.parametrize(("dtype", "peak"), [("float32", 1e38), ("bfloat16", 1e38), ("float16", 2e4)])
def test_only_float16_is_told_to_train_in_a_wider_range(dtype, peak):
    (flag,) = matching_rules("dtype-overflow-risk")[0].check(
        Case(training_dtype=dtype, states={9: {"max_abs": peak}}).facts()
    )
    assert any("bfloat16" in each or "autocast" in each for each in flag.advice) is (dtype == "float16")


def test_what_shrinks_to_exactly_zero_is_told_as_a_cut_that_no_scale_mends():
    (flag,) = diagnose(Case(kind="plain", network={"log_gradient_gain": logarithm(-math.inf)}).facts())
    assert flag.name == "vanishing-gradient"
    assert "cut" in flag.advice[0] and not any("Multiply" in each for each in flag.advice)


def test_an_expanding_direction_claims_nothing_of_a_gradient_that_was_not_measured():
    (rule,) = matching_rules("expanding-direction")
    for gain, words in ((logarithm(0.1), "the typical gradient does not"), (None, "was not measured")):
        (flag,) = rule.check(Case(exponents=(0.8, 0.0), network={"log_gradient_gain": gain}).facts())
        assert words in flag.message


def test_bfloat16_loses_updates_below_two_to_the_minus_nine():
    (rule,) = matching_rules("lost-update")
    for ratio, lost in ((2.0**-9 * 0.99, True), (2.0**-9 * 1.01, False)):
        facts = Case(training_dtype="bfloat16", every_step={"update_ratio": ratio}).facts()
        assert bool(rule.check(facts)) is lost


def test_overflow_asks_for_headroom_and_counts_entries_against_the_training_dtype():
    (rule,) = matching_rules("dtype-overflow-risk")
    severities = {}
    for peak in (6000.0, 7000.0, 65504.0, 65505.0):
        facts = Case(training_dtype="float16", states={5: {"max_abs": peak}}).facts()
        severities[peak] = [flag.severity.value for flag in rule.check(facts)]
    assert severities == {6000.0: [], 7000.0: ["warning"], 65504.0: ["warning"], 65505.0: ["error"]}


@pytest.mark.parametrize(("chi", "fires"), [(math.exp(0.69), False), (math.exp(0.75), True), (math.exp(-0.75), True)])
def test_outlier_cut_is_on_the_logarithm_of_chi(chi, fires):
    flags = matching_rules("outlier-step")[0].check(Case(steps={3: {"rms_gain": chi, "relative_gain": chi}}).facts())
    assert bool(flags) is fires


def test_what_most_steps_do_is_no_outlier_and_what_differs_from_them_is():
    usual = {"rms_gain": 0.1, "relative_gain": 0.1}
    assert diagnose(Case(every_step=usual).facts()) == ()
    (flag,) = diagnose(Case(every_step=usual, steps={4: {"rms_gain": 1.0, "relative_gain": 1.0}}).facts())
    assert (flag.name, flag.severity, flag.steps) == ("outlier-step", "warning", (4,))
    assert "the median step by 0.1" in flag.message


def test_antisymmetric_field_is_euler_unstable_and_gets_no_smaller_step():
    spiral = {"spectral_abscissa": 0.0, "spectral_radius": math.hypot(1, 0.5), "eigenvalues": ((1.0, 0.5), (1.0, -0.5))}
    (flag,) = diagnose(Case(every_step=spiral).facts())
    assert flag.name == "euler-unstable-step"
    assert flag.evidence["threshold"] == EULER_RADIUS
    assert "decay" in flag.advice[0]


def test_damped_field_gets_the_step_size_that_its_eigenvalue_allows():
    # lambda = -0.5 + 1i: |1 + lambda| = 1.118, and h = 2 * 0.5 / 1.25 = 0.8 puts 1 + h lambda on the circle.
    damped = {
        "spectral_abscissa": -0.5,
        "spectral_radius": math.hypot(0.5, 1),
        "eigenvalues": ((0.5, 1.0), (0.5, -1.0)),
    }
    (flag,) = diagnose(Case(steps={2: damped}).facts())
    assert "step size of 0.8 or less" in flag.advice[0]
    assert math.hypot(1 - 0.8 * 0.5, 0.8) == pytest.approx(1)


def test_lower_bounds_prove_growth_but_no_decay():
    from dynstab.core.estimate import Estimate, Label

    def bound(value, label):
        return Estimate(value=value, error=0.0, label=label)

    (rule,) = matching_rules("euler-unstable-step")
    for radius, abscissa, fires in (
        (Label.LOWER, Label.EXACT, True),
        (Label.UPPER, Label.EXACT, False),
        (Label.EXACT, Label.LOWER, False),
        (Label.EXACT, Label.UPPER, True),
    ):
        numbers = {"spectral_radius": bound(1.3, radius), "spectral_abscissa": bound(-0.1, abscissa)}
        assert bool(rule.check(Case(steps={2: numbers}).facts())) is fires
    (rule,) = matching_rules("non-normal-growth")
    for kreiss, radius, fires in ((Label.LOWER, Label.EXACT, True), (Label.LOWER, Label.LOWER, False)):
        numbers = {"kreiss_constant": bound(5.0, kreiss), "spectral_radius": bound(0.9, radius)}
        assert bool(rule.check(Case(steps={2: numbers}).facts())) is fires


def test_causal_masks_are_mentioned_where_eigenvalues_decide():
    case = Case(steps={6: {"kreiss_constant": 12.0, "spectral_radius": 0.9}}, network={"causal": True})
    (flag,) = diagnose(case.facts())
    assert "causal mask" in flag.message


def test_a_few_inputs_leave_dead_units_as_information():
    from dynstab.core.estimate import Estimate

    few = {"rms": Estimate(value=1.0, error=0.0, samples=2)}
    (flag,) = diagnose(Case(every_state=few, steps={3: {"dead_fraction": 0.7}}).facts())
    assert (flag.name, flag.severity) == ("dead-units", "info")


@pytest.mark.process
def test_diagnostics_never_import_torch():
    code = (
        "import sys; from dynstab.diagnostics import all_rules, diagnose; "
        "[diagnose(c.facts()) for r in all_rules() for c in r.fires_on]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_derivative_lost_on_the_way_is_told_beside_a_solution_that_ends_early() -> None:
    case = Case(steps={5: {"rms_gain": math.nan}}, flow={"outcome": "the state became infinite", "reached": 0.9})
    assert {flag.code for flag in diagnose(case.facts())} == {"DS401", "DS611"}
