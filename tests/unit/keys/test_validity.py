"""Validity as ssh-keygen's -V has it."""

from __future__ import annotations

import os
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument
from sshproto.keys import FOREVER, Certificate, parse_validity
from sshproto.keys.validity import parse_interval, parse_moment

NOW = 1_700_000_042


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("always:forever", (0, FOREVER)),
        ("always:+1w", (0, NOW + 604800)),
        ("+52w", (NOW // 60 * 60 - 60, NOW + 52 * 604800)),
        ("-1d:+1w2d3h4m5s", (NOW - 86400, NOW + 604800 + 2 * 86400 + 3 * 3600 + 4 * 60 + 5)),
        ("-1H30:+90", (NOW - 3630, NOW + 90)),
        ("20240101:20240102", (1704067200, 1704153600)),
        ("20240101Z:202401020304z", (1704067200, 1704164640)),
        ("20240101000001:20240102UTC", (1704067201, 1704153600)),
        ("0x10:0xffffffffffffffff", (16, FOREVER)),
        ("-0s:0XFFFFFFFFF", (NOW, 0xFFFFFFFFF)),
        ("forever", (NOW // 60 * 60 - 60, FOREVER)),
        ("20400101", (NOW // 60 * 60 - 60, 2208988800)),
    ],
)
def test_intervals(text, interval):
    assert parse_validity(text, NOW) == interval


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a time: ''; expected an interval like"),
        (":", "not a time"),
        ("always", "not a time: 'always'"),
        ("forever:always", "not a time"),
        ("+1x", "not an interval of time: '1x'"),
        ("+", "not an interval of time: ''"),
        ("+1w:", "not a time: ''"),
        ("-1d", "ends before it has begun"),
        ("20240102:20240101", "ends before it has begun"),
        ("20241301:forever", "not a time: there is no 20241301"),
        ("2024010:forever", "not a time"),
        ("52w", "'52w' is an interval; \\+52w is that much from now on"),
        ("20240101T00:forever", "not a time"),
        ("0x:forever", "not a time"),
        ("0x10000000000000000:forever", "not a time"),
        ("+" + "9" * 60, "longer than time goes"),
        ("+" + "9" * 400, "not a time"),
        ("-99999w:forever", "is not between 1970 and"),
        ("+18446744073709551614", "is not between 1970 and"),
        ("+١", "not an interval"),  # noqa: RUF001
        ("+1\x1b", r"not an interval of time: '1\\x1b'"),
    ],
)
def test_what_is_no_interval(text, said):
    with pytest.raises(InvalidArgument, match=said.replace("\\", "\\\\") if "x1b" in said else said):
        parse_validity(text, NOW)


@pytest.fixture
def far_east():
    """The process is in a zone of its own."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "JST-9"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_a_zone():
    assert parse_moment("20240101", NOW, local=datetime.timestamp) == 1704067200 - 9 * 3600
    assert parse_moment("20240101Z", NOW, local=datetime.timestamp) == 1704067200


@pytest.mark.parametrize(
    "text",
    [
        *("always:forever", "-4w:+4w", "20240101:20300101", "202401010102:20300101010203", "20240101Z:203001010102Z"),
        *("0x10:0x7fffffff", "always:20300101", "20240101:forever", "+52w1d", "-1d:+1h30m15", "+1W2D3H4M5S"),
    ],
)
def test_ssh_keygen_understands_the_same(ssh_keygen, tmp_path, text):
    for name in ("authority", "user"):
        ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / name)
    for _ in range(3):  # the second may change meanwhile
        before = int(time.time())
        ssh_keygen("-q", "-s", tmp_path / "authority", "-I", "id", "-n", "a", "-V", text, tmp_path / "user.pub")
        if int(time.time()) == before:
            break
    certificate = Certificate.parse((tmp_path / "user-cert.pub").read_text())
    ours = parse_validity(text, before)
    assert (certificate.valid_after, certificate.valid_before) == ours


@given(st.text(max_size=80) | st.text("0123456789wdhmsxZ+-:alwysforev", max_size=40))
def test_any_text(text):
    for parse in (parse_interval, lambda it: parse_moment(it, NOW), lambda it: parse_validity(it, NOW)):
        try:
            parse(text)
        except InvalidArgument as error:
            assert str(error).isprintable()
