"""Public captures: each as its row in the captures' README says, and nothing raises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.replay.events import KeysMissing, Missing, PacketOpened, PacketSealed, Problem, Side, Ssh1Packet
from sshproto.replay.findings import Memory
from sshproto.replay.ssh1 import Ssh1PublicKey, Ssh1SessionKey
from tests.replay.captured import Captured, captured
from tests.replay.sessions import told, troubles

NOTHING = None
OLD = "SSH-2.0-OpenSSH_"
BOTH = "SSH-1.99-OpenSSH_6.6.1p1 Ubuntu-2ubuntu2"
CMU = "SSH-1.99-OpenSSH_3.4+p1+gssapi+OpenSSH_3.7.1buf_fix+2006100301"
GEX, GEX1 = "diffie-hellman-group-exchange-sha256", "diffie-hellman-group-exchange-sha1"
CHACHA, UMAC = "chacha20-poly1305@openssh.com", "umac-64-etm@openssh.com"
LATE = "zlib@openssh.com"
P256, ECDSA, X25519 = "ecdh-sha2-nistp256", "ecdsa-sha2-nistp256", "curve25519-sha256"
WINDOWS = ("SSH-2.0-OpenSSH_for_Windows_7.7", "SSH-2.0-OpenSSH_7.4")
PUTTY = ("SSH-2.0-PuTTY_Release_0.79", "SSH-2.0-OpenSSH_9.5", "sntrup761x25519-sha512@openssh.com", "ssh-ed25519")
ASYNC = ("SSH-2.0-AsyncSSH_2.13.2",) * 2 + ("curve25519-sha256", "rsa-sha2-256", CHACHA, UMAC, "none")
CBC = (*PUTTY, "aes256-cbc", "hmac-sha2-256-etm@openssh.com", "none")
BITBUCKET = (OLD + "6.7", OLD + "5.3", GEX, "ssh-rsa", "aes128-ctr", "umac-64@openssh.com", "none")
CERTIFIED = (OLD + "6.7", OLD + "6.7", "curve25519-sha256@libssh.org", "ssh-ed25519-cert-v01@openssh.com", CHACHA)
CERTIFIED += ("hmac-sha2-512-etm@openssh.com", "none")

Row = tuple[str | None, ...]
"""Client, server, key exchange, host key, cipher and MAC (of both directions), compression. The rest is nothing."""


def ssh1(client: str = "6.2", server: str | None = BOTH) -> Row:
    return (f"SSH-1.5-OpenSSH_{client}", server)


ROWS: dict[str, list[Row]] = {
    "zeek/kex-quadratic-1000.pcap.gz": [("SSH-2.0-CodexClient", "SSH-2.0-CodexServer")],
    "zeek/reverse-ssh.pcap": [
        ("SSH-2.0-AsyncSSH_2.8.1", "SSH-2.0-dropbear_2018.76", X25519, "ssh-rsa", "aes256-ctr",
         "hmac-sha2-256", LATE),
    ],
    "zeek/server-pre-banner-data.pcap": [
        (OLD + "9.7", OLD + "9.2p1 Debian-2+deb12u5", "sntrup761x25519-sha512@openssh.com", "ssh-ed25519", "aes192-ctr",
         "hmac-sha2-256", LATE),
    ],
    "zeek/ssh-on-port-80.pcap": [
        (OLD + "5.2", OLD + "5.8p1 Debian-1ubuntu3", GEX, "ssh-rsa", "aes128-ctr", "hmac-md5", "none"),
    ],
    "zeek/ssh-over-udp.pcap": [],
    "zeek/ssh.client-side-half-duplex.pcap": [
        (OLD + "5.9", NOTHING), (OLD + "6.2", NOTHING), ssh1(server=NOTHING), ssh1("5.3", NOTHING),
        *[ssh1(server=NOTHING)] * 7, (OLD + "6.2", NOTHING), *[(OLD + "6.6p1-hpn14v4", NOTHING)] * 2,
        (OLD + "6.6", NOTHING), *[(OLD + "6.7", NOTHING)] * 5,
    ],
    "zeek/ssh.pcap": [
        (OLD + "5.9", OLD + "5.8", P256, ECDSA, "aes128-ctr", "hmac-md5", LATE),
        (OLD + "6.6", OLD + "5.9p1 Debian-5ubuntu1.1", P256, "ssh-rsa", "aes128-ctr", "hmac-md5", "none"),
        (OLD + "6.2", BOTH, GEX, "ssh-rsa", "aes128-ctr", "hmac-md5-etm@openssh.com", "none"),
        ssh1(),
        (OLD + "6.2", "SSH-2.0-paramiko_1.15.2", GEX1, "ssh-rsa", "aes128-ctr", "hmac-md5", "none"),
        ssh1("5.3"), *[ssh1()] * 7,
        (OLD + "6.2", BOTH, GEX, "ssh-rsa", "arcfour256", "hmac-md5-etm@openssh.com", "none"),
        (OLD + "6.6p1-hpn14v4", CMU, GEX1, "ssh-rsa", "aes128-cbc", "hmac-md5", "none"),
        (OLD + "6.6p1-hpn14v4", OLD + "5.3", GEX, "ssh-rsa", "aes128-ctr", "hmac-md5", "none"),
        (OLD + "6.6", CMU, GEX1, "ssh-rsa", "aes128-cbc", "hmac-md5", "none"),
        *[CERTIFIED] * 2,
        (),
        *[BITBUCKET] * 3,
    ],
    "zeek/ssh_kex_mlkem.pcap": [
        (OLD + "10.2", OLD + "9.9", "mlkem768x25519-sha256", "ssh-ed25519", CHACHA, UMAC, "none"),
    ],
    "zeek/ssh_server_sends_first_enc_pkt_with_newkeys.pcap": [
        (*[OLD + "7.6p1 Ubuntu-4ubuntu0.3"] * 2, X25519, ECDSA, CHACHA, UMAC, "none"),
    ],
    "zeek/ssh-dups.pcap": [
        (OLD + "7.9", OLD + "7.6p1 Ubuntu-4ubuntu0.3", X25519, ECDSA, CHACHA, UMAC, "none"),
    ],
    "zeek/get-to-ssh-server.pcap": [(NOTHING, OLD + "8.7")],
    "zeek/http-to-ssh.pcap": [(NOTHING, OLD + "9.6p1 Ubuntu-3ubuntu13.8")],
    "suricata-verify/ssh-banner-only.pcap": [WINDOWS],
    "suricata-verify/ssh-hassh.pcap": [(*WINDOWS, X25519, ECDSA, CHACHA, UMAC, "none")],
    "suricata-verify/ssh-hassh-only.pcap": [(*WINDOWS, X25519, ECDSA, CHACHA, UMAC, "none")],
    "suricata-verify/ssh-hassh-incomplete.pcap": [
        (OLD + "6.7p1 Raspbian-5+deb8u3", OLD + "7.4p1 Debian-10+deb9u7"),
    ],
    "suricata-verify/ssh-hassh-reassembled.pcap": [
        ("SSH-1.99-Cisco-1.25", "SSH-2.0-Cisco-1.25", "diffie-hellman-group1-sha1", "ssh-rsa", "aes128-cbc",
         "hmac-sha1", "none"),
    ],
    "arkime/ssh2.pcap": [(OLD + "5.3", "SSH-1.99-OpenSSH_3.9p1", GEX1, "ssh-rsa", "aes128-ctr", "hmac-md5", "none")],
    "terrapin/ext_downgrade_cbc_ping.pcapng": [CBC] * 2,
    "terrapin/ext_downgrade_cbc_unknown.pcapng": [CBC] * 2,
    "terrapin/ext_downgrade_chacha20-poly1305.pcapng": [(*PUTTY, CHACHA, "hmac-sha2-256", "none")] * 2,
    "terrapin/rogue_extension_negotiation_attack.pcapng": [ASYNC] * 2,
    "terrapin/rogue_session_attack.pcapng": [ASYNC] * 2,
    "pcapplusplus/ssh_packets.pcap": [(OLD + "5.3",), ()],
    "flowcontainer/ssh.pcap": [()],
}  # fmt: skip

COMPLETE = {
    "zeek/ssh.pcap": 22,
    "zeek/ssh-on-port-80.pcap": 1,
    "zeek/ssh-dups.pcap": 1,
    "zeek/ssh_kex_mlkem.pcap": 1,
    "zeek/ssh_server_sends_first_enc_pkt_with_newkeys.pcap": 1,
    "suricata-verify/ssh-hassh-reassembled.pcap": 1,
    "terrapin/ext_downgrade_cbc_unknown.pcapng": 1,
    "terrapin/ext_downgrade_chacha20-poly1305.pcapng": 1,
    "terrapin/rogue_extension_negotiation_attack.pcapng": 2,
    "terrapin/rogue_session_attack.pcapng": 2,
}
"""How many connections were captured from their beginning to their end."""


@pytest.fixture
def public(shared: Path) -> Path:
    path = shared / "captures" / "public"
    if not path.is_dir():
        pytest.skip("no public captures")
    return path


def row(found: Captured) -> Row:
    """What was seen, as a row; without what both directions have in common to say, or nothing."""
    values = found.summary.as_dict()
    both = [
        values[f"{kind}_c2s"] if values[f"{kind}_c2s"] == values[f"{kind}_s2c"] else "different"
        for kind in ("cipher", "mac", "compression")
    ]
    whole = [values[key] for key in ("client_version", "server_version", "kex", "host_key_alg")] + both
    while whole and whole[-1] is None:
        whole.pop()
    return tuple(whole)


def trimmed(expected: Row) -> Row:
    return expected[:-1] if expected and expected[-1] is None else expected


@pytest.mark.parametrize("name", ROWS)
def test_rows(public: Path, name: str) -> None:
    found = captured(public / name)
    assert [row(it) for it in found] == [trimmed(it) for it in ROWS[name]]
    assert sum(it.summary.complete for it in found) == COMPLETE.get(name, 0)
    for it in found:
        values = it.summary.as_dict()
        assert values["decrypted"] is None
        assert bool(values["hassh"]) is bool(told(it.events, ev.VersionReceived) and offered(it, client=True))
        assert bool(values["hassh_server"]) is offered(it, client=False)
        if values["kex"] and "hassh-only" not in name:
            assert values["host_key_sha256"], name
        for seen in it.events:
            if isinstance(seen.event, (PacketOpened, PacketSealed)):
                assert seen.frames
                assert seen.time is not None


def offered(it: Captured, *, client: bool) -> bool:
    side = it.summary.client or Side.DIALLER
    return any(event.number == 20 for event in told(it.events, PacketOpened, side if client else side.other))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("options", [{"hold": 0}, {"ordered": False}, {"hold": 0, "ordered": False}], ids=str)
def test_the_same_in_other_ways(public: Path, name: str, options: dict[str, Any]) -> None:
    usual, other = captured(public / name), captured(public / name, **options)
    assert [it.summary.as_dict() for it in usual] == [it.summary.as_dict() for it in other]
    assert [it.findings for it in usual] == [it.findings for it in other]


def one(public: Path, name: str, number: int = 0, **options: Any) -> Captured:
    return captured(public / name, **options)[number]


def test_who_is_who_in_a_reverse_connection(public: Path) -> None:
    found = one(public, "zeek/reverse-ssh.pcap")
    assert (found.summary.client, found.summary.sure) == (Side.DIALLED, True)


def test_names_without_end(public: Path) -> None:
    found = one(public, "zeek/kex-quadratic-1000.pcap.gz")
    assert any("no common kex algorithm" in problem for problem in troubles(found.events))
    assert "oversize" in {finding.code for finding in found.findings}


def test_lines_before_the_identification(public: Path) -> None:
    found = one(public, "zeek/server-pre-banner-data.pcap")
    (version,) = told(found.events, ev.VersionReceived, Side.DIALLED)
    assert version.preamble
    assert found.summary.as_dict()["strict_kex"] is True


@pytest.mark.parametrize("name", ["zeek/get-to-ssh-server.pcap", "zeek/http-to-ssh.pcap"])
def test_http(public: Path, name: str) -> None:
    found = one(public, name)
    assert "dialler: no identification; the first line is 'GET / HTTP/1.1'" in troubles(found.events)
    assert found.findings == []


def test_one_direction(public: Path) -> None:
    for found in captured(public / "zeek/ssh.client-side-half-duplex.pcap"):
        (missing,) = told(found.events, Missing)
        assert missing.problem.startswith("the first ")
        assert missing.problem.endswith(" bytes of the dialled are missing")
        assert told(found.events, PacketSealed, Side.DIALLER)


def test_version_1(public: Path) -> None:
    found = [it for it in captured(public / "zeek/ssh.pcap") if told(it.events, Ssh1Packet)]
    assert len(found) == 9
    for it in found:
        public_key, session_key = told(it.events, Ssh1Packet)
        assert isinstance(public_key.message, Ssh1PublicKey)
        assert isinstance(session_key.message, Ssh1SessionKey)
        assert public_key.message.cookie == session_key.message.cookie
        assert (public_key.message.host_key.bits, public_key.message.host_key.modulus.bit_length()) == (2048, 2048)
        assert session_key.message.cipher in public_key.message.ciphers
        assert {event.exact for event in told(it.events, PacketSealed)} == {True}
        assert troubles(it.events) == []
        assert it.findings[0].code == "ssh-1"


def test_framing(public: Path) -> None:
    """Exact where lengths are clear."""
    for found in captured(public / "zeek/ssh.pcap"):
        values = found.summary.as_dict()
        if values["mac_c2s"]:
            exact = "etm" in values["mac_c2s"] and not values["cipher_c2s"].startswith("chacha")
            assert {event.exact for event in told(found.events, KeysMissing)} == {exact}
            assert {event.exact for event in told(found.events, PacketSealed)} == {exact}


def test_the_middle(public: Path) -> None:
    found = one(public, "flowcontainer/ssh.pcap")
    assert troubles(found.events) == [
        f"{side.value}: no identification: this is not SSH, or the recording begins in the middle" for side in Side
    ]


def test_what_was_blotted_out(public: Path) -> None:
    """Somebody has written x over the keys: they don't decode, but the rest does."""
    found = one(public, "arkime/ssh2.pcap")
    assert any("KEX_DH_GEX_REPLY does not decode" in problem for problem in troubles(found.events))
    assert [event.fatal for event in told(found.events, Problem)] == [False]


# ------------------------------------------------------------------------------------------------------------ Terrapin

ATTACKS: dict[str, list[list[tuple[str, Side, str]]]] = {
    "terrapin/ext_downgrade_cbc_ping.pcapng": [
        [("terrapin", Side.DIALLED, "CBC with encrypt-then-MAC")],
        [("terrapin", Side.DIALLER, "PING before NEWKEYS, with CBC with encrypt-then-MAC")],
    ],
    "terrapin/ext_downgrade_cbc_unknown.pcapng": [
        [("terrapin", Side.DIALLED, "message 9 before NEWKEYS, with CBC with encrypt-then-MAC")],
        [("terrapin", Side.DIALLER, "message 9 before NEWKEYS, with CBC with encrypt-then-MAC")],
    ],
    "terrapin/ext_downgrade_chacha20-poly1305.pcapng": [
        [("terrapin", Side.DIALLED, "IGNORE before NEWKEYS, with ChaCha20-Poly1305")],
        [],  # there a message is missing, which only the keys would show
    ],
    "terrapin/rogue_extension_negotiation_attack.pcapng": [
        [("rogue-extension", Side.DIALLED, "EXT_INFO in clear"), ("terrapin", Side.DIALLED, "ChaCha20-Poly1305")],
        [],
    ],
    "terrapin/rogue_session_attack.pcapng": [
        [],
        [("rogue-session", Side.DIALLER, "USERAUTH_REQUEST in clear"), ("terrapin", Side.DIALLER, "ChaCha20-Poly1305")],
    ],
}
"""By leg, the client's first: findings of the worst kind, whose they are, and words in them."""

REFERENCES = {
    "terrapin": "CVE-2023-48795",
    "rogue-extension": "CVE-2023-46445",
    "rogue-session": "CVE-2023-46446",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(public: Path, name: str) -> None:
    memory = Memory()
    legs = captured(public / name, memory=memory)
    for leg, expected in zip(legs, ATTACKS[name], strict=True):
        critical = [finding for finding in leg.findings if finding.severity.value == "critical"]
        assert [(finding.code, finding.side) for finding in critical] == [(code, side) for code, side, _ in expected]
        for finding, (code, _, words) in zip(critical, expected, strict=True):
            assert words in finding.words
            assert finding.reference == REFERENCES[code]
            assert finding.frames
        (strict,) = [finding for finding in leg.findings if finding.code == "no-strict-kex"]
        assert "CVE-2023-48795" in strict.reference
    # Both legs have the same cookies: somebody relays.
    assert "repeated-cookie" not in {finding.code for finding in legs[0].findings}
    assert "repeated-cookie" in {finding.code for finding in legs[1].findings}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ATTACKS])
def test_no_attacks(public: Path, name: str) -> None:
    codes = {finding.code for found in captured(public / name) for finding in found.findings}
    assert not codes & {"terrapin", "rogue-extension", "rogue-session", "message-before-newkeys", "strict-kex-broken"}
    assert not codes & {"data-before-login", "ext-info-missing"}
