"""Ink: the one way by which strings reach a page.

Names come from models and files that others wrote: control characters are spelled out,
square brackets are never markup, and a stream that is not UTF-8 gets ASCII.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_ASCII = str.maketrans(
    {
        "χ": "chi", "σ": "sigma", "μ": "mu", "ρ": "rho", "α": "alpha", "₂": "2", "‖": "||", "²": "^2", "√": "sqrt ",
        "±": "+-", "≈": "~", "≥": ">=", "≤": "<=", "∈": "in ", "†": "*", "–": "-", "…": "..", "·": "-", "⋮": ":",
        "→": "->", "✓": "ok", "✗": "FAIL", "✖": "x", "▲": "!", "●": "i", "↑": "^", "↓": "v", "↕": "%", "×": "x",
        "÷": "/", "│": "|", "─": "-", "┤": "|", "┼": "+", "└": "+", "•": "*", "’": "'", "“": '"', "”": '"', "—": "--",
        "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#", "▔": "'", "▀": '"',
        "▐": "<", "▌": ">",
    }
)  # fmt: skip

LEAST_DETAIL = 4
PLENTY = 12


@dataclass(frozen=True)
class Ink:
    """Turns strings into styled text.

    Attributes:
        width: columns of the page. ascii: nothing beyond ASCII may be written.
    """

    width: int
    ascii: bool = False

    @classmethod
    def of(cls, console: Console) -> Ink:
        """The ink for a console; ASCII unless its stream is encoded in UTF-8."""
        return cls(width=console.width, ascii=not console.encoding.startswith("utf"))

    def plain(self, text: str) -> str:
        """`text` on one line, harmless and encodable."""
        text = printable(text)
        if not self.ascii:
            return text
        text = unicodedata.normalize("NFKD", text.translate(_ASCII))
        return text.encode("ascii", "replace").decode()

    def text(self, text: str, style: str = "") -> Text:
        return Text(self.plain(text), style=style, no_wrap=False, overflow="fold", end="")

    def cell(self, text: str, width: int, *, right: bool = False, style: str = "") -> Text:
        """`text` in exactly `width` columns."""
        text = self.plain(text)
        gap = max(0, width - cell_len(text))
        return Text(set_cell_size(" " * gap + text if right else text, width), style=style, end="")

    def name(self, name: str, width: int) -> str:
        """A name in at most `width` columns: what tells it from its siblings remains."""
        return shorten(self.plain(name), width, self.plain("…"))

    def length(self, text: str) -> int:
        return cell_len(self.plain(text))


def printable(text: str) -> str:
    """`text` with line ends as spaces and every other character that does not print spelled out."""
    text = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    return text if text.isprintable() else "".join(map(_spelled, text))


def shorten(name: str, width: int, ellipsis: str = "…") -> str:
    """`name` in at most `width` columns.

    Of "model.layers.7 [norm + attention]" the end of the path and the beginning of the bracket
    remain, "…7 [norm + att…]", more of the path where the bracket still has plenty; of any other
    name the end, from a dot on where one is near.
    """
    if cell_len(name) <= width:
        return name
    path, bracket, detail = name.partition(" [")
    last = path.rpartition(".")[2]
    head = last if last == path else ellipsis + last
    if bracket and detail.endswith("]"):
        if cell_len(head + bracket + detail) <= width:
            return head + bracket + detail
        for head in _ends(path, ellipsis):
            room = width - cell_len(head + bracket + ellipsis + "]")
            if room >= (PLENTY if "." in head else LEAST_DETAIL):
                return head + bracket + set_cell_size(detail, room).rstrip() + ellipsis + "]"
    return _end(name, width, ellipsis)


def _ends(path: str, ellipsis: str) -> Iterator[str]:
    """The path, and it without its first parts: "a.b.7", "…b.7", "…7"."""
    yield path
    while "." in path:
        path = path.partition(".")[2]
        yield ellipsis + path


def _end(name: str, width: int, ellipsis: str) -> str:
    room = width - cell_len(ellipsis)
    if room <= 0:
        return set_cell_size(ellipsis, max(0, width))
    tail = name
    while cell_len(tail) > room:
        tail = tail[1:]
    dot = tail.find(".")
    return ellipsis + (tail[dot + 1 :] if 0 <= dot < room // 3 else tail)


def _spelled(character: str) -> str:
    if character == "\t":
        return " "
    return character if character.isprintable() else character.encode("unicode_escape").decode()
