"""Values of channel kinds and requests: the codec both ways, bounds, truncation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.channels import requests as r
from sshproto.errors import InvalidArgument, WireError
from sshproto.wire.codec import string, text, uint32
from sshproto.wire.messages import ChannelOpen, ChannelRequest, GlobalRequest

EXAMPLES: list[tuple[Any, bytes]] = [
    (r.Session(), b""),
    (
        r.DirectTcpip("example.org", 22, "10.0.0.1", 4711),
        text("example.org") + uint32(22) + text("10.0.0.1") + uint32(4711),
    ),
    (r.ForwardedTcpip("", 65535, "::1", 1), text("") + uint32(65535) + text("::1") + uint32(1)),
    (r.DirectStreamlocal("/run/x"), text("/run/x") + text("") + uint32(0)),
    (r.ForwardedStreamlocal("/run/x"), text("/run/x") + text("")),
    (r.X11("127.0.0.1", 6000), text("127.0.0.1") + uint32(6000)),
    (r.AuthAgent(), b""),
    (r.AgentConnect(), b""),
    (
        r.PtyRequest("xterm", 80, 24, 640, 480, ((1, 3), (42, 1), (128, 9600))),
        text("xterm")
        + uint32(80)
        + uint32(24)
        + uint32(640)
        + uint32(480)
        + string(b"\x01" + uint32(3) + b"\x2a" + uint32(1) + b"\x80" + uint32(9600) + b"\0"),
    ),
    (
        r.X11Request(True, "MIT-MAGIC-COOKIE-1", "00ff", 1),
        b"\1" + text("MIT-MAGIC-COOKIE-1") + text("00ff") + uint32(1),
    ),
    (r.AuthAgentRequest(), b""),
    (r.AgentRequest(), b""),
    (r.Env("LANG", b"C"), text("LANG") + string(b"C")),
    (r.Shell(), b""),
    (r.Exec(b"ls \xff"), string(b"ls \xff")),
    (r.Subsystem("sftp"), text("sftp")),
    (r.WindowChange(132, 43), uint32(132) + uint32(43) + uint32(0) + uint32(0)),
    (r.XonXoff(True), b"\1"),
    (r.Signal("TERM"), text("TERM")),
    (r.Break(250), uint32(250)),
    (r.ExitStatus(2**32 - 1), b"\xff" * 4),
    (r.ExitSignal("SEGV", True, "oops", "en"), text("SEGV") + b"\1" + text("oops") + text("en")),
    (r.EndOfWrite(), b""),
    (r.KeepaliveChannel(), b""),
    (r.TcpipForward("localhost", 0), text("localhost") + uint32(0)),
    (r.CancelTcpipForward("localhost", 80), text("localhost") + uint32(80)),
    (r.StreamlocalForward("/s"), text("/s")),
    (r.CancelStreamlocalForward("/s"), text("/s")),
    (r.Keepalive(), b""),
    (r.NoMoreSessions(), b""),
    (r.HostKeysAnnounced((b"a", b"bc")), string(b"a") + string(b"bc")),
    (r.HostKeysProve(()), b""),
]


def decode(value: Any, payload: bytes) -> Any:
    """``payload`` as the payload of ``value``'s sort of message."""
    if value.type in r.KINDS and isinstance(value, r.Kind):
        return r.decode_open(ChannelOpen(value.type, 0, 0, 0, payload))
    if isinstance(value, r.Request):
        return r.decode_request(ChannelRequest(0, value.type, False, payload))
    return r.decode_global(GlobalRequest(value.type, False, payload))


def names(example: tuple[Any, bytes]) -> str:
    return type(example[0]).__name__


def test_every_class_has_an_example() -> None:
    classes = {*r.KINDS.values(), *r.CHANNEL_REQUESTS.values(), *r.GLOBAL_REQUESTS.values()}
    assert {type(value) for value, _ in EXAMPLES} == classes
    assert len(EXAMPLES) == len(classes)


@pytest.mark.parametrize("example", EXAMPLES, ids=names)
def test_both_ways(example: tuple[Any, bytes]) -> None:
    value, payload = example
    assert value.encode() == payload
    assert decode(value, payload) == value


@pytest.mark.covers("V33", "R158", "R159")
@pytest.mark.parametrize("example", EXAMPLES, ids=names)
def test_truncated_or_longer_is_malformed(example: tuple[Any, bytes]) -> None:
    value, payload = example
    for cut in range(len(payload)):
        if isinstance(value, r.HostKeysAnnounced) and cut in (0, 5):
            continue  # a shorter list
        if isinstance(value, r.ExitSignal) and cut == len(payload) - 6:
            continue  # some peers leave the language out
        with pytest.raises(WireError):
            decode(value, payload[:cut])
    with pytest.raises(WireError):
        decode(value, payload + b"\1")


@pytest.mark.covers("R100", "R113")
@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (b"", ()),
        (b"\0", ()),
        (b"\x01\0\0\0\x02", ((1, 2),)),  # no TTY_OP_END
        (b"\x01\0\0\0\x02\0\x03\0", ((1, 2),)),  # what follows TTY_OP_END does not count
        (b"\x01\0\0\0\x02\xa0\x03", ((1, 2),)),  # 160 has an argument of unknown length
        (b"\x9f\0\0\0\x02\xff", ((159, 2),)),
        (b"\x01\0\0\0\x02\x01\0\0\0\x03\0", ((1, 2), (1, 3))),
    ],
)
def test_terminal_modes(modes: bytes, expected: tuple[tuple[int, int], ...]) -> None:
    payload = text("vt100") + uint32(0) * 4 + string(modes)
    found = decode(r.PtyRequest("vt100"), payload)
    assert found == r.PtyRequest("vt100", 0, 0, 0, 0, expected)


@pytest.mark.covers("R100", "V33")
def test_terminal_mode_argument_is_cut_off() -> None:
    with pytest.raises(WireError, match="mode 1"):
        decode(r.PtyRequest("x"), text("x") + uint32(0) * 4 + string(b"\x01\0\0\0"))


@pytest.mark.covers("B30", "R100")
@pytest.mark.parametrize(
    ("at_limit", "past"),
    [
        (text("t" * 256) + uint32(0) * 4 + string(b""), text("t" * 257) + uint32(0) * 4 + string(b"")),
        (text("t") + uint32(0) * 4 + string(b"\0" * 1024), text("t") + uint32(0) * 4 + string(b"\0" * 1025)),
    ],
)
def test_pty_bounds(at_limit: bytes, past: bytes) -> None:
    decode(r.PtyRequest("x"), at_limit)
    with pytest.raises(WireError):
        decode(r.PtyRequest("x"), past)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (r.Env("n" * 256, b""), r.Env("n" * 257, b"")),
        (r.Env("n", b"v" * 32768), r.Env("n", b"v" * 32769)),
        (r.Env("n", b"="), r.Env("n=", b"")),
        (r.Env("n", b"\1"), r.Env("n", b"\0")),
        (r.DirectStreamlocal("p" * 108), r.DirectStreamlocal("p" * 109)),
        (r.DirectStreamlocal("p\1"), r.DirectStreamlocal("p\0")),
        (r.DirectTcpip("h", 65535), r.DirectTcpip("h", 65536)),
        (r.TcpipForward("h", 65535), r.TcpipForward("h", -1)),
        (r.TcpipForward("h\1"), r.TcpipForward("h\0")),
        (r.PtyRequest("x", modes=((159, 0),)), r.PtyRequest("x", modes=((160, 0),))),
        (r.PtyRequest("x", modes=((1, 0),) * 204), r.PtyRequest("x", modes=((1, 0),) * 205)),
        (r.PtyRequest("x", modes=((1, 0),)), r.PtyRequest("x", modes=((0, 0),))),
        (r.Exec(b"ls"), r.Exec("ls")),  # type: ignore[arg-type]
        (r.ExitStatus(0), r.ExitStatus(2**32)),
        (r.UnknownRequest("a@b"), r.UnknownRequest("")),
        (r.UnknownRequest("a" * 64), r.UnknownRequest("a" * 65)),
        (r.UnknownRequest("a-b"), r.UnknownRequest("a,b")),
        (r.UnknownRequest("a"), r.UnknownRequest("ä")),
        (r.UnknownRequest("a"), r.UnknownRequest("a", "b")),  # type: ignore[arg-type]
    ],
)
def test_what_is_sent_is_bounded(good: Any, bad: Any) -> None:
    good.encode()
    with pytest.raises(InvalidArgument):
        bad.encode()


def test_unknown_names_are_kept() -> None:
    assert r.decode_open(ChannelOpen("tun@openssh.com", 0, 0, 0, b"x")) == r.UnknownOpen("tun@openssh.com", b"x")
    assert r.decode_request(ChannelRequest(0, "simple@putty", True, b"x")) == r.UnknownRequest("simple@putty", b"x")
    assert r.decode_global(GlobalRequest("", True, b"x")) == r.UnknownGlobal("", b"x")


@pytest.mark.covers("R112")
@pytest.mark.parametrize(("asked", "done"), [(0, 500), (499, 500), (501, 501), (3000, 3000), (2**32 - 1, 3000)])
def test_break_length(asked: int, done: int) -> None:
    assert r.Break(asked).milliseconds == done


@pytest.mark.covers("R102", "R169")
def test_the_cookie_is_not_shown() -> None:
    assert "deadbeef" not in repr(r.X11Request(False, "MIT-MAGIC-COOKIE-1", "deadbeef"))


@given(st.sampled_from(EXAMPLES), st.binary(max_size=64))
def test_any_payload_decodes_to_what_encodes_or_is_malformed(example: tuple[Any, bytes], payload: bytes) -> None:
    try:
        value = decode(example[0], payload)
    except WireError:
        return
    assert decode(example[0], value.encode()) == value
