"""Whether a server is who it should be: what clients do about host keys, and their ``known_hosts`` files."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Collection, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from sshproto.errors import ConnectionLoss, InvalidArgument, KeyFormatError
from sshproto.keys.known_hosts import HostEntry, KnownHosts, Match, Trust, line_for, lookup_name, parse
from sshproto_cli.host_files import append_line, read, rewrite
from sshproto_cli.options import Failure, complain, describe, read_file

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.events import HostKeyOffered
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.host_lines import Edited
    from sshproto.keys.krl import KRL
    from sshproto.keys.public import PublicKey
    from sshproto.operations.hub import Hub
    from sshproto.operations.steps import Operation
    from sshproto_cli.terminal import Terminal

__all__ = ["HostPolicy", "Unknown", "append_line"]


class Unknown(Enum):
    """What to do about a host that is not known yet."""

    ASK = "ask"
    ACCEPT = "accept"
    REFUSE = "refuse"
    ANY = "any"
    """The files are not looked at: whoever answers is believed."""


class HostPolicy:
    """Answers ``HostKeyOffered``.

    A host whose key is not the one that is known is refused in any case, and so is one that is known by another type of
    key, as it would be by OpenSSH: that is also how somebody looks who has no key of the type that is known.

    Args:
        host: Where we dial, as the user wrote it, or an alias: what stands in the files.
        port: The port there.
        paths: The user's ``known_hosts`` files. None of them needs to exist. New hosts are added to the first, whose
            directory must exist.
        unknown: What to do about hosts that are in no file.
        terminal: Who to ask.
        hashed: Hide the names of hosts that are added (``HashKnownHosts``).
        system: More files, which are only read.
        revoked: A file of keys that are revoked, as lines or as a revocation list (``RevokedHostKeys``).
        update: Whether :meth:`after_login` learns keys (``UpdateHostKeys``).
        make_directory: Make the first file's directory if that is not there.
        authority_algorithms: With what an authority has to have signed a certificate (``CASignatureAlgorithms``); None
            leaves it at what certificates are read with.

    Attributes:
        problem: Why a key was not accepted; "" if none was rejected.

    Raises:
        Failure: A file cannot be read. Without that of what is revoked nobody could be trusted.
    """

    def __init__(
        self,
        host: str,
        port: int,
        paths: Sequence[Path],
        unknown: Unknown,
        terminal: Terminal,
        *,
        hashed: bool = False,
        system: Sequence[Path] = (),
        revoked: Path | None = None,
        update: bool = False,
        make_directory: bool = False,
        authority_algorithms: Collection[str] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._paths = tuple(paths)
        self._unknown = unknown
        self._terminal = terminal
        self._hashed = hashed
        self._update = update
        self._make_directory = make_directory
        self._authority_algorithms = authority_algorithms
        self._known = KnownHosts()
        if unknown is not Unknown.ANY:
            self._known = KnownHosts.joined(map(load, (*self._paths, *system)))
        self._revoked_by = revoked
        self._revoked = None if revoked is None else _read_revoked(revoked)
        self._match: Match | None = None
        self.problem = ""

    def order(self, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        """Host key algorithms in the order to ask for them, see :meth:`KnownHosts.host_key_order
        <sshproto.keys.known_hosts.KnownHosts.host_key_order>`: certificates where an authority is trusted for the host,
        then the keys that are known."""
        with contextlib.suppress(InvalidArgument):  # will be said when the key is looked up
            return self._known.host_key_order(self._host, self._port, algorithms)
        return algorithms

    def __call__(self, question: HostKeyOffered) -> bool:
        """Whether the key is good."""
        key, certificate = question.key, question.certificate
        if self._unknown is Unknown.ANY:
            why = "" if self._revoked is None else self._revoked.why(certificate or key)
            self.problem = f"the host key of {self._host} ({_show(key)}) is revoked: {why}" if why else ""
            return not self.problem
        try:
            match = self._look_up(key, certificate)
        except InvalidArgument as error:
            self.problem = str(error)
            return False
        if match.problem and match.trust is not Trust.REVOKED:
            complain(
                f"the host certificate of {self._host} does not count, its key is looked at alone: {match.problem}"
            )
        self._match = match
        self.problem = _VERDICTS[match.trust](self, key, match)
        return not self.problem

    def _look_up(self, key: PublicKey, certificate: Certificate | None) -> Match:
        match = self._known.lookup(self._host, self._port, key, certificate, now=time.time(), revoked=self._revoked)
        relied, allowed = match.certificate, self._authority_algorithms
        if relied is None or allowed is None or relied.authority_algorithm in allowed:
            return match
        alone = self._known.lookup(self._host, self._port, key, revoked=self._revoked)
        problem = f"it is signed with {relied.authority_algorithm}, which is none of {', '.join(allowed)}"
        return attrs.evolve(alone, problem=alone.problem or problem)

    def after_login(self, hub: Hub[ClientConnection]) -> Operation[None]:
        """Learn the server's other keys, and forget those that it no longer has, if that is wanted: an operation for
        the background, which ends by itself.

        Nothing is said about it, as OpenSSH says nothing; only what goes wrong with a file is.

        Args:
            hub: The connection's.
        """
        match = self._match
        if not self._update or not self._paths or match is None or match.trust is not Trust.MATCH or match.certificate:
            return
        from sshproto.operations.host_key_update import update_host_keys

        try:
            update = yield from update_host_keys(hub, self._known, self._host, self._port)
        except ConnectionLoss:
            return
        if not update.changes:
            return
        try:
            self._write(update.added, update.removed)
        except (OSError, Failure) as error:
            complain(f"the host keys of {self._host} cannot be updated: {describe(error)}")

    # --------------------------------------------------------------------------------------------------------- verdicts

    # Each returns what is wrong, or "".

    def _matches(self, key: PublicKey, match: Match) -> str:
        return ""

    def _is_revoked(self, key: PublicKey, match: Match) -> str:
        by = f"{self._revoked_by}: {match.problem}" if match.entry is None else _place(match.entry)
        return f"the host key of {self._host} ({_show(key)}) is revoked by {by}"

    def _has_changed(self, key: PublicKey, match: Match) -> str:
        entry = match.entry
        if entry is None:
            return f"the host key of {self._host} has CHANGED"
        self._warn(
            f"The host key of {self._host} port {self._port} has CHANGED.", key, entry, f"the {key.type} key that came"
        )
        return f"the host key of {self._host} has CHANGED: {_place(entry)} has another {key.type} key"

    def _is_of_another_type(self, key: PublicKey, match: Match) -> str:
        entry = match.known[0]
        self._warn(
            f"The host {self._host} port {self._port} has shown ANOTHER TYPE OF KEY than those that are known of it.",
            key,
            entry,
            "the key that came",
        )
        others = ", ".join(dict.fromkeys(entry.key_type for entry in match.known))
        return f"{self._host} is known by another type of key ({others}, {_place(entry)}) than {key.type}, which came"

    def _warn(self, what: str, key: PublicKey, entry: HostEntry, came: str) -> None:
        """Say what somebody has to know who meets a key that is not the one that is known."""
        known = f"{entry.key_type} {_fingerprint(entry)}"
        name = lookup_name(self._host, self._port)
        removing = ["sshproto", "known-hosts", "remove", "--file", entry.file, name]
        for line in (
            f"WARNING: {what}",
            "Somebody may be listening in, and read and change all that is sent (a man in the middle).",
            "Or the host was set up anew, or has got other keys: ask who is responsible for it for the fingerprint.",
            f"Known is {known}, by {_place(entry)}.",
            f"The fingerprint of {came} is {_show(key)}.",
            f"Only if that is right, forget the host, and connect again: {shlex.join(removing)}",
        ):
            complain(line)

    def _is_unknown(self, key: PublicKey, match: Match) -> str:
        if match.known:
            return self._is_of_another_type(key, match)
        what = f"the host key of {self._host} port {self._port} is not known ({_show(key)})"
        if self._unknown is Unknown.ACCEPT:
            return self._remember(key)
        if self._unknown is Unknown.REFUSE:
            return f"{what}, and no host is let in that is not known"
        if not self._terminal.present:
            where = f", or add it to {self._paths[0]}" if self._paths else ""
            return f"{what}; accept it with --accept-new{where}"
        capital = what[0].upper() + what[1:]
        if not self._terminal.confirm(f"{capital}.\nGo on, and remember this key (yes/no)? "):
            return f"the host key of {self._host} was not accepted"
        return self._remember(key)

    # ------------------------------------------------------------------------------------------------------------ files

    def _remember(self, key: PublicKey) -> str:
        """Append the key to the file. That it cannot be written is no reason to stop."""
        if not self._paths:
            return ""
        path = self._paths[0]
        try:
            if self._make_directory:
                path.parent.mkdir(mode=0o700, exist_ok=True)
            append_line(path, line_for(self._host, self._port, key, hashed=self._hashed))
            complain(f"the host key of {self._host} ({_show(key)}) is remembered in {path}")
        except OSError as error:
            complain(f"the host key of {self._host} cannot be remembered: {describe(error)}")
        return ""

    def _write(self, added: Sequence[PublicKey], removed: Sequence[HostEntry]) -> None:
        for path in self._paths:
            gone = [entry.blob for entry in removed if entry.file == str(path)]
            new = added if path is self._paths[0] else ()
            if (gone or new) and path.exists():
                rewrite(path, partial(self._edit, gone, new))
            else:
                for key in new:
                    append_line(path, line_for(self._host, self._port, key, hashed=self._hashed))

    def _edit(self, gone: Sequence[bytes], new: Sequence[PublicKey], content: bytes) -> Edited[bytes]:
        from sshproto.keys.host_lines import append, remove

        edited = remove(content, self._host, self._port, keys=gone)
        there = {entry.blob for entry in parse(edited.text).find(self._host, self._port)}
        lines = [
            line_for(self._host, self._port, key, hashed=self._hashed) for key in new if key.blob not in there
        ]  # others may have learned them meanwhile
        return attrs.evolve(edited, text=append(edited.text, lines))


_VERDICTS = {
    Trust.MATCH: HostPolicy._matches,
    Trust.UNKNOWN: HostPolicy._is_unknown,
    Trust.CHANGED: HostPolicy._has_changed,
    Trust.REVOKED: HostPolicy._is_revoked,
}


def load(path: Path) -> KnownHosts:
    """What is in a file; nothing if it is not there. Lines that cannot be read are complained of, and passed over.

    Raises:
        Failure: It cannot be read.
    """
    content = read(path)
    if content is None:
        return KnownHosts()
    known = parse(content, str(path))
    for line, problem in known.problems:
        complain(f"{path} line {line} is passed over: {problem}")
    return known


def _read_revoked(path: Path) -> KRL:
    from sshproto.keys.revocation import read_revoked

    try:
        return read_revoked(read_file(str(path), "file of revoked host keys"))
    except KeyFormatError as error:
        raise Failure(f"file of revoked host keys {path}: {error}") from None


def _show(key: PublicKey) -> str:
    return f"{key.type} {key.fingerprint()}"


def _fingerprint(entry: HostEntry) -> str:
    from sshproto.keys.public import fingerprint_of

    return fingerprint_of(entry.blob)


def _place(entry: HostEntry) -> str:
    return f"{entry.file} line {entry.line}"
