"""``sshproto scan``: what is weak, what is shown of it, and servers that are none, or not for us.

How it gets on with servers of others is in the interop tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from sshproto import algorithms
from sshproto.config import Preferences, ServerConfig
from sshproto.events import VersionReceived
from sshproto.keys.private import PrivateKey
from sshproto.server import ServerConnection
from sshproto.transport.negotiation import PSEUDO
from sshproto.weaknesses import ELSEWHERE, WEAK, Standing, Verdict, judge, judge_key, judge_strictness
from sshproto.wire.codec import mpint, string, text
from sshproto.wire.messages import Disconnect, KexEcdhInit, KexInit
from sshproto_cli import main, scan, survey
from sshproto_cli.options import Failure
from sshproto_cli.survey import Glimpse, HostKey, Report
from tests.support.rogue import IDENT, frame, kexinit

ROOT = Path(__file__).resolve().parents[3]
CODE = os.pathsep.join((str(ROOT), str(ROOT / "adapters")))
HOST = "127.0.0.1"


# --------------------------------------------------------------------------------------------------------- what is weak


@pytest.mark.parametrize(
    ("category", "name", "reason"),
    [
        ("kex", "diffie-hellman-group1-sha1", "a group of 1024 bits, SHA-1"),
        ("kex", "diffie-hellman-group14-sha1", "SHA-1"),
        ("kex", "diffie-hellman-group-exchange-sha1", "groups from 1024 bits on, SHA-1"),
        ("kex", "gss-group1-sha1-toWM5Slw5Ew8Mqkay+al2g==", "a group of 1024 bits, SHA-1"),
        ("kex", "gss-group14-sha1-toWM5Slw5Ew8Mqkay+al2g==", "SHA-1"),
        ("kex", "gss-gex-sha1-toWM5Slw5Ew8Mqkay+al2g==", "groups from 1024 bits on, SHA-1"),
        ("kex", "rsa1024-sha1", "RSA of 1024 bits, SHA-1"),
        ("signature", "ssh-rsa", "SHA-1"),
        ("signature", "ssh-rsa-cert-v01@openssh.com", "SHA-1"),
        ("signature", "ssh-dss", "DSA of 1024 bits, SHA-1"),
        ("signature", "x509v3-ssh-rsa", "SHA-1"),
        ("cipher", "none", "no encryption"),
        ("cipher", "arcfour", "RC4"),
        ("cipher", "arcfour256", "RC4"),
        ("cipher", "3des-cbc", "blocks of 64 bits, CBC mode"),
        ("cipher", "3des-ctr", "blocks of 64 bits"),
        ("cipher", "des-cbc@ssh.com", "DES, CBC mode"),
        ("cipher", "blowfish-cbc", "blocks of 64 bits, CBC mode"),
        ("cipher", "aes256-cbc", "CBC mode"),
        ("cipher", "rijndael-cbc@lysator.liu.se", "CBC mode"),
        ("mac", "none", "no integrity"),
        ("mac", "hmac-md5", "MD5"),
        ("mac", "hmac-md5-96-etm@openssh.com", "MD5, a tag of 96 bits"),
        ("mac", "hmac-sha1", "SHA-1"),
        ("mac", "hmac-sha1-96", "SHA-1, a tag of 96 bits"),
        ("mac", "hmac-sha1-etm@openssh.com", "SHA-1"),
        ("mac", "hmac-sha2-256-96", "a tag of 96 bits"),
        ("mac", "hmac-ripemd160@openssh.com", "RIPEMD-160"),
        ("mac", "umac-64@openssh.com", "a tag of 64 bits"),
        ("mac", "umac-64-etm@openssh.com", "a tag of 64 bits"),
    ],
)
def test_weak_names_and_why(category, name, reason):
    assert judge(category, name) == Verdict(Standing.WEAK, reason)


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("kex", "sntrup761x25519-sha512@openssh.com"),
        ("kex", "diffie-hellman-group14-sha256@ssh.com"),
        ("kex", "diffie-hellman-group-exchange-sha512@ssh.com"),
        ("kex", "gss-group14-sha256-toWM5Slw5Ew8Mqkay+al2g=="),
        ("kex", "gss-curve25519-sha256-toWM5Slw5Ew8Mqkay+al2g=="),
        ("kex", "ecdh-sha2-1.3.132.0.10"),
        ("signature", "ssh-ed25519-cert-v01@openssh.com"),
        ("signature", "rsa-sha2-512-cert-v01@openssh.com"),
        ("signature", "sk-ssh-ed25519@openssh.com"),
        ("signature", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com"),
        ("signature", "x509v3-ecdsa-sha2-nistp256"),
        ("cipher", "AEAD_AES_256_GCM"),
        ("cipher", "camellia128-ctr@openssh.org"),
        ("mac", "umac-128-etm@openssh.com"),
        ("mac", "hmac-sha256-2@ssh.com"),
    ],
)
def test_names_of_others_are_known(category, name):
    assert judge(category, name) == Verdict(Standing.SOUND)


@pytest.mark.parametrize("category", WEAK)
@pytest.mark.parametrize("name", ["", "x", "md5", "quantum@example.org", "umac-32@openssh.com", "*", "[a]"])
def test_other_names_are_not(category, name):
    assert judge(category, name) == Verdict(Standing.UNKNOWN)


def test_the_tables_agree_with_what_is_offered_by_default():
    """What sshproto itself offers is sound, and what takes an application's word is weak."""
    assert WEAK.keys() == ELSEWHERE.keys() == algorithms.KNOWN.keys() - {"certificate"}
    categories = {"KEX": "kex", "SIGNATURE": "signature", "CERTIFICATE": "signature", "CIPHER": "cipher", "MAC": "mac"}
    for prefix, category in categories.items():
        for name in getattr(algorithms, f"{prefix}_LEGACY"):
            assert judge(category, name).standing is Standing.WEAK, name
        for name in (*getattr(algorithms, f"{prefix}_DEFAULT", ()), *getattr(algorithms, f"{prefix}_EXTRA", ())):
            assert judge(category, name).standing is Standing.SOUND, name
    for name in algorithms.KNOWN["compression"]:
        assert judge("compression", name).standing is Standing.SOUND


@pytest.mark.parametrize("name", [*sorted(PSEUDO), "kexguess2@matt.ucc.asn.au"])
def test_markers_are_no_algorithms(name):
    verdict = judge("kex", name)
    assert verdict.standing is Standing.MARKER
    assert verdict.reason


@pytest.mark.parametrize(
    ("kind", "bits", "reason"),
    [
        ("ssh-rsa", 1024, "under 2048 bits"),
        ("ssh-rsa", 2047, "under 2048 bits"),
        ("ssh-rsa", 2048, "under 3072 bits"),
        ("ssh-rsa", 3071, "under 3072 bits"),
        ("ssh-rsa", 3072, ""),
        ("ssh-rsa", None, ""),
        ("ssh-ed25519", 256, ""),
    ],
)
def test_short_keys(kind, bits, reason):
    assert judge_key(kind, bits) == Verdict(Standing.WEAK if reason else Standing.SOUND, reason)


ETM = "hmac-sha2-256-etm@openssh.com"
CHACHA = "chacha20-poly1305@openssh.com"


@pytest.mark.parametrize(
    ("ciphers", "macs", "marker", "risks"),
    [
        ((CHACHA,), (), (), "ChaCha20-Poly1305"),
        (("aes128-cbc",), (ETM,), (), "CBC and encrypt-then-MAC"),
        (("aes128-cbc", CHACHA), (ETM,), (), "ChaCha20-Poly1305 and CBC and encrypt-then-MAC"),
        (("aes128-cbc",), ("hmac-sha2-256",), (), ""),
        (("aes128-ctr", "aes128-gcm@openssh.com"), (ETM,), (), ""),
        ((CHACHA,), (), ("kex-strict-s-v00@openssh.com",), ""),
        ((CHACHA,), (), ("kex-strict-s",), ""),
        ((CHACHA,), (), ("kex-strict-c-v00@openssh.com",), "ChaCha20-Poly1305"),
    ],
)
@pytest.mark.parametrize("way", ["client_to_server", "server_to_client"])
def test_terrapin(ciphers, macs, marker, risks, way):
    changes = {f"encryption_algorithms_{way}": ciphers, f"mac_algorithms_{way}": macs}
    message = KexInit.parse(kexinit(kex_algorithms=("curve25519-sha256", *marker), **changes))
    reason = f"open to the Terrapin attack (CVE-2023-48795) with {risks}"
    assert judge_strictness(message) == (Verdict(Standing.WEAK, reason) if risks else Verdict(Standing.SOUND))


# -------------------------------------------------------------------------------------------------------- what is shown


def report(**changes):
    message = KexInit.parse(
        kexinit(
            kex_algorithms=("curve25519-sha256", "secret@example.org", "ext-info-s"),
            server_host_key_algorithms=("ssh-ed25519", "ssh-rsa"),
            mac_algorithms_server_to_client=("hmac-sha2-256", "hmac-sha1"),
            encryption_algorithms_client_to_server=("aes128-ctr", CHACHA),
            encryption_algorithms_server_to_client=("aes128-ctr", CHACHA),
        )
    )
    fields = {
        "host": "h.example",
        "port": 2222,
        "version": VersionReceived("SSH-2.0-x y", "2.0", "x", "y", ("hello",)),
        "lists": survey.judged(message),
        "strict": False,
        "strictness": judge_strictness(message),
        "keys": (
            HostKey(type="ssh-ed25519", bits=256, fingerprint="SHA256:abc", public="ssh-ed25519 AAAA"),
            HostKey(type="ssh-rsa", bits=2048, fingerprint="SHA256:def", verdict=judge_key("ssh-rsa", 2048)),
            HostKey(type="ecdsa-sha2-nistp256", problem="the server is gone"),
        ),
        "problem": "",
    }
    return Report(**{**fields, **changes})


TERRAPIN = "open to the Terrapin attack (CVE-2023-48795) with ChaCha20-Poly1305"


def test_text():
    assert scan.as_text(report()) == (
        f"""\
server                 h.example port 2222
identification         SSH-2.0-x y
before that, it said   hello
strict key exchange    no, weak: {TERRAPIN}

key exchange
  curve25519-sha256
  secret@example.org             unknown
  ext-info-s                     no algorithm: takes EXT_INFO (RFC 8308)

host key algorithms
  ssh-ed25519
  ssh-rsa                        weak: SHA-1

ciphers
  aes128-ctr
  chacha20-poly1305@openssh.com

MACs, client to server
  hmac-sha2-256

MACs, server to client
  hmac-sha2-256
  hmac-sha1                      weak: SHA-1

compression
  none

host keys
  ssh-ed25519                      256  SHA256:abc
  ssh-rsa                         2048  SHA256:def  weak: under 3072 bits
  ecdsa-sha2-nistp256            the server is gone

4 weak choices
"""
    )


def test_text_of_less():
    sound = survey.judged(KexInit.parse(kexinit()))
    shown = scan.as_text(
        report(lists=sound, strict=True, strictness=Verdict(Standing.SOUND), keys=(), problem="there is none")
    )
    assert "\nstrict key exchange    yes\n" in shown
    assert "host keys" not in shown
    assert shown.endswith("\nno host key was shown: there is none\nno weak choices\n")
    one = report(lists=sound, keys=(HostKey(type="ssh-rsa", bits=1024, verdict=judge_key("ssh-rsa", 1024)),))
    assert scan.as_text(attrs.evolve(one, strictness=Verdict(Standing.SOUND))).endswith("\n1 weak choice\n")


def test_a_talkative_server_and_its_languages():
    lines = tuple(f"line {number}" for number in range(1000))
    message = KexInit.parse(kexinit(languages_server_to_client=("de", "en")))
    shown = scan.as_text(
        report(version=VersionReceived("SSH-2.0-x", "2.0", "x", "", lines), lists=survey.judged(message))
    )
    assert "it said   line 0\n" in shown
    assert "line 10\n" not in shown
    assert " and 990 lines more\n" in shown
    assert "\nlanguages, server to client\n  de\n  en\n" in shown
    assert "languages, client to server" not in shown


@pytest.mark.covers("V70")
def test_names_can_not_harm_the_terminal():
    message = KexInit.parse(kexinit(mac_algorithms_client_to_server=("\x1b]0;x\x07", "a" * 2000)))
    shown = scan.as_text(report(lists=survey.judged(message)))
    assert "\x1b" not in shown
    assert r"\x1b]0;x\x07" in shown
    assert max(map(len, shown.splitlines())) < 200
    assert json.loads(scan.as_json(report(lists=survey.judged(message))))["kexinit"]["mac_client_to_server"][0] == {
        "name": "\x1b]0;x\x07",
        "standing": "unknown",
        "reason": None,
    }


def test_json():
    shown = json.loads(scan.as_json(report()))
    assert list(shown) == [
        "host",
        "port",
        "identification",
        "strict_kex",
        "kexinit",
        "host_keys",
        "problem",
        "weak",
    ]
    assert (shown["host"], shown["port"], shown["problem"]) == ("h.example", 2222, None)
    assert shown["identification"] == {
        "line": "SSH-2.0-x y",
        "protocol": "2.0",
        "software": "x",
        "comments": "y",
        "preamble": ["hello"],
    }
    assert shown["strict_kex"] == {"offered": False, "standing": "weak", "reason": TERRAPIN}
    assert list(shown["kexinit"]) == [
        "kex",
        "host_key",
        *(f"{what}_{way}" for what in ("cipher", "mac", "compression", "languages") for way in WAYS),
    ]
    assert shown["kexinit"]["kex"] == [
        {"name": "curve25519-sha256", "standing": "sound", "reason": None},
        {"name": "secret@example.org", "standing": "unknown", "reason": None},
        {"name": "ext-info-s", "standing": "marker", "reason": "takes EXT_INFO (RFC 8308)"},
    ]
    assert shown["host_keys"] == [
        {
            "type": "ssh-ed25519",
            "bits": 256,
            "fingerprint": "SHA256:abc",
            "public_key": "ssh-ed25519 AAAA",
            "standing": "sound",
            "reason": None,
            "problem": None,
        },
        {
            "type": "ssh-rsa",
            "bits": 2048,
            "fingerprint": "SHA256:def",
            "public_key": None,
            "standing": "weak",
            "reason": "under 3072 bits",
            "problem": None,
        },
        {
            "type": "ecdsa-sha2-nistp256",
            "bits": None,
            "fingerprint": None,
            "public_key": None,
            "standing": "sound",
            "reason": None,
            "problem": "the server is gone",
        },
    ]
    assert shown["weak"] == [
        {"what": "strict_kex", "name": "", "reason": TERRAPIN},
        {"what": "host_key_algorithm", "name": "ssh-rsa", "reason": "SHA-1"},
        {"what": "mac", "name": "hmac-sha1", "reason": "SHA-1"},
        {"what": "host_key", "name": "ssh-rsa", "reason": "under 3072 bits"},
    ]


WAYS = ("client_to_server", "server_to_client")


def test_what_is_weak_both_ways_counts_once():
    both = {f"mac_algorithms_{way}": ("hmac-sha1", "hmac-sha1", "hmac-md5") for way in WAYS}
    found = report(
        lists=survey.judged(KexInit.parse(kexinit(**both))), keys=(), strictness=Verdict(Standing.SOUND)
    ).weak
    assert [finding.name for finding in found] == ["hmac-sha1", "hmac-md5"]


def rsa(bits):
    return text("ssh-rsa") + mpint(65537) + mpint((1 << (bits - 1)) + 1)


@pytest.mark.parametrize(
    ("blob", "kind", "bits"),
    [
        (rsa(768), "ssh-rsa", 768),
        (rsa(2048), "ssh-rsa", 2048),
        (text("ssh-ed25519") + string(bytes(32)), "ssh-ed25519", 256),
        (text("ecdsa-sha2-nistp521") + string(b""), "ecdsa-sha2-nistp521", 521),
        (text("\x1bx") + string(b""), r"\x1bx", None),
        (text("ssh-rsa"), "unreadable", None),
        (b"", "", None),
        (b"\0", "unreadable", None),
        (b"\xff" * 100, "unreadable", None),
    ],
)
def test_keys_that_are_no_good_are_measured_all_the_same(blob, kind, bits):
    key = survey._host_key(Glimpse(blob=blob, problem="it is no good"))
    assert (key.type, key.bits, key.public, key.problem) == (kind, bits, "", "it is no good")
    assert bool(key.fingerprint) == bool(blob)


# -------------------------------------------------------------------------------------------------------------- servers


class Stranger:
    """A server in a thread: each connection is given to ``talk``, with its number, and is closed then."""

    def __init__(self, talk: Callable[[socket.socket, int], None]) -> None:
        self._talk = talk
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.count = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed: the end
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(10)
                    self.count += 1
                    with contextlib.suppress(OSError):
                        self._talk(connection, self.count)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def stranger(talk: Callable[[socket.socket, int], None] | bytes) -> Iterator[Stranger]:
    server = Stranger(talk if callable(talk) else lambda connection, number: saying(connection, talk))
    server.thread.start()
    try:
        yield server
    finally:
        server.close()


def saying(connection: socket.socket, words: bytes, *, stay: bool = False) -> None:
    """Say something, hear what the other has to say, and go; or wait until it goes."""
    connection.sendall(words)
    while connection.recv(65536) and stay:
        pass


def run(port: int, *options: str) -> int:
    return main.main(["scan", "-p", str(port), "--timeout", "0.5", *options, HOST])


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("sshproto: ")
    return err


def test_nobody_listens(capsys):
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    assert run(port) == 255
    assert f"cannot connect to {HOST} port {port}: Connection refused" in one_line(capsys)


def test_no_such_host(monkeypatch, capsys):
    def unknown(*args, **more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main.main(["scan", "no-such-host.invalid"]) == 255
    assert "cannot connect to no-such-host.invalid port 22: Name or service not known" in one_line(capsys)


@pytest.mark.parametrize("name", ["a" * 70 + ".example", "x" * 300, ".."])
def test_names_that_no_resolver_takes(name, capsys):
    assert main.main(["scan", name]) == 255
    assert f"cannot connect to {name[:50]}" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (b"", "the peer closed the connection before it identified itself"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "without identifying itself as SSH; it said: 'HTTP/1.1 400 Bad Request'"),
        (b"\x15\x03\x03\x00\x02\x02\x46", r"a NUL at offset 3 of the line '\x15\x03\x03'"),  # a TLS server's alert
        (b"SSH-1.5-OldServer_1.2\n", "the server speaks version '1.5' of SSH, not 2.0: 'SSH-1.5-OldServer_1.2'"),
        (b"SSH-2.0\r\n", "names no software"),
        (b"x" * 100_000, "more than 65536 bytes before its identification"),
        (b"SSH-2.0-x\r\n", "the peer closed the connection without a DISCONNECT, in the phase of key exchange"),
        (b"SSH-2.0-x\r\nrubbish\n" * 100, "packet"),
        (
            IDENT + frame(Disconnect(12, "too many\x07 already").encode()),
            r"TOO_MANY_CONNECTIONS (12): too many\x07 already",
        ),
        (b"Not allowed at this time\r\n", "it said: 'Not allowed at this time'"),
    ],
)
def test_no_ssh_or_not_for_us(words, says, capsys):
    with stranger(words) as server:
        assert run(server.port) == 255
        line = one_line(capsys)
        assert f"sshproto: {HOST} port {server.port}: " in line
        assert says in line
        assert server.count == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (b"", "the server has not identified itself as SSH within 0.5 seconds\n"),
        (b"220 mail.example ESMTP\r\n", "as SSH within 0.5 seconds; it said: '220 mail.example ESMTP'\n"),
        (b"SSH-2.0-slow", "as SSH within 0.5 seconds; it said: 'SSH-2.0-slow'\n"),
        (b"SSH-2.0-slow\r\n", "the server has sent no KEXINIT within 0.5 seconds (SSH-2.0-slow)\n"),
    ],
)
def test_silence(words, says, capsys):
    with stranger(lambda connection, number: saying(connection, words, stay=True)) as server:
        start = time.monotonic()
        assert run(server.port) == 255
        assert 0.4 < time.monotonic() - start < 5
        assert says in one_line(capsys)


def drip(connection: socket.socket, number: int) -> None:
    connection.sendall(b"first\r\n")
    for _ in range(200):
        connection.sendall(b"x\r\n")
        time.sleep(0.05)


def test_a_server_that_never_comes_to_the_point(capsys):
    with stranger(drip) as server:
        start = time.monotonic()
        assert run(server.port) == 255
        assert time.monotonic() - start < 5
        assert "within 0.5 seconds; it said: 'first'" in one_line(capsys)


def test_nothing_but_our_identification_comes_before_theirs(capsys):
    heard = []

    def listen(connection: socket.socket, number: int) -> None:
        connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while data := connection.recv(65536):
                heard.append(data)

    with stranger(listen) as server:
        assert run(server.port) == 255
    assert b"".join(heard).startswith(b"SSH-2.0-sshproto_")
    assert b"".join(heard).endswith(b"\r\n")
    assert b"".join(heard).count(b"\n") == 1


def test_a_server_that_has_gone_before_we_speak_is_heard(monkeypatch, capsys):
    words = [b"Not allowed at this time\r\n", b""]

    class Gone:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def settimeout(self, seconds):
            pass

        def sendall(self, data):
            raise BrokenPipeError

        def recv(self, size):
            return words.pop(0)

    monkeypatch.setattr(socket, "create_connection", lambda *args: Gone())
    assert run(22) == 255
    assert "it said: 'Not allowed at this time'" in one_line(capsys)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kex_algorithms": ("own@example.org",)}, "there is no kex algorithm that it offers and sshproto has"),
        ({"server_host_key_algorithms": ("ssh-dss",)}, "there is no host key algorithm that"),
        ({"server_host_key_algorithms": ()}, "there is no host key algorithm that"),
        (
            {"encryption_algorithms_server_to_client": ("arcfour",)},
            "there is no cipher server to client algorithm that",
        ),
    ],
)
def test_nothing_in_common_is_shown(changes, says, capsys):
    with stranger(IDENT + frame(kexinit(**changes))) as server:
        assert run(server.port) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "identification         SSH-2.0-rogue\n" in out
        for name in next(iter(changes.values())):
            assert f"\n  {name} " in out
        assert f"no host key was shown: {says}" in out
        assert server.count == 1
        assert run(server.port, "--json") == 0
        assert json.loads(capsys.readouterr().out)["problem"].startswith(says)
        weak = "arcfour" in out or "ssh-dss" in out
        assert run(server.port, "--fail-on-weak") == (1 if weak else 0)


def test_a_server_that_falls_silent_is_not_asked_again_and_again(capsys):
    offer = kexinit(server_host_key_algorithms=("ssh-ed25519", "rsa-sha2-256", "ecdsa-sha2-nistp256"))
    with stranger(lambda connection, number: saying(connection, IDENT + frame(offer), stay=True)) as server:
        assert run(server.port, "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        slow = "the server has shown no host key within 0.5 seconds (SSH-2.0-rogue)"
        late = "not asked for, since the server had become slow"
        assert [(key["type"], key["problem"]) for key in shown["host_keys"]] == [
            ("ssh-ed25519", slow),
            ("ssh-rsa", late),
            ("ecdsa-sha2-nistp256", late),
        ]
        assert shown["problem"] == slow
        assert server.count == 2


def test_it_is_the_first_kexinit_that_counts():
    second = frame(kexinit(kex_algorithms=("own@example.org",)))
    with stranger(IDENT + frame(kexinit()) + second) as server:
        found = survey.survey(HOST, server.port, 5)
    assert [offer.name for offer in found.lists["kex"]] == ["curve25519-sha256"]
    assert "a second KEXINIT" in found.problem


def test_a_kexinit_past_our_limits_is_shown():
    names = tuple(f"cipher{number}@example.org" for number in range(300))
    with stranger(IDENT + frame(kexinit(encryption_algorithms_client_to_server=names))) as server:
        found = survey.survey(HOST, server.port, 5)
    assert [offer.name for offer in found.lists["cipher_client_to_server"]] == list(names)
    assert "300 names" in found.problem


KEYS = {kind: PrivateKey.generate(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")}


def speak(connection: socket.socket, config: ServerConfig) -> None:
    """An SSH server, of which nothing is wanted but its part of the key exchange."""
    conn = ServerConnection(config, time.monotonic())
    while True:
        while conn.next_event() is not None:
            pass
        if data := conn.data_to_send():
            connection.sendall(data)
            continue
        if conn.should_close:
            return
        if data := connection.recv(65536):
            conn.receive_data(data, time.monotonic())
        else:
            conn.receive_eof(time.monotonic())


def test_no_connection_goes_beyond_the_host_key(capsys):
    seen: list[list[type]] = []

    def talk(connection: socket.socket, number: int) -> None:
        kinds: list[type] = []
        seen.append(kinds)
        speak(
            connection,
            ServerConfig(
                host_keys=tuple(KEYS.values()),
                trace=lambda packet: None if packet.sent else kinds.append(type(packet.message)),
            ),
        )

    with stranger(talk) as server:
        assert run(server.port, "--json") == 0
        shown = json.loads(capsys.readouterr().out)
    assert [(key["type"], key["public_key"], key["fingerprint"]) for key in shown["host_keys"]] == [
        (kind, key.public_key.openssh(), key.public_key.fingerprint()) for kind, key in KEYS.items()
    ]
    assert seen == [[KexInit, KexEcdhInit, Disconnect]] * 2


def test_a_server_that_lets_us_in_only_once(capsys):
    def talk(connection: socket.socket, number: int) -> None:
        if number == 1:
            speak(connection, ServerConfig(host_keys=tuple(KEYS.values())))

    with stranger(talk) as server:
        assert run(server.port, "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["problem"] is None
        assert [key["problem"] for key in shown["host_keys"]] == [
            None,
            "the peer closed the connection before it identified itself",
        ]
        assert shown["host_keys"][0]["public_key"]


def test_a_server_without_the_strict_key_exchange(capsys):
    preferences = Preferences(strict_kex=False, allow_terrapin=True, cipher=(CHACHA,))
    config = ServerConfig(host_keys=(KEYS["ssh-ed25519"],), preferences=preferences)
    with stranger(lambda connection, number: speak(connection, config)) as server:
        assert run(server.port, "--fail-on-weak") == 1
        out = capsys.readouterr().out
        assert f"strict key exchange    no, weak: {TERRAPIN}\n" in out
        assert KEYS["ssh-ed25519"].public_key.fingerprint() in out


# ----------------------------------------------------------------------------------------------------- the verb's rest


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", "0", "h"], "not a port number: '0'"),
        (["-p", "65536", "h"], "not a port number: '65536'"),
        (["--timeout", "0", "h"], "not a number of seconds"),
        (["--timeout", "nan", "h"], "not a number of seconds"),
        (["--timeout", "x", "h"], "not a number of seconds"),
        (["--timeout", "1e9", "h"], "not a number of seconds"),
        ([], "required: HOST"),
        (["me@h"], "not a host: 'me@h'; nobody is logged in"),
        ([""], "not a host: ''"),
        (["[]"], "not a host: '[]'"),
    ],
)
def test_options_that_make_no_sense(words, says, capsys):
    assert main.main(["scan", *words]) == 255
    assert says in one_line(capsys)


def test_an_address_may_stand_in_brackets(monkeypatch, capsys):
    asked = []

    def nobody(host, port, timeout):
        asked.append((host, port, timeout))
        raise Failure("no")

    monkeypatch.setattr(survey, "survey", nobody)
    assert main.main(["scan", "[::1]", "-p", "2222"]) == 255
    assert main.main(["scan", "--timeout", "3", "h"]) == 255
    assert asked == [("::1", 2222, 10.0), ("h", 22, 3.0)]


def test_help_imports_no_protocol():
    code = "import sys; from sshproto_cli.main import main; main(['scan', '--help']); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": CODE},
        check=True,
        timeout=60,
    )
    assert "'sshproto_cli.scan'" in done.stdout
    assert "'sshproto'" not in done.stdout
    assert "'attr'" not in done.stdout


def test_a_reader_who_has_seen_enough():
    with stranger(IDENT + frame(kexinit())) as server:
        argv = [sys.executable, "-m", "sshproto_cli.main", "scan", "-p", str(server.port), HOST]
        near, far = os.pipe()
        os.close(near)
        env = {"PYTHONPATH": CODE}
        done = subprocess.run(argv, stdout=far, stderr=subprocess.PIPE, env=env, check=False, timeout=60)
        os.close(far)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_ends_it():
    with stranger(lambda connection, number: saying(connection, b"", stay=True)) as server:
        argv = [sys.executable, "-m", "sshproto_cli.main", "scan", "-p", str(server.port), HOST]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, env={"PYTHONPATH": CODE}) as process:
            try:
                deadline = time.monotonic() + 20
                while not server.count:
                    assert time.monotonic() < deadline, "it does not scan"
                    time.sleep(0.01)
                time.sleep(0.1)
                process.terminate()
                assert process.wait(10) == 128 + 15
                assert process.stderr is not None
                assert process.stderr.read() == b""
            finally:
                process.kill()
