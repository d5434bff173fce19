"""`dynstab rule`: the table of all, and a page for each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from dynstab.diagnostics import all_rules

Run = Callable[..., Result]


def test_the_table_names_every_rule(dynstab: Run) -> None:
    result = dynstab("rule")
    assert result.exit_code == 0
    for rule in all_rules():
        assert rule.code in result.stdout


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)
def test_every_rule_has_a_page_by_code_and_by_name(dynstab: Run, rule) -> None:
    page = dynstab("rule", rule.code)
    assert page.exit_code == 0
    assert page.stdout == dynstab("rule", rule.name).stdout
    assert rule.name in page.stdout
    for heading in rule.documentation:
        assert heading in page.stdout
