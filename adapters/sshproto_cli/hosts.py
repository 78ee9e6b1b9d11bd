"""Whether a server is who it should be: what clients do about host keys, and their ``known_hosts`` file."""

from __future__ import annotations

import contextlib
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto.errors import InvalidArgument
from sshproto.keys.known_hosts import KnownHosts, Match, Trust, line_for, parse
from sshproto.keys.signatures import signature_algorithms
from sshproto_cli.options import complain, describe, read_file

if TYPE_CHECKING:
    from sshproto.events import HostKeyOffered
    from sshproto.keys.public import PublicKey
    from sshproto_cli.terminal import Terminal


class Unknown(Enum):
    """What to do about a host that is not known yet."""

    ASK = "ask"
    ACCEPT = "accept"
    ANY = "any"
    """The file is not looked at: whoever answers is believed."""


class HostPolicy:
    """Answers ``HostKeyOffered``.

    Args:
        host, port: Where we dial, as the user wrote it.
        path: The ``known_hosts`` file; it need not exist, its directory must.
        unknown: What to do about hosts that are not in it.
        terminal: Who to ask.
        make_directory: Make the file's directory if that is not there.

    Attributes:
        problem: Why a key was not accepted; "" if none was rejected.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: Path,
        unknown: Unknown,
        terminal: Terminal,
        *,
        make_directory: bool = False,
    ) -> None:
        self._host = host
        self._port = port
        self._path = path
        self._unknown = unknown
        self._terminal = terminal
        self._make_directory = make_directory
        self._known = KnownHosts() if unknown is Unknown.ANY else self._read()
        self.problem = ""

    def order(self, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        """Signature algorithms in the order to ask for them: first those of the keys that are known, so that a host is
        not taken for a new one because it offers another key. Otherwise the order stays as it is, whatever that of the
        lines in the file."""
        known: set[str] = set()
        with contextlib.suppress(InvalidArgument):  # will be said when the key is looked up
            for key_type in self._known.algorithms_for(self._host, self._port):
                known.update(signature_algorithms(key_type))
        return tuple(sorted(algorithms, key=lambda name: name not in known))

    def __call__(self, question: HostKeyOffered) -> bool:
        """Whether the key is good."""
        if self._unknown is Unknown.ANY:
            return True
        try:
            match = self._known.lookup(self._host, self._port, question.key)
        except InvalidArgument as error:
            self.problem = str(error)
            return False
        self.problem = _VERDICTS[match.trust](self, question.key, match)
        return not self.problem

    def _read(self) -> KnownHosts:
        if not self._path.exists():
            return KnownHosts()
        known = parse(read_file(str(self._path), "known hosts file"))
        for line, problem in known.problems:
            complain(f"{self._path} line {line} is passed over: {problem}")
        return known

    # Each returns what is wrong, or "".

    def _matches(self, key: PublicKey, match: Match) -> str:
        return ""

    def _is_revoked(self, key: PublicKey, match: Match) -> str:
        return f"the host key of {self._host} ({_show(key)}) is revoked by {self._path} line {match.line}"

    def _has_changed(self, key: PublicKey, match: Match) -> str:
        return (
            f"the host key of {self._host} has CHANGED: {self._path} line {match.line} has another {key.type} key than"
            f" {key.fingerprint()}, which came; somebody may be listening in, or the server was set up anew"
        )

    def _is_unknown(self, key: PublicKey, match: Match) -> str:
        what = f"the host key of {self._host} port {self._port} is not known ({_show(key)})"
        others = ", ".join(dict.fromkeys(entry.key_type for entry in match.known))
        if others:
            what = (
                f"{self._host} is known by another type of key ({others}, {self._path} line {match.known[0].line});"
                f" {_show(key)} came"
            )
        if self._unknown is Unknown.ACCEPT:
            return what if others else self._remember(key)
        if not self._terminal.present:
            return f"{what}; accept it with --accept-new, or add it to {self._path}"
        capital = what[0].upper() + what[1:]
        if not self._terminal.confirm(f"{capital}.\nGo on, and remember this key (yes/no)? "):
            return f"the host key of {self._host} was not accepted"
        return self._remember(key)

    def _remember(self, key: PublicKey) -> str:
        """Append the key to the file. That it cannot be written is no reason to stop."""
        try:
            if self._make_directory:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
            append_line(self._path, line_for(self._host, self._port, key))
            complain(f"the host key of {self._host} ({_show(key)}) is remembered in {self._path}")
        except OSError as error:
            complain(f"the host key of {self._host} cannot be remembered: {describe(error)}")
        return ""


_VERDICTS = {
    Trust.MATCH: HostPolicy._matches,
    Trust.UNKNOWN: HostPolicy._is_unknown,
    Trust.CHANGED: HostPolicy._has_changed,
    Trust.REVOKED: HostPolicy._is_revoked,
}


def _show(key: PublicKey) -> str:
    return f"{key.type} {key.fingerprint()}"


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that others may be appending to: whole, and on a line of its own.

    Args:
        path: The file; made with mode 600 if it is not there.
        line: The line with its line feed.

    Raises:
        OSError: It cannot be written.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        data = line.encode("utf-8", "surrogateescape")
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        written = os.write(descriptor, data)
        if written != len(data):
            os.ftruncate(descriptor, size)
            raise OSError(28, "no room for a whole line", str(path))
    finally:
        os.close(descriptor)
