"""What lines of authorized_keys, certificates and principals let OpenSSH's client do: at sshd, and at our server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, PublicKey
from tests.support import ours, peers
from tests.support.peers import HOST, Key, Ran, Server

AUTHORITY = PrivateKey.generate()
GREETING = b"you got through\n"


@attrs.frozen
class Place:
    """Two servers that read the same files, and what can be reached from them.

    Attributes:
        servers: sshd, and ours.
        directory: Where the files are.
        target: A port at which somebody greets.
        agent: The socket of an agent without keys.
    """

    servers: dict[str, Server]
    directory: Path
    target: int
    agent: Path

    def write(self, name: str, *lines: str) -> None:
        (self.directory / name).write_text("".join(f"{line}\n" for line in lines))


@contextlib.contextmanager
def greeter() -> Iterator[int]:
    """A port at which whoever comes is greeted, and nothing else."""
    with socket.create_server((HOST, 0)) as listener:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as came:
                        came.sendall(GREETING)

        threading.Thread(target=greet, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


FILES = ("keys", "authorities", "principals", "revoked")


@contextlib.contextmanager
def place(*, authorities: bool) -> Iterator[Place]:
    """Both servers, with keys of users, or with authorities for all of them."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(peers.scratch())
        for name in FILES:
            (directory / name).touch()
        revoked = ("RevokedKeys", "--revoked-keys", "revoked")
        files = [("AuthorizedKeysFile", "--authorized-keys", "keys"), revoked]
        if authorities:
            (directory / "authorities").write_text(f"{AUTHORITY.public_key.openssh()}\n")
            files = [
                ("TrustedUserCAKeys", "--trusted-user-ca", "authorities"),
                ("AuthorizedPrincipalsFile", "--authorized-principals", "principals"),
                revoked,
            ]
            (directory / "principals").write_text("somebody\n")
        else:
            (directory / "keys").write_text(f"{AUTHORITY.public_key.openssh()}\n")  # or our server would not start
        config = [f"{name} {directory / file}" for name, _, file in files]
        options = [part for _, option, file in files for part in (option, str(directory / file))]
        sshd = stack.enter_context(peers.sshd([*config, "PermitUserEnvironment yes", "MaxAuthTries 20"]))
        own = stack.enter_context(ours.serve(["-v", "--forward", "--agent-forwarding", *options]))
        agent = stack.enter_context(peers.ssh_agent(directory / "agent"))
        yield Place({"sshd": sshd, "ours": own}, directory, stack.enter_context(greeter()), agent)


@pytest.fixture(scope="module")
def by_keys() -> Iterator[Place]:
    with place(authorities=False) as found:
        yield found


@pytest.fixture(scope="module")
def by_authorities() -> Iterator[Place]:
    with place(authorities=True) as found:
        yield found


def outcome(ran: Ran) -> tuple[bool, bytes, bool]:
    """Whether somebody was let in, what they saw, and whether they had a terminal."""
    denied = b"Permission denied" in ran.stderr
    terminal = b"/dev/pts/" in ran.stdout
    shown = b"/dev/pts/n\n" if terminal else ran.stdout.replace(b"\r\n", b"\n")
    return not denied and ran.returncode != 255, shown, b"PTY allocation request failed" in ran.stderr


def seen(expected: bytes | None) -> tuple[bool, bytes, bool]:
    """The outcome that a table expects."""
    if expected == NO_TTY:
        return False, b"", True
    return expected is not None, expected or b"", False


def both(found: Place, key: Key, options: Sequence[str] = (), *command: str) -> tuple[bool, bytes, bool]:
    """What comes of the same call of ssh at both servers; it is the same."""
    came = {}
    for name, server in found.servers.items():
        ran = peers.ssh(server, *command, key=key, options=options)
        came[name] = outcome(ran)
    assert came["ours"] == came["sshd"]
    return came["ours"]


SHOW = 'echo "ran:$A:$B:${SSH_ORIGINAL_COMMAND-nothing}:${SSH_AUTH_SOCK+agent}"'
TTY = ("-tt",)
IN, OUT = b"ran:::nothing:\n", None
NO_TTY = b"no terminal"  # without one, ssh does not go on that has to have one

TABLE: dict[str, tuple[str, Sequence[str], str, bytes | None]] = {
    # options of the line, options of ssh, command, what is seen; None: nobody is let in
    "none": ("", (), SHOW, IN),
    "unknown": ("frobnicate", (), SHOW, OUT),
    "a flag with a value": ('no-pty="x"', (), SHOW, OUT),
    "an open quote": ('command="true', (), SHOW, OUT),
    "empty options": ("no-pty,,no-pty,", (), SHOW, IN),
    "upper case": ('NO-PTY,Environment="A=1"', (), SHOW, b"ran:1::nothing:\n"),
    "command": (
        f'command="{SHOW}"'.replace('"ran', '\\"ran').replace('agent}"', 'agent}\\"'),
        (),
        "ls -l",
        b"ran:::ls -l:\n",
    ),
    "command, a shell": ('command="echo forced"', (), "", b"forced\n"),
    "command, a subsystem": ('command="echo forced"', ("-s",), "sftp", b"forced\n"),
    "command, a terminal": ('command="tty"', TTY, "true", b"/dev/pts/n\n"),
    "command twice": ('command="echo 1",command="echo 1"', (), SHOW, OUT),
    "an empty command": ('command=""', (), SHOW, b""),
    "quotes in a command": ('command="echo \\"a  b\\" \\\\"c"', (), SHOW, b'a  b "c\n'),
    "environment": ('environment="A=1 2",environment="B=x=y",environment="A=3"', (), SHOW, b"ran:1 2:x=y:nothing:\n"),
    "environment before the client's": ('environment="LANG=C.X"', ("-oSetEnv=LANG=C.Y",), "echo $LANG", b"C.X\n"),
    "environment without a name": ('environment="=1"', (), SHOW, OUT),
    "no-pty": ("no-pty", TTY, "tty", NO_TTY),
    "pty": ("restrict,pty", TTY, "tty", b"/dev/pts/n\n"),
    "pty taken again": ("pty,restrict", TTY, "tty", NO_TTY),
    "agent": ("", ("agent",), SHOW, b"ran:::nothing:agent\n"),
    "no-agent-forwarding": ("no-agent-forwarding", ("agent",), SHOW, IN),
    "agent-forwarding": ("restrict,agent-forwarding", ("agent",), SHOW, b"ran:::nothing:agent\n"),
    "expired": ('expiry-time="20200101"', (), SHOW, OUT),
    "not expired": ('expiry-time="20991231235959Z"', (), SHOW, IN),
    "the earlier end counts": ('expiry-time="20991231",expiry-time="202001010000"', (), SHOW, OUT),
    "from": (f'from="{HOST}"', (), SHOW, IN),
    "from elsewhere": ('from="10.0.0.1"', (), SHOW, OUT),
    "from a network": ('from="10.0.0.0/8,127.0.0.0/8"', (), SHOW, IN),
    "from another network": ('from="10.0.0.0/8"', (), SHOW, OUT),
    "from all but": (f'from="127.*,!{HOST}"', (), SHOW, OUT),
    "from all but, the other way round": (f'from="!{HOST},127.*"', (), SHOW, OUT),
    "from all but a network": ('from="*,!127.0.0.0/8"', (), SHOW, OUT),
    "from all but others": ('from="*,!10.0.0.0/8"', (), SHOW, IN),
    "only not from": ('from="!10.0.0.0/8"', (), SHOW, OUT),
    "from a pattern": ('from="127.0.?.*"', (), SHOW, IN),
    "from an odd network": ('from="127.0.0.1/8"', (), SHOW, OUT),
    "from a name": ('from="*.example.org"', (), SHOW, OUT),
    "permitopen": (f'permitopen="{HOST}:TARGET"', ("-W", f"{HOST}:TARGET"), "", GREETING),
    "permitopen, any port": (f'permitopen="{HOST}:*"', ("-W", f"{HOST}:TARGET"), "", GREETING),
    "permitopen, any host": ('permitopen="*:TARGET"', ("-W", f"{HOST}:TARGET"), "", GREETING),
    "permitopen, another port": (f'permitopen="{HOST}:1"', ("-W", f"{HOST}:TARGET"), "", OUT),
    "permitopen, another name": ('permitopen="localhost:TARGET"', ("-W", f"{HOST}:TARGET"), "", OUT),
    "permitopen, a pattern": ('permitopen="127.*:TARGET"', ("-W", f"{HOST}:TARGET"), "", OUT),
    "permitopen of no port": ('permitopen="127.0.0.1"', (), SHOW, OUT),
    "no-port-forwarding": ("no-port-forwarding", ("-W", f"{HOST}:TARGET"), "", OUT),
    "port-forwarding": ("restrict,port-forwarding", ("-W", f"{HOST}:TARGET"), "", GREETING),
    "permitopen does not bring back forwarding": (
        f'restrict,permitopen="{HOST}:TARGET"',
        ("-W", f"{HOST}:TARGET"),
        "",
        OUT,
    ),
    "permitlisten": ('permitlisten="localhost:FREE"', ("-R", "FREE:localhost:1"), SHOW, IN),
    "permitlisten, a pattern": ('permitlisten="local*:*"', ("-R", "FREE:localhost:1"), SHOW, IN),
    "permitlisten, another port": ('permitlisten="localhost:1"', ("-R", "FREE:localhost:1"), SHOW, OUT),
    "permitlisten, another host": ('permitlisten="example.org:FREE"', ("-R", "FREE:localhost:1"), SHOW, OUT),
    "permitlisten, a port that the server chooses": (
        'permitlisten="localhost:8080"',
        ("-R", "0:localhost:1"),
        SHOW,
        OUT,
    ),
    "permitlisten does not matter to connections": ('permitlisten="1"', ("-W", f"{HOST}:TARGET"), "", GREETING),
    "no-port-forwarding, listening": ("no-port-forwarding", ("-R", "FREE:localhost:1"), SHOW, OUT),
    "tunnel": ('tunnel="0"', (), SHOW, IN),
    "user-rc, X11-forwarding": ("no-user-rc,no-X11-forwarding,user-rc,X11-forwarding", (), SHOW, IN),
    "touch, of a key that is no token": ("no-touch-required,verify-required", (), SHOW, IN),
    "principals of no authority": ('principals="root"', (), SHOW, OUT),
    "an authority's key as a user's": ("cert-authority", (), SHOW, OUT),
}


@pytest.mark.covers("V76", "V77")
@pytest.mark.parametrize("name", TABLE)
def test_what_a_line_lets_a_key_do(by_keys: Place, keys: dict[str, Key], name: str) -> None:
    line, options, command, expected = TABLE[name]
    numbers = {"TARGET": str(by_keys.target), "FREE": str(peers.free_port())}
    for word, number in numbers.items():
        line, options = line.replace(word, number), [option.replace(word, number) for option in options]
    if options == ["agent"]:
        options = [f"-oIdentityAgent={by_keys.agent}", "-oForwardAgent=yes"]
    by_keys.write("keys", f"{line} {keys['ed25519'].public}".strip())
    came = both(by_keys, keys["ed25519"], ["-oExitOnForwardFailure=yes", *options], *([command] if command else []))
    assert came == seen(expected)


def test_the_first_line_that_lets_in_counts(by_keys: Place, keys: dict[str, Key]) -> None:
    public = keys["ed25519"].public
    lines = [
        f'from="10.0.0.1" {public}',
        f"frob {public}",
        f'environment="A=2" {public}',
        f'environment="A=3" {public}',
    ]
    by_keys.write("keys", "# all of them", "", *lines)
    assert both(by_keys, keys["ed25519"], (), SHOW)[1] == b"ran:2::nothing:\n"


def test_a_revoked_key(by_keys: Place, keys: dict[str, Key]) -> None:
    by_keys.write("keys", keys["ed25519"].public)
    try:
        for revoked in (
            KRL().revoke(PublicKey.parse(keys["ed25519"].public)).encode(),
            keys["ed25519"].public.encode(),
        ):
            (by_keys.directory / "revoked").write_bytes(revoked)
            assert not both(by_keys, keys["ed25519"], (), SHOW)[0]
    finally:
        by_keys.write("revoked")
    assert both(by_keys, keys["ed25519"], (), SHOW)[0]


# --------------------------------------------------------------------------------------------------------- certificates

USER = peers.current_user()


def certify(key: Key, authority: PrivateKey = AUTHORITY, **values) -> Certificate:
    told = {"key_id": "an id", "principals": [USER], "valid_before": FOREVER, "serial": 7, **values}
    return Certificate.issue(authority, PublicKey.parse(key.public), told.pop("kind", CertificateKind.USER), **told)


@contextlib.contextmanager
def shown(key: Key, certificate: Certificate) -> Iterator[None]:
    """ssh shows the certificate that stands beside a key."""
    path = key.path.with_name(key.path.name + "-cert.pub")
    path.write_text(certificate.openssh() + "\n")
    try:
        yield
    finally:
        path.unlink()


FORCED = {"critical_options": {"force-command": "echo forced"}}
SOON = int(time.time()) + 3600

CERTIFICATES: dict[str, tuple[str, dict, Sequence[str], str, bytes | None]] = {
    # options of the authority's line, of the certificate, of ssh, command, what is seen
    "plain": ("cert-authority", {}, (), SHOW, IN),
    "no authority": ("", {}, (), SHOW, OUT),
    "for another": ("cert-authority", {"principals": ["nobody"]}, (), SHOW, OUT),
    "principals": ('cert-authority,principals="a,ops"', {"principals": ["ops", "x"]}, (), SHOW, IN),
    "principals without the user": ('cert-authority,principals="a,ops"', {}, (), SHOW, OUT),
    "expired": ("cert-authority", {"valid_before": 1_600_000_000}, (), SHOW, OUT),
    "not yet": ("cert-authority", {"valid_after": SOON}, (), SHOW, OUT),
    "of a host": ("cert-authority", {"kind": CertificateKind.HOST, "extensions": {}}, (), SHOW, OUT),
    "by another": ("cert-authority", {"authority": PrivateKey.generate()}, (), SHOW, OUT),
    "force-command": ("cert-authority", FORCED, (), SHOW, b"forced\n"),
    "the same command": ('cert-authority,command="echo forced"', FORCED, (), SHOW, b"forced\n"),
    "two commands": ('cert-authority,command="echo other"', FORCED, (), SHOW, OUT),
    "the line's command": ('cert-authority,command="echo line"', {}, (), SHOW, b"line\n"),
    "no pty, and a pty": ("cert-authority,no-pty", {"extensions": {"permit-pty": ""}}, TTY, "tty", NO_TTY),
    "source-address": ("cert-authority", {"critical_options": {"source-address": "127.0.0.0/8"}}, (), SHOW, IN),
    "another source-address": ("cert-authority", {"critical_options": {"source-address": "10.0.0.0/8"}}, (), SHOW, OUT),
    "an unknown option": ("cert-authority", {"critical_options": {"x@example.org": ""}}, (), SHOW, OUT),
    "an unknown extension": ("cert-authority", {"extensions": {"x@example.org": ""}}, (), SHOW, IN),
    "no extensions": ("cert-authority", {"extensions": {}}, TTY, "tty", NO_TTY),
    "permit-pty": ("cert-authority", {"extensions": {"permit-pty": ""}}, TTY, "tty", b"/dev/pts/n\n"),
    "the line's environment": ('cert-authority,environment="A=1"', {}, (), SHOW, b"ran:1::nothing:\n"),
    "the line's expiry": ('cert-authority,expiry-time="20200101"', {}, (), SHOW, OUT),
    "from": ('cert-authority,from="10.0.0.1"', {}, (), SHOW, OUT),
}


@pytest.mark.covers("V51")
@pytest.mark.parametrize("name", CERTIFICATES)
def test_what_a_certificate_lets_do(by_keys: Place, keys: dict[str, Key], name: str) -> None:
    line, values, options, command, expected = CERTIFICATES[name]
    by_keys.write("keys", f"{line} {AUTHORITY.public_key.openssh()}".strip())
    with shown(keys["ed25519"], certify(keys["ed25519"], **values)):
        came = both(by_keys, keys["ed25519"], options, command)
    assert came == seen(expected)


@pytest.mark.parametrize("kind", ours.KINDS)
def test_certificates_of_all_keys(by_keys: Place, keys: dict[str, Key], kind: str) -> None:
    by_keys.write("keys", f"cert-authority {AUTHORITY.public_key.openssh()}")
    with shown(keys[kind], certify(keys[kind])):
        assert both(by_keys, keys[kind], (), SHOW)[1] == IN


PRINCIPALS: dict[str, tuple[str, dict, bytes | None]] = {
    "the name": ("ops", {"principals": ["x", "ops"]}, IN),
    "another name": ("ops", {}, OUT),
    "a comment": ("# who\nops # and why", {"principals": ["ops"]}, IN),
    "options": ('environment="A=1",no-pty  ops', {"principals": ["ops"]}, b"ran:1::nothing:\n"),
    "from": ('from="10.0.0.1" ops\nops', {"principals": ["ops"]}, OUT),
    "odd options": ("frob ops", {"principals": ["ops"]}, OUT),
    "two commands": ('command="echo other" ops', {"principals": ["ops"], **FORCED}, OUT),
    "one command": ("ops", {"principals": ["ops"], **FORCED}, b"forced\n"),
    "expired": ("ops", {"principals": ["ops"], "valid_before": 1_600_000_000}, OUT),
    "expired line": ('expiry-time="20200101" ops', {"principals": ["ops"]}, OUT),
}


@pytest.mark.covers("V51")
@pytest.mark.parametrize("name", PRINCIPALS)
def test_authorities_and_principals_for_all(by_authorities: Place, keys: dict[str, Key], name: str) -> None:
    lines, values, expected = PRINCIPALS[name]
    by_authorities.write("principals", lines)
    with shown(keys["ed25519"], certify(keys["ed25519"], **values)):
        came = both(by_authorities, keys["ed25519"], (), SHOW)
    assert came == seen(expected)


def test_revoked_certificates(by_authorities: Place, keys: dict[str, Key]) -> None:
    key, certificate = keys["ed25519"], certify(keys["ed25519"])
    by_authorities.write("principals", USER)
    authority = AUTHORITY.public_key
    lists = [
        *(KRL().revoke(it) for it in (certificate, authority, certificate.key)),
        KRL().revoke_serials(authority, (5, 9)),
        KRL().revoke_key_ids(None, "an id"),
    ]
    try:
        with shown(key, certificate):
            assert both(by_authorities, key, (), SHOW)[0]
            for revoked in lists:
                (by_authorities.directory / "revoked").write_bytes(revoked.encode())
                assert not both(by_authorities, key, (), SHOW)[0]
    finally:
        by_authorities.write("revoked")


def test_ssh_binds_its_logins_to_our_host_key(by_keys: Place, keys: dict[str, Key]) -> None:
    by_keys.write("keys", keys["ed25519"].public)
    ran = peers.ssh(by_keys.servers["ours"], "true", key=keys["ed25519"], options=["-vvv"])
    assert b"publickey-hostbound@openssh.com=<0>" in ran.stderr
    assert ran.returncode == 0
    before = len(by_keys.servers["ours"].log)
    by_keys.write("keys", f'from="10.0.0.1" {keys["ed25519"].public}')
    assert not outcome(peers.ssh(by_keys.servers["ours"], "true", key=keys["ed25519"]))[0]
    assert "line 1: it may be used from 10.0.0.1, not from 127.0.0.1" in by_keys.servers["ours"].log[before:]
