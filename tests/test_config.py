"""Options: what they cannot take is told in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynstab import Config, Report
from dynstab.core.errors import ConfigError, ReportError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, "the option k is 0; expected 1 or more."),
        ({"k": "x"}, "the option k is 'x'; expected a valid integer."),
        ({"effort": "fast"}, "the option effort is 'fast'; expected 'quick', 'standard' or 'thorough'."),
        ({"dtype": 1.5}, "the option dtype is 1.5; expected 'float32', 'float64' or 'bfloat16'."),
        ({"select": 3}, "the option select is 3; expected a valid tuple."),
    ],
)
def test_a_value_that_an_option_cannot_take_is_a_config_error(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    assert str(caught.value) == sentence


def test_an_option_that_does_not_exist_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no option effortt; expected k, .*; the nearest is effort\.$"):
        Config(**{"effortt": "quick"})


def test_a_lone_string_is_what_the_command_line_makes_of_it() -> None:
    config = Config(select="DS101, outlier-step", ignore="DS4", states="layers.*")
    assert (config.select, config.ignore, config.states) == (("DS101", "outlier-step"), ("DS4",), ("layers.*",))


def test_a_report_with_an_option_out_of_range_is_no_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text('{"provenance": {"config": {"k": 0}}}')
    with pytest.raises(ReportError, match="not a dynstab report"):
        Report.load(file)
