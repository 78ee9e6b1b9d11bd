"""What the texts of a picture cover."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from sshproto.replay.picture.drawing import SMALL, TEXT, WIDTH
from sshproto.replay.picture.lettering import width

SVG = "{http://www.w3.org/2000/svg}"
_SIZES = {"s": SMALL, "h": 15.0, "t": 20.0}

Box = tuple[float, float, float, float, str]
"""Left, top, right, bottom, and the text."""


def boxes(svg: str) -> list[Box]:
    """What each text covers at most."""
    found: list[Box] = []
    for text in ET.fromstring(svg).iter(f"{SVG}text"):
        size = _SIZES.get(text.get("class", ""), TEXT)
        wide = 0.0
        for part in text.iter(f"{SVG}tspan"):
            styles = part.get("class", "").split()
            wide += width(part.text or "", SMALL if "s" in styles else size, bold="b" in styles or size > 15)
        assert "textLength" not in text.attrib or abs(float(text.attrib["textLength"]) - wide) < 0.1
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        left = x - wide if text.get("text-anchor") == "end" else x
        found.append((left, y - 0.76 * size, left + wide, y + 0.2 * size, "".join(text.itertext())))
    return found


def overlaps(svg: str) -> list[tuple[str, str]]:
    """Texts that cover each other, or run out of the picture."""
    found: list[tuple[str, str]] = []
    texts = sorted(boxes(svg), key=lambda box: box[1])
    for place, (left, top, right, bottom, text) in enumerate(texts):
        if left < 0 or right > WIDTH + 0.1:
            found.append(("out", text))
        for other in texts[place + 1 :]:
            if other[1] >= bottom:
                break
            if other[0] < right and left < other[2] and other[3] > top:
                found.append((text, other[4]))
    return found
