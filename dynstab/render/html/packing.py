"""Data and scripts inside a page, packed: nothing in them can be mistaken for the page's own markup.

gzip, then base 85 (five characters for four bytes, where base 64 takes five and a third) in an
alphabet without the characters that mean something in HTML.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

_HARMLESS = bytes.maketrans(b"&<>`", b",.:[")
_HERE = "dynstab.render.html"


def packed(text: str) -> str:
    """Text as a page holds it, the same for the same text; charts.js reads it."""
    return base64.b85encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).translate(_HARMLESS).decode()


def packed_json(data: Any) -> str:
    return packed(json.dumps(data, separators=(",", ":"), allow_nan=False))


def digest(script: str) -> str:
    """How a content security policy names one script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def static(name: str) -> str:
    """A stylesheet or script of this package."""
    return resources.files(_HERE).joinpath("static", name).read_text(encoding="utf-8")


@cache
def plotly_script() -> str:
    """Plotly's script as its Python package ships it."""
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


@cache
def packed_plotly() -> str:
    return packed(plotly_script())


@cache
def plotly_digest() -> str:
    return digest(plotly_script())


def shared_name() -> str:
    """The file name of Plotly's script where a folder of pages shares it."""
    from importlib.metadata import version

    return f"dynstab-plotly-{version('plotly')}.js"
