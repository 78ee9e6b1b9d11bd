"""The gauntlet, B: flaws of sizes, counts and encodings, on live connections and in both roles.

Each packet cipher, codec and message has its own tests in tests/unit; here what they refuse has to end the connection,
or just the request, as it should, and what they let pass has to cost no more than it is worth.
"""

from __future__ import annotations

import mmap
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.channels.requests import ExitStatus, Session, UnknownOpen
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from sshproto.errors import CompressionError, LimitExceeded, MacError, ProtocolViolation
from sshproto.transport.link import Phase
from sshproto.wire import messages as m
from sshproto.wire.codec import string, text, uint32
from tests.support.middle import Middle, alone
from tests.support.pair import HOST_KEY, Pair, server_answers
from tests.support.rogue import IDENT, frame, goodbye, inject, kexinit, loss, push

CURVE = ("curve25519-sha256",)
EDGES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)


@pytest.fixture(params=["client", "server"])
def victim(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sides(pair: Any, victim: str) -> tuple[Any, Any]:
    """The end under attack, and its peer."""
    return (pair.client, pair.server) if victim == "client" else (pair.server, pair.client)


def logged_in(**options: Any) -> Pair:
    """A pair that is logged in, both sides with the same changes."""
    return Pair.make(
        ClientConfig(user="alice", debug_raise=True, **options),
        ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, **options),
    ).login()


def session(window: int = 1 << 20, **options: Any) -> tuple[Pair, int]:
    pair = logged_in(**options)
    channel = pair.client.conn.open_channel(Session(), window=window)
    pair.run()
    return pair, channel


# ------------------------------------------------------------------------------------- V21 - V24 the length, under keys

MODES = {
    "gcm": ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    "chacha20-poly1305": ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    "ctr-etm": ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    "ctr": ("aes256-ctr", "hmac-sha2-256"),
    "cbc-etm": ("aes128-cbc", "hmac-sha2-512-etm@openssh.com"),
    "cbc": ("aes128-cbc", "hmac-sha2-512"),
}

LENGTHS = (0, 1, 4, 5, 7, 13, 2**18 + 16, 2**31 - 1, 2**31, 2**32 - 1)
"""Too short, unaligned, too long; none is a packet of 16 bytes or fewer that could be waited for."""


def first_bytes(peer: Any, length: int) -> bytes:
    """The beginning of a packet that says it has ``length`` bytes, as the keys of ``peer`` make it."""
    sealer = peer.conn._engine.outbox.sealer
    cipher = sealer._cipher
    if hasattr(cipher, "_length"):  # ChaCha20 has a key for the length alone
        cipher._length.reset_nonce(bytes(8) + sealer.sequence_number.to_bytes(8, "big"))
        return bytes(cipher._length.update(uint32(length)))
    if cipher.counted:  # all is encrypted
        return bytes(cipher._context.update(uint32(length) + bytes(12)))
    return uint32(length)


@pytest.mark.covers("V21", "V22", "V24", "R22", "B3")
@pytest.mark.parametrize("mode", [name for name in MODES if name not in {"ctr", "cbc"}])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_bad_length_is_refused_at_its_fourth_byte(victim: str, mode: str, length: int) -> None:
    """CVE-2019-3855, CVE-2024-43410, CVE-2026-55200 and many more: nothing is waited for, nothing kept."""
    cipher, mac = MODES[mode]
    pair = logged_in(preferences=Preferences(kex=CURVE, cipher=(cipher,), mac=(mac,)))
    end, peer = sides(pair, victim)
    end.conn.receive_data(first_bytes(peer, length), 0.0)
    end.drain()
    error = loss(end.events)
    assert isinstance(error, ProtocolViolation)
    assert error.code == 2
    assert end.conn._engine.opener.buffered == 0


@pytest.mark.covers("V21", "V22", "V24", "V55", "B3")
@pytest.mark.parametrize("mode", ["ctr", "cbc"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_bad_length_that_is_encrypted_is_a_bad_tag(victim: str, mode: str, length: int) -> None:
    """CVE-2008-5161: whoever guesses at lengths learns nothing, neither by the answer nor by when it comes."""
    cipher, mac = MODES[mode]
    limits = Limits(packet=2**16)
    pair = logged_in(preferences=Preferences(kex=CURVE, cipher=(cipher,), mac=(mac,)), limits=limits)
    end, peer = sides(pair, victim)
    end.conn.receive_data(first_bytes(peer, length), 0.0)
    end.drain()
    assert end.lost is None
    end.conn.receive_data(bytes(2**16 + 100), 0.0)
    end.drain()
    error = loss(end.events)
    assert isinstance(error, MacError)
    assert error.code == 5


# ----------------------------------------------------------------------------------------------------------- V25 counts


def prompted(victim: str) -> Any:
    """A login in which the server has asked, and the client has not answered yet; in an empty one nothing is asked."""
    prompts = [ev.Prompt(text="Code: ", echo=False)]

    def ask(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)
        elif isinstance(question, ev.CredentialNeeded) and question.attempt == 0:
            conn.auth_keyboard_interactive(question)

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.InteractiveAuth) and victim == "server":
            conn.prompt(question, prompts)

    return Middle(server={"auth_methods": ("keyboard-interactive",)}, client_answer=ask, server_answer=answer).run()


@pytest.mark.covers("V25", "V26", "B19")
@pytest.mark.parametrize("count", [0x10000000, 0x3FFFFFFF, *EDGES[2:], 101])
def test_a_count_of_prompts_or_answers_that_are_not_there(victim: str, count: int) -> None:
    """CVE-2026-42189: an INFO_RESPONSE of nine bytes that declares a thousand million answers."""
    middle = prompted(victim)
    end, peer = sides(middle, victim)
    payload = b"\x3d" + uint32(count) if victim == "server" else b"\x3c" + string(b"") * 3 + uint32(count)
    inject(peer, payload)
    tracemalloc.start()
    try:
        middle.run()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert loss(end.events).code == 2


@pytest.mark.covers("V25", "R78")
@pytest.mark.parametrize("count", [0, 2, 3, 100])
def test_more_or_fewer_answers_than_prompts_fail(count: int) -> None:
    middle = prompted("server")
    server = middle.server
    inject(middle.client, m.UserauthInfoResponse(("x",) * count))
    server.conn.receive_data(middle.client.drain(), 0.0)
    assert server.drain(), "it has an answer"
    assert server.lost is None
    assert not server.of(ev.PromptsAnswered)
    assert server.conn._engine.auth._failures == 1


@pytest.mark.covers("V25", "B21", "R131")
@pytest.mark.parametrize("count", [1, 1025, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_count_of_extensions_that_are_not_there(victim: str, count: int) -> None:
    """CVE-2026-55199."""
    pair = Pair.make(client_answer=None)
    end, peer = sides(pair, victim)
    peer.conn._engine._our_extensions = tuple  # so that ours below is the first packet under the keys
    peer.conn._engine.new_keys_sent = lambda: inject(peer, b"\x07" + uint32(count) + string(b"n") + string(b""))
    pair.client.answer = lambda conn, question: (
        conn.accept_host_key(question) if isinstance(question, ev.HostKeyOffered) else None
    )
    pair.run()
    if count == 1:
        assert end.of(ev.ExtInfoReceived)
    else:
        assert loss(end.events).code == 2
        assert "extensions" in str(loss(end.events))


# ----------------------------------------------------------------------------- V26, V27 what a blob in a login may hold

BLOBS = {
    "empty": b"",
    "length only": uint32(2**32 - 1),
    "name too long": uint32(2**31) + b"ssh-ed25519",
    "no key": text("ssh-ed25519"),
    "key too long": text("ssh-ed25519") + uint32(2**32 - 1) + bytes(32),
    "key of 31": text("ssh-ed25519") + string(bytes(range(31))),
    "trailing": HOST_KEY.public_key.blob + b"!",
    "NUL name": string(b"\0") + string(bytes(32)),
    "nested zeros": string(b"ssh-rsa") + string(b"\0" * 9) + string(b"\0" * 300),
    "17 KiB": text("ssh-ed25519") + string(bytes(17_000)),
}


@pytest.mark.covers("V26", "V27", "V66", "R71", "B22")
@pytest.mark.parametrize("blob", BLOBS.values(), ids=BLOBS)
@pytest.mark.parametrize("signed", [False, True])
def test_a_blob_that_is_no_key_fails_the_login_and_no_more(blob: bytes, signed: bool) -> None:
    pair = Middle(
        client_answer=lambda conn, question: (
            conn.accept_host_key(question)
            if isinstance(question, ev.HostKeyOffered)
            else conn.auth_none(question)
            if question.attempt == 0
            else None
        )
    ).run()
    payload = bytes((signed,)) + text("ssh-ed25519") + string(blob) + (string(b"") if signed else b"")
    inject(pair.client, m.UserauthRequest("alice", "ssh-connection", "publickey", payload))
    before = pair.server.conn.output_size
    pair.server.conn.receive_data(pair.client.drain(), 0.0)
    answer = pair.server.drain()
    assert pair.server.lost is None
    assert before == 0
    assert answer
    assert not pair.server.of(ev.KeyProbe)
    assert not pair.server.of(ev.KeyAuth)


# ------------------------------------------------------------------------------------ V28 packets that may hold nothing


@pytest.mark.covers("V28")
@pytest.mark.parametrize("size", [0, 1, 8, 63])
def test_a_channel_whose_packets_may_hold_nothing(victim: str, size: int) -> None:
    """CVE-2026-59843: no open, no data, no loop; as the one who asks and as the one who grants."""
    pair = logged_in()
    end, peer = sides(pair, victim)
    if victim == "server":
        inject(peer, m.ChannelOpen("session", 5, 1 << 20, size))
        pair.server.conn.receive_data(pair.client.drain(), 0.0)
        pair.server.drain()
        assert not end.of(ev.ChannelOpenRequested)
        assert end.conn.channels == ()
        assert end.lost is None
    else:
        end.conn.open_channel(Session())
        end.drain()
        inject(peer, m.ChannelOpenConfirmation(0, 5, 1 << 20, size))
        end.conn.receive_data(peer.drain(), 0.0)
        end.drain()
        assert isinstance(loss(end.events), LimitExceeded)


# ---------------------------------------------------------------------------------------------------- V29 - V31 windows


@pytest.mark.covers("V29", "R89")
def test_a_write_of_more_than_a_window_can_be() -> None:
    """CVE-2026-39834: more than 2^32 bytes at once. What is taken is what there is room for, and each call ends."""
    pair = logged_in()
    number = pair.client.conn.open_channel(Session())
    pair.client.drain()
    inject(pair.server, m.ChannelOpenConfirmation(number, 5, 2**32 - 1, 2**31))
    pair.client.conn.receive_data(pair.server.drain(), 0.0)
    pair.client.drain()
    with mmap.mmap(-1, 2**32 + 1) as nothing, memoryview(nothing) as view:
        taken = pair.client.conn.send(number, view)
    assert 0 < taken <= Limits().output_high + Limits().packet
    assert pair.client.conn.output_size < taken + 100_000


@pytest.mark.covers("V29", "R88", "B27")
@pytest.mark.parametrize(
    ("window", "adjusts", "ends"),
    [
        (2**32 - 1, [0], False),
        (2**32 - 1, [1], True),
        (0, [2**32 - 1], False),
        (0, [2**31, 2**31 - 1], False),
        (0, [2**31, 2**31], True),
        (1, [2**32 - 1], True),
        (0, [0] * 1024, False),
        (0, [0] * 1025, True),
        (0, [1] * 5000, False),
    ],
)
def test_window_arithmetic(victim: str, window: int, adjusts: list[int], ends: bool) -> None:
    pair = logged_in()
    end, peer = sides(pair, victim)
    number = end.conn.open_channel(UnknownOpen("x@example.org"))
    end.drain()
    inject(peer, m.ChannelOpenConfirmation(number, 5, window, 1000))
    for count in adjusts:
        inject(peer, m.ChannelWindowAdjust(number, count))
    end.conn.receive_data(peer.drain(), 0.0)
    end.drain()
    if ends:
        assert loss(end.events).code == 2
    else:
        assert end.lost is None
        assert end.conn._engine.mux._channels[number].send_window == window + sum(adjusts)


@pytest.mark.covers("V30", "R91", "R92")
@pytest.mark.parametrize("sizes", [(1001,), (501, 500), (1000, 1), (600,)], ids=str)
@pytest.mark.parametrize("kind", ["data", "extended"])
def test_data_beyond_window_or_packet(victim: str, sizes: tuple[int, ...], kind: str) -> None:
    """Nobody gives credit; 600 is past the packet, 1001 past both, the others past the window."""
    pair = logged_in()
    pair.client.answer = server_answers
    end, peer = sides(pair, victim)
    end.auto_credit = False
    number = end.conn.open_channel(
        UnknownOpen("x@example.org"), window=1000, max_packet=599 if sizes == (600,) else 1000
    )
    pair.run()
    for size in sizes:
        data = bytes(size)
        inject(peer, m.ChannelData(number, data) if kind == "data" else m.ChannelExtendedData(number, 1, data))
    end.conn.receive_data(peer.drain(), 0.0)
    end.drain()
    assert loss(end.events).code == 2
    assert "window" in str(loss(end.events)) or "in one packet" in str(loss(end.events))
    assert sum(len(event.data) for event in end.of(ev.DataReceived)) == sum(sizes[:-1])


@pytest.mark.covers("V31", "R92")
@pytest.mark.parametrize(
    ("victim", "kind"),
    [*[(role, kind) for role in ("client", "server") for kind in (0, 2, 2**32 - 1)], ("server", 1)],
)
def test_extended_data_that_nobody_reads_keeps_no_credit(victim: str, kind: int) -> None:
    """CVE-2026-54886: unknown types go nowhere, nor does a client's standard error; and room for data comes back."""
    pair, number = session(window=4000)
    end, peer = sides(pair, victim)
    for _ in range(100):
        channel = peer.conn._engine.mux._channels[number]
        size = min(channel.send_window, 1000)
        assert size
        channel.send_window -= size
        inject(peer, m.ChannelExtendedData(number, kind, bytes(size)))
        pair.run()
    assert not end.of(ev.DataReceived)
    assert peer.conn.sendable(number) > 1000


@pytest.mark.covers("V31", "B27")
@pytest.mark.parametrize("kind", ["data", "extended"])
def test_data_of_no_bytes_is_counted(victim: str, kind: str) -> None:
    pair, number = session(limits=Limits(empty_adjusts=100))
    end, peer = sides(pair, victim)
    nothing = m.ChannelData(number, b"") if kind == "data" else m.ChannelExtendedData(number, 7, b"")
    for _ in range(100):
        inject(peer, nothing)
    pair.run()
    assert end.lost is None
    assert not end.of(ev.DataReceived)
    inject(peer, nothing)
    pair.run()
    assert isinstance(loss(end.events), LimitExceeded)


# ----------------------------------------------------------------------------------------------- V33 requests cut short

WHOLE = {
    "exit-status": ExitStatus(3).encode(),
    "exit-signal": text("TERM") + b"\0" + text("words"),  # the language may be missing
    "signal": text("TERM"),
    "pty-req": text("xterm") + uint32(80) * 4 + string(b"\x01\0\0\0\x03\0"),
    "env": text("LANG") + string(b"C"),
    "exec": string(b"true"),
    "window-change": uint32(80) * 4,
    "x11-req": b"\0" + text("MIT-MAGIC-COOKIE-1") + text("00" * 16) + uint32(0),
}


@pytest.mark.covers("V33", "R97", "R158")
@pytest.mark.parametrize("name", WHOLE)
def test_a_request_cut_at_any_byte_fails_by_itself(victim: str, name: str) -> None:
    """CVE-2019-3857 and others: no reply is wanted, so each cut is passed over, and nothing else happens."""
    pair, number = session()
    end, peer = sides(pair, victim)
    payload = WHOLE[name]
    told = len(end.events)
    for length in range(len(payload)):
        inject(peer, m.ChannelRequest(number, name, False, payload[:length]))
    pair.run()
    assert end.lost is None
    cut = end.events[told:]
    assert [event for event in cut if not isinstance(event, ev.ChannelRequested)] == []
    if name != "pty-req":  # a TTY_OP_END may be missing
        assert not cut


@pytest.mark.covers("V33", "B30")
def test_the_same_notice_over_and_over() -> None:
    """A thousand exit statuses are a thousand small events, and nothing stays."""
    pair, number = session()
    for count in range(1000):
        inject(pair.server, m.ChannelRequest(number, "exit-status", False, uint32(count)))
    pair.run()
    assert pair.client.lost is None
    assert [event.notice.status for event in pair.client.of(ev.ChannelNotified)] == list(range(1000))
    assert not pair.client.conn.questions


# ---------------------------------------------------------------------------------------------------- V34 decompression


def bomb() -> bytes:
    raw = zlib.compressobj()
    return raw.compress(bytes(100_000_000)) + raw.flush(zlib.Z_PARTIAL_FLUSH)


ENDED = zlib.compress(m.Ignore(b"x").encode())
_empty = zlib.compressobj()
FLUSHES = _empty.flush(zlib.Z_SYNC_FLUSH) * 100
_DICTIONARY = zlib.compressobj(zdict=b"SSH")
PRESET = _DICTIONARY.compress(b"\x02SSH") + _DICTIONARY.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.covers("V34", "B32")
@pytest.mark.parametrize(
    "compressed",
    [bomb, ENDED, FLUSHES, PRESET, b"\0" * 100, b""],
    ids=["bomb", "stream-end", "flushes", "preset-dictionary", "noise", "nothing"],
)
def test_compressed_payloads_that_harm(victim: str, compressed: bytes | Callable[[], bytes]) -> None:
    """CVE-2026-23943, CVE-2026-46702: 100 MB in a packet, and other ways to have work done for nothing."""
    pair = logged_in(preferences=Preferences(kex=CURVE, compression=("zlib@openssh.com",)))
    end, peer = sides(pair, victim)
    outbox = peer.conn._engine.outbox
    outbox.sealer.set_compression("none", authenticated=True)  # what it seals now is taken as compressed there
    if callable(compressed):
        compressed = compressed()  # what takes long is not made before it is needed
    if not compressed:
        compressed = b"\x78"  # the shortest packet has one byte
    inject(peer, compressed)
    data = peer.drain()
    tracemalloc.start()
    try:
        end.conn.receive_data(data, 0.0)
        end.drain()
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    error = loss(end.events)
    assert isinstance(error, CompressionError)
    assert error.code == 6


# ------------------------------------------------------------------------------- V36, V37 identification and name-lists


@pytest.mark.covers("V36", "R16")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"SSH-2.0\r\n", None),
        (b"ssh-2.0-x\r\n", None),
        (b"SSH-2.0-x\0y\r\n", None),
        (b"SSH-2.01-x\r\n", 8),
        (b"SSH-1.5-x\r\n", 8),
        (b"SSH-2.0-" + b"x" * 246 + b"\r\n", None),
        (b"\0", None),
    ],
    ids=["no dash", "small letters", "NUL", "2.01", "1.5", "256 bytes", "NUL alone"],
)
def test_odd_identifications(victim: str, line: bytes, code: int | None) -> None:
    """CVE-2026-48108, CVE-2022-21716. A line that is none is a greeting to a client, and so it waits for more."""
    conn = alone(victim)
    events = push(conn, line + b"x" * 300)
    if victim == "client" and line[:8] != b"SSH-2.0-" and line[:4] != b"SSH-" and b"\0" not in line:
        assert not [event for event in events if isinstance(event, ev.ConnectionLost)]
        return
    error = loss(events)
    assert error.code in {2, 8}
    if code is not None:
        assert goodbye(conn.data_to_send()) == code


@pytest.mark.covers("V37", "B8")
@pytest.mark.parametrize(
    "names",
    [",", "a,", ",a", "a,,b", "," * 16_000, "a\0b", "a,b" * 5461 + "x"],
    ids=["comma", "trailing", "leading", "double", "commas", "NUL", "16 KiB and more"],
)
def test_odd_name_lists(victim: str, names: str) -> None:
    conn = alone(victim)
    whole = kexinit(kex_algorithms=("curve25519-sha256",))
    mark = string(b"curve25519-sha256")
    assert mark in whole
    error = loss(push(conn, IDENT + frame(whole.replace(mark, string(names.encode())))))
    assert error.code in {2, 3}


@pytest.mark.covers("V37", "R5", "R36")
def test_empty_and_unknown_names_are_no_fault(victim: str) -> None:
    conn = alone(victim)
    offer = kexinit(kex_algorithms=("a", "x@y", "curve25519-sha256"), languages_client_to_server=("tlh", "x" * 64))
    events = push(conn, IDENT + frame(offer))
    assert not [event for event in events if isinstance(event, ev.ConnectionLost)]
    assert conn.phase is Phase.KEX
