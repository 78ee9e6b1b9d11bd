"""The observer: what is opened, what is stated, and that it never matters whose bytes came first."""

from __future__ import annotations

import itertools
import random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import algorithms
from sshproto import events as ev
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from sshproto.keys import FOREVER, Certificate, CertificateKind
from sshproto.keys.private import PrivateKey
from sshproto.replay.events import (
    Ended,
    Integrity,
    KexSeen,
    KeysMissing,
    Missing,
    Observed,
    OfferSeen,
    PacketOpened,
    PacketSealed,
    Problem,
    Reopened,
    RolesSeen,
    SecretFound,
    Side,
)
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.transport.suites import CIPHERS
from sshproto.wire.messages import (
    ChannelOpen,
    Debug,
    Ignore,
    KexEcdhInit,
    KexInit,
    NewKeys,
    Ping,
    UserauthRequest,
    UserauthSuccess,
)
from tests.replay.sessions import (
    Recording,
    Scribe,
    Wire,
    bytewise,
    data_of,
    drain,
    observe,
    packets,
    record,
    secrets,
    session,
    split,
    told,
    troubles,
)
from tests.support.pair import HOST_KEY, USER_KEY, client_answers

DIALLER, DIALLED = Side.DIALLER, Side.DIALLED
DATA = {(0, 0): b"how do you do? " * 40}
ANSWERS = {(0, 0): b"fine, thank you" * 30, (0, 1): b"warning" * 30}


@pytest.fixture(scope="module")
def plain() -> Recording:
    return session()


@pytest.fixture(scope="module")
def rekeyed() -> Recording:
    return session(rekeys="csb")


def check(recording: Recording, events: list[Observed]) -> None:
    """All of a :func:`session` was opened."""
    assert troubles(events) == []
    going_on = data_of(events, DIALLER)[0, 0].count(b"going on, ")
    assert data_of(events, DIALLER) == {(0, 0): DATA[0, 0] + b"going on, " * going_on}
    assert data_of(events, DIALLED) == ANSWERS
    assert not told(events, PacketSealed)
    assert not told(events, KeysMissing)
    kinds = [
        type(event) for event in told(events, ev.Event) if isinstance(event, (ev.AuthSucceeded, ev.ConnectionLost))
    ]
    assert kinds == [ev.AuthSucceeded, ev.ConnectionLost]
    for side in Side:
        assert sum(it.size for it in told(events, PacketOpened, side)) + len(split(recording.wire, side)[0]) == len(
            recording.sides[side]
        )


# --------------------------------------------------------------------------------------------------- everything opened


@pytest.mark.parametrize("kex", sorted(algorithms.KNOWN["kex"]))
def test_every_key_exchange(kex: str) -> None:
    recording = session(preferences=Preferences(kex=(kex,), allow_terrapin=True), rekeys="c")
    events = observe(recording.wire, recording.secrets)
    check(recording, events)
    assert [it.negotiated.kex for it in told(events, KexSeen)] == [kex, kex]
    found = told(events, SecretFound)
    assert [(it.epoch, it.source, it.verified) for it in found] == [
        (0, "shared secret", True),
        (1, "shared secret", True),
    ]
    assert {it.session_id for it in found} == {recording.pair.client.conn.session_id}
    assert [it.first for it in told(events, ev.KeysExchanged)] == [True, False]


@pytest.mark.parametrize("mac", ["hmac-sha2-256", "hmac-sha2-512-etm@openssh.com"])
@pytest.mark.parametrize("cipher", list(CIPHERS))
def test_every_cipher(cipher: str, mac: str) -> None:
    recording = session(preferences=Preferences(cipher=(cipher,), mac=(mac,), allow_terrapin=True), rekeys="s")
    events = observe(recording.wire, recording.secrets)
    check(recording, events)
    assert {it.integrity for it in told(events, PacketOpened)} == {Integrity.NONE, Integrity.VERIFIED}


@pytest.mark.parametrize("strict", [(True, True), (True, False), (False, True), (False, False)])
def test_strict_key_exchange_or_not(strict: tuple[bool, bool]) -> None:
    common: dict[str, Any] = {"cipher": ("aes128-gcm@openssh.com",)}
    recording = session(
        preferences=Preferences(strict_kex=strict[0], **common),
        server_preferences=Preferences(strict_kex=strict[1], **common),
        rekeys="c",
    )
    events = observe(recording.wire, recording.secrets)
    check(recording, events)
    first = next(it for it in told(events, PacketOpened, DIALLER) if it.epoch == 1)
    assert (first.sequence_number == 0) is all(strict)


@pytest.mark.parametrize("rekeys", ["c", "s", "b", "csbbsc"])
@pytest.mark.parametrize("compression", ["none", "zlib", "zlib@openssh.com"])
def test_rekeys_and_compressions(rekeys: str, compression: str) -> None:
    recording = session(preferences=Preferences(compression=(compression,)), rekeys=rekeys)
    events = observe(recording.wire, recording.secrets)
    check(recording, events)
    assert [it.epoch for it in told(events, OfferSeen, DIALLED)] == list(range(len(rekeys) + 1))
    assert {it.epoch for it in told(events, PacketOpened)} == set(range(len(rekeys) + 2))


@pytest.mark.parametrize("compression", ["zlib", "zlib@openssh.com"])
def test_rekeys_all_the_time(compression: str) -> None:
    """Every few packets."""

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.CredentialNeeded) and question.attempt < 4:
            conn.auth_none(question)
        elif isinstance(question, ev.CredentialNeeded):
            conn.auth_public_key(question, USER_KEY)
        else:
            client_answers(conn, question)

    limits = Limits(rekey_packets=3)
    common: dict[str, Any] = {
        "limits": limits, "preferences": Preferences(compression=(compression,)), "debug_raise": True,
    }  # fmt: skip
    recording = session(
        client=ClientConfig(user="alice", **common),
        server=ServerConfig(host_keys=(HOST_KEY,), **common),
        client_answer=answer,
    )
    for wire in (recording.wire, [(side, recording.sides[side]) for side in Side]):
        events = observe(wire, recording.secrets, ordered=wire is recording.wire)
        check(recording, events)
        assert [it.method for it in told(events, ev.AuthFailed)] == ["none"] * 4
        assert max(it.epoch for it in told(events, PacketOpened)) > 4


def test_the_other_way_round(rekeyed: Recording) -> None:
    """Who dialled is the server."""
    wire = [(side.other, data) for side, data in rekeyed.wire]
    events = observe(wire, rekeyed.secrets)
    assert troubles(events) == []
    assert [(it.client, it.sure) for it in told(events, RolesSeen)] == [(DIALLED, True)]
    assert data_of(events, DIALLER) == ANSWERS


def test_roles_without_words_about_them() -> None:
    """Neither side says ext-info or kex-strict: then the key exchange itself tells."""
    for kex in ("curve25519-sha256", "diffie-hellman-group-exchange-sha256"):
        for swap in (False, True):
            client, server = (
                Scribe(side, b"SSH-2.0-x") for side in ((DIALLED, DIALLER) if swap else (DIALLER, DIALLED))
            )
            offer = quiet(kex)
            client.send(offer.encode())
            server.send(attrs.evolve(offer, cookie=bytes(16)).encode())
            wire = [client.piece, server.piece]
            assert [(it.client, it.sure) for it in told(observe(wire), RolesSeen)] == [(DIALLER, False)]
            client.send(
                KexEcdhInit(bytes(32)).encode() if kex[0] == "c" else bytes((34, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 32, 0))
            )
            assert [(it.client, it.sure) for it in told(observe([*wire, client.piece]), RolesSeen)] == [
                (client.side, True)
            ]


def quiet(kex: str = "curve25519-sha256", **more: Any) -> KexInit:
    cipher, mac, none = ("aes128-ctr",), ("hmac-sha2-256",), ("none",)
    return KexInit(b"0123456789abcdef", (kex,), ("ssh-ed25519",), cipher, cipher, mac, mac, none, none, **more)


# ------------------------------------------------------------------------------------------------------ order and cuts


def shuffled(sides: dict[Side, bytes], seed: int, sizes: list[int]) -> Wire:
    chance = random.Random(seed)
    places, wire = dict.fromkeys(Side, 0), []
    while left := [side for side in Side if places[side] < len(sides[side])]:
        side, size = chance.choice(left), chance.choice(sizes)
        wire.append((side, sides[side][places[side] : places[side] + size]))
        places[side] += size
    return wire


JOINT = (RolesSeen, KexSeen, SecretFound, ev.KeysExchanged, ev.ChannelClosed)
"""What both sides do together: whose doing it is depends on who comes last."""


def alone(events: list[Observed], side: Side) -> list[str]:
    return [repr(seen.event) for seen in events if seen.side is side and not isinstance(seen.event, JOINT)]


@pytest.mark.parametrize("compression", ["none", "zlib", "zlib@openssh.com"])
def test_one_side_after_the_other(compression: str) -> None:
    recording = session(rekeys="csb", preferences=Preferences(compression=(compression,)))
    expected = observe(recording.wire, recording.secrets)
    check(recording, expected)
    for first in Side:
        wire = [(side, recording.sides[side]) for side in (first, first.other)]
        events = observe(wire, recording.secrets, ordered=False)
        check(recording, events)
        for side in Side:
            assert packets(events, side) == packets(expected, side)
            assert alone(events, side) == alone(expected, side)
        careless = observe(wire, recording.secrets)
        for side in Side:
            assert packets(careless, side, meaning=False) == packets(expected, side, meaning=False)


@pytest.fixture(scope="module")
def short() -> Recording:
    """All that :func:`rekeyed` has, with smaller messages."""
    return session(rekeys="csb", preferences=Preferences(kex=("curve25519-sha256",), cipher=("aes128-ctr",)))


@pytest.fixture(scope="module")
def expected(short: Recording) -> list[Observed]:
    return observe(short.wire, short.secrets)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=4), ordered=st.booleans())
def test_any_order_and_any_cuts(
    short: Recording, expected: list[Observed], seed: int, sizes: list[int], ordered: bool
) -> None:
    events = observe(shuffled(short.sides, seed, sizes), short.secrets, ordered=ordered)
    assert troubles(events) == []
    for side in Side:
        assert packets(events, side, meaning=not ordered) == packets(expected, side, meaning=not ordered)
        if not ordered:
            assert alone(events, side) == alone(expected, side)


def test_byte_by_byte(rekeyed: Recording) -> None:
    expected = observe(rekeyed.wire, rekeyed.secrets)
    events = observe(bytewise(rekeyed.wire), rekeyed.secrets)
    check(rekeyed, events)
    for side in Side:
        assert packets(events, side) == packets(expected, side)


def test_in_any_order_even_without_keys(rekeyed: Recording) -> None:
    expected = observe(rekeyed.wire)
    for seed in range(10):
        events = observe(shuffled(rekeyed.sides, seed, [1, 50, 3000]))
        for side in Side:
            assert packets(events, side) == packets(expected, side)
        assert told(events, KexSeen) == told(expected, KexSeen)


def test_events_are_made_when_they_are_asked_for(plain: Recording) -> None:
    observer = Observer(plain.secrets)
    for side, data in plain.wire:
        observer.feed(side, data)
    observer.finish()
    assert observer.client is None
    assert not observer.authenticated
    while (seen := observer.next_event()) is not None:
        if isinstance(seen.event, PacketOpened) and seen.event.number == 52:
            assert observer.authenticated
            break
        assert not observer.authenticated
    assert observer.client is DIALLER
    drain(observer)
    assert observer.next_event() is None
    observer.finish()
    assert observer.next_event() is None


def test_where_and_when(plain: Recording) -> None:
    """Each packet has the frames that brought it, and the time of the last."""
    sides = plain.sides
    wire = [(side, sides[side][place : place + 7]) for side in Side for place in range(0, len(sides[side]), 7)]
    observer = Observer(plain.secrets)
    frames: dict[Side, list[int]] = {side: [] for side in Side}
    for frame, (side, data) in enumerate(wire, 1):
        observer.feed(side, data, time=frame / 4, frame=frame)
        frames[side].append(frame)
    observer.finish()
    events = drain(observer)
    for seen in events:
        if isinstance(seen.event, PacketOpened):
            mine = frames[seen.side]
            first, last = seen.event.offset // 7, (seen.event.offset + seen.event.size - 1) // 7
            assert list(seen.frames) == mine[first : last + 1]
            assert seen.time == mine[last] / 4
    # What a packet tells has its place.
    for before, seen in itertools.pairwise(events):
        if isinstance(seen.event, ev.DataReceived):
            assert isinstance(before.event, PacketOpened)
            assert (seen.frames, seen.time) == (before.frames, before.time)


def test_where_in_what_is_sealed() -> None:
    recording = session(preferences=Preferences(cipher=("aes128-gcm@openssh.com",)))
    opened = observe(recording.wire, recording.secrets)
    expected = {side: [(it.offset, it.size) for it in told(opened, PacketOpened, side) if it.epoch] for side in Side}
    for wire in (recording.wire, list(bytewise(recording.wire))):
        for options in ({}, {"hold": 0}):
            events = observe(wire, **options)
            for side in Side:
                sealed = told(events, PacketSealed, side)
                assert [(it.offset, it.size) for it in sealed] == expected[side]
                assert all(it.exact for it in sealed)
            for seen in events:
                if isinstance(seen.event, PacketSealed):
                    assert len(seen.frames) == 1 if wire is recording.wire else seen.frames


# -------------------------------------------------------------------------------------------------------- without keys


@pytest.mark.parametrize(
    ("cipher", "mac", "exact"),
    [
        ("chacha20-poly1305@openssh.com", "hmac-sha2-256", False),
        ("aes256-gcm@openssh.com", "hmac-sha2-256", True),
        ("aes256-ctr", "hmac-sha2-256", False),
        ("aes256-ctr", "hmac-sha2-256-etm@openssh.com", True),
        ("3des-cbc", "hmac-md5-etm@openssh.com", True),
    ],
)
def test_what_is_public(cipher: str, mac: str, exact: bool) -> None:
    recording = session(preferences=Preferences(cipher=(cipher,), mac=(mac,), allow_terrapin=True), rekeys="c")
    events = observe(recording.wire)
    assert len(told(events, ev.VersionReceived)) == 2
    assert len(told(events, OfferSeen)) == 2  # the second exchange is hidden
    (kex,) = told(events, KexSeen)
    assert kex.host_key == HOST_KEY.public_key
    assert kex.host_key_blob == HOST_KEY.public_key.blob
    assert kex.negotiated.cipher_client_to_server == cipher
    assert not kex.opened
    assert [it.exact for it in told(events, KeysMissing)] == [exact, exact]
    assert {it.exact for it in told(events, PacketSealed)} == {exact}
    assert troubles(events) == []
    for side in Side:
        whole = len(split(recording.wire, side)[0])
        whole += sum(it.size for kind in (PacketOpened, PacketSealed) for it in told(events, kind, side))
        assert whole == len(recording.sides[side])
        assert all(it.epoch == 0 for it in told(events, PacketOpened, side))


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"])
def test_without_sizes(cipher: str) -> None:
    """Nothing else is told otherwise, and who asks again is told of what comes then, where it is."""
    wire = session(preferences=Preferences(cipher=(cipher,))).wire
    whole = observe(wire)
    for place in range(0, len(wire) + 1, 5):
        observer = Observer()
        observer.sizes = False
        events: list[Observed] = []
        for frame, (side, data) in enumerate(wire, 1):
            observer.sizes = frame > place
            observer.feed(side, data, time=frame / 8, frame=frame)
            events += drain(observer)
        observer.finish()
        events += drain(observer)
        late = [it for it in whole if not isinstance(it.event, PacketSealed) or max(it.frames) > place]
        assert events == late


def test_segments_stay_segments() -> None:
    """Where no packets show, what is sealed is shown as it came, also if it had to wait."""
    plain = session(preferences=Preferences(cipher=("chacha20-poly1305@openssh.com",)))
    sides = plain.sides
    for first in Side:
        events = observe([(side, piece) for each in (first, first.other) for side, piece in plain.wire if side is each])
        for side in Side:
            start = split(plain.wire, side)[1][-1]
            begin = start[0] + start[1]
            pieces, place = [], 0
            for sender, data in plain.wire:
                if sender is side:
                    if place + len(data) > begin:
                        pieces.append(min(len(data), place + len(data) - begin))
                    place += len(data)
            assert [it.size for it in told(events, PacketSealed, side)] == pieces
            assert sum(pieces) + begin == len(sides[side])


# --------------------------------------------------------------------------------------------------------- other keys


def test_wrong_secrets(plain: Recording) -> None:
    line = plain.key_log[0]
    wrong = line[:-2] + f"{int(line[-2:], 16) ^ 1:02x}"
    events = observe(plain.wire, secrets(wrong))
    assert troubles(events) == ["dialler: the shared secret that is known for this key exchange does not fit it"]
    assert len(told(events, KeysMissing)) == 2
    assert not told(events, SecretFound)
    check(plain, observe(plain.wire, secrets(line)))
    both = observe(plain.wire, secrets(wrong, line))
    assert troubles(both) == ["dialler: the shared secret that is known for this key exchange does not fit it"]
    assert data_of(both, DIALLED) == ANSWERS


def test_secrets_of_others(plain: Recording) -> None:
    events = observe(plain.wire, secrets("00" * 16 + " SHARED_SECRET 0102"))
    assert troubles(events) == []
    assert len(told(events, KeysMissing)) == 2


def test_a_function_that_is_asked(plain: Recording) -> None:
    cookie, _, value = plain.key_log[0].split()
    asked: list[tuple[bytes, bytes]] = []

    def ask(client: bytes, server: bytes) -> bytes | None:
        asked.append((client, server))
        return bytes.fromhex(value)

    events = observe(plain.wire, Secrets(ask))
    check(plain, events)
    assert len(asked) == 1
    assert asked[0][0].hex() == cookie
    assert told(observe(plain.wire, Secrets(lambda *_: None)), KeysMissing)


def test_late_secrets(rekeyed: Recording) -> None:
    """They come in the middle: what was told as sealed is told again, opened."""
    expected = observe(rekeyed.wire, rekeyed.secrets)
    for cut in range(4, len(rekeyed.wire), 5):
        observer = Observer()
        for side, data in rekeyed.wire[:cut]:
            observer.feed(side, data)
        before = drain(observer)
        observer.kex.secrets.add_key_log("\n".join(rekeyed.key_log))
        observer.add_secrets()
        for side, data in rekeyed.wire[cut:]:
            observer.feed(side, data)
        observer.finish()
        events = before + drain(observer)
        for side in Side:
            assert packets(events, side) == packets(expected, side)
            assert len(told(events, Reopened, side)) == len(told(events, KeysMissing, side)) <= 1
            for kind in (ev.ChannelRequested, ev.DataReceived):  # of the channels that they are of
                assert told(events, kind, side) == told(expected, kind, side)
        assert told(events, ev.ChannelClosed) == told(expected, ev.ChannelClosed)
        assert data_of(events, DIALLED) == ANSWERS


def test_secrets_after_the_end(rekeyed: Recording) -> None:
    """One key after the other: each opens what it can, up to the next rekey."""
    expected = observe(rekeyed.wire, rekeyed.secrets)
    observer = Observer()
    for frame, (side, data) in enumerate(rekeyed.wire, 1):
        observer.feed(side, data, time=frame / 8, frame=frame)
    observer.finish()
    events = drain(observer)
    assert len(told(events, KeysMissing)) == 2
    for number, line in enumerate(rekeyed.key_log):
        observer.kex.secrets.add_key_log(line)
        observer.add_secrets()
        more = drain(observer)
        assert [it.epoch for it in told(more, Reopened)] == [number + 1, number + 1]
        assert len(told(more, KeysMissing)) == (2 if number < 3 else 0)
        events += more
    assert troubles(events) == []
    for side in Side:
        assert packets(events, side) == packets(expected, side)
        places = [
            (seen.time, seen.frames) for seen in events if seen.side is side and isinstance(seen.event, PacketOpened)
        ]
        assert places == [
            (seen.time, seen.frames) for seen in expected if seen.side is side and isinstance(seen.event, PacketOpened)
        ]
    observer.add_secrets()
    assert drain(observer) == []


def test_a_secret_that_is_missing_in_the_middle(rekeyed: Recording) -> None:
    lines = rekeyed.key_log
    events = observe(rekeyed.wire, secrets(lines[0], lines[2], lines[3]))
    missing = told(events, KeysMissing)
    assert [it.epoch for it in missing] == [2, 2]
    assert "nor would a key exchange in it show" in missing[0].problem
    assert {it.epoch for it in told(events, PacketOpened)} == {0, 1}
    assert len(told(events, OfferSeen, DIALLER)) == 2
    assert told(events, ev.AuthSucceeded)
    assert told(events, PacketSealed)


def test_only_the_first_exchange_gives_the_session_identifier(rekeyed: Recording) -> None:
    lines = rekeyed.key_log
    events = observe(rekeyed.wire, secrets(*lines[1:]))
    assert not told(events, SecretFound)
    assert [it.epoch for it in told(events, KeysMissing)] == [1, 1]


def test_what_is_held_is_bounded(plain: Recording) -> None:
    observer = Observer(hold=500)
    for side, data in plain.wire:
        observer.feed(side, data)
    before = drain(observer)
    assert all(half.sealed and half.sealed.data is None for half in observer._halves.values())
    observer.kex.secrets.add_key_log("\n".join(plain.key_log))
    observer.add_secrets()
    observer.finish()
    assert drain(observer) == []
    assert {side: told(before, PacketSealed, side) for side in Side} == {
        side: told(observe(plain.wire), PacketSealed, side) for side in Side
    }


def test_nothing_piles_up_without_keys() -> None:
    observer = Observer(hold=0)
    recording = record().pair.login()
    del recording
    plain = session()
    for side, data in plain.wire:
        observer.feed(side, data, frame=1)
    drain(observer)
    for number in range(20_000):
        observer.feed(DIALLER, bytes(1000), time=float(number), frame=number)
        drain(observer)
    half = observer._halves[DIALLER]
    assert len(half.marks._ends) < 3000
    assert half.sealed is not None
    assert half.sealed.data is None


def test_what_was_held_is_shown_bit_by_bit() -> None:
    """A million packets that had to wait do not become a million events at once."""
    recording = session(preferences=Preferences(cipher=("aes128-gcm@openssh.com",)))
    many = ((16).to_bytes(4, "big") + bytes(32)) * 60_000
    mine = [data for side, data in recording.wire if side is DIALLER]
    for late in (False, True):
        observer = Observer(hold=1 << 23)
        for data in mine[:3]:
            observer.feed(DIALLER, data)
        if not late:
            for side, data in recording.wire[:8]:
                if side is DIALLED:
                    observer.feed(side, data)
        observer.feed(DIALLER, many)
        observer.finish()
        most = count = 0
        while (seen := observer.next_event()) is not None:
            most = max(most, len(observer._events))
            count += isinstance(seen.event, PacketSealed)
        assert most < 3000
        assert count > (60_000 if not late else 20)


def test_marks_are_bounded(monkeypatch: pytest.MonkeyPatch, plain: Recording) -> None:
    monkeypatch.setattr("sshproto.replay.framing.MARKS", 50)
    observer = Observer()
    for number, (side, data) in enumerate(bytewise(plain.wire)):
        observer.feed(side, data, frame=number)
    observer.finish()
    drain(observer)
    assert all(len(half.marks._ends) <= 50 for half in observer._halves.values())
    observer.kex.secrets.add_key_log("\n".join(plain.key_log))
    observer.add_secrets()
    assert data_of(drain(observer), DIALLED) == ANSWERS


def test_a_host_key_that_cannot_be_asked(plain: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a signature only the packets tell which secret is right."""
    monkeypatch.setattr("sshproto.replay.kexwatch._public_key", lambda blob: None)
    line = plain.key_log[0]
    wrong = line[:-2] + f"{int(line[-2:], 16) ^ 1:02x}"
    for lines in ((line,), (wrong, line), (line, wrong)):
        events = observe(plain.wire, secrets(*lines))
        assert troubles(events) == []
        assert [(it.epoch, it.verified) for it in told(events, SecretFound)] == [(0, False)]
        assert data_of(events, DIALLED) == ANSWERS
        assert not told(events, ev.KeysExchanged)  # which has a key that is known
        again = observe(bytewise(plain.wire), secrets(*lines))
        assert data_of(again, DIALLED) == ANSWERS
    events = observe(plain.wire, secrets(wrong))
    assert len(told(events, KeysMissing)) == 2
    assert not told(events, SecretFound)


def test_host_certificates() -> None:
    """The key that one is for has signed, now and when keys are exchanged anew: what it says is verified."""
    key, authority = PrivateKey.generate(), PrivateKey.generate()
    certificate = Certificate.issue(
        authority, key.public_key, CertificateKind.HOST, key_id="x", principals=("h",), valid_before=FOREVER
    )
    asking = Preferences(host_key=(certificate.type,))
    recording = session(
        preferences=asking,
        server=ServerConfig(host_keys=(key,), host_certificates=(certificate,), debug_raise=True),
        rekeys="cs",
    )
    events = observe(recording.wire, recording.secrets)
    check(recording, events)
    seen = told(events, KexSeen)
    assert [(it.host_key, it.host_key_blob, it.fingerprint) for it in seen] == [
        (key.public_key, certificate.blob, key.public_key.fingerprint())
    ] * 3
    assert all(it.verified for it in told(events, SecretFound))
    assert [it.host_key for it in told(events, ev.KeysExchanged)] == [key.public_key] * 3


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp384"])
def test_other_host_keys(kind: str) -> None:
    key = PrivateKey.generate(kind)
    recording = session(server=ServerConfig(host_keys=(key,), debug_raise=True))
    events = observe(recording.wire, recording.secrets)
    check(recording, events)
    assert [it.verified for it in told(events, SecretFound)] == [True]


# ------------------------------------------------------------------------------------------------------------ missing


@pytest.mark.parametrize("size", [None, 17])
def test_gaps(rekeyed: Recording, size: int | None) -> None:
    """What is before a gap is read, what is after it is not, and it is said."""
    expected = observe(rekeyed.wire, rekeyed.secrets)
    number = sum(len(data) for side, data in rekeyed.wire if side is DIALLED)
    for place in [*range(1, 60), *range(60, number - 20, 97)]:
        left, wire = place, []
        observer = Observer(rekeyed.secrets)
        for side, data in rekeyed.wire:
            if side is DIALLED and left >= 0:
                observer.feed(side, data[:left])
                if len(data) > left:
                    observer.gap(side, size, frame=77)
                    observer.feed(side, data[left + (size or 17) :])
                left -= len(data)
            else:
                observer.feed(side, data)
            wire.append((side, data))
        observer.finish()
        events = drain(observer)
        gaps = told(events, Missing)
        assert [it.size for it in gaps if it.size is not None] == ([size] if size is not None else [])
        assert gaps, place
        before = [it for it in packets(expected, DIALLED) if it[5] + it[4] <= place]
        assert packets(events, DIALLED) == before
        mine = packets(events, DIALLER, meaning=False)
        assert mine == packets(expected, DIALLER, meaning=False)[: len(mine)]
        for it in told(events, PacketSealed, DIALLED):
            assert not it.exact
            assert it.offset >= place + (size or 0)


def test_a_gap_in_what_is_sealed(plain: Recording) -> None:
    """A key that comes late opens what is before the gap."""
    expected = observe(plain.wire, plain.secrets)
    cut = len(plain.wire) - 6
    observer = Observer()
    for number, (side, data) in enumerate(plain.wire):
        if number == cut:
            for each in Side:
                observer.gap(each, 9)
        observer.feed(side, data)
    observer.finish()
    events = drain(observer)
    assert [it.size for it in told(events, Missing)] == [9, 9]
    assert sum(it.size for it in told(events, PacketSealed)) == sum(len(data) for data in plain.sides.values()) - sum(
        it.size for it in told(events, PacketOpened)
    ) - sum(len(split(plain.wire, side)[0]) for side in Side)
    observer.kex.secrets.add_key_log("\n".join(plain.key_log))
    observer.add_secrets()
    events = drain(observer)
    assert [it.size for it in told(events, Missing)] == [9, 9]
    for side in Side:
        mine = packets(events, side)
        whole = [it for it in packets(expected, side) if it[1]]
        assert 3 < len(mine) < len(whole)
        assert mine == whole[: len(mine)]
        rest = sum(len(data) for sender, data in plain.wire[cut:] if sender is side)
        assert [it.size for it in told(events, PacketSealed, side)] == ([rest] if rest else [])


def test_a_gap_at_the_beginning(plain: Recording) -> None:
    observer = Observer(plain.secrets)
    observer.gap(DIALLED, 100)
    for side, data in plain.wire:
        observer.feed(side, data)
    observer.finish()
    events = drain(observer)
    assert told(events, Missing, DIALLED) == [
        Missing(size=100, problem="the first 100 bytes of the dialled are missing")
    ]
    assert not told(events, PacketOpened, DIALLED)
    assert [it.number for it in told(events, PacketOpened, DIALLER)][:2] == [20, 30]


@pytest.mark.parametrize("side", list(Side))
def test_one_side_only(plain: Recording, side: Side) -> None:
    wire = [(sender, data) for sender, data in plain.wire if sender is side]
    events = observe(wire, plain.secrets)
    assert f"{side.other.value}: nothing of the {side.other.value} is in the recording" in troubles(events)
    assert [it.number for it in told(events, PacketOpened, side)] == [20, 30 if side is DIALLER else 31, 21]
    assert [(it.client, it.sure) for it in told(events, RolesSeen)] == [(DIALLER, True)]
    (missing,) = told(events, KeysMissing)
    assert missing.problem == "one side of the key exchange is missing"
    assert told(events, PacketSealed, side)


def test_the_middle_of_something(plain: Recording) -> None:
    for start in (10, 30, 1500, 4000):
        events = observe([(side, data[start:]) for side, data in plain.sides.items()])
        assert troubles(events)
        assert all(event.fatal for event in told(events, Problem) if "no identification" in event.problem)


def test_an_end_in_the_middle_of_a_packet(plain: Recording) -> None:
    wire = [*plain.wire[:-1], (plain.wire[-1][0], plain.wire[-1][1][:-5])]
    events = observe(wire, plain.secrets)
    left = len(wire[-1][1])
    assert troubles(events) == [f"{wire[-1][0].value}: the recording ends within a packet, after {left} bytes of it"]
    assert not told(events, ev.ConnectionLost)


def test_http() -> None:
    request = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
    reply = b"SSH-2.0-OpenSSH_9.6\r\nInvalid SSH identification string.\r\n"
    events = observe([(DIALLED, reply), (DIALLER, request)])
    assert [it.line for it in told(events, ev.VersionReceived)] == ["SSH-2.0-OpenSSH_9.6"]
    problems = troubles(events)
    assert "dialler: no identification; the first line is 'GET / HTTP/1.1'" in problems
    assert any("'Invalid SSH identification string.'" in problem for problem in problems)


def test_tls() -> None:
    events = observe([(DIALLER, bytes.fromhex("1603010200010001fc0303") + bytes(200))])
    assert "no identification: this is not SSH, or the recording begins in the middle" in troubles(events)[0]


def test_nothing_at_all() -> None:
    assert troubles(observe([])) == [f"{side.value}: nothing of the {side.value} is in the recording" for side in Side]
    observer = Observer()
    observer.feed(DIALLER, b"")
    assert observer.next_event() is None


def test_ends(plain: Recording) -> None:
    observer = Observer(plain.secrets)
    for side, data in plain.wire:
        observer.feed(side, data)
    for side in Side:
        observer.end(side, time=5.0, frame=99)
        observer.end(side)
    events = drain(observer)
    assert [(seen.side, seen.time, seen.frames) for seen in events if isinstance(seen.event, Ended)] == [
        (side, 5.0, (99,)) for side in Side
    ]
    check(plain, events)


def test_a_version_that_nobody_has() -> None:
    events = observe([(DIALLED, b"SSH-3.0-future\r\n" + bytes(100))])
    assert told(events, ev.VersionReceived)[0].protocol == "3.0"
    assert "version '3.0'" in troubles(events)[0]


@pytest.mark.parametrize("versions", [(b"1.99", b"2.0"), (b"2.0", b"1.99"), (b"1.99", b"1.99")])
def test_one_point_ninety_nine(versions: tuple[bytes, bytes]) -> None:
    scribes = [Scribe(side, b"SSH-%s-x" % version) for side, version in zip(Side, versions, strict=True)]
    for scribe in scribes:
        scribe.send(quiet().encode())
    wire = [scribe.piece for scribe in scribes]
    for order in (wire, wire[::-1]):
        events = observe(order)
        assert troubles(events) == []
        assert len(told(events, OfferSeen)) == 2


# ----------------------------------------------------------------------------------------------- unusual key exchanges


def test_a_client_that_does_not_want_the_key() -> None:
    def reject(conn: Any, question: ev.Question) -> None:
        conn.refuse(question)

    recording = record(client_answer=reject)
    recording.pair.run()
    events = observe(recording.wire, recording.secrets)
    numbers = [it.number for it in told(events, PacketOpened, DIALLER)]
    assert numbers == [20, 30, 1]
    assert len(told(events, ev.ConnectionLost, DIALLER)) == 1
    assert [it.number for it in told(events, PacketOpened, DIALLED)][:4] == [20, 31, 21, 7]
    (kex,) = told(events, KexSeen)
    assert kex.host_key == HOST_KEY.public_key
    assert troubles(events) == []


def test_nothing_in_common() -> None:
    recording = record(
        preferences=Preferences(cipher=("aes128-ctr",)), server_preferences=Preferences(cipher=("aes256-ctr",))
    )
    recording.pair.run()
    events = observe(recording.wire, recording.secrets)
    assert any(
        "no common cipher client to server algorithm: the client offers aes128-ctr" in it for it in troubles(events)
    )
    assert not told(events, KexSeen)
    assert len(told(events, OfferSeen)) == 2


SHARE = KexEcdhInit(bytes(range(32))).encode()


@pytest.mark.parametrize("kexguess2", [False, True])
def test_guesses(kexguess2: bool) -> None:
    """RFC 4253 section 7.1; Dropbear's rule asks only whether the client's first choice was taken."""
    extra = ("kexguess2@matt.ucc.asn.au",) if kexguess2 else ()
    for mine, right in (
        (("curve25519-sha256", "ecdh-sha2-nistp256"), kexguess2),
        (("ecdh-sha2-nistp256", "curve25519-sha256"), True),
        (("ecdh-sha2-nistp521", "curve25519-sha256"), False),
    ):
        client, server = Scribe(DIALLER, b"SSH-2.0-c"), Scribe(DIALLED, b"SSH-2.0-s")
        offer = quiet(first_kex_packet_follows=True)
        client.send(attrs.evolve(offer, kex_algorithms=mine + extra).encode(), SHARE)
        server.send(attrs.evolve(quiet(), kex_algorithms=("ecdh-sha2-nistp256", "curve25519-sha256", *extra)).encode())
        if not right:
            client.send(SHARE)
        client.send(NewKeys().encode())
        pieces = [client.piece, server.piece]
        for wire in (pieces, pieces[::-1]):
            events = observe(wire)
            found = [(it.number, it.guessed, it.message is not None) for it in told(events, PacketOpened, DIALLER)]
            wrong = [] if right else [(30, True, False)]
            assert found == [(20, False, True), *wrong, (30, False, True), (21, False, True)]
            assert troubles(events) == []


def test_a_method_that_is_not_known() -> None:
    client, server = Scribe(DIALLER, b"SSH-2.0-c"), Scribe(DIALLED, b"SSH-2.0-s")
    for scribe in (client, server):
        scribe.send(quiet("future-kex@example.org").encode(), bytes((30 if scribe is client else 31, 1, 2, 3)), b"\x15")
        scribe.written += bytes(100)
    events = observe([client.piece, server.piece])
    words = "the key-exchange method 'future-kex@example.org' is not known here"
    assert any(words in it for it in troubles(events))
    assert [it.problem for it in told(events, KeysMissing)] == [words, words]
    assert [it.message for it in told(events, PacketOpened) if it.number in (30, 31)] == [None, None]
    assert [it.negotiated.kex for it in told(events, KexSeen)] == ["future-kex@example.org"]
    assert [it.size for it in told(events, PacketSealed)] == [100, 100]


@pytest.mark.parametrize(
    ("field", "name", "words"),
    [
        ("encryption_algorithms", "3des-ctr", "the cipher '3des-ctr' is not known here"),
        ("mac_algorithms", "crc32@example.org", "the MAC 'crc32@example.org' is not known here"),
        ("compression_algorithms", "lzma", "the compression 'lzma' is not known here"),
    ],
)
def test_an_algorithm_that_is_not_known(field: str, name: str, words: str) -> None:
    more = {f"{field}_{way}": (name,) for way in ("client_to_server", "server_to_client")}
    client, server = Scribe(DIALLER, b"SSH-2.0-c"), Scribe(DIALLED, b"SSH-2.0-s")
    reply = bytes((31,)) + b"".join(len(part).to_bytes(4, "big") + part for part in (b"key", bytes(32), b"sig"))
    client.send(attrs.evolve(quiet(), **more).encode(), SHARE, b"\x15")
    server.send(attrs.evolve(quiet(), **more).encode(), reply, b"\x15")
    events = observe([client.piece, server.piece], secrets("30313233343536373839616263646566 SHARED_SECRET 01"))
    assert [it.problem for it in told(events, KeysMissing)] == [words, words]


def test_messages_out_of_place() -> None:
    client, server = Scribe(DIALLER, b"SSH-2.0-c"), Scribe(DIALLED, b"SSH-2.0-s")
    offer = quiet()
    offer = attrs.evolve(offer, kex_algorithms=(*offer.kex_algorithms, "ext-info-c"))
    client.send(Ignore(b"x").encode(), SHARE, offer.encode(), SHARE, SHARE, b"\x1e\xff", b"\x15", b"\x15")
    server.send(Debug(True, "hello").encode(), quiet().encode(), Ping(b"x").encode(), SHARE, b"\xc8")
    events = observe([client.piece, server.piece])
    assert [it.number for it in told(events, PacketOpened, DIALLER)] == [2, 30, 20, 30, 30, 30, 21]
    assert [it.number for it in told(events, PacketOpened, DIALLED)] == [4, 20, 192, 30, 200]
    assert told(events, ev.DebugReceived) == [ev.DebugReceived("hello", True)]
    assert any("KEX_ECDH_INIT came twice" in it for it in troubles(events))
    assert any("KEX_ECDH_INIT is not for a server to send" in it for it in troubles(events))
    assert any("KEX_ECDH_INIT does not decode" in it for it in troubles(events))


def test_nobody_believes_what_is_sent_in_clear() -> None:
    client, server = Scribe(DIALLER, b"SSH-2.0-c"), Scribe(DIALLED, b"SSH-2.0-s")
    client.send(quiet().encode(), UserauthRequest("root", "ssh-connection", "none").encode())
    server.send(quiet().encode(), SHARE, UserauthSuccess().encode(), ChannelOpen("session", 0, 1, 1).encode())
    observer = Observer()
    for side, data in (client.piece, server.piece):
        observer.feed(side, data)
    observer.finish()
    events = drain(observer)
    assert {50, 52, 90} < {it.number for it in told(events, PacketOpened)}
    assert not told(events, ev.AuthSucceeded)
    assert not told(events, ev.Question)
    assert not observer.authenticated


def test_newkeys_without_an_exchange() -> None:
    client = Scribe(DIALLER, b"SSH-2.0-c").send(b"\x15")
    client.written += b"secret stuff"
    events = observe([client.piece])
    assert "NEWKEYS came, but no key exchange is under way" in troubles(events)[0]
    assert [it.size for it in told(events, PacketSealed)] == [12]


def test_newkeys_twice() -> None:
    """Its keys are in use already."""
    recording = record()
    recording.pair.login()
    sealer = recording.pair.server.conn._engine.outbox.sealer  # type: ignore[attr-defined]
    extra = bytes(sealer.seal(b"\x15")) + bytes(sealer.seal(Ignore(b"x").encode()))
    events = observe([*recording.wire, (DIALLED, extra)], recording.secrets)
    assert troubles(events) == ["dialled: NEWKEYS came, but no key exchange is under way"]
    assert [it.epoch for it in told(events, KeysMissing)] == [2]


def test_a_side_that_waits_in_vain_is_let_go() -> None:
    """It may wait for some bytes, not for all that come."""
    client = Scribe(DIALLER, b"SSH-2.0-c").send(quiet().encode(), SHARE)
    observer = Observer(hold=0)
    observer.feed(*client.piece)
    observer.feed(DIALLED, b"SSH-2.0-s\r\n")
    assert [it.number for it in told(drain(observer), PacketOpened)] == [20]
    for _ in range(40):
        client.send(Ignore(bytes(30_000)).encode())
    observer.feed(*client.piece)
    assert len(told(drain(observer), PacketOpened)) == 41
    assert observer._halves[DIALLER].opener.buffered == 0


def test_two_sides_that_wait_for_one_another_are_let_go() -> None:
    for ordered in (True, False):
        wire = []
        for side in Side:
            scribe = Scribe(side, b"SSH-2.0-x").send(quiet().encode(), b"\x15")
            wire.append(scribe.piece)
        observer = Observer(ordered=ordered)
        for side, data in wire:
            observer.feed(side, data)
        events = drain(observer)
        assert [it.problem for it in told(events, KeysMissing)] == ["the key exchange is not complete"] * 2


def test_key_exchanges_without_end() -> None:
    """One side begins one after the other; the other is not there."""
    client = Scribe(DIALLER, b"SSH-2.0-c")
    for _ in range(100):
        client.send(quiet().encode())
    observer = Observer()
    observer.feed(*client.piece)
    observer.end(DIALLED)
    events = drain(observer)
    assert "key exchanges were begun that the other side knows nothing of" in troubles(events)[-1]
    assert len(observer.kex.rounds) < 70


def test_exchanges_that_are_over_are_forgotten(rekeyed: Recording) -> None:
    observer = Observer(rekeyed.secrets)
    for side, data in rekeyed.wire:
        observer.feed(side, data)
    drain(observer)
    assert list(observer.kex.rounds) == [3]


# ------------------------------------------------------------------------------------------------------ hostile input


def survive(wire: Wire, found: Secrets | None, **options: Any) -> list[Observed]:
    events = observe(wire, found, **options)
    assert len(events) < 10_000
    return events


@pytest.mark.parametrize("turn", range(4))
def test_cut_anywhere(turn: int) -> None:
    """At every byte; what is opened is what would have been opened anyway."""
    recording = record(preferences=Preferences(kex=("curve25519-sha256",)))
    recording.pair.login()
    expected = {side: packets(observe(recording.wire, recording.secrets), side) for side in Side}
    for stop in range(turn, sum(len(data) for _, data in recording.wire), 4):
        left, wire = stop, []
        for side, data in recording.wire:
            if left > 0:
                wire.append((side, data[:left]))
                left -= len(data)
        events = survive(wire, recording.secrets)
        for side in Side:
            mine = [it[:8] for it in packets(events, side)]
            assert mine == [it[:8] for it in expected[side][: len(mine)]]
        if stop % 8 == turn:
            survive(wire, None)


@settings(max_examples=150)
@given(data=st.data())
def test_bits_flipped_anywhere(plain: Recording, data: st.DataObject) -> None:
    wire = [(side, bytearray(piece)) for side, piece in plain.wire]
    for _ in range(data.draw(st.integers(1, 4))):
        _, piece = wire[data.draw(st.integers(0, len(wire) - 1))]
        place = data.draw(st.integers(0, len(piece) - 1))
        piece[place] ^= 1 << data.draw(st.integers(0, 7))
    ordered = data.draw(st.booleans())
    events = survive([(side, bytes(piece)) for side, piece in wire], plain.secrets, ordered=ordered)
    verified = [it for it in told(events, PacketOpened) if it.integrity is Integrity.VERIFIED]
    honest = {it.payload for it in told(observe(plain.wire, plain.secrets), PacketOpened)}
    assert all(it.payload in honest for it in verified)


@settings(max_examples=100)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(list(Side)), st.one_of(st.binary(max_size=60), st.just(b"SSH-2.0-x\r\n"))),
        max_size=12,
    )
)
def test_anything_at_all(pieces: Wire) -> None:
    survive(pieces, None)


@settings(max_examples=100)
@given(
    payloads=st.lists(
        st.tuples(
            st.sampled_from(list(Side)),
            st.one_of(
                st.binary(min_size=1, max_size=40),
                st.sampled_from([quiet().encode(), SHARE, b"\x15", b"\x34", Ignore(b"x").encode()]),
            ),
        ),
        max_size=20,
    ),
    ordered=st.booleans(),
)
def test_any_messages_in_clear(payloads: list[tuple[Side, bytes]], ordered: bool) -> None:
    scribes = {side: Scribe(side, b"SSH-2.0-x") for side in Side}
    wire = [scribes[side].piece for side in Side]
    for side, payload in payloads:
        wire.append(scribes[side].send(payload).piece)
    survive(wire, None, ordered=ordered)
