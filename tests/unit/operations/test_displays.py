"""Names of displays, and Xauthority files: of a person's, of xauth's own making, of nobody's."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.clear import fit_to_show
from sshproto.channels.requests import X11Request
from sshproto.errors import InvalidArgument
from sshproto.operations import displays
from sshproto.operations.displays import (
    FAMILY_INTERNET,
    FAMILY_INTERNET6,
    FAMILY_LOCAL,
    FAMILY_WILD,
    MAGIC_COOKIE,
    Authority,
    Cookie,
    Display,
    XauthorityError,
    asked_cookie,
    authorities_for,
    find_cookie,
    read_authorities,
    write_authorities,
)
from tests.support import peers

SECRET = bytes(range(16))
MAGIC = MAGIC_COOKIE.encode()


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "display", "addresses"),
    [
        (":0", Display("", 0), ("/tmp/.X11-unix/X0", "\0/tmp/.X11-unix/X0")),
        (":12.3", Display("", 12, 3), ("/tmp/.X11-unix/X12", "\0/tmp/.X11-unix/X12")),
        ("unix:1", Display("", 1), ("/tmp/.X11-unix/X1", "\0/tmp/.X11-unix/X1")),
        ("local/:1", Display("", 1), ("/tmp/.X11-unix/X1", "\0/tmp/.X11-unix/X1")),
        ("unix/host:1", Display("", 1), ("/tmp/.X11-unix/X1", "\0/tmp/.X11-unix/X1")),
        ("host:0", Display("host", 0), (("host", 6000),)),
        ("tcp/host:2.1", Display("host", 2, 1), (("host", 6002),)),
        ("localhost:10.0", Display("localhost", 10), (("localhost", 6010),)),
        ("127.0.0.1:10", Display("127.0.0.1", 10), (("127.0.0.1", 6010),)),
        ("[::1]:10.0", Display("::1", 10), (("::1", 6010),)),
        ("inet6/::1:10", Display("::1", 10), (("::1", 6010),)),
        ("host:59535", Display("host", 59535), (("host", 65535),)),
        ("/run/x:0", Display("", 0, 0, "/run/x:0"), ("/run/x:0",)),
        ("/run/x:7.2", Display("", 7, 2, "/run/x:7.2"), ("/run/x:7.2", "/run/x:7")),
        ("/run/x", Display("", 0, 0, "/run/x"), ("/run/x",)),
    ],
)
def test_names(name: str, display: Display, addresses: Any) -> None:
    assert Display.parse(name) == display
    assert display.addresses == addresses
    assert Display.parse(str(display)) == display


@pytest.mark.parametrize(
    "name",
    ["", "host", ":", "host:", ":x", ":-1", "host::0", "tcp/:0", "odd/host:0", ":0.", ":0.x", ":100000", ":59536",
     ":0.65536", "[tcp/]:0", "[]:0", "[host]:0", "a:b:0", "tcp/a/b:0", "tcp/[]:0",
     ":0\0", "a\0:0", ":\u0663", "host:0 ", "x" * 2000 + ":0"],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Display.parse(name)
    assert str(caught.value).isprintable()


@given(
    st.text(max_size=60) | st.from_regex(r"(tcp/|unix/|\[?)[a-z:.\[\]]{0,9}:[0-9]{0,6}(\.[0-9]{0,6})?", fullmatch=True)
)
def test_any_name_is_read_or_refused(name: str) -> None:
    try:
        display = Display.parse(name)
    except InvalidArgument as error:
        fit_to_show(str(error))
        return
    assert 1 <= len(display.addresses) <= 2
    for address in display.addresses:
        assert isinstance(address, str) or 6000 <= address[1] <= 65535
    assert Display.parse(str(display)) == display


def test_what_is_on_this_machine() -> None:
    here = (":0", "unix:0", "localhost:0", "LOCALHOST:0", "127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "/run/x:0")
    assert all(Display.parse(name).local for name in here)
    assert not any(Display.parse(name).local for name in ("host:0", "10.0.0.1:0", "[2001:db8::1]:0"))


# -------------------------------------------------------------------------------------------------------------- cookies


def test_a_cookie_that_is_asked_for() -> None:
    assert asked_cookie(X11Request(False, MAGIC_COOKIE, SECRET.hex().upper())) == Cookie(MAGIC_COOKIE, SECRET)
    assert asked_cookie(X11Request(False, "x" * 64, "00" * 256)).data == bytes(256)
    bad = [
        ("", "00"),
        ("a b", "00"),
        ("a'b", "00"),
        ("x" * 65, "00"),
        ("$(x)", "00"),
        ("caf\u00e9", "00"),
        ("p\n", "00"),
    ]
    bad += [("p", ""), ("p", "0"), ("p", "0g"), ("p", "00 00"), ("p", "00" * 257), ("p", "00\n"), ("p", "\u0660" * 2)]
    for protocol, cookie in bad:
        with pytest.raises(InvalidArgument) as caught:
            asked_cookie(X11Request(False, protocol, cookie))
        assert len(cookie) < 4 or cookie not in str(caught.value)


def test_a_secret_is_not_shown() -> None:
    for value in (Cookie(MAGIC_COOKIE, SECRET), Authority(FAMILY_WILD, b"", b"", MAGIC, SECRET)):
        assert repr(SECRET) not in repr(value)
        assert SECRET.hex() not in repr(value)
        with pytest.raises(TypeError, match="is not pickled"):
            pickle.dumps(value)


# ---------------------------------------------------------------------------------------------------------------- files

NUMBERS = st.integers(0, 0xFFFF)
ENTRIES = st.builds(
    Authority,
    st.sampled_from([FAMILY_LOCAL, FAMILY_WILD, FAMILY_INTERNET, FAMILY_INTERNET6]) | NUMBERS,
    st.sampled_from([b"here", b"\x7f\0\0\1"]) | st.binary(max_size=20),
    st.sampled_from([b"", b"0", b"10"]) | st.binary(max_size=3),
    st.just(MAGIC) | st.binary(max_size=20),
    st.binary(max_size=20),
)


@given(st.lists(ENTRIES, max_size=5))
def test_what_is_written_is_read(entries: list[Authority]) -> None:
    assert read_authorities(write_authorities(entries)) == tuple(entries)


@given(st.lists(ENTRIES, max_size=4), st.data())
def test_any_content_is_read_or_refused(entries: list[Authority], data: st.DataObject) -> None:
    content = bytearray(write_authorities(entries))
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))]) + data.draw(st.binary(max_size=20))
    try:
        found = read_authorities(cut)
    except XauthorityError as error:
        assert str(error).isprintable()
        return
    assert write_authorities(found) == cut
    cookie = find_cookie(found, Display("", 0), "here")
    assert cookie is None or cookie.data in {entry.data for entry in found}


def test_files_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Authority(0, b"", b"", b"", b"")
    monkeypatch.setattr(displays, "MAXIMUM_ENTRIES", 3)
    assert len(read_authorities(write_authorities([entry] * 3))) == 3
    with pytest.raises(XauthorityError, match="more than 3 entries"):
        read_authorities(write_authorities([entry] * 4))
    largest = Authority(0, bytes(65535), b"", b"", bytes(65535)).encode()
    monkeypatch.setattr(displays, "MAXIMUM_FILE", len(largest))
    assert len(read_authorities(largest)) == 1
    with pytest.raises(XauthorityError, match="at most"):
        read_authorities(largest + b"\0")


@pytest.mark.parametrize("bad", [(-1, b""), (65536, b""), (0, bytes(65536))])
def test_what_can_not_be_written(bad: tuple[int, bytes]) -> None:
    with pytest.raises(InvalidArgument):
        Authority(bad[0], bad[1], b"", b"", b"").encode()


def test_the_first_entry_that_fits_is_taken() -> None:
    def entry(family: int, address: bytes, number: bytes, data: bytes, protocol: bytes = MAGIC) -> Authority:
        return Authority(family, address, number, protocol, data)

    entries = (
        entry(FAMILY_LOCAL, b"there", b"0", b"another machine"),
        entry(FAMILY_LOCAL, b"here", b"1", b"another display"),
        entry(FAMILY_LOCAL, b"here", b"0", b"another protocol", b"XDM-AUTHORIZATION-1"),
        entry(FAMILY_LOCAL, b"here", b"0", b"local"),
        entry(FAMILY_INTERNET, bytes((10, 0, 0, 1)), b"0", b"internet"),
        entry(FAMILY_INTERNET6, b"\x20\x01\x0d\xb8" + bytes(11) + b"\1", b"0", b"internet6"),
        entry(FAMILY_LOCAL, b"here", b"", b"any number"),
        entry(FAMILY_WILD, b"", b"7", b"any machine"),
    )

    def found(name: str, *addresses: str) -> bytes | None:
        cookie = find_cookie(entries, Display.parse(name), "here", addresses)
        return None if cookie is None else cookie.data

    assert found(":0") == found("localhost:0.1") == found("127.0.0.1:0") == found("[::1]:0") == b"local"
    assert found("10.0.0.1:0") == found("far:0", "192.0.2.1", "10.0.0.1") == b"internet"
    assert found("far:0", "2001:db8::1") == b"internet6"
    assert found(":9") == b"any number"
    assert found("far:7") == b"any machine"
    assert found("far:0") is None
    assert found("far:0", "no address") is None


def test_programs_find_what_is_written_for_them() -> None:
    entries = authorities_for(10, Cookie(MAGIC_COOKIE, SECRET), "here")
    for hostname in ("here", "renamed"):
        assert find_cookie(entries, Display("localhost", 10), hostname) == Cookie(MAGIC_COOKIE, SECRET)
    assert find_cookie(entries, Display("localhost", 11), "here") is None


def test_xauth_agrees(tmp_path: Path) -> None:
    """Each reads what the other writes."""
    xauth = peers.need("xauth")
    path = tmp_path / "authority"
    host = os.uname().nodename

    def run(*words: str) -> bytes:
        ran = peers.run([xauth, "-f", str(path), *words], peers.environment(tmp_path))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run("add", ":3", ".", SECRET.hex())
    run("add", "10.0.0.1:4", MAGIC_COOKIE, "ff" * 16)
    run("add", "localhost:10", ".", "aa" * 16)
    entries = read_authorities(path.read_bytes())
    assert find_cookie(entries, Display("", 3), host) == Cookie(MAGIC_COOKIE, SECRET)
    assert find_cookie(entries, Display("10.0.0.1", 4), host) == Cookie(MAGIC_COOKIE, b"\xff" * 16)
    assert find_cookie(entries, Display("localhost", 10), host) == Cookie(MAGIC_COOKIE, b"\xaa" * 16)
    path.write_bytes(write_authorities([*authorities_for(12, Cookie(MAGIC_COOKIE, SECRET), host), *entries]))
    listed = run("list").decode()
    assert f"{host}/unix:12  {MAGIC_COOKIE}  {SECRET.hex()}\n" in listed
    assert f":4  {MAGIC_COOKIE}  {'ff' * 16}\n" in listed
    assert SECRET.hex() in run("list", "localhost:12").decode()
