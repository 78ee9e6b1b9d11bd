"""The gauntlet, A: flaws of state and order. Messages too early, too late, from the wrong side, or not at all.

What one packet at one moment may do is in tests/unit/wire and tests/security/test_bad_input.py; here whole attacks run,
most of them by somebody in the middle (:mod:`tests.support.middle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.channels.requests import Exec, Session
from sshproto.config import Limits, Preferences, Trace, system_entropy
from sshproto.errors import (
    HostKeyRejected,
    HostKeySignatureInvalid,
    LimitExceeded,
    MacError,
    ProtocolViolation,
    WrongPhase,
)
from sshproto.transport import keyexchange, negotiation
from sshproto.transport.link import Phase
from sshproto.transport.outbox import Outbox
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.middle import Middle, Packet, Rule, alone, clear
from tests.support.pair import HOST_KEY, USER_KEY, End, Pair
from tests.support.rogue import IDENT, frame, goodbye, inject, kexinit, loss, push
from tests.support.seeds import key

CURVE = ("curve25519-sha256",)
CHACHA = {"cipher": ("chacha20-poly1305@openssh.com",)}
GCM = {"cipher": ("aes128-gcm@openssh.com",)}
CTR_ETM = {"cipher": ("aes128-ctr",), "mac": ("hmac-sha2-256-etm@openssh.com",)}
CBC_ETM = {"cipher": ("aes128-cbc",), "mac": ("hmac-sha2-256-etm@openssh.com",)}
MODES = {"chacha20-poly1305": CHACHA, "gcm": GCM, "ctr-etm": CTR_ETM, "cbc-etm": CBC_ETM}

UNOBTRUSIVE = {
    "ignore": m.Ignore(b"").encode(),
    "debug": m.Debug(False, "").encode(),
    "unimplemented": m.Unimplemented(0).encode(),
    "unknown": b"\x1d",
}
"""What can be slipped in before the keys without anybody noticing, unless the exchange is strict."""

LATER = (ev.CredentialNeeded, ev.AuthSucceeded, ev.Authenticated, ev.AuthQuestion, ev.ChannelOpenRequested)
"""Events that there must not be when an attack fails before login."""


@pytest.fixture(params=["client", "server"])
def victim(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def preferences(*, strict: bool, allow: bool = False, **algorithms: Any) -> dict[str, Any]:
    return {"preferences": Preferences(kex=CURVE, strict_kex=strict, allow_terrapin=allow, **algorithms)}


def attacked(victim: str, rule: Rule, options: dict[str, Any]) -> Middle:
    """A run in which what ``victim`` receives goes by ``rule``."""
    return Middle(client=options, server=options, **{f"to_{victim}": rule}).run()


def lost_at(middle: Middle, role: str) -> Any:
    return loss(middle.end(role).events)


def reached(end: End) -> set[str]:
    """How far an end has come, in the events that count."""
    return {type(event).__name__ for event in end.events if isinstance(event, LATER)}


def before(number: int, *payloads: bytes) -> Rule:
    """Slip ``payloads`` in before the first packet ``number`` in clear."""

    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear and packet.number == number:
            yield from map(clear, payloads)
        yield packet.data

    return rule


def terrapin(payload: bytes, count: int = 1) -> Rule:
    """Slip ``count`` packets in before NEWKEYS, and lose as many after it."""
    slip = before(21, *[payload] * count)

    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear or packet.index >= count:
            yield from slip(packet)
        elif packet.index == 0:
            assert packet.number == 7, "what is to be lost is EXT_INFO"

    return rule


# --------------------------------------------------------------------------------------------------------- V01 Terrapin


@pytest.mark.covers("V01")
@pytest.mark.parametrize("payload", UNOBTRUSIVE.values(), ids=UNOBTRUSIVE)
def test_terrapin_is_the_attack_it_is_said_to_be(victim: str, payload: bytes) -> None:
    """Where the configuration asks for it, it goes through: EXT_INFO is gone and nobody has noticed.

    So the tests below fail for the reason that they give.
    """
    middle = attacked(victim, terrapin(payload), preferences(strict=False, allow=True, **CHACHA))
    assert middle.client.conn.phase is middle.server.conn.phase is Phase.OPEN
    assert not middle.end(victim).of(ev.ExtInfoReceived)


@pytest.mark.covers("V01", "V03", "R145", "P15")
@pytest.mark.parametrize("payload", UNOBTRUSIVE.values(), ids=UNOBTRUSIVE)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_terrapin_against_strict_key_exchange(victim: str, mode: dict[str, Any], payload: bytes) -> None:
    middle = attacked(victim, terrapin(payload), preferences(strict=True, allow=True, **mode))
    error = lost_at(middle, victim)
    assert isinstance(error, ProtocolViolation)
    assert error.code == 2
    assert not reached(middle.client)
    assert not reached(middle.server)


@pytest.mark.covers("V01")
@pytest.mark.parametrize("mode", [CHACHA, CBC_ETM], ids=["chacha20-poly1305", "cbc-etm"])
@pytest.mark.parametrize("lax", ["client", "server", "both"])
def test_modes_open_to_terrapin_are_refused_without_strict_key_exchange(lax: str, mode: dict[str, Any]) -> None:
    """The default, whichever side can't do it; no key is made."""
    middle = Middle(
        client=preferences(strict=lax == "server", **mode), server=preferences(strict=lax == "client", **mode)
    ).run()
    for role in ("client", "server"):
        if not middle.end(role).of(ev.ConnectionLost):
            continue
        assert lost_at(middle, role).code == 3
    assert "CVE-2023-48795" in str(lost_at(middle, "client"))
    assert not middle.client.of(ev.HostKeyOffered)


@pytest.mark.covers("V01")
@pytest.mark.parametrize("payload", UNOBTRUSIVE.values(), ids=UNOBTRUSIVE)
@pytest.mark.parametrize("mode", ["ctr-etm", "gcm"])
def test_terrapin_against_modes_that_are_safe_without_strict(victim: str, mode: str, payload: bytes) -> None:
    """CTR: the sequence numbers agree, the key stream does not, and what comes is noise. GCM counts by itself."""
    middle = attacked(victim, terrapin(payload), preferences(strict=False, **MODES[mode]))
    error = lost_at(middle, victim)
    assert isinstance(error, MacError if mode == "gcm" else ProtocolViolation)
    assert not middle.end(victim).of(ev.ExtInfoReceived)
    assert not {"AuthSucceeded", "Authenticated"} & (reached(middle.client) | reached(middle.server))


@pytest.mark.covers("V01")
@pytest.mark.parametrize("seed", range(8))
def test_terrapin_against_cbc_that_was_allowed(victim: str, seed: int) -> None:
    """The first block after the cut is noise. Whatever it is, an end or a packet without meaning: nothing raises."""
    options = {**preferences(strict=False, allow=True, **CBC_ETM), "comments": f"seed {seed}"}
    middle = attacked(victim, terrapin(UNOBTRUSIVE["ignore"]), options)
    assert not middle.end(victim).of(ev.ExtInfoReceived)
    assert len(middle.end(victim).of(ev.ConnectionLost)) <= 1


@pytest.mark.covers("V01", "V54", "R26")
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("strict", [True, False])
def test_a_packet_lost_under_keys_is_noticed(victim: str, mode: dict[str, Any], strict: bool) -> None:
    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear or packet.index:
            yield packet.data

    error = lost_at(attacked(victim, rule, preferences(strict=strict, allow=True, **mode)), victim)
    if mode is CHACHA:  # whose length is encrypted by itself, under the same count: it is noise first
        assert error.code == 2
        assert "packet_length" in str(error)
    else:
        assert isinstance(error, MacError)
        assert error.code == 5


@pytest.mark.covers("V01", "V54")
def test_two_packets_under_keys_change_places(victim: str) -> None:
    kept: list[bytes] = []

    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear or packet.index > 1:
            yield packet.data
        elif not kept:
            kept.append(packet.data)
        else:
            yield packet.data
            yield from kept

    assert isinstance(lost_at(attacked(victim, rule, preferences(strict=True)), victim), MacError)


@pytest.mark.covers("V01", "V54")
def test_a_packet_under_keys_comes_twice(victim: str) -> None:
    def rule(packet: Packet) -> Iterable[bytes]:
        yield packet.data
        if not packet.clear:
            yield packet.data

    assert isinstance(lost_at(attacked(victim, rule, preferences(strict=True)), victim), MacError)


# --------------------------------------------------------------------------------------- V02 sequence numbers run round


@pytest.mark.covers("V01", "V02")
@pytest.mark.parametrize("early", ["before KEXINIT", "after KEXINIT"])
def test_sequence_numbers_do_not_run_round_before_the_keys(victim: str, early: str) -> None:
    """Four thousand million packets, less one, have gone by; whoever allows so many must not be led round."""
    conn = alone(victim, limits=Limits(packets_before_auth=2**40), preferences=Preferences(strict_kex=False))
    push(conn, IDENT + (frame(kexinit()) if early == "after KEXINIT" else b""))
    conn._engine.opener.sequence_number = 2**32 - 2
    ignore = frame(m.Ignore(b"").encode())
    assert not [event for event in push(conn, ignore) if isinstance(event, ev.ConnectionLost)]
    error = loss(push(conn, ignore))
    assert isinstance(error, ProtocolViolation)
    assert "sequence" in str(error)
    assert error.code == 2


# ----------------------------------------------------------------------------------- V03 strict key exchange, got wrong


@pytest.mark.covers("V01", "V03", "R145", "P14", "P15")
@pytest.mark.parametrize("payload", UNOBTRUSIVE.values(), ids=UNOBTRUSIVE)
@pytest.mark.parametrize("moment", ["first", "before the method", "before NEWKEYS"])
def test_t1_t2_strict_from_the_first_packet_to_the_peers_new_keys(victim: str, moment: str, payload: bytes) -> None:
    """Not from the end of the exchange on (T1), and not only until our own NEWKEYS (T2), which has left by then."""
    number = {"first": 20, "before the method": 30 if victim == "server" else 31, "before NEWKEYS": 21}[moment]
    middle = attacked(victim, before(number, payload), preferences(strict=True, **GCM))
    assert lost_at(middle, victim).code == 2
    assert not reached(middle.client)
    assert not reached(middle.server)


METHODS = {
    "curve25519-sha256": {"server": (20, 30, 21), "client": (20, 31, 21)},
    "diffie-hellman-group14-sha256": {"server": (20, 30, 21), "client": (20, 31, 21)},
    "diffie-hellman-group-exchange-sha256": {"server": (20, 34, 32, 21), "client": (20, 31, 33, 21)},
}


@pytest.mark.covers("V03", "V07", "R145")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("method", "victim", "number"),
    [(name, role, number) for name, roles in METHODS.items() for role in roles for number in roles[role][:-1]],
)
def test_t3_a_message_of_the_exchange_comes_twice(method: str, victim: str, number: int, strict: bool) -> None:
    def rule(packet: Packet) -> Iterable[bytes]:
        yield packet.data
        if packet.clear and packet.number == number:
            yield packet.data

    options = {"preferences": Preferences(kex=(method,), strict_kex=strict, **GCM)}
    middle = attacked(victim, rule, options)
    assert lost_at(middle, victim).code == 2
    assert not reached(middle.client)
    assert not reached(middle.server)


@pytest.mark.covers("V03", "R49", "P6")
@pytest.mark.parametrize("name", ["ignore", "debug", "unimplemented"])
def test_t4_the_rules_of_the_first_exchange_do_not_hold_in_later_ones(victim: str, name: str) -> None:
    payload = UNOBTRUSIVE[name]
    pair = Pair.make().login()
    end, peer = (pair.server, pair.client) if victim == "client" else (pair.client, pair.server)
    inject(end, payload)  # so KEXINIT is not the first packet
    end.conn.rekey()
    inject(end, payload)
    pair.run()
    assert peer.lost is None
    assert [event.first for event in peer.of(ev.KeysExchanged)] == [True, False]


def traced(**options: Any) -> tuple[Middle, dict[str, list[Trace]]]:
    """A run and what each end has sent and received."""
    seen: dict[str, list[Trace]] = {"client": [], "server": []}
    middle = Middle(
        client={**options, "trace": seen["client"].append}, server={**options, "trace": seen["server"].append}
    ).run()
    return middle, seen


@pytest.mark.covers("V03", "R145", "P16")
@pytest.mark.parametrize("strict", [True, False])
def test_t5_both_ways_restart_or_neither_whatever_methods_were_asked_for(strict: bool) -> None:
    """Methods of the application's own do not push the marker out. And so again after a rekey."""
    middle, seen = traced(
        preferences=Preferences(kex=("ecdh-sha2-nistp256",), strict_kex=strict, **CHACHA, allow_terrapin=True)
    )
    middle.client.conn.rekey()
    middle.run()
    assert middle.client.conn.negotiated.strict_kex is strict
    for traces in seen.values():
        for sent in (True, False):
            numbers = [(trace.number, trace.sequence_number) for trace in traces if trace.sent is sent]
            after = [numbers[index + 1][1] for index in range(len(numbers) - 1) if numbers[index][0] == 21]
            assert after[:1] == [0 if strict else 3]
            assert all((count == 0) is strict for count in after)
    assert [trace.number for trace in seen["client"]].count(21) == 4


@pytest.mark.covers("V03", "R33")
def test_t6_we_send_nothing_that_a_strict_exchange_forbids(victim: str) -> None:
    """Nor can the application be made to; what both ends say in whole sessions is in the unit tests of the link."""
    conn = alone(victim)
    push(conn, IDENT)
    conn.data_to_send()
    for command in (conn.ignore, conn.ping, lambda: conn.debug("x")):
        with pytest.raises(WrongPhase):
            command()
    assert not conn.data_to_send()


@pytest.mark.covers("V03", "P15")
@pytest.mark.parametrize("number", [0, 5, 6, 7, 8, 19, 22, 29, 33, 49, 50, 60, 79, 80, 90, 128, 192, 255])
@pytest.mark.parametrize("moment", ["before the method", "before NEWKEYS"])
def test_t7_no_message_but_the_next_of_the_exchange(victim: str, moment: str, number: int) -> None:
    at = {"before the method": 30 if victim == "server" else 31, "before NEWKEYS": 21}[moment]
    middle = attacked(victim, before(at, bytes((number,)) + bytes(12)), preferences(strict=True, **GCM))
    assert lost_at(middle, victim).code == 2
    assert not reached(middle.client)
    assert not reached(middle.server)


MARKERS = ("kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com", "kex-strict-c", "ext-info-c", "ext-info-s")


@pytest.mark.covers("V03", "R127")
@pytest.mark.parametrize("marker", MARKERS)
def test_t8_a_marker_is_no_method(victim: str, marker: str) -> None:
    conn = alone(victim)
    error = loss(push(conn, IDENT + frame(kexinit(kex_algorithms=(marker,)))))
    assert error.code == 3
    assert goodbye(conn.data_to_send()) == 3


@pytest.mark.covers("V03")
def test_t8_the_other_sides_marker_agrees_on_nothing(victim: str) -> None:
    """A peer that says what only we may say has not said that it is strict; and so we are not."""
    wrong = {"client": MARKERS[0], "server": MARKERS[1]}[victim]
    conn = alone(victim)
    events = push(conn, IDENT + clear(m.Ignore(b"")) + frame(kexinit(kex_algorithms=(*CURVE, wrong))))
    assert not [event for event in events if isinstance(event, ev.ConnectionLost)]
    assert not conn._engine.kex.strict


# ------------------------------------------------------------ V04 rogue extension negotiation, rogue session (asyncssh)

ROGUE = {
    "extension": (m.ExtInfo((("server-sig-algs", b"ssh-rsa"),)),),
    "service": (m.ServiceRequest("ssh-userauth"),),
    "session": (m.UserauthRequest("attacker", "ssh-connection", "password", b"\0\0\0\0\x06secret"),),
    "service and session": (
        m.ServiceRequest("ssh-userauth"),
        m.UserauthRequest("attacker", "ssh-connection", "none"),
    ),
    "accepted": (m.ServiceAccept("ssh-userauth"), m.UserauthSuccess()),
}


@pytest.mark.covers("V04", "P3", "P4", "P18")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("moment", ["first", "before the method", "before NEWKEYS"])
@pytest.mark.parametrize("rogue", ROGUE.values(), ids=ROGUE)
def test_rogue_extensions_and_sessions(victim: str, rogue: Any, moment: str, strict: bool) -> None:
    """CVE-2023-46445, CVE-2023-46446: what somebody in the middle slips in before the keys counts for nothing.

    With as many packets lost after the keys, so that all sequence numbers agree, strict or not.
    """
    number = {"first": 20, "before the method": 30 if victim == "server" else 31, "before NEWKEYS": 21}[moment]
    slip = before(number, *[message.encode() for message in rogue])

    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear or packet.index >= len(rogue):
            yield from slip(packet)

    middle = attacked(victim, rule, preferences(strict=strict, allow=True, **CHACHA))
    assert lost_at(middle, victim).code == 2
    assert not reached(middle.client)
    assert not reached(middle.server)
    assert not middle.end(victim).of(ev.ExtInfoReceived)


# --------------------------------------------------------------------------------------- V05, V06 too early, wrong side


def stalled(phase: str, victim: str, *payloads: bytes) -> Pair:
    """``victim`` gets ``payloads`` in the phase T (keys, but no service) or A (login), before all else."""

    def only_the_host_key(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)

    pair = Pair.make(client_answer=only_the_host_key)
    sender = pair.server if victim == "client" else pair.client
    if phase == "T":

        def instead() -> None:
            for payload in payloads:
                inject(sender, payload)

        sender.conn._engine._transport_ready = instead
        pair.run()
    else:
        pair.run()
        for payload in payloads:
            inject(sender, payload)
        pair.run()
    return pair


EARLY = {
    "open": m.ChannelOpen("session", 0, 1 << 20, 1 << 15),
    "direct-tcpip": m.ChannelOpen("direct-tcpip", 0, 1, 99, b"\0\0\0\1h\0\0\0\1\0\0\0\1h\0\0\0\1"),
    "exec": m.ChannelRequest(0, "exec", True, b"\0\0\0\2id"),
    "data": m.ChannelData(0, b"x"),
    "confirmation": m.ChannelOpenConfirmation(0, 0, 1, 99),
    "close": m.ChannelClose(0),
    "global": m.GlobalRequest("tcpip-forward", True, b"\0\0\0\0\0\0\0\x50"),
    "global success": m.RequestSuccess(),
    "ping": m.Ping(b""),
    "local": b"\xff",
}


@pytest.mark.covers("V05", "R66", "P4")
@pytest.mark.parametrize("message", EARLY.values(), ids=EARLY)
@pytest.mark.parametrize("phase", ["T", "A"])
def test_connection_messages_before_login(victim: str, phase: str, message: Any) -> None:
    """CVE-2025-32433: no reply is read, one packet is enough where it works."""
    payload = message if isinstance(message, bytes) else message.encode()
    pair = stalled(phase, victim, payload)
    end = pair.client if victim == "client" else pair.server
    assert loss(end.events).code == 2
    assert not end.of(ev.ChannelOpenRequested)
    assert not end.of(ev.GlobalRequested)
    assert end.conn.channels == ()


WRONG_SIDE = {
    "server": (
        m.ServiceAccept("ssh-userauth"),
        m.UserauthFailure((), True),
        m.UserauthSuccess(),
        m.UserauthBanner("hello"),
        b"\x3c" + bytes(8),
        m.KexEcdhReply(b"", b"", b""),
    ),
    "client": (
        m.ServiceRequest("ssh-userauth"),
        m.UserauthRequest("root", "ssh-connection", "none"),
        m.UserauthInfoResponse(()),
        m.KexEcdhInit(bytes(32)),
    ),
}


@pytest.mark.covers("V06")
@pytest.mark.parametrize("phase", ["T", "A"])
@pytest.mark.parametrize(
    ("role", "index"), [(role, n) for role, found in WRONG_SIDE.items() for n in range(len(found))]
)
def test_messages_from_the_wrong_side(role: str, index: int, phase: str) -> None:
    """CVE-2018-10933: a client that tells a server of its success; and a server that logs in."""
    message = WRONG_SIDE[role][index]
    pair = stalled(phase, role, message if isinstance(message, bytes) else message.encode())
    end = pair.client if role == "client" else pair.server
    assert loss(end.events).code == 2
    assert not end.of(ev.AuthSucceeded)
    assert not end.of(ev.Authenticated)
    assert not end.of(ev.AuthQuestion)


@pytest.mark.covers("V06", "V75", "R99")
def test_a_session_is_not_opened_towards_a_client() -> None:
    seen: list[Trace] = []
    middle = Middle(client={"trace": seen.append}).run()
    inject(middle.server, m.ChannelOpen("session", 7, 1 << 20, 1 << 15))
    middle.run()
    assert not middle.client.of(ev.ChannelOpenRequested)
    (refusal,) = [trace.message for trace in seen if trace.sent and trace.number == 92]
    assert (refusal.recipient_channel, refusal.reason) == (7, 1)


# -------------------------------------------------------------------------------- V07, V08 a client led past its checks


def said(seen: list[Trace]) -> list[int]:
    return [trace.number for trace in seen if trace.sent]


@pytest.mark.covers("V07", "P3", "P18")
@pytest.mark.parametrize(
    "lead",
    [
        (m.ServiceAccept("ssh-userauth"),),
        (m.ServiceAccept("ssh-userauth"), m.UserauthFailure(("password",), False)),
        (m.UserauthSuccess(),),
        (m.UserauthFailure(("password",), False),),
        (m.NewKeys(),),
        (m.NewKeys(), m.ServiceAccept("ssh-userauth")),
        (m.KexEcdhReply(b"", b"", b""), m.NewKeys(), m.ServiceAccept("ssh-userauth")),
        (m.KexEcdhReply(HOST_KEY.public_key.blob, bytes(range(32)), HOST_KEY.sign(b"something else")), m.NewKeys()),
    ],
    ids=lambda lead: "-".join(str(message.number) for message in lead),
)
@pytest.mark.parametrize("kexinit_first", [True, False])
def test_a_client_is_not_led_past_key_exchange(lead: Any, kexinit_first: bool) -> None:
    """CVE-2025-14942. It says nothing of a login in the clear, whatever it is told."""
    seen: list[Trace] = []
    conn = alone("client", trace=seen.append)
    data = IDENT + (frame(kexinit()) if kexinit_first else b"") + b"".join(map(clear, lead))
    events = push(conn, data)
    assert loss(events).code in {2, 3}
    assert not [event for event in events if isinstance(event, (*LATER, ev.HostKeyOffered, ev.KeysExchanged))]
    assert not {5, 21, 50} & set(said(seen))


def changed_reply(change: Callable[[m.KexEcdhReply], m.KexEcdhReply]) -> Rule:
    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear and packet.number == 31:
            padding = packet.data[4]
            yield clear(change(m.KexEcdhReply.parse(packet.data[5:-padding])))
        else:
            yield packet.data

    return rule


MEDDLING: dict[str, Callable[[m.KexEcdhReply], m.KexEcdhReply]] = {
    "signature": lambda reply: attrs.evolve(reply, signature=reply.signature[:-1] + bytes((reply.signature[-1] ^ 1,))),
    "no signature": lambda reply: attrs.evolve(reply, signature=b""),
    "another's signature": lambda reply: attrs.evolve(reply, signature=key("mallory").sign(b"")),
    "share": lambda reply: attrs.evolve(reply, share=bytes((9,)) + bytes(31)),
    "host key": lambda reply: attrs.evolve(reply, host_key=key("mallory").public_key.blob),
}


@pytest.mark.covers("V08", "R11", "R41", "P18")
@pytest.mark.parametrize("meddle", MEDDLING.values(), ids=MEDDLING)
def test_nobody_is_asked_about_a_host_key_that_was_not_proved(meddle: Any) -> None:
    seen: list[Trace] = []
    middle = Middle(client={**preferences(strict=True, **GCM), "trace": seen.append}, to_client=changed_reply(meddle))
    middle.run()
    assert isinstance(lost_at(middle, "client"), HostKeySignatureInvalid)
    assert lost_at(middle, "client").code == 3
    assert not middle.client.of(ev.HostKeyOffered)
    assert not {5, 21, 50} & set(said(seen))


@pytest.mark.covers("V08", "R11", "P18")
def test_a_client_that_does_not_decide_about_the_host_key_goes_no_further() -> None:
    seen: list[Trace] = []
    middle = Middle(client={"trace": seen.append}, client_answer=None).run()
    (question,) = middle.client.conn.questions
    assert isinstance(question, ev.HostKeyOffered)
    assert not {5, 21, 50} & set(said(seen))
    middle.client.conn.refuse(question)
    middle.run()
    assert isinstance(lost_at(middle, "client"), HostKeyRejected)
    assert lost_at(middle, "client").code == 9
    assert not {5, 21, 50} & set(said(seen))


# ---------------------------------------------------------------------------------------- V09, V10 logins that are none


@pytest.mark.covers("V09")
@pytest.mark.parametrize("allow", [True, False])
def test_a_login_without_proof_is_called_so_and_can_be_refused(allow: bool) -> None:
    """CVE-2021-36368: a server that lets in whoever asks, so that its prompts look like those of the client's own."""

    def ask_for_none(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)
        else:
            conn.auth_none(question)

    def let_in(conn: Any, question: ev.Question) -> None:
        conn.accept_auth(question)

    middle = Middle(
        client={"allow_trivial_auth": allow},
        server={"ask_none": True},
        client_answer=ask_for_none,
        server_answer=let_in,
    ).run()
    if allow:
        assert [event.trivial for event in middle.client.of(ev.AuthSucceeded)] == [True]
    else:
        assert lost_at(middle, "client").code == 13
        assert not middle.client.of(ev.AuthSucceeded)


class Credulous:
    """Answers whatever a server asks, for ever."""

    def __init__(self) -> None:
        self.answered = 0

    def __call__(self, conn: Any, question: ev.Question) -> None:
        self.answered += 1
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)
        elif isinstance(question, ev.CredentialNeeded):
            if question.methods[:1] == ("keyboard-interactive",):
                conn.auth_keyboard_interactive(question)
            elif question.methods[:1] == ("publickey",):
                conn.auth_public_key(question, USER_KEY)
            else:
                conn.auth_password(question, "secret")
        elif isinstance(question, ev.PromptsReceived):
            conn.answer_prompts(question, [""] * len(question.prompts))
        elif isinstance(question, ev.PasswordExpired):
            conn.new_password(question, "secret", "other")


@pytest.mark.covers("V10", "B17")
@pytest.mark.parametrize(
    "answer",
    [
        m.UserauthFailure(("password",), True),
        m.UserauthFailure(("password",), False),
        m.UserauthFailure(("publickey",), True),
        m.UserauthPasswdChangereq("another one"),
        m.UserauthInfoRequest("", "", "", ()),
        m.UserauthInfoRequest("", "", "", (("again", False),)),
    ],
    ids=["partial", "failure", "partial-key", "change", "no-prompts", "prompts"],
)
def test_a_login_comes_to_an_end(answer: Any) -> None:
    """CVE-2026-59849: a server that is never content."""
    app = Credulous()
    pair = Pair.make(client_answer=app)
    server = pair.server.conn._engine

    def serve(engine: Any, payload: Any) -> None:
        asks = answer.context == "keyboard-interactive"
        if asks and payload[0] == 50 and b"keyboard-interactive" not in bytes(payload):
            server.send(m.UserauthFailure(("keyboard-interactive",), False))
        else:
            server.send(answer)

    look_up = server._look_up

    def look_up_ours() -> None:
        look_up()
        handlers = enumerate(server._handlers)
        server._handlers = [serve if handler and 50 <= number < 80 else handler for number, handler in handlers]

    server._look_up = look_up_ours
    pair.run()
    error = loss(pair.client.events)
    assert error.code == 14
    assert app.answered <= 70


# ---------------------------------------------------------------------------------------------------- V15 wrong guesses


def drawn(victim: str) -> tuple[Any, list[str]]:
    """A connection and what randomness it has drawn."""
    labels: list[str] = []

    def entropy(count: int, label: str) -> bytes:
        labels.append(label)
        return bytes(range(count % 256)) if count < 256 else bytes(count)

    return alone(victim, entropy=entropy, preferences=Preferences(kex=CURVE)), labels


def guessing(*methods: str) -> bytes:
    return frame(kexinit(kex_algorithms=methods, first_kex_packet_follows=True))


SHARE = bytes((9,)) + bytes(31)


@pytest.mark.covers("V15", "R28", "R32")
def test_the_packet_behind_a_right_guess_counts() -> None:
    conn, _ = drawn("server")
    push(conn, IDENT + guessing(*CURVE) + clear(m.KexEcdhInit(SHARE)))
    assert conn._engine.kex.session_id is not None


@pytest.mark.covers("V15", "R28")
def test_no_key_is_made_for_a_wrong_guess() -> None:
    """CVE-2025-8277: and so none is forgotten."""
    conn, labels = drawn("server")
    push(conn, IDENT + guessing("ecdh-sha2-nistp256", *CURVE) + clear(m.KexEcdhInit(bytes(65))))
    assert conn.error is None
    assert "kex" not in labels
    push(conn, clear(m.KexEcdhInit(SHARE)))
    assert conn._engine.kex.session_id is not None


@pytest.mark.covers("V15")
@pytest.mark.parametrize("following", [frame(kexinit()), clear(m.NewKeys()), clear(b"\x32" + bytes(12))])
def test_only_a_message_of_a_method_is_dropped_for_a_wrong_guess(victim: str, following: bytes) -> None:
    conn, _ = drawn(victim)
    assert loss(push(conn, IDENT + guessing("ecdh-sha2-nistp256", *CURVE) + following)).code == 2


@pytest.mark.covers("V15", "R28")
def test_wrong_guesses_in_rekey_after_rekey(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is dropped once, and leaves nothing: the server makes one key for each exchange."""
    offer, send_now = negotiation.offer, Outbox.send_now

    def guess(preferences: Preferences, role: Role, **more: Any) -> m.KexInit:
        found = offer(preferences, role, **more)
        if role is Role.SERVER:
            return found
        methods = ("ecdh-sha2-nistp521", *found.kex_algorithms)
        return attrs.evolve(found, kex_algorithms=methods, first_kex_packet_follows=True)

    def follow(self: Outbox, message: m.Message, *payload: bytes) -> None:
        send_now(self, message, *payload)
        if isinstance(message, m.KexInit) and message.first_kex_packet_follows:
            send_now(self, m.KexEcdhInit(bytes(133)))

    monkeypatch.setattr(negotiation, "offer", guess)
    monkeypatch.setattr(keyexchange, "_offer", keyexchange._offer.__wrapped__)  # it is neither remembered nor to be so
    monkeypatch.setattr(Outbox, "send_now", follow)
    labels: list[str] = []

    def entropy(count: int, label: str) -> bytes:
        labels.append(label)
        return system_entropy(count, label)

    middle = Middle(server={"preferences": Preferences(kex=CURVE), "entropy": entropy}).run()
    for _ in range(4):
        middle.client.conn.rekey()
        middle.run()
    assert middle.server.lost is None
    assert len(middle.server.of(ev.KeysExchanged)) == labels.count("kex") == 5


# ------------------------------------------------------------------------------------------------ V17 replies to nobody


@pytest.mark.covers("V17", "R84", "P17")
@pytest.mark.parametrize("kind", ["global", "channel"])
@pytest.mark.parametrize("granted", [True, False])
def test_a_reply_to_nobody_does_not_answer_the_next_request(victim: str, kind: str, granted: bool) -> None:
    """CVE-2026-39830."""
    pair = Pair.make().login()
    channel = pair.client.conn.open_channel(Session())
    pair.run()
    end, peer = (pair.client, pair.server) if victim == "client" else (pair.server, pair.client)
    stale: m.Message
    if kind == "global":
        stale = m.RequestSuccess() if granted else m.RequestFailure()
    else:
        stale = m.ChannelSuccess(channel) if granted else m.ChannelFailure(channel)
    for _ in range(64):
        inject(peer, stale)
    pair.run()
    assert end.lost is None
    before = len(end.events)
    if kind == "channel" and victim == "client":
        number = end.conn.request(channel, Exec(b"true"))
        pair.run()
        assert end.events[before:] == [ev.RequestSucceeded(channel, number)]
    inject(peer, stale)
    pair.run()
    error = loss(end.events)
    assert isinstance(error, LimitExceeded)
    assert error.limit == "unsolicited_replies"


@pytest.mark.covers("V16", "V17")
@pytest.mark.parametrize(
    "message", [m.ChannelOpenConfirmation(9, 9, 99, 99), m.ChannelOpenFailure(9, 1), m.ChannelSuccess(9)]
)
def test_a_reply_about_a_channel_that_never_was(victim: str, message: m.Message) -> None:
    pair = Pair.make().login()
    end, peer = (pair.client, pair.server) if victim == "client" else (pair.server, pair.client)
    inject(peer, message)
    pair.run()
    assert loss(end.events).code == 2


# ------------------------------------------------------------------------------------------------- V18 service requests


@pytest.mark.covers("V18", "R54")
@pytest.mark.parametrize("method", ["none", "password", "publickey", "", "hostbased"])
def test_no_login_before_its_service(method: str) -> None:
    pair = stalled("T", "server", m.UserauthRequest("root", "ssh-connection", method, b"\0\0\0\0\0").encode())
    assert loss(pair.server.events).code == 2
    assert not pair.server.of(ev.AuthQuestion)


@pytest.mark.covers("V18", "R45")
@pytest.mark.parametrize("service", ["ssh-connection", "", "ssh-userauth ", "SSH-USERAUTH", "x" * 2000])
@pytest.mark.parametrize("phase", ["T", "A"])
def test_there_is_one_service_before_login(service: str, phase: str) -> None:
    pair = stalled(phase, "server", m.ServiceRequest(service).encode())
    assert loss(pair.server.events).code == 7


@pytest.mark.covers("V18")
def test_a_service_request_after_login_ends_the_connection() -> None:
    pair = Pair.make().login()
    inject(pair.client, m.ServiceRequest("ssh-userauth"))
    pair.run()
    assert loss(pair.server.events).code == 2


@pytest.mark.covers("V18", "V61")
def test_asking_for_the_service_again_resets_no_count() -> None:
    failing = m.UserauthRequest("root", "ssh-connection", "hostbased")
    again = m.ServiceRequest("ssh-userauth")
    messages = [failing, failing, failing, again, failing, failing, failing, again, failing, failing]
    pair = stalled("A", "server", *[message.encode() for message in messages])
    assert loss(pair.server.events).code == 14


# ---------------------------------------------------------------------------------------------- V20 delayed compression


@pytest.mark.covers("V20", "V34", "R147")
def test_nothing_is_inflated_before_login(victim: str) -> None:
    """A compressed packet is just bytes then, and a bomb is none."""
    import zlib

    bomb = zlib.compress(bytes(20_000_000))
    options = preferences(strict=True, compression=("zlib@openssh.com",), **GCM)
    pair = Middle(client=options, server=options, client_answer=accept_only).run()
    peer = pair.end("server" if victim == "client" else "client")
    inject(peer, bomb[:30_000])
    pair.run()
    assert lost_at(pair, victim).code == 2


def accept_only(conn: Any, question: ev.Question) -> None:
    if isinstance(question, ev.HostKeyOffered):
        conn.accept_host_key(question)


@pytest.mark.covers("V20", "R147")
def test_nothing_is_taken_uncompressed_after_login(victim: str) -> None:
    options = preferences(strict=True, compression=("zlib@openssh.com",), **GCM)
    middle = Middle(client=options, server=options).run()
    assert middle.server.conn.phase is Phase.OPEN
    peer = middle.end("server" if victim == "client" else "client")
    peer.conn._engine.outbox.sealer.set_compression("none", authenticated=True)
    inject(peer, m.Ignore(b"not compressed"))
    middle.run()
    assert lost_at(middle, victim).code == 6
