"""How wide text is in a picture, and what of it can be in one at all.

Pictures are drawn where no font is at hand, so widths are taken from a table: that of DejaVu Sans, which with Verdana
is the widest of what :data:`FONTS` names, so that text never takes more room than was left for it.
"""

from __future__ import annotations

import re
import unicodedata

FONTS = "'Segoe UI','Helvetica Neue',Helvetica,Arial,'DejaVu Sans Condensed','DejaVu Sans',Verdana,sans-serif"
"""What pictures ask for, as CSS has it."""

_REGULAR = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
)  # fmt: skip
_BOLD = (
    348, 456, 521, 838, 696, 1002, 872, 306, 457, 457, 523, 838, 380, 415, 380, 365, 696, 696, 696, 696, 696, 696, 696,
    696, 696, 696, 400, 400, 838, 838, 838, 580, 1000, 774, 762, 734, 830, 683, 683, 821, 837, 372, 372, 775, 637, 995,
    837, 850, 733, 850, 770, 720, 682, 812, 774, 1103, 771, 724, 725, 457, 365, 457, 838, 500, 500, 675, 716, 593, 716,
    678, 435, 716, 712, 343, 343, 665, 343, 1042, 712, 687, 716, 716, 493, 595, 478, 712, 652, 924, 645, 652, 582, 712,
    365, 712, 838,
)  # fmt: skip
"""Widths of the characters from U+0020 to U+007E, in thousandths of the font's size."""

_OTHERS = {"…": 1000, "–": 500, "·": 380, "×": 838, "’": 380, "→": 838, "←": 838}
_WIDE, _USUAL, _EXACT = 1040, 1100, frozenset(map(chr, range(32, 127))) | frozenset(_OTHERS)

_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Me", "Zl", "Zp"))
_LEVEL = re.compile("[\t\n\r ]+")


def safe(text: str) -> str:
    """``text`` on one line; what is no character of XML, can't be seen, or would cover other lines is escaped."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for letter in _LEVEL.sub(" ", text):
        category = unicodedata.category(letter)
        marks = marks + 1 if category == "Mn" else 0
        if category in _UNSAFE or marks > 1:
            shown.append(f"\\u{ord(letter):04x}")
        else:
            shown.append(letter)
    return "".join(shown)


def escaped(text: str) -> str:
    """``text`` as it stands in XML, in an element or an attribute."""
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(letter, entity)
    return text


def known(text: str) -> bool:
    """Whether the table has all of its characters; how wide others come out nobody can tell."""
    return _EXACT.issuperset(text)


def width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line is at most.

    Args:
        text: What :func:`safe` has made.
        size: Of the font; the result has the same unit.
        bold: In bold letters.
    """
    table = _BOLD if bold else _REGULAR
    sum_ = 0
    for letter in text:
        code = ord(letter) - 32
        if 0 <= code < len(table):
            sum_ += table[code]
        else:
            sum_ += _OTHERS.get(letter) or (_WIDE if unicodedata.east_asian_width(letter) in "WF" else _USUAL)
    return sum_ * size / 1000


def fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """As much of a line as there is room for, with an ellipsis where it is cut."""
    text = safe(text[:2000])
    if width(text, size, bold=bold) <= room:
        return text
    kept = _fitting(text, room - width("…", size, bold=bold), size, bold=bold)
    return f"{text[:kept].rstrip()}…" if kept else ""


def _fitting(text: str, room: float, size: float, *, bold: bool = False) -> int:
    """How many letters of a text there is room for."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle], size, bold=bold) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def wrap(text: str, room: float, size: float, lines: int) -> list[str]:
    """A text on several lines.

    Args:
        text: Any.
        room: Of each line.
        size: Of the font.
        lines: At most so many; what is left over is cut.
    """
    words = safe(text[:8000]).split(" ")
    done: list[str] = []
    line = ""
    for place, word in enumerate(words):
        longer = f"{line} {word}" if line else word
        if width(longer, size) <= room:
            line = longer
            continue
        if len(done) == lines - 1:
            return [*done, fit(" ".join([line, *words[place:]]).strip(), room, size)]
        if line:
            done.append(line)
        while width(word, size) > room and len(done) < lines - 1:
            head = max(_fitting(word, room, size), 1)
            done.append(word[:head])
            word = word[head:]
        line = word
    return [*done, fit(line, room, size)]


def names(values: tuple[str, ...], room: float, size: float) -> str:
    """As many names as there is room for, and how many more there are."""
    for shown in range(min(len(values), 60), 0, -1):
        more = f", +{len(values) - shown} more" if shown < len(values) else ""
        line = safe(", ".join(values[:shown])[:2000] + more)
        if shown == 1 or width(line, size) <= room:
            return fit(line, room, size)
    return "none"
