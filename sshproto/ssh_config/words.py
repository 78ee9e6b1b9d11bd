"""How a line is cut into words.

There are two ways of it, as in OpenSSH 9.2, and both are needed: a keyword, and the criteria of ``Match``, end at white
space or at one ``=``, and know double quotes only; what follows a keyword is cut at white space, knows both quotes and
the backslash, and ends at a word that begins with ``#``.
"""

from __future__ import annotations

from sshproto.ssh_config.problems import LineError
from sshproto.text import printable

_SPACE = " \t\r\n"
_ENDS = frozenset(_SPACE + '"=')
_ESCAPED = "'\"\\"


def next_word(text: str | None) -> tuple[str | None, str | None]:
    """The first word, and the rest.

    White space at the beginning is a word of its own, ``""``. A double quote within a word begins a part that goes up
    to the next one, and the word ends with that.

    Args:
        text: What there is; None if nothing is left.

    Returns:
        The word, None if there is none or a quote is not closed; and what follows the white space behind it, None if
        the word was the last one.
    """
    if text is None:
        return None, None
    at = next((index for index, char in enumerate(text) if char in _ENDS), -1)
    if at < 0:
        return text, None
    if text[at] == '"':
        end = text.find('"', at + 1)
        if end < 0:
            return None, None
        return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(_SPACE)
    rest = text[at + 1 :].lstrip(_SPACE)
    if text[at] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(_SPACE)
    return text[:at], rest


def keyword_of(line: str) -> tuple[str, str]:
    """The keyword of a line in lower case, and what follows it as it stands there.

    Returns:
        ``""`` in the place of the keyword if the line says nothing.

    Raises:
        LineError: Nothing follows the keyword.
    """
    keyword, rest = next_word(line[:1] + line[1:].rstrip(_SPACE + "\f"))
    if keyword == "":
        keyword, rest = next_word(rest)
    if not keyword or keyword.startswith("#"):
        return "", ""
    rest = (rest or "").lstrip(_SPACE)
    if not rest:
        raise LineError(f'no argument after keyword "{printable(keyword.lower(), 80)}"')
    return keyword.lower(), rest


def split_words(text: str) -> list[str]:
    """Cut what follows a keyword.

    A quote of either kind begins a part that goes up to the next one of its kind; a backslash takes its meaning from a
    quote, from another backslash, and outside of quotes from a blank; before anything else it stays.

    Raises:
        LineError: A quote is not closed.
    """
    words: list[str] = []
    at, size = 0, len(text)
    while at < size:
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word: list[str] = []
        quote = ""
        while at < size:
            char = text[at]
            if char == "\\" and at + 1 < size and (text[at + 1] in _ESCAPED or (not quote and text[at + 1] == " ")):
                at += 1
                word.append(text[at])
            elif not quote and char in " \t":
                break
            elif not quote and char in "\"'":
                quote = char
            elif quote and char == quote:
                quote = ""
            else:
                word.append(char)
            at += 1
        if quote:
            raise LineError("invalid quotes")
        words.append("".join(word))
    return words
