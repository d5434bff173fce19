"""For all tests: one thread each, since two of them run side by side, and examples drawn the same way every time."""

from __future__ import annotations

import os

# Before torch is imported anywhere; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

settings.register_profile("dynstab", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dynstab")
