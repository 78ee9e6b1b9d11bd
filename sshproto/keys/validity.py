"""When a certificate is valid, as people write it: ``+52w``, ``20260101:20270101``, ``always:forever``.

The forms are those of ssh-keygen's option ``-V`` (ssh-keygen(1)); the intervals are those of sshd_config(5), "TIME
FORMATS".  What time it is, and where, are arguments.
"""

from __future__ import annotations

import re

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.grants import FOREVER
from sshproto.keys.timestamps import LocalTime, read_timestamp, utc
from sshproto.text import printable

LONGEST = 64
"""Longest of each of the two times, in characters."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS = re.compile("([0-9]+)([sSmMhHdDwW]?)")
_INTERVAL = re.compile("(?:[0-9]+[sSmMhHdDwW])*(?:[0-9]+)?")
_SHORTEST_DATE = 8
_HEXADECIMAL = re.compile("0[xX]([0-9a-fA-F]{1,16})")
_EXPECTED = (
    "an interval like +52w or -1d12h, a date YYYYMMDD or YYYYMMDDHHMM[SS] (with Z: in UTC), "
    "or 0x and seconds in hexadecimal"
)


def parse_interval(text: str) -> int:
    """The seconds of an interval such as ``90``, ``5m``, ``1w2d`` or ``1h30``.

    Raises:
        InvalidArgument: It is none, or longer than time goes.
    """
    if not text or len(text) > LONGEST or not _INTERVAL.fullmatch(text):
        raise InvalidArgument(f"not an interval of time: {printable(text, LONGEST)!r}; 90, 5m, 12h, 1w2d are some")
    total = sum(int(number) * _UNITS[unit.lower()] for number, unit in _PARTS.findall(text))
    if total >= FOREVER:
        raise InvalidArgument(f"not an interval of time: {printable(text, LONGEST)!r} is longer than time goes")
    return total


def parse_moment(text: str, now: int, *, local: LocalTime = utc) -> int:
    """One moment, in seconds since 1970.

    Args:
        text: Relative to now (``+1d``, ``-30m``), a date, with or without the time of day, or hexadecimal seconds.
        now: Seconds since 1970.
        local: For a date without ``Z``: in which zone it is.

    Raises:
        InvalidArgument: It is none of these, or not between 1970 and the end of time.
    """
    if len(text) > LONGEST:
        raise InvalidArgument(f"not a time: {printable(text, LONGEST)!r}; expected {_EXPECTED}")
    if text[:1] in ("+", "-"):
        seconds = parse_interval(text[1:])
        moment = now - seconds if text[0] == "-" else now + seconds
    elif found := _HEXADECIMAL.fullmatch(text):
        moment = int(found[1], 16)
    elif text[:1].isdigit():
        if len(text) < _SHORTEST_DATE and _INTERVAL.fullmatch(text):
            raise InvalidArgument(f"not a time: {text!r} is an interval; +{text} is that much from now on")
        try:
            return read_timestamp(text, local)
        except KeyFormatError as error:
            raise InvalidArgument(str(error)) from None
    else:
        raise InvalidArgument(f"not a time: {printable(text, LONGEST)!r}; expected {_EXPECTED}")
    if not 0 <= moment <= FOREVER:
        raise InvalidArgument(f"not a time: {printable(text, LONGEST)!r} is not between 1970 and the end of time")
    return moment


def parse_validity(text: str, now: int, *, local: LocalTime = utc) -> tuple[int, int]:
    """From when, and until when: the numbers for :meth:`sshproto.keys.certificates.Certificate.issue`.

    Args:
        text: ``FROM:TO``, or ``TO`` alone: then it begins at the last full minute that has passed for a minute, so that
            clocks need not agree to the second. ``always`` and ``forever`` stand for no beginning and no end.
        now: Seconds since 1970.
        local: For dates without ``Z``: in which zone they are, ``datetime.timestamp`` for that of the system.

    Raises:
        InvalidArgument: It is something else, or ends before it begins.
    """
    start, colon, end = text.rpartition(":")
    if colon:
        valid_after = 0 if start == "always" else parse_moment(start, now, local=local)
    else:
        valid_after = max(0, (now - 59) // 60 * 60)
    valid_before = FOREVER if end == "forever" else parse_moment(end, now, local=local)
    if valid_before <= valid_after:
        raise InvalidArgument(f"the validity {printable(text, 2 * LONGEST)!r} ends before it has begun")
    return valid_after, valid_before
