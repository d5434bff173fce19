"""`dynstab rule`: the documentation of the rules."""

from __future__ import annotations

import click

from dynstab.cli.options import debug_option


@click.command()
@click.argument("code", required=False)
@debug_option
def command(code: str | None) -> None:
    """Show the documentation of rule CODE (DS101, or exploding-gradient); without CODE, a table of all."""
    from dynstab.cli.consoles import output
    from dynstab.diagnostics import documented_rules, find_documented
    from dynstab.render.rule_page import print_rule, print_rules

    if code is None:
        print_rules(documented_rules(), output())
    else:
        print_rule(find_documented(code), output())
