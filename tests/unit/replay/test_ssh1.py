"""Version 1 of the protocol: what it says in clear, and what of it can't be read."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import WireError
from sshproto.events import VersionReceived
from sshproto.replay.events import Missing, PacketSealed, Problem, RolesSeen, Side, Ssh1Packet
from sshproto.replay.observer import Observer
from sshproto.replay.ssh1 import (
    NAMES,
    Ssh1Disconnect,
    Ssh1PublicKey,
    Ssh1SessionKey,
    begins,
    decode,
    is_version_1,
    versions_agree,
)
from tests.replay.sessions import Wire, bytewise, drain, observe, told, troubles

C, S = Side.DIALLER, Side.DIALLED
CLIENT, SERVER = b"SSH-1.5-old\n", b"SSH-1.99-both\r\n"


def number(value: int) -> bytes:
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


HOST, TEMPORARY = (1 << 1023) + 12345, (1 << 767) + 54321
PUBLIC = (
    b"\2"
     b"cookies!"
    + (768).to_bytes(4, "big") + number(65537) + number(TEMPORARY)
    + (1024).to_bytes(4, "big") + number(35) + number(HOST)
    + (2).to_bytes(4, "big") + (0b1001000).to_bytes(4, "big") + (0b101100).to_bytes(4, "big")
)  # fmt: skip


def chosen(cipher: int) -> bytes:
    return b"\3" + bytes((cipher,)) + b"cookies!" + number(1 << 1000) + (2).to_bytes(4, "big")


def packet(content: bytes) -> bytes:
    length = len(content) + 4
    body = bytes(8 - length % 8) + content
    checksum = zlib.crc32(body, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return length.to_bytes(4, "big") + body + checksum.to_bytes(4, "big")


def session(cipher: int = 3) -> Wire:
    return [
        (S, SERVER),
        (C, CLIENT),
        (S, packet(PUBLIC)),
        (C, packet(chosen(cipher))),
        (S, packet(b"\x0e")),
        (C, packet(b"\x04\0\0\0\5alice")),
        (S, packet(b"\x0f")),
        (C, packet(b"\1\0\0\0\4bye\x07")),
    ]


def test_what_is_public() -> None:
    one_by_one = [piece for side in Side for piece in session() if piece[0] is side]
    for wire in (session(), one_by_one, list(bytewise(session()))):
        events = observe(wire)
        assert {it.line for it in told(events, VersionReceived)} == {"SSH-1.99-both", "SSH-1.5-old"}
        (public,), (key,) = told(events, Ssh1Packet, S), told(events, Ssh1Packet, C)
        assert (public.number, public.name) == (2, "SMSG_PUBLIC_KEY")
        assert isinstance(public.message, Ssh1PublicKey)
        assert public.message.host_key.modulus == HOST
        assert public.message.host_key.exponent == 35
        assert (public.message.host_key.bits, public.message.server_key.bits) == (1024, 768)
        assert public.message.ciphers == ("3des", "blowfish")
        assert public.message.authentications == ("rsa", "password", "tis")
        identifier = hashlib.md5(HOST.to_bytes(128, "big") + TEMPORARY.to_bytes(96, "big") + b"cookies!").digest()
        assert public.message.session_id == identifier
        fingerprint = hashlib.md5(HOST.to_bytes(128, "big") + b"#").hexdigest()
        assert public.message.host_key.fingerprint.replace(":", "") == fingerprint
        assert (key.number, key.name) == (3, "CMSG_SESSION_KEY")
        assert isinstance(key.message, Ssh1SessionKey)
        assert key.message.cipher == "3des"
        assert [(it.client, it.sure) for it in told(events, RolesSeen)] == [(C, True)]
        assert troubles(events) == []
        for side, sizes in ((S, [12, 12]), (C, [20, 20])):
            sealed = told(events, PacketSealed, side)
            assert [it.size for it in sealed] == sizes
            assert all(it.exact for it in sealed)


def test_offsets_and_frames() -> None:
    events = observe(session())
    for side, ident in ((S, SERVER), (C, CLIENT)):
        place = len(ident)
        for seen in events:
            if seen.side is side and isinstance(seen.event, (Ssh1Packet, PacketSealed)):
                assert seen.event.offset == place
                place += seen.event.size
                assert len(seen.frames) == 1


def test_no_cipher() -> None:
    """Then all of it is public, whoever's bytes come first."""
    wire = session(cipher=0)
    for order in (wire, sorted(wire, key=lambda piece: piece[0] is C), sorted(wire, key=lambda piece: piece[0] is S)):
        events = observe(order)
        assert [it.name for it in told(events, Ssh1Packet, S)] == ["SMSG_PUBLIC_KEY", "SMSG_SUCCESS", "SMSG_FAILURE"]
        names = [it.name for it in told(events, Ssh1Packet, C)]
        assert names == ["CMSG_SESSION_KEY", "CMSG_USER", "MSG_DISCONNECT"]
        assert told(events, Ssh1Packet, C)[-1].message == Ssh1Disconnect("bye\\x07")
        assert not told(events, PacketSealed)


@pytest.mark.parametrize("side", list(Side))
def test_one_side(side: Side) -> None:
    events = observe([piece for piece in session() if piece[0] is side])
    # Without the client's word the server might speak either version, but the checksum of its first packet tells.
    name, sizes = ("SMSG_PUBLIC_KEY", [12, 12]) if side is S else ("CMSG_SESSION_KEY", [20, 20])
    assert [it.name for it in told(events, Ssh1Packet)] == [name]
    assert [it.size for it in told(events, PacketSealed)] == sizes
    assert told(events, Missing, side.other)
    assert [(it.client, it.sure) for it in told(events, RolesSeen)] == [(C, True)]


def test_a_packet_that_tells_the_version() -> None:
    whole = packet(PUBLIC)
    assert begins(whole)
    assert begins(whole + b"more")
    assert not begins(whole[:-1])
    assert not begins(whole[:-1] + bytes((whole[-1] ^ 1,)))
    assert not begins(b"")
    assert not begins(b"\0\0\0\4" + bytes(20))


def test_versions() -> None:
    assert [is_version_1(it) for it in ("1.5", "1.3", "1.99", "2.0", None)] == [True, True, False, False, False]
    for mine, theirs, agree in (
        ("1.5", "1.99", True), ("1.5", "1.5", True), ("1.99", "1.99", True), ("2.0", "1.99", True),
        ("2.0", "2.0", True), ("1.5", "2.0", False), ("2.0", "1.5", False), ("1.5", None, True),
    ):  # fmt: skip
        assert versions_agree(mine, theirs) is agree


def test_no_version_in_common() -> None:
    for wire in ([(S, b"SSH-2.0-new\r\n"), (C, CLIENT)], [(C, CLIENT), (S, b"SSH-2.0-new\r\n")]):
        events = observe([*wire, (S, b"Protocol major versions differ.\n")])
        assert any("speaks version 1.5 of SSH, the other side 2.0" in it for it in troubles(events))
        assert len(told(events, VersionReceived)) == 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (packet(b"\2\1\2"), ""),
        (packet(b"\2\1\2")[:-1] + b"\0", "the checksum of a packet is wrong, so what follows is taken for encrypted"),
        (b"\0\0\0\4" + bytes(99), "a packet of 4 bytes; 5 to 262144 are legal in version 1 of SSH"),
        (b"\x7f\0\0\0" + bytes(99), "a packet of 2130706432 bytes; 5 to 262144 are legal in version 1 of SSH"),
    ],
)
def test_what_is_wrong(data: bytes, problem: str) -> None:
    events = observe([(C, CLIENT), (S, SERVER), (S, data), (S, packet(b"\x0e"))])
    if problem:
        assert problem in [it.problem for it in told(events, Problem)]
    else:
        (odd,) = told(events, Ssh1Packet)
        assert (odd.name, odd.message, odd.payload) == ("SMSG_PUBLIC_KEY", None, b"\1\2")


def test_a_gap() -> None:
    wire = session()
    observer = Observer()
    for index, (side, data) in enumerate(wire):
        if index == 4:
            observer.gap(S, 20)
        observer.feed(side, data)
    observer.finish()
    events = drain(observer)
    assert [it.size for it in told(events, Missing)] == [20]
    assert len(told(events, Ssh1Packet)) == 2


def test_the_end_within_a_packet() -> None:
    events = observe([*session()[:3], (C, packet(chosen(3))[:-7])])
    assert any("the recording ends within a packet" in it for it in troubles(events))


def test_decoding() -> None:
    assert decode(14, b"") is None
    for content in (PUBLIC, chosen(6), b"\1\0\0\0\2no"):
        message = decode(content[0], content[1:])
        assert message is not None
        assert message.number == content[0]
        for stop in range(1, len(content)):
            with pytest.raises(WireError):
                decode(content[0], content[1:stop])
        with pytest.raises(WireError):
            decode(content[0], content[1:] + b"\0")
    strange = decode(3, chosen(77)[1:])
    assert isinstance(strange, Ssh1SessionKey)
    assert strange.cipher == "77"


def test_names() -> None:
    """Some numbers, by hand (draft-ylonen-ssh-protocol-00, sections on packet types)."""
    for value, name in (
        (0, "MSG_NONE"), (6, "CMSG_AUTH_RSA"), (9, "CMSG_AUTH_PASSWORD"), (14, "SMSG_SUCCESS"), (20, "SMSG_EXITSTATUS"),
        (23, "MSG_CHANNEL_DATA"), (25, "MSG_CHANNEL_CLOSE_CONFIRMATION"), (27, "SMSG_X11_OPEN"), (32, "MSG_IGNORE"),
        (36, "MSG_DEBUG"), (39, "CMSG_AUTH_TIS"), (41, "CMSG_AUTH_TIS_RESPONSE"), (42, "CMSG_AUTH_KERBEROS"),
        (44, "CMSG_HAVE_KERBEROS_TGT"),
    ):  # fmt: skip
        assert NAMES[value] == name
    assert 26 not in NAMES


@given(data=st.lists(st.tuples(st.sampled_from(list(Side)), st.binary(max_size=40)), max_size=8))
def test_anything_at_all(data: Wire) -> None:
    observe([(C, CLIENT), (S, SERVER), *data])


@given(flips=st.lists(st.integers(0, 8 * 300), max_size=3))
def test_flipped_bits(flips: list[int]) -> None:
    wire = session()
    for flip in flips:
        for index in (2, 3):
            side, data = wire[index]
            changed = bytearray(data)
            changed[flip // 8 % len(data)] ^= 1 << flip % 8
            wire[index] = (side, bytes(changed))
    observe(wire)
