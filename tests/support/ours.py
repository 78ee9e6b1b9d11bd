"""Our own command line as a peer, like those of :mod:`tests.support.peers`: a server process, and a client."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sshproto import algorithms
from tests.support import forking
from tests.support.peers import HOST, Key, Ran, Server, current_user, environment, listening, make_key, scratch

PROGRAM = (sys.executable, "-m", "sshproto_cli.main")
PASSWORD = "correct horse battery"  # of a server that lives for one test

EVERYTHING = (
    *("--kex", ",".join(algorithms.KEX_DEFAULT + algorithms.KEX_EXTRA + algorithms.KEX_LEGACY)),
    *("--cipher", ",".join(algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY)),
    *("--mac", ",".join(algorithms.MAC_DEFAULT + algorithms.MAC_LEGACY)),
    *("--host-key-alg", ",".join(algorithms.SIGNATURE_DEFAULT + algorithms.SIGNATURE_LEGACY)),
    *("--compression", ",".join(algorithms.COMPRESSION_DEFAULT + algorithms.COMPRESSION_EXTRA)),
)
"""Options that allow every algorithm that we have, weak ones included."""

KINDS = ("ed25519", "nistp256", "nistp384", "nistp521", "rsa")
"""The kinds of key that we have, as :func:`tests.support.peers.make_key` calls them."""

PROBE = "cat; echo oops >&2; exit 7"
"""A command that uses all three streams and has a status; see :func:`check`."""
INPUT = bytes(range(256)) * 16

_ROOT = Path(__file__).resolve().parents[2]


def _environment(home: Path, **more: str) -> dict[str, str]:
    """As the peers' own, and our code is the checkout's."""
    return environment(home, PYTHONPATH=os.pathsep.join((str(_ROOT), str(_ROOT / "adapters"))), **more)


@contextlib.contextmanager
def serve(
    options: Sequence[str] = (),
    *,
    authorized_keys: Sequence[str] = (),
    host_keys: Sequence[str] = ("ed25519",),
    password: bool = False,
) -> Iterator[Server]:
    """``sshproto serve --exec`` on a free port; the arguments are :func:`tests.support.peers.sshd`'s.

    Args:
        options: More arguments of ``serve``.
        authorized_keys: Lines; whoever has one of these keys may log in.
        host_keys: Kinds, see :func:`tests.support.peers.make_key`.
        password: Allow password and keyboard-interactive, with :data:`PASSWORD`.
    """
    with scratch() as directory:
        keys = [make_key(directory, kind, f"host_{kind}") for kind in host_keys]
        argv = [*PROGRAM, "serve", "--listen", f"{HOST}:0", "--exec", *options]
        for key in keys:
            argv += ["--host-key", str(key.path)]
        if authorized_keys:
            (directory / "authorized_keys").write_text("".join(f"{line}\n" for line in authorized_keys))
            argv += ["--authorized-keys", str(directory / "authorized_keys")]
        user = current_user()
        if password:
            passwords = directory / "passwords"
            passwords.touch(mode=0o600)
            passwords.write_text(f"{user}:{PASSWORD}\n")
            argv += ["--password-file", str(passwords)]
        log = directory / "log"
        with listening(argv, log, "listening on ", _environment(directory)):
            line = next(line for line in log.read_text().splitlines() if line.startswith("listening on "))
            yield Server(
                port=int(line.rpartition(":")[2]),
                user=user,
                host_keys=tuple(key.public for key in keys),
                password=PASSWORD if password else None,
                log_file=log,
            )


def execute(
    server: Server,
    *command: str,
    key: Key | None = None,
    password: str | None = None,
    options: Sequence[str] = (),
    stdin: bytes = b"",
    seconds: float = 60.0,
) -> Ran:
    """``sshproto exec``; the arguments are :func:`tests.support.peers.ssh`'s."""
    with scratch() as home:
        (home / "known_hosts").write_text(server.known_hosts)
        words = ["exec", "-p", str(server.port), "-l", server.user, "--known-hosts", str(home / "known_hosts")]
        words += ["-i", str(key.path)] if key else []
        more = {} if password is None else {"SSHPROTO_PASSWORD": password}
        return run([*words, *options, HOST, *command], _environment(home, **more), stdin, seconds)


def run(words: Sequence[str], env: dict[str, str], stdin: bytes = b"", seconds: float = 60.0) -> Ran:
    """``sshproto`` with any words, to its end; see :mod:`tests.support.forking`."""
    return Ran(*forking.run(words, env, stdin, seconds))


def check(ran: Ran) -> None:
    """:data:`PROBE` was fed :data:`INPUT`: it came back, errors came apart from it, the status is the command's."""
    assert ran.stdout == INPUT, ran.stderr.decode(errors="replace")[-800:]
    assert ran.stderr.endswith(b"oops\n"), ran.stderr
    assert ran.returncode == 7
