"""Module and inputs -> Graph."""

from __future__ import annotations

from dynstab.capture.capture import capture, capture_function
from dynstab.capture.graph import Graph

__all__ = ["Graph", "capture", "capture_function"]
