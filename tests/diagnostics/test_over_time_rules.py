"""Every rule over time against its own runs, its documentation and the promises that all findings keep."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest

from dynstab.core.errors import ConfigError
from dynstab.core.flag import Flag, Severity
from dynstab.core.run import Probe, RunInfo, Signal
from dynstab.diagnostics import HEADINGS, all_rules, documented_rules, find_documented
from dynstab.diagnostics.over_time import History, RuleOverTime, rules_over_time, watch
from dynstab.diagnostics.over_time.case import RunCase, curvature, healthy_info

RULES = rules_over_time()
REQUIRED = {
    "gradient-spike",
    "update-spike",
    "drift-to-chaos",
    "vanishing-onset",
    "edge-of-stability",
    "loss-spike",
    "non-finite-training",
    "warmup-too-short",
}
FIRING = [pytest.param(rule, case, id=f"{rule.name}-{i}") for rule in RULES for i, case in enumerate(rule.fires_on)]
SILENT = [pytest.param(rule, case, id=f"{rule.name}-{i}") for rule in RULES for i, case in enumerate(rule.silent_on)]


def flags_of(case: RunCase) -> list[tuple[int, Flag]]:
    """Training step and flag, in order."""
    history, found = History(case.described()), []
    for record in case.records():
        history.add(record)
        found += [(record.step, flag) for flag in watch(history)]
    return found


def named(name: str) -> RuleOverTime:
    return next(rule for rule in RULES if rule.name == name)


@pytest.mark.parametrize(("rule", "case"), FIRING)
def test_a_rule_and_no_other_fires_on_its_runs(rule: RuleOverTime, case: RunCase) -> None:
    assert {flag.code for _, flag in flags_of(case)} == {rule.code}


@pytest.mark.parametrize(("rule", "case"), SILENT)
def test_a_rule_is_silent_on_its_other_runs(rule: RuleOverTime, case: RunCase) -> None:
    assert rule.code not in {flag.code for _, flag in flags_of(case)}


@pytest.mark.parametrize(("rule", "case"), FIRING)
def test_findings_are_sentences_with_step_place_threshold_and_advice(rule: RuleOverTime, case: RunCase) -> None:
    info = case.described()
    places = {"network", *info.groups, *info.places, *(f"{name} (step {i})" for i, name in enumerate(info.steps))}
    for step, flag in flags_of(case):
        assert re.fullmatch(r"[^\n]+[^\s.]\.", flag.message), flag.message
        assert "  " not in flag.message
        assert flag.where in places
        assert {"measure", "value", "threshold", "since"} <= flag.evidence.keys()
        since = flag.evidence["since"]
        assert isinstance(since, int)
        assert since <= step
        assert str(step) in flag.message or str(since) in flag.message
        record, field = str(flag.evidence["measure"]).split(".")
        assert field in {"signals": Signal, "probes": Probe}[record].model_fields
        assert all(text.endswith(".") for text in flag.advice)
        assert flag.advice or flag.severity is Severity.INFO


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_documentation_is_complete(rule: RuleOverTime) -> None:
    assert tuple(rule.documentation) == HEADINGS
    assert all(len(text) > 40 for heading, text in rule.documentation.items() if heading != "References")
    assert re.search(r"^- .{10,}", rule.documentation["References"], flags=re.M)
    assert rule.summary.endswith(".")
    assert rule.fires_on and rule.silent_on


def test_codes_are_of_their_family_and_the_required_rules_exist() -> None:
    assert all(re.fullmatch(r"DS7\d\d", rule.code) for rule in RULES)
    assert {rule.name for rule in RULES} >= REQUIRED


def test_all_rules_together_have_codes_and_names_of_their_own() -> None:
    everything = documented_rules()
    assert [rule.code for rule in everything] == sorted(rule.code for rule in (*all_rules(), *RULES))
    assert len({rule.code for rule in everything}) == len({rule.name for rule in everything}) == len(everything)
    for rule in RULES:
        assert find_documented(rule.code.lower()) is find_documented(rule.name) is rule
    with pytest.raises(ConfigError, match="edge-of-stability"):
        find_documented("edge-of-stabilty")


def test_healthy_runs_of_every_kind_have_no_flag() -> None:
    full_batch = RunCase(signal=lambda step: {"loss": 2.0 * math.exp(-step / 500), "gradient_norm": (0.3,) * 5})
    no_probes = RunCase(probe=lambda step: {"exponents": (), "step_gains": (), "gradient_flow": (), "sharpness": None})
    bare = RunCase(
        info={"groups": (), "places": (), "steps": ()},
        signal=lambda step: {
            "gradient_norm": (),
            "update_norm": (),
            "weight_norm": (),
            "activation_rms": (),
            "gradient_rms": (),
            "nonfinite_fraction": (),
            "learning_rate": None,
        },
    )
    sparse = RunCase(signal=lambda step: {"update_norm": (math.nan,) * 5} if step % 10 else {})
    for case in (RunCase(steps=600), full_batch, no_probes, bare, sparse):
        assert flags_of(case) == []


def test_an_episode_is_told_once_and_a_second_one_again() -> None:
    def burst(step: int) -> dict[str, object]:
        return {"gradient_norm": (9.0,) * 5} if step in (100, 101, 110, 130, 300) else {}

    steps = [step for step, _ in flags_of(RunCase(steps=320, signal=burst))]
    assert steps == [100, 300]


def test_an_episode_that_gets_worse_is_told_again() -> None:
    rising = RunCase(signal=lambda step: {"loss": 1.0 if step < 100 else 3.0})
    assert [(flag.name, flag.severity) for _, flag in flags_of(rising)] == [
        ("loss-spike", Severity.WARNING),
        ("loss-spike", Severity.ERROR),
    ]


def test_the_lowest_group_that_jumped_is_named() -> None:
    spike = RunCase(signal=lambda step: {"update_norm": (0.01, 0.01, 0.5, 0.6, 0.7)} if step == 150 else {})
    ((step, flag),) = flags_of(spike)
    assert (step, flag.where, flag.evidence["groups"]) == (150, "blocks.1", [2, 3, 4])
    assert "beta2" in flag.advice[0]
    ((_, flag),) = flags_of(RunCase(info={"optimizer": "SGD"}, signal=spike.signal))
    assert "beta2" not in " ".join(flag.advice)


def test_the_step_of_the_network_that_expands_or_cuts_is_named() -> None:
    ((_, flag), *_) = flags_of(named("drift-to-chaos").fires_on[0])
    assert (flag.where, flag.steps) == ("blocks.1 [attn] (step 2)", (2,))
    ((_, flag), *_) = flags_of(named("vanishing-onset").fires_on[0])
    assert (flag.where, flag.steps) == ("blocks.1 [attn] (step 2)", (2,))


@pytest.mark.parametrize(("ratio", "severity"), [(0.85, None), (1.0, "info"), (1.1, "info"), (1.2, "warning")])
def test_the_edge_is_information_and_beyond_it_a_warning(ratio: float, severity: str | None) -> None:
    case = RunCase(probe=lambda step: {"sharpness": curvature(40.0 * ratio), "threshold": 40.0})
    found = [flag.severity.value for _, flag in flags_of(case)]
    assert found == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((0.95, 1.1, 0.98), "is 0.95 to 1.1 times the threshold of the optimizer: training runs at the edge"),
        ((0.95, 1.5, 3.24), "is 0.95 to 3.24 times the threshold of the optimizer: training goes beyond its edge"),
        ((1.5, 1.5, 1.5), "is 1.5 times the threshold of the optimizer: steps along the sharpest direction overshoot"),
    ],
)
def test_the_words_about_the_edge_fit_the_range_of_the_three_probes(ratios: tuple[float, ...], words: str) -> None:
    at = dict(zip((100, 110, 120), ratios, strict=True))
    case = RunCase(
        steps=121, probe=lambda step: {"sharpness": curvature(40.0 * at[step]), "threshold": 40.0} if step in at else {}
    )
    (flag,) = [flag for _, flag in flags_of(case)]
    assert words in flag.message and flag.evidence["value"] == pytest.approx(min(ratios))


def test_what_jumped_is_not_told_again_at_a_step_that_took_nothing() -> None:
    def signal(step: int) -> dict[str, object]:
        if step == 100:
            return {"gradient_norm": (30.0, 0.3, 0.3, 0.3, 0.3), "update_norm": (1.0, 0.01, 0.01, 0.01, 0.01)}
        return {"gradient_norm": (), "update_norm": (), "weight_norm": ()} if step > 100 else {}

    assert {step for step, _ in flags_of(RunCase(signal=signal))} == {100}


def test_advice_beyond_the_edge_names_a_rate_below_it() -> None:
    case = RunCase(probe=lambda step: {"sharpness": curvature(80.0), "threshold": 40.0})
    ((_, flag),) = flags_of(case)
    assert "to 4e-4" in flag.advice[0]


def test_the_forecast_of_a_rising_rate_counts_the_steps_that_are_left() -> None:
    """The rate grows by 1 % a step: from a ratio r, ln(1/r) / ln 1.01 steps are left."""
    ((step, flag), *_) = flags_of(named("warmup-too-short").fires_on[0])
    ratio, left = flag.evidence["value"], flag.evidence["steps_left"]
    assert isinstance(ratio, float)
    assert left == pytest.approx(math.log(1 / ratio) / math.log(1.01), rel=0.35)
    assert step <= 160


def test_a_spike_in_float16_is_measured_against_what_float16_holds() -> None:
    case = RunCase(
        info={"dtype": "float16"}, signal=lambda step: {"activation_rms": (1.0, 1.0, 1.0 + 99.0 * (step == 120))}
    )
    flags = [flag for _, flag in flags_of(case) if flag.name == "activation-spike"]
    assert "within a factor 655 of what float16 holds" in flags[0].message


def test_memory_is_bounded() -> None:
    history = History(healthy_info(), window=64)
    for record in RunCase(steps=1000).records():
        history.add(record)
    assert len(history.signals) == len(history.gradient.rows) == 64
    assert len(history.probes) <= 64
    assert history.counts == {Signal: 1000, Probe: 100}


def test_a_run_without_information_is_no_error() -> None:
    info = RunInfo(
        dynstab="", torch="", created="", model="", parameters=0, device="cpu", dtype="float8", groups=(), places=()
    )
    history = History(info)
    assert watch(history) == ()
    for step in range(80):
        history.add(
            Signal(step=step, seconds=0.0, gradient_norm=(1.0, 2.0 + 100 * (step == 70)), activation_rms=(1.0,))
        )
        found = watch(history)
        assert [flag.where for flag in found] == (["group 1"] if step == 70 else [])
    history.add(Probe(step=80, seconds=0.0, cost=0.0, outcome="out of memory"))
    assert watch(history) == ()


@pytest.mark.process
def test_rules_over_time_never_import_torch() -> None:
    code = (
        "import sys; from dynstab.diagnostics.over_time import History, rules_over_time, watch\n"
        "for rule in rules_over_time():\n"
        "    for case in rule.fires_on:\n"
        "        history = History(case.described())\n"
        "        for record in case.records(): history.add(record); watch(history)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
