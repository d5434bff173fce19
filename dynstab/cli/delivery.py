"""A report on its way out: to stdout, to a file, and into the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynstab.cli.consoles import output
from dynstab.cli.exits import FINDINGS
from dynstab.core.errors import ConfigError
from dynstab.core.flag import Flag, Severity
from dynstab.core.report import Report

if TYPE_CHECKING:
    from dynstab.diagnostics import Rule


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What the user asked to be done with a report, checked before anything is measured.

    Attributes:
        format: of stdout. json: file for report.json, "-" for stdout in place of `format`, or None.
        html: file for the HTML page, or None. assets: the charts' script "inline" or "shared" beside the page.
        all_steps: show the unremarkable ones too. severity, codes: what makes the exit code 1.
    """

    format: str
    json: str | None
    html: str | None
    assets: str
    all_steps: bool
    severity: Severity | None
    codes: tuple[str, ...]

    @classmethod
    def of(cls, options: dict[str, Any]) -> Delivery:
        """Take the options of `report_options` out of `options`.

        Raises:
            ConfigError: --fail-on names neither a severity nor a rule, or there is no folder for a file.
        """
        severity, codes = _fail_on(options.pop("fail_on"))
        json, html = options.pop("json"), options.pop("html")
        require_folder("json", json)
        require_folder("html", html)
        return cls(
            format=options.pop("format"),
            json=json,
            html=html,
            assets=options.pop("assets"),
            all_steps=options.pop("all_steps"),
            severity=severity,
            codes=codes,
        )

    def deliver(self, report: Report) -> int:
        """Write the report everywhere it was asked for; the exit code.

        Files come first: stdout may be closed or full, and they were asked for all the same. Where one cannot be
        written, what was measured is shown before that is told.
        """
        try:
            self._save(report)
        finally:
            self._show(report)
        return self.code(report.flags)

    def code(self, flags: Iterable[Flag]) -> int:
        """The exit code for these findings."""
        return FINDINGS if any(map(self._fails, flags)) else 0

    def _save(self, report: Report) -> None:
        if self.json not in (None, "-"):
            report.save(self.json)
        if self.html is not None:
            report.to_html(self.html, assets=self.assets)

    def _show(self, report: Report) -> None:
        from dynstab.render import print_report, render

        if self.json == "-":
            click.echo(report.to_json())
        elif self.format == "console":
            print_report(report, output(), all_steps=self.all_steps)
        else:
            click.echo(render(report, self.format, **self._extras(report)).rstrip("\n"))

    def _extras(self, report: Report) -> dict[str, Any]:
        """What only some formats take: for machines, the rules that stayed silent as well."""
        if self.format == "markdown":
            return {"all_steps": self.all_steps}
        if self.format == "html":
            return {"rules": _rules_run(report), "assets": self.assets}
        return {"rules": _rules_run(report)} if self.format in ("sarif", "junit") else {}

    def _fails(self, flag: Flag) -> bool:
        severe = self.severity is not None and flag.severity.rank >= self.severity.rank
        return severe or flag.code in self.codes


def require_folder(option: str, file: str | None) -> None:
    """The folder of a file that an option names must be there before hours of work, and no folder in its place.

    Raises:
        ConfigError: it is not.
    """
    if file not in (None, "-") and Path(file).is_dir():
        raise ConfigError(f"--{option} {file} is a folder", expected="a file")
    if file not in (None, "-") and not Path(file).parent.is_dir():
        got = f"there is no folder {Path(file).parent} for --{option} {file}"
        raise ConfigError(got, remedy="make it first")


def _rules_run(report: Report) -> tuple[Rule, ...]:
    from dynstab.diagnostics import selected_rules

    config = report.provenance.config
    return selected_rules(config.select, config.ignore)


def _fail_on(text: str | None) -> tuple[Severity | None, tuple[str, ...]]:
    """`error` or `warning` or rules, also mixed: the severity and the codes."""
    from dynstab.diagnostics import matching_rules

    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    severities = [Severity(word) for word in words if word in ("warning", "error")]
    rules = [word for word in words if word not in ("warning", "error")]
    codes = tuple(rule.code for word in rules for rule in matching_rules(word))
    return min(severities, key=lambda severity: severity.rank, default=None), codes
