"""Times as OpenSSH's files write them: ``20301231``, ``203012312359`` or ``20301231235930``, and a ``Z`` for UTC.

So they stand in ``allowed_signers`` (ssh-keygen(1)) and in ``expiry-time`` of ``authorized_keys`` (sshd(8)).  What has
no ``Z`` is of the zone where it is read, which is for the caller to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sshproto.errors import KeyFormatError
from sshproto.text import printable

LocalTime = Callable[[datetime], float]
"""Gives the seconds since 1970 of a date and time without a zone."""

_FORM = re.compile(r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2})?)?(Z|UTC)?", re.ASCII | re.IGNORECASE)
_EXPECTED = "expected YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with a Z behind it for UTC"


def utc(moment: datetime) -> float:
    """The seconds since 1970 of a date and time of UTC; a :data:`LocalTime`."""
    return moment.replace(tzinfo=UTC).timestamp()


def read_timestamp(text: str, local: LocalTime = utc) -> int:
    """A time, in seconds since 1970.

    As in OpenSSH, the 31st is a day of every month (that of February is in March), and a minute has up to 62 seconds.

    Args:
        text: As it is written.
        local: What time it is if no zone is written; UTC if nothing else is said.

    Raises:
        KeyFormatError: It is no such time, or one before 1970, or so early or late that there is none.
    """
    shown = printable(text, 40)
    found = _FORM.fullmatch(text)
    if found is None:
        raise KeyFormatError(f"not a time: {shown!r}; {_EXPECTED}")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 61):
        raise KeyFormatError(f"not a time: there is no {shown}")
    try:
        moment = datetime(year, month, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1, seconds=second)
        seconds = int((utc if found[7] else local)(moment.replace(tzinfo=None)))
    except (ValueError, OverflowError, OSError):  # a year 0, or one that the caller's clock does not reach
        raise KeyFormatError(f"not a time: there is no {shown}") from None
    if seconds <= 0:
        raise KeyFormatError(f"not a time: {shown} is not after the beginning of 1970")
    return seconds


def show_time(seconds: float) -> str:
    """A time in seconds since 1970, for people."""
    if seconds == 2**64 - 1:
        return "forever"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"
