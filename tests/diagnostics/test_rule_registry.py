"""Finding, selecting and ordering rules."""

from __future__ import annotations

import pytest

from dynstab.core.errors import ConfigError
from dynstab.diagnostics import all_rules, diagnose, documented_rules, find_documented, matching_rules, selected_rules
from dynstab.diagnostics.case import Case

TROUBLED = Case(
    gradient_rate=0.5,
    training_dtype="float16",
    steps={4: {"rms_gain": 9.0, "relative_gain": 9.0, "dead_fraction": 0.5}},
    states={9: {"max_abs": 1e6}},
    network={"refinement_order": 0.1},
)


def test_a_rule_is_found_by_code_or_name_in_any_case():
    for rule in documented_rules():
        assert find_documented(rule.code.lower()) is find_documented(rule.name) is rule
    for rule in all_rules():
        assert matching_rules(rule.code) == matching_rules(rule.name.upper()) == (rule,)


@pytest.mark.parametrize("selector", ["exploding-gradiant", "DS999", "", "torch"])
def test_an_unknown_rule_is_a_config_error(selector):
    with pytest.raises(ConfigError):
        find_documented(selector)
    with pytest.raises(ConfigError):
        diagnose(Case().facts(), select=[selector])
    with pytest.raises(ConfigError):
        diagnose(Case().facts(), ignore=[selector])


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match="exploding-gradient"):
        find_documented("exploding-gradiant")


def test_the_beginning_of_a_code_selects_its_family():
    assert {rule.code[:3] for rule in matching_rules("DS1")} == {"DS1"}
    assert len(matching_rules("ds")) == len(all_rules())


def test_flags_come_most_severe_first_and_always_in_the_same_order():
    flags = diagnose(TROUBLED.facts())
    ranks = [flag.severity.rank for flag in flags]
    assert len(flags) >= 5
    assert len(set(ranks)) == 3
    assert ranks == sorted(ranks, reverse=True)
    assert flags == diagnose(TROUBLED.facts())
    for severity in {flag.severity for flag in flags}:
        codes = [flag.code for flag in flags if flag.severity is severity]
        assert codes == sorted(codes)


def test_select_and_ignore_take_codes_names_and_families():
    facts = TROUBLED.facts()
    everything = diagnose(facts)
    assert {flag.code for flag in diagnose(facts, select=["DS101", "dead-units"])} == {"DS101", "DS502"}
    assert {flag.code for flag in diagnose(facts, ["DS1"])} == {"DS101"}
    assert diagnose(facts, ignore=["DS1"]) == tuple(flag for flag in everything if flag.code[:3] != "DS1")
    assert diagnose(facts, select=["DS1"], ignore=["exploding-gradient"]) == ()
    family = {rule.code for rule in selected_rules() if rule.code.startswith("DS5")}
    assert {rule.code for rule in selected_rules(["DS5"], ["DS502"])} == family - {"DS502"}
