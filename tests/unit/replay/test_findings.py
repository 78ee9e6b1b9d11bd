"""What is wrong with a connection: each finding when it is due, and none when it is not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.keys.private import PrivateKey
from sshproto.replay.events import Integrity, KexSeen, Observed, PacketOpened, RolesSeen, Side
from sshproto.replay.findings import Finding, Findings, Memory, Policy, Severity
from sshproto.transport.kex.groups import GROUP1, GROUP14
from sshproto.transport.negotiation import Negotiated
from sshproto.wire import messages as m
from sshproto.wire.codec import mpint, string
from tests.replay.sessions import Recording, Scribe, Wire, observe, session
from tests.support.pair import HOST_KEY

C, S = Side.DIALLER, Side.DIALLED
CHACHA, GCM, CTR = ("chacha20-poly1305@openssh.com",), ("aes256-gcm@openssh.com",), ("aes256-ctr",)
CBC, ETM, HMAC = ("aes256-cbc",), ("hmac-sha2-256-etm@openssh.com",), ("hmac-sha2-256",)
NEWKEYS = m.NewKeys().encode()
INIT = m.KexEcdhInit(b"c" * 32).encode()
REPLY = m.KexEcdhReply(HOST_KEY.public_key.blob, b"s" * 32, b"signature").encode()
IGNORE, DEBUG = m.Ignore(b"").encode(), m.Debug(False, "").encode()
EXT_INFO = m.ExtInfo(()).encode()
LOGIN = m.UserauthRequest("mallory", "ssh-connection", "none").encode()


def find(events: list[Observed], policy: Policy | None = None, memory: Memory | None = None) -> list[Finding]:
    findings = Findings(policy, memory)
    for seen in events:
        findings.add(seen)
    return findings.finish()


def codes(found: list[Finding], *, but: tuple[str, ...] = ("weak-offer",)) -> list[str]:
    return [finding.code for finding in found if finding.code not in but]


def offer(
    cipher: tuple[str, ...] = CHACHA,
    mac: tuple[str, ...] = HMAC,
    *,
    kex: tuple[str, ...] = ("curve25519-sha256",),
    **more: Any,
) -> m.KexInit:
    fields: dict[str, Any] = {"cookie": b"0123456789abcdef", "server_host_key_algorithms": ("ssh-ed25519",), **more}
    return m.KexInit(
        kex_algorithms=kex,
        encryption_algorithms_client_to_server=cipher, encryption_algorithms_server_to_client=cipher,
        mac_algorithms_client_to_server=mac, mac_algorithms_server_to_client=mac,
        compression_algorithms_client_to_server=("none",), compression_algorithms_server_to_client=("none",), **fields,
    )  # fmt: skip


def handshake(
    client: list[bytes],
    server: list[bytes],
    *,
    cipher: tuple[str, ...] = CHACHA,
    mac: tuple[str, ...] = HMAC,
    strict: bool = False,
) -> Wire:
    """A key exchange in clear with more messages in it, before NEWKEYS. Nothing in it is true but its form."""
    wire: Wire = []
    for side, first, extras in ((C, INIT, client), (S, REPLY, server)):
        role = "cs"[side is S]
        names = ("curve25519-sha256", f"ext-info-{role}", *((f"kex-strict-{role}-v00@openssh.com",) if strict else ()))
        scribe = Scribe(side, b"SSH-2.0-x")
        kexinit = offer(cipher, mac, kex=names, cookie=role.encode() * 15 + b"!")
        scribe.send(kexinit.encode(), *extras, first, NEWKEYS)
        wire.append(scribe.piece)
    return wire


# ---------------------------------------------------------------------------------------------------------------- clean


@pytest.mark.parametrize("cipher", [CHACHA, GCM, CTR])
def test_a_good_session(cipher: tuple[str, ...]) -> None:
    recording = session(rekeys="cs", preferences=Preferences(cipher=cipher, mac=HMAC))
    for secrets in (recording.secrets, None):
        assert codes(find(observe(recording.wire, secrets))) == []


def test_nothing() -> None:
    assert find([]) == []
    assert find(observe([(C, b"SSH-2.0-x\r\n")])) == []


# ------------------------------------------------------------------------------------------------------ before NEWKEYS


@pytest.mark.parametrize(
    ("cipher", "mac", "form"),
    [
        (CHACHA, HMAC, "ChaCha20-Poly1305"),
        (CBC, ETM, "CBC with encrypt-then-MAC"),
        (GCM, HMAC, ""),
        (CTR, ETM, ""),
        (CBC, HMAC, ""),
    ],
)
@pytest.mark.parametrize(
    "extra", [IGNORE, DEBUG, b"\x03\0\0\0\0", b"\xc0\0\0\0\0", b"\x09\0\0\0\0", b"\xc8", b"\x05\0\0\0\0"]
)
@pytest.mark.parametrize("side", list(Side))
def test_terrapin(cipher: tuple[str, ...], mac: tuple[str, ...], form: str, extra: bytes, side: Side) -> None:
    wire = handshake([extra] if side is C else [], [extra] if side is S else [], cipher=cipher, mac=mac)
    found = {finding.code: finding for finding in find(observe(wire))}
    assert ("terrapin" in found) is bool(form)
    assert ("message-before-newkeys" in found) is not bool(form)
    finding = found["terrapin" if form else "message-before-newkeys"]
    assert finding.side is side
    assert finding.frames == (1 if side is C else 2,)
    if form:
        assert form in finding.words
        assert (finding.severity, finding.reference) == (Severity.CRITICAL, "CVE-2023-48795")
    else:
        assert finding.severity is (Severity.LOW if extra[0] in (2, 3, 4) else Severity.HIGH)
    strict = find(
        observe(
            handshake([extra] if side is C else [], [extra] if side is S else [], cipher=cipher, mac=mac, strict=True)
        )
    )
    assert codes(strict, but=("weak-offer", "weak-cipher")) == ["strict-kex-broken"]
    assert strict[0].reference == "OpenSSH PROTOCOL section 1.9"


def test_answers_are_not_attacks() -> None:
    """Who gets what he does not know says so; it is the other side's finding."""
    for extra, answer in (
        (b"\x09", b"\x03\0\0\0\1"),
        (b"\xc0\0\0\0\0", b"\xc1\0\0\0\0"),
        (b"\xc0\0\0\0\0", b"\x03\0\0\0\1"),
    ):
        found = [finding for finding in find(observe(handshake([answer], [extra]))) if finding.code == "terrapin"]
        assert [finding.side for finding in found] == [S]
        found = [finding for finding in find(observe(handshake([answer], []))) if finding.code == "terrapin"]
        assert [finding.side for finding in found] == [C]


def test_rogue_messages() -> None:
    extension = find(observe(handshake([], [EXT_INFO])))
    assert codes(extension)[:2] == ["rogue-extension", "terrapin"]
    assert (extension[0].reference, extension[0].side) == ("CVE-2023-46445", S)
    login = find(observe(handshake([LOGIN], [], cipher=GCM)))
    assert codes(login)[0] == "rogue-session"
    assert (login[0].reference, login[0].side, login[0].severity) == ("CVE-2023-46446", C, Severity.CRITICAL)
    assert "message-before-newkeys" not in codes(login)


def test_disconnect_is_no_attack() -> None:
    wire = handshake([m.Disconnect(3, "x").encode()], [])
    assert "terrapin" not in codes(find(observe(wire)))


@pytest.mark.parametrize(
    ("cipher", "mac", "severity"), [(CHACHA, HMAC, "medium"), (CBC, ETM, "medium"), (GCM, HMAC, "low")]
)
def test_no_strict_key_exchange(cipher: tuple[str, ...], mac: tuple[str, ...], severity: str) -> None:
    for mine, theirs, words in (
        (False, True, "the client does not offer it"),
        (True, False, "the server does not offer it"),
        (False, False, "neither side offers it"),
    ):
        common: dict[str, Any] = {"cipher": cipher, "mac": mac, "allow_terrapin": True}
        recording = session(
            preferences=Preferences(strict_kex=mine, **common),
            server_preferences=Preferences(strict_kex=theirs, **common),
        )
        found = [finding for finding in find(observe(recording.wire)) if finding.code == "no-strict-kex"]
        assert [finding.severity.value for finding in found] == [severity]
        assert words in found[0].words
        assert ("CVE-2023-48795" in found[0].reference) is (severity == "medium")


def opened(side: Side, payload: bytes, *, epoch: int = 1, context: str = "") -> Observed:
    packet = PacketOpened(
        sequence_number=0, epoch=epoch, number=payload[0], context=context, message=m.decode(payload, context),
        payload=payload, offset=0, size=len(payload), integrity=Integrity.VERIFIED,
    )  # fmt: skip
    return Observed(side=side, time=None, frames=(9,), event=packet)


def test_extensions_that_are_missing() -> None:
    wire = handshake([], [], cipher=GCM)
    events = observe(wire)
    for first, missing in ((EXT_INFO, False), (m.ServiceAccept("ssh-userauth").encode(), True)):
        found = find([*events, opened(S, first), opened(S, IGNORE)])
        assert ("ext-info-missing" in codes(found)) is missing
    assert "ext-info-missing" not in codes(find(events))
    recording = session()
    assert "ext-info-missing" not in codes(find(observe(recording.wire, recording.secrets)))


# ------------------------------------------------------------------------------------------------------------- weakness


def legacy(**preferences: Any) -> Recording:
    return session(preferences=Preferences(allow_terrapin=True, **preferences))


@pytest.mark.parametrize(
    ("preferences", "code", "severity", "reference"),
    [
        ({"kex": ("diffie-hellman-group1-sha1",)}, "weak-kex", "high", "RFC 9142"),
        ({"kex": ("diffie-hellman-group14-sha1",)}, "weak-kex", "medium", "RFC 9142"),
        ({"cipher": ("3des-cbc",)}, "weak-cipher", "medium", "CVE-2016-2183"),
        ({"cipher": ("aes128-cbc",)}, "weak-cipher", "medium", "CVE-2008-5161"),
        ({"cipher": CTR, "mac": ("hmac-md5",)}, "weak-mac", "medium", "RFC 6151"),
        ({"cipher": CTR, "mac": ("hmac-sha1",)}, "weak-mac", "medium", "RFC 6194"),
    ],
)
def test_weak_algorithms(preferences: dict[str, Any], code: str, severity: str, reference: str) -> None:
    found = [finding for finding in find(observe(legacy(**preferences).wire)) if finding.code == code]
    assert {finding.severity.value for finding in found} == {severity}
    assert {finding.reference for finding in found} == {reference}
    assert all(finding.frames for finding in found)
    assert len(found) == (1 if code == "weak-kex" else 2)
    assert {finding.side for finding in found} == ({None} if code == "weak-kex" else {C, S})


def test_a_mac_that_is_void_is_not_judged() -> None:
    assert "weak-mac" not in codes(find(observe(legacy(cipher=GCM, mac=("hmac-md5",)).wire)))


def test_sha1_signatures() -> None:
    key = PrivateKey.generate("ssh-rsa")
    preferences = Preferences(host_key=("ssh-rsa",), signature=("ssh-rsa",))

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)
        elif isinstance(question, ev.CredentialNeeded) and question.attempt == 0:
            conn.auth_public_key(question, key)
        else:
            conn.refuse(question)

    def allow(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.KeyProbe):
            conn.offer_key(question)
        elif isinstance(question, ev.KeyAuth):
            conn.accept_auth(question)
        elif isinstance(question, ev.ChannelOpenRequested):
            conn.accept_channel(question)
        else:
            conn.succeed(question)

    recording = session(
        client=ClientConfig(user="alice", preferences=preferences, debug_raise=True),
        server=ServerConfig(host_keys=(key,), preferences=preferences, debug_raise=True),
        client_answer=answer,
        server_answer=allow,
    )
    found = [
        finding for finding in find(observe(recording.wire, recording.secrets)) if finding.code == "sha1-signature"
    ]
    assert [finding.side for finding in found] == [S, C] or [finding.side for finding in found] == [C, S]
    assert any("the user signs with ssh-rsa" in finding.words for finding in found)


NEGOTIATED = Negotiated(
    kex="curve25519-sha256", host_key="ssh-ed25519", cipher_client_to_server=GCM[0], cipher_server_to_client=GCM[0],
    mac_client_to_server=None, mac_server_to_client=None, compression_client_to_server="none",
    compression_server_to_client="none", strict_kex=True,
)  # fmt: skip


def exchanged(blob: bytes, **more: str) -> list[Observed]:
    chosen = attrs.evolve(NEGOTIATED, **more)
    kex = KexSeen(negotiated=chosen, host_key=None, host_key_blob=blob, epoch=0, opened=False)
    return [
        Observed(side=C, time=None, frames=(1,), event=RolesSeen(client=C, sure=True)),
        Observed(side=S, time=None, frames=(7,), event=kex),
    ]


@pytest.mark.parametrize(
    ("bits", "severity"), [(512, "high"), (1024, "high"), (2047, "medium"), (2048, "low"), (3072, "")]
)
def test_small_host_keys(bits: int, severity: str) -> None:
    blob = string(b"ssh-rsa") + mpint(65537) + mpint((1 << (bits - 1)) + 1)
    found = [finding for finding in find(exchanged(blob)) if finding.code == "weak-host-key"]
    assert [finding.severity.value for finding in found] == ([severity] if severity else [])
    for finding in found:
        assert f"{bits} bits" in finding.words
        assert (finding.side, finding.frames) == (S, (7,))
    certificate = string(b"ssh-rsa-cert-v01@openssh.com") + string(b"nonce") + blob[len(string(b"ssh-rsa")) :] + b"more"
    assert [it for it in find(exchanged(certificate)) if it.code == "weak-host-key"] == found
    for junk in (b"", b"junk", string(b"ssh-rsa"), string(b"ssh-rsa") + b"\0\0\0\1", string(b"ssh-dss")):
        assert "weak-host-key" not in codes(find(exchanged(junk)))


def test_algorithms_that_nobody_knows() -> None:
    found = find(exchanged(b"", kex="future@example.org", cipher_client_to_server="none\x07"))
    assert [(finding.code, finding.severity.value) for finding in found if finding.code == "unknown-algorithm"] == [
        ("unknown-algorithm", "info")
    ] * 2
    assert all("\x07" not in finding.words for finding in found)
    found = find(exchanged(b"", cipher_client_to_server="none"))
    assert [(finding.code, finding.severity.value, finding.side) for finding in found if "cipher" in finding.code] == [
        ("weak-cipher", "high", C)
    ]


def test_weak_offers_are_told_once_a_side() -> None:
    offers = [offer(("3des-cbc", "aes256-ctr"), ("hmac-md5",), cookie=bytes((side, 7)) * 8) for side in (1, 2)]
    wire = [Scribe(side, b"SSH-2.0-x").send(kexinit.encode()).piece for side, kexinit in zip(Side, offers, strict=True)]
    found = [finding for finding in find(observe(wire)) if finding.code == "weak-offer"]
    assert [(finding.side, finding.severity) for finding in found] == [(C, Severity.INFO), (S, Severity.INFO)]
    assert found[0].words == "it offers what is weak: 3des-cbc, hmac-md5"


def test_versions() -> None:
    found = find(observe([(C, b"SSH-1.5-old\n"), (S, b"SSH-1.99-x\r\n")]))
    assert [(finding.code, finding.side) for finding in found] == [("ssh-1-offered", S)]


# --------------------------------------------------------------------------------------------------------------- policy


def test_policies() -> None:
    recording = session()
    events = observe(recording.wire)
    good = Policy(
        kex=("mlkem768x25519-sha256",),
        host_key=("ssh-ed25519",),
        cipher=(*CHACHA, *GCM),
        mac=(),
        compression=("none",),
        minimum_rsa_bits=4096,
        minimum_group_bits=4096,
        strict_kex=True,
    )
    assert codes(find(events, good)) == []
    for field, value, count in (
        ("kex", (), 1),
        ("host_key", ("ssh-rsa",), 1),
        ("cipher", CTR, 2),
        ("compression", ("zlib",), 2),
    ):
        found = find(events, attrs.evolve(good, **{field: value}))
        assert codes(found) == ["policy"] * count
        assert {finding.reference for finding in found if finding.code == "policy"} == {f"policy: {field}"}
        assert all(finding.severity is Severity.HIGH for finding in found if finding.code == "policy")
    bare = session(preferences=Preferences(strict_kex=False, cipher=GCM))
    assert codes(find(observe(bare.wire), Policy(strict_kex=True))) == ["policy", "no-strict-kex"]
    blob = string(b"ssh-rsa") + mpint(65537) + mpint((1 << 3071) + 1)
    assert codes(find(exchanged(blob), Policy(minimum_rsa_bits=4096))) == ["policy"]
    assert codes(find(exchanged(blob), Policy(minimum_rsa_bits=3072))) == []
    group = session(preferences=Preferences(kex=("diffie-hellman-group-exchange-sha256",)))
    assert codes(find(observe(group.wire), Policy(minimum_group_bits=8192))) == ["policy"]


# --------------------------------------------------------------------------------------------------------- repetitions


def test_repeated_cookies() -> None:
    one, other = session(), session()
    memory = Memory()
    assert codes(find(observe(one.wire), memory=memory)) == []
    again = find(observe(one.wire), memory=memory)
    assert codes(again) == ["repeated-cookie"] * 2 + ["repeated-value"] * 2
    assert {finding.side for finding in again if finding.code != "weak-offer"} == {C, S}
    assert codes(find(observe(other.wire))) == []
    zero = offer(cookie=bytes(16))
    assert "repeated-cookie" in codes(find(observe([Scribe(C, b"SSH-2.0-x").send(zero.encode()).piece])))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshproto.replay.findings._KEPT", 10)
    memory = Memory()
    assert not any(memory.again("x", bytes((number,))) for number in range(100))
    assert len(memory._seen) == 10
    assert memory.again("x", bytes((99,)))
    assert not memory.again("y", bytes((99,)))
    assert not memory.again("x", bytes((0,)))


@pytest.mark.parametrize(
    ("prime", "severity"),
    [(GROUP1.prime, "high"), ((1 << 1535) + 1, "medium"), (GROUP14.prime, "")],
)
def test_small_groups(prime: int, severity: str) -> None:
    payload = m.KexDhGexGroup(prime, 2).encode()
    memory = Memory()
    for again in (False, True):
        found = find([opened(S, payload, epoch=0, context="gex")], memory=memory)
        small = [finding for finding in found if finding.code == "small-group"]
        assert [finding.severity.value for finding in small] == ([severity] if severity else [])
        assert ("repeated-group" in codes(found)) is (again and prime != GROUP14.prime)


def test_small_groups_that_are_asked_for() -> None:
    for message, small in (
        (m.KexDhGexRequest(1024, 1024, 1024), True),
        (m.KexDhGexRequest(2048, 2048, 8192), False),
        (m.KexDhGexRequestOld(1024), True),
        (m.KexDhGexRequestOld(2048), False),
    ):
        found = find([opened(C, message.encode(), epoch=0, context="gex")])
        assert codes(found) == (["small-group-asked"] if small else [])


# ------------------------------------------------------------------------------------------------------------- conduct


def test_data_before_the_login() -> None:
    recording = session()
    events = observe(recording.wire, recording.secrets)
    start = next(index for index, seen in enumerate(events) if isinstance(seen.event, ev.AuthSucceeded))
    data = opened(C, m.ChannelData(0, b"x").encode())
    assert "data-before-login" not in codes(find([*events, data]))
    early = find([*events[: start - 2], data, *events[start - 2 :]])
    (finding,) = [finding for finding in early if finding.code == "data-before-login"]
    assert (finding.severity, finding.reference, finding.side) == (Severity.HIGH, "RFC 4252 section 6", C)
    # If the server can't be read, nobody knows whether there was a login.
    assert "data-before-login" not in codes(find([data]))


def test_a_login_for_nothing() -> None:
    seen = Observed(side=S, time=None, frames=(3,), event=ev.AuthSucceeded("none", True))
    assert codes(find([seen])) == ["no-proof"]


def test_oversize() -> None:
    long = offer(kex=tuple(f"name{number}" for number in range(300)), cookie=b"a" * 8 + b"b" * 8)
    bad = offer(kex=("x" * 65,), cookie=b"c" * 8 + b"d" * 8)
    for kexinit in (long, bad):
        found = find(observe([Scribe(C, b"SSH-2.0-x").send(kexinit.encode()).piece]))
        assert [(finding.code, finding.severity) for finding in found] == [("oversize", Severity.MEDIUM)]
    big = find(observe([Scribe(C, b"SSH-2.0-x").send(m.Ignore(bytes(40_000)).encode()).piece]))
    assert [(finding.code, finding.severity) for finding in big] == [("oversize", Severity.LOW)]
    packet = opened(S, IGNORE)
    assert isinstance(packet.event, PacketOpened)
    huge = attrs.evolve(packet, event=attrs.evolve(packet.event, size=300_000))
    assert codes(find([huge])) == ["oversize"]


def test_frames_are_bounded_and_the_worst_is_first() -> None:
    extras = [IGNORE] * 40
    scribes = handshake([], extras)
    pieces = [(side, data[place : place + 8]) for side, data in scribes for place in range(0, len(data), 8)]
    found = find(observe(pieces))
    assert len(found[0].frames) == 16
    order = [list(Severity).index(finding.severity) for finding in found]
    assert order == sorted(order, reverse=True)


def test_names_without_end_are_not_judged_one_by_one() -> None:
    kexinit = offer(tuple(f"3des-{number}" for number in range(20_000)))
    found = find(observe([Scribe(C, b"SSH-2.0-x").send(kexinit.encode()).piece]))
    assert "oversize" in codes(found)
    (weak,) = [finding for finding in found if finding.code == "weak-offer"]
    assert len(weak.words) < 1200


def test_findings_are_bounded() -> None:
    events = [
        opened(C, m.UserauthRequest("u", "s", "publickey", signed(f"ssh-dss-{number}")).encode())
        for number in range(3000)
    ]
    assert len(find(events)) == 1000


def signed(algorithm: str) -> bytes:
    return b"\1" + string(algorithm.encode()) + string(b"key") + string(b"signature")


def test_the_same_is_told_once() -> None:
    seen = Observed(side=S, time=None, frames=(3,), event=ev.AuthSucceeded("none", True))
    later = attrs.evolve(seen, frames=(4,))
    (finding,) = find([seen, later])
    assert finding.frames == (3,)
