"""OpenSSH against us, both ways: every algorithm that both have, every way to log in, data, statuses, rekeys.

Each case forces one algorithm on a side that allows no other, so that it can only succeed by it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from sshproto import algorithms
from tests.support import ours, peers
from tests.support.ours import INPUT, KINDS, PROBE, check
from tests.support.peers import Key, Server

# OpenSSH 9.2 knows neither ML-KEM nor these.
UNKNOWN_TO_OPENSSH = {
    "mlkem768x25519-sha256",
    "mlkem768nistp256-sha256",
    "mlkem1024nistp384-sha384",
    "curve448-sha512",
    "diffie-hellman-group15-sha512",
    "diffie-hellman-group17-sha512",
}
KEX = [
    name
    for name in algorithms.KEX_DEFAULT + algorithms.KEX_EXTRA + algorithms.KEX_LEGACY
    if name not in UNKNOWN_TO_OPENSSH
]
AEAD = [name for name in algorithms.CIPHER_DEFAULT if "@" in name]
PLAIN = [name for name in algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY if "@" not in name]
MACS = algorithms.MAC_DEFAULT + algorithms.MAC_LEGACY
SUITES = [(cipher, None) for cipher in AEAD] + [(cipher, mac) for cipher in PLAIN for mac in MACS]
# Without those of security keys, which no host has here.
SIGNATURES = [it for it in algorithms.SIGNATURE_DEFAULT + algorithms.SIGNATURE_LEGACY if "sk-" not in it]

LEGACY_SSHD = (
    "KexAlgorithms +" + ",".join(algorithms.KEX_LEGACY),
    "Ciphers +" + ",".join(algorithms.CIPHER_LEGACY),
    "MACs +" + ",".join(algorithms.MAC_LEGACY),
    "HostKeyAlgorithms +ssh-rsa",
    "PubkeyAcceptedAlgorithms +ssh-rsa",
    "Compression yes",
    "MaxSessions 100",
)


def suite_options_ssh(cipher: str, mac: str | None) -> list[str]:
    return [f"-oCiphers={cipher}", *([f"-oMACs={mac}"] if mac else [])]


def suite_options_ours(cipher: str, mac: str | None) -> list[str]:
    return ["--cipher", cipher, *(["--mac", mac] if mac else [])]


@pytest.fixture(scope="module")
def stock(keys: dict[str, Key]) -> Iterator[Server]:
    publics = [key.public for key in keys.values()]
    with peers.sshd(LEGACY_SSHD, authorized_keys=publics, host_keys=KINDS) as server:
        yield server


# ------------------------------------------------------------------------------------------------ ssh -> sshproto serve


@pytest.mark.parametrize("kex", KEX)
def test_ssh_to_us_by_key_exchange(serving: Server, keys: dict[str, Key], kex: str) -> None:
    check(peers.ssh(serving, PROBE, key=keys["ed25519"], options=[f"-oKexAlgorithms={kex}"], stdin=INPUT))


@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_ssh_to_us_by_cipher_and_mac(serving: Server, keys: dict[str, Key], cipher: str, mac: str | None) -> None:
    check(peers.ssh(serving, PROBE, key=keys["ed25519"], options=suite_options_ssh(cipher, mac), stdin=INPUT))


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_ssh_to_us_by_host_key(serving: Server, keys: dict[str, Key], algorithm: str) -> None:
    check(peers.ssh(serving, PROBE, key=keys["ed25519"], options=[f"-oHostKeyAlgorithms={algorithm}"], stdin=INPUT))


@pytest.mark.parametrize("compression", ["yes", "no"])
def test_ssh_to_us_by_compression(serving: Server, keys: dict[str, Key], compression: str) -> None:
    check(peers.ssh(serving, PROBE, key=keys["ed25519"], options=[f"-oCompression={compression}"], stdin=INPUT))


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_logs_in_to_us_with_a_key(serving: Server, keys: dict[str, Key], kind: str) -> None:
    check(peers.ssh(serving, PROBE, key=keys[kind], options=["-oPreferredAuthentications=publickey"], stdin=INPUT))


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_ssh_logs_in_to_us_with_a_password(serving: Server, method: str) -> None:
    options = [f"-oPreferredAuthentications={method}"]
    check(peers.ssh(serving, PROBE, password=ours.PASSWORD, options=options, stdin=INPUT))
    refused = peers.ssh(serving, PROBE, password="wrong", options=options)
    assert refused.returncode == 255
    assert b"Permission denied" in refused.stderr


def test_a_shell_with_a_pty(serving: Server, keys: dict[str, Key]) -> None:
    ran = peers.ssh(serving, key=keys["ed25519"], options=["-tt"], stdin=b"tty; echo $TERM; stty size; exit 5\n")
    assert b"/dev/pts/" in ran.stdout, ran
    assert ran.returncode == 5


def test_a_signal_ends_the_command(serving: Server, keys: dict[str, Key]) -> None:
    ran = peers.ssh(serving, "kill -TERM $$", key=keys["ed25519"])
    assert ran.returncode in {255, 128 + 15}


def test_without_exec_nothing_runs(keys: dict[str, Key]) -> None:
    with peers.scratch() as directory:
        host = peers.make_key(directory, "ed25519", "host")
        (directory / "keys").write_text(keys["ed25519"].public + "\n")
        argv = [*ours.PROGRAM, "serve", "--listen", f"{peers.HOST}:0", "--host-key", str(host.path)]
        argv += ["--authorized-keys", str(directory / "keys")]
        log = directory / "log"
        with peers.listening(argv, log, "listening on ", ours._environment(directory)):
            port = int(log.read_text().rpartition(":")[2])
            server = Server(port=port, user=peers.current_user(), host_keys=(host.public,))
            ran = peers.ssh(server, "echo it ran", key=keys["ed25519"])
    assert ran.returncode == 255
    assert b"it ran" not in ran.stdout


MIB64 = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def big() -> bytes:
    return os.urandom(1024 * 1024) * 64


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"])
def test_ssh_to_us_with_rekeys_all_the_way(serving: Server, keys: dict[str, Key], big: bytes, cipher: str) -> None:
    options = ["-oRekeyLimit=1M", f"-oCiphers={cipher}", "-oKexAlgorithms=curve25519-sha256"]
    ran = peers.ssh(serving, "cat", key=keys["ed25519"], options=options, stdin=big)
    assert ran.returncode == 0, ran.stderr
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(big).digest()


# ------------------------------------------------------------------------------------------------ sshproto exec -> sshd


@pytest.mark.parametrize("kex", KEX)
def test_we_to_sshd_by_key_exchange(stock: Server, keys: dict[str, Key], kex: str) -> None:
    check(ours.execute(stock, PROBE, key=keys["ed25519"], options=["--kex", kex], stdin=INPUT))


@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_we_to_sshd_by_cipher_and_mac(stock: Server, keys: dict[str, Key], cipher: str, mac: str | None) -> None:
    check(ours.execute(stock, PROBE, key=keys["ed25519"], options=suite_options_ours(cipher, mac), stdin=INPUT))


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_we_to_sshd_by_host_key(stock: Server, keys: dict[str, Key], algorithm: str) -> None:
    check(ours.execute(stock, PROBE, key=keys["ed25519"], options=["--host-key-alg", algorithm], stdin=INPUT))


@pytest.mark.parametrize("compression", ["none", "zlib@openssh.com"])
def test_we_to_sshd_by_compression(stock: Server, keys: dict[str, Key], compression: str) -> None:
    check(ours.execute(stock, PROBE, key=keys["ed25519"], options=["--compression", compression], stdin=INPUT))


@pytest.mark.parametrize("kind", KINDS)
def test_we_log_in_to_sshd_with_a_key(stock: Server, keys: dict[str, Key], kind: str) -> None:
    check(ours.execute(stock, PROBE, key=keys[kind], stdin=INPUT))


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_we_log_in_to_sshd_with_a_password(method: str) -> None:
    with peers.sshd([f"AuthenticationMethods {method}"], password=True) as server:
        assert server.password is not None
        check(ours.execute(server, PROBE, password=server.password, stdin=INPUT))
        refused = ours.execute(server, PROBE, password="wrong")
        assert refused.returncode == 255
        assert len(refused.stderr.splitlines()) == 1, refused.stderr


def test_several_methods_in_turn(keys: dict[str, Key]) -> None:
    with peers.sshd(
        ["AuthenticationMethods publickey,password"], authorized_keys=[keys["ed25519"].public], password=True
    ) as server:
        check(ours.execute(server, PROBE, key=keys["ed25519"], password=server.password, stdin=INPUT))
        half = ours.execute(server, PROBE, key=keys["ed25519"], password="wrong")
        assert half.returncode == 255
        assert b"password" in half.stderr


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"])
def test_we_to_sshd_with_rekeys_all_the_way(keys: dict[str, Key], big: bytes, cipher: str) -> None:
    with peers.sshd(["RekeyLimit 1M"], authorized_keys=[keys["ed25519"].public]) as server:
        options = ["--cipher", cipher, "--kex", "curve25519-sha256"]
        ran = ours.execute(server, "cat", key=keys["ed25519"], options=options, stdin=big, seconds=100)
    assert ran.returncode == 0, ran.stderr
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(big).digest()


def test_an_unknown_host_key_stops_us(stock: Server, keys: dict[str, Key]) -> None:
    stranger = Server(port=stock.port, user=stock.user, host_keys=())
    ran = ours.execute(stranger, "true", key=keys["ed25519"])
    assert ran.returncode == 255
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


def test_a_changed_host_key_stops_us(stock: Server, keys: dict[str, Key]) -> None:
    other = Server(port=stock.port, user=stock.user, host_keys=(keys["ed25519"].public,))
    ran = ours.execute(other, "true", key=keys["ed25519"])
    assert ran.returncode == 255
    assert b"has CHANGED" in ran.stderr and b"known_hosts line 1 " in ran.stderr
    assert all(line.startswith(b"sshproto: ") for line in ran.stderr.splitlines()), ran.stderr


def test_no_common_algorithm_says_what_both_offer(keys: dict[str, Key]) -> None:
    with peers.sshd(["Ciphers aes128-ctr"], authorized_keys=[keys["ed25519"].public]) as server:
        ran = ours.execute(server, "true", key=keys["ed25519"], options=["--cipher", "aes256-gcm@openssh.com"])
    assert ran.returncode == 255
    assert b"aes256-gcm@openssh.com" in ran.stderr
    assert b"aes128-ctr" in ran.stderr
