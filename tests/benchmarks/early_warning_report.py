"""The text of reports/early_warning.md, from the outcomes of `early_warning.py`."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from early_warning_runs import DIVERGING, HEALTHY, Training, build
from scipy.stats import binomtest

import dynstab

if TYPE_CHECKING:
    from early_warning import Outcome

WORDS = {
    "dense": "sharpness every 10 steps: `every=10, sharpness_every=10, share=None`",
    "sparse": "every 30 steps",
    "limited": "every 10 steps, for a fifth of the time at most: `share=0.2`",
    "default": "at the default settings",
}

LONG = 20
"""Steps of a lead that leave time to act."""


def report(outcomes: Sequence[Outcome], command: str, definitions: str) -> str:
    """The whole page. `definitions`: what divergence, detection, lead, false alarm and price are."""
    sizes = [sum(p.numel() for p in build(kind, 0).model.parameters()) for kind in (*DIVERGING, *HEALTHY)]
    chapters = [
        "# Early warning",
        f"Written by `{command}` with dynstab {dynstab.__version__}, torch {torch.__version__}; {len(outcomes)} runs, "
        f"each without a monitor and at {len(WORDS)} settings of it.",
        definitions,
        "The rules were chosen on seeds 0 to 4 and 100 to 104; the figures are of seeds that played no part in that. "
        "All settings are given the loss function and the optimizer.",
        "\n".join(_settings(outcomes)),
        _price(outcomes),
        " ".join(_cheap(outcomes)),
        " ".join(_unsettled(outcomes)),
        "\n".join(_diverging(outcomes)),
        "\n".join(_healthy(outcomes)),
        f"The models are small ({min(sizes):,} to {max(sizes):,} weights), the data real: handwritten digits and the "
        "source of Python's library. The settings with a `share` go by the clock: on another machine they probe at "
        "other steps. A lead of hundreds of steps means that the run went on "
        "beyond its threshold for as long: the flag was right, but not urgent.",
    ]
    return "\n\n".join(each if "|" in each[:2] else _wrapped(each) for each in chapters if each) + "\n"


def as_json(outcomes: Sequence[Outcome], command: str) -> str:
    """Every outcome, for programs."""
    found: dict[str, Any] = {"command": command, "dynstab": dynstab.__version__, "torch": torch.__version__}
    return json.dumps(found | {"outcomes": [asdict(each) for each in outcomes]}, indent=1) + "\n"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False))


def _settings(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A row for each of the settings, shares with their 95 % interval (Wilson)."""
    diverging = [each for each in outcomes if each.diverged is not None]
    calm = _calm(outcomes)
    yield (
        "| the monitor | diverging runs detected before | at least 20 steps before "
        "| median lead of those detected, steps | false alarms in runs that do not diverge | training takes, times |"
    )
    yield "|---|---|---|---|---|---|"
    for name, words in WORDS.items():
        leads = [lead for each in diverging if (lead := each.lead(name)) is not None]
        long = sum(lead >= LONG for lead in leads)
        alarms = sum(each.warned[name].step is not None for each in calm)
        prices = [_ratio(each, name) for each in outcomes]
        yield (
            f"| {words} | {_share(len(leads), len(diverging))} | {_share(long, len(diverging))} | {_range(leads)} "
            f"| {_share(alarms, len(calm))} | {median(prices):.2f} ({min(prices):.2f} to {max(prices):.2f}) |"
        )


def _price(outcomes: Sequence[Outcome]) -> str:
    dense, default = ([_ratio(each, name) for each in outcomes] for name in ("dense", "default"))
    leads = [each.lead("default") for each in outcomes if each.diverged is not None]
    late = sum(lead is None or lead < LONG for lead in leads)
    steps = [1000 * each.seconds / each.steps for each in outcomes]
    probe = median(10 * (_ratio(each, "dense") - _ratio(each, "default")) for each in outcomes)
    apart = int(float(f"{200 * probe:.1g}"))
    opening = median(found.opening for each in outcomes for found in each.warned.values())
    return f"""
        **Early warning has its price.** At the settings that give the leads of the first row, training takes
        {median(dense):.1f} times as long here, at the default ones {median(default):.2f} times, nearly all of it for
        the signals of each step: without a monitor a step takes {min(steps):.1f} to {max(steps):.1f} ms. A probe with
        the sharpness costs as much as {probe:.0f} such steps, and by default probes may take 0.5 % of the time: one in
        about {apart:,} steps, whatever their schedule. In runs this short that is, as a rule, the first step alone, and
        {late} of {len(leads)} divergences are then told less than {LONG} steps before or not at all before; what warns
        is the jump of a gradient or an update as it happens. Leads of a hundred steps have to be paid for: give
        `every`, `sharpness_every` and `share` for the stretch of training that is in doubt, such as a warm-up. Opening
        the monitor takes another {opening:.2f} s, once.
        """


def _cheap(outcomes: Sequence[Outcome]) -> Iterator[str]:
    leads = [each.lead(cheap=True) for each in outcomes if each.diverged is not None]
    found = [lead for lead in leads if lead is not None]
    long = sum(lead >= LONG for lead in found)
    yield "Most of the early warnings rest on the sharpness, which is measured where the monitor is given a loss"
    yield "function. The rules that need none (jumps of gradients, updates and activations) detect"
    yield f"{len(found)} of {len(leads)} diverging runs, {long} of them at least {LONG} steps before, and need thirty"
    yield "records to know what is usual."


def _unsettled(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Runs that were made to diverge and did not count on neither side."""
    kinds = {kind.__name__ for kind in DIVERGING}
    spared = [each for each in outcomes if each.kind in kinds and each.diverged is None]
    if spared:
        warned = sum(each.warned["dense"].step is not None for each in spared)
        yield f"Of the runs that were made to diverge, {len(spared)} came through, {warned} of them with a warning."
        yield "They count on neither side: their weights were thrown about, but the loss did not double."


def _diverging(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| kind of run | diverged | leads, sharpness every 10 steps | first warning by | leads, default settings |"
    yield "|---|---|---|---|---|"
    for kind in DIVERGING:
        runs = _runs(outcomes, kind)
        diverged = [each for each in runs if each.diverged is not None]
        found = [each for each in diverged if each.lead() is not None]
        first = Counter(each.warned["dense"].by for each in found).most_common()
        leads, usual = ([each.lead(name) for each in diverged] for name in ("dense", "default"))
        yield (
            f"| {_what(kind)} | {len(diverged)} of {len(runs)} | {_listed(leads)} "
            f"| {', '.join(f'{name} {count}' for name, count in first)} | {_listed(usual)} |"
        )


def _healthy(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| kind of run | diverged | false alarms, sharpness every 10 steps | false alarms, default settings |"
    yield "|---|---|---|---|"
    for kind in HEALTHY:
        runs = _runs(outcomes, kind)
        diverged = sum(each.diverged is not None for each in runs)
        alarms = " | ".join(_alarms(runs, name) for name in ("dense", "default"))
        yield f"| {_what(kind)} | {diverged} of {len(runs)} | {alarms} |"


def _alarms(runs: Sequence[Outcome], settings: str) -> str:
    found = [each.warned[settings] for each in runs if each.diverged is None]
    told = [f"{each.by} at step {each.step}" for each in found if each.step is not None]
    return f"{len(told)}" + (f": {', '.join(told)}" if told else "")


def _calm(outcomes: Sequence[Outcome]) -> list[Outcome]:
    healthy = {kind.__name__ for kind in HEALTHY}
    return [each for each in outcomes if each.kind in healthy and each.diverged is None]


def _runs(outcomes: Sequence[Outcome], kind: Callable[[int], Training]) -> list[Outcome]:
    return [each for each in outcomes if each.kind == kind.__name__]


def _ratio(outcome: Outcome, settings: str) -> float:
    return outcome.warned[settings].seconds / outcome.seconds


def _share(count: int, total: int) -> str:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return f"{100 * count / total:.0f} % ({count} of {total}; {100 * interval.low:.0f} to {100 * interval.high:.0f} %)"


def _range(leads: Sequence[int]) -> str:
    return f"{median(leads):g} ({min(leads)} to {max(leads)})" if leads else "–"


def _listed(leads: Sequence[int | None]) -> str:
    return ", ".join("missed" if lead is None else str(lead) for lead in leads)


def _what(kind: Callable[[int], Training]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")
