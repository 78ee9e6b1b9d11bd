"""Text that came from the other side, made safe to show (RFC 4251 section 9.2).

A peer chooses the words of banners, disconnect reasons, prompts and error texts.  Printed raw they can move the
cursor, rewrite the window title or reverse the reading order.  Everything in sshproto that shows a peer's words to a
person, exception messages and ``str()`` of events included, goes through :func:`printable` first.
"""

from __future__ import annotations

import re

# C0 without tab and line feed, DEL, C1, the bidirectional controls, line and paragraph separators, lone surrogates
# (bytes that were not UTF-8) and the byte order mark.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    point = ord(match.group())
    if 0xDC80 <= point <= 0xDCFF:  # surrogateescape: one byte that was not UTF-8
        point -= 0xDC00
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"


def multiline(text: str | bytes, limit: int = 4096) -> str:
    """``text`` with its control characters escaped; tabs and line feeds stay, CR LF becomes LF.

    Args:
        text: The peer's words; bytes are read as UTF-8, what is not UTF-8 is shown as ``\\xNN``.
        limit: At most this many characters of ``text`` are shown; the rest is replaced by an ellipsis.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    text = text.replace("\r\n", "\n")
    if len(text) > limit:
        text = text[:limit] + "…"
    return _UNSAFE.sub(_escape, text)


def printable(text: str | bytes, limit: int = 256) -> str:
    """``text`` on one line with every control character escaped, fit for an error message or a log."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text  # as nearly always
    return multiline(text, limit).replace("\t", "\\t").replace("\n", "\\n")
