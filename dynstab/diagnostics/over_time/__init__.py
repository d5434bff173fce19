"""Rules over time: what a training run shows while it runs. Plain data in, flags out.

history = History(info)
for record in records:
    history.add(record)
    flags = watch(history)
"""

from __future__ import annotations

from dynstab.diagnostics.over_time.history import History
from dynstab.diagnostics.over_time.registry import rules_over_time, watch
from dynstab.diagnostics.over_time.rule import RuleOverTime

__all__ = ["History", "RuleOverTime", "rules_over_time", "watch"]
