"""Learning a server's other host keys while the one that is known still vouches (OpenSSH's ``UpdateHostKeys``).

After login a server tells of all its host keys.  A client that knows one of them asks for proofs of those that it does
not know, and then has keys to add to its ``known_hosts``, and such as the server no longer has, to be removed.  So keys
can be renewed without anybody being asked.

What a person has written is left alone: nothing is done where the lines about the host have markers, patterns or
several names, or where one of the keys stands under another name as well.  These are OpenSSH's rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.channels.requests import HostKeysProve
from sshproto.errors import KeyFormatError, RequestRefused, SignatureInvalid
from sshproto.keys.host_proofs import check_proofs
from sshproto.keys.known_hosts import DEFAULT_PORT, HostEntry, KnownHosts, lookup_name
from sshproto.keys.public import PublicKey
from sshproto.keys.signatures import SIGNATURES
from sshproto.operations.steps import Operation, Sleep
from sshproto.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sshproto.client import ClientConnection
    from sshproto.operations.hub import Hub


_SOUND = frozenset(name for name, algorithm in SIGNATURES.items() if algorithm.hash != "sha1")


@frozen
class HostKeyUpdate:
    """What is to be changed in what is known of a host.

    Attributes:
        added: Keys that are not known yet, each proved to be the server's, in its order; only such as would be asked
            for (``Preferences.host_key``).
        removed: Lines with keys that the server does not have any more.
        problem: Why nothing is to be changed although the server has told of keys that are not known, or no longer of
            some that are; ``""`` if nothing is to be said.
    """

    added: tuple[PublicKey, ...] = ()
    removed: tuple[HostEntry, ...] = ()
    problem: str = ""

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.added or self.removed)


def update_host_keys(
    hub: Hub[ClientConnection], known: KnownHosts, host: str, port: int = DEFAULT_PORT, *, seconds: float = 30.0
) -> Operation[HostKeyUpdate]:
    """What the server has to tell of its host keys, once it has logged us in. Nothing is written.

    Args:
        hub: The connection's.
        known: What is known; the server's key is in it, under this host.
        host: Where we have dialled, as the user wrote it: what it is looked up as.
        port: The port there.
        seconds: How long to wait for what it has to tell: some servers tell nothing.

    Raises:
        InvalidArgument: The host or the port is none that ``known_hosts`` can hold.
        ConnectionLoss: The connection has ended.
    """
    lookup_name(host, port)
    yield from hub.until_open()
    if hub.announced is None:
        yield Sleep(seconds, hub.announcement)
        hub.check()
    conn, blobs = hub.conn, hub.announced
    if blobs is None or conn.host_key is None or conn.session_id is None:
        return HostKeyUpdate()
    wanted = [name for name in conn._engine.config.preferences.host_key if name in SIGNATURES]
    announced = tuple(_readable(blobs, hub.limits.minimum_rsa_bits))
    new, old = _differences(known, host, port, announced, frozenset(blobs))
    new = tuple(key for key in new if not frozenset(key.signature_algorithms).isdisjoint(wanted))
    if not (new or old):
        return HostKeyUpdate()
    problem = _objection(known, host, port, conn.host_key, announced, old)
    if problem:
        return HostKeyUpdate(problem=problem)
    if new:
        try:
            proofs = yield from hub.request(HostKeysProve(tuple(key.blob for key in new)))
            # An RSA key may sign with either SHA-2: the server does not know which of them we would ask for.
            check_proofs(proofs, new, conn.session_id, {*wanted, *_SOUND})
        except (RequestRefused, SignatureInvalid) as error:
            return HostKeyUpdate(problem=f"the server has told of host keys that it does not prove: {error}")
    return HostKeyUpdate(new, old)


def _readable(blobs: Iterable[bytes], minimum_rsa_bits: int) -> Iterable[PublicKey]:
    """The keys that can be used, each once."""
    for blob in dict.fromkeys(blobs):
        try:
            yield PublicKey.from_blob(blob, minimum_rsa_bits=minimum_rsa_bits)
        except KeyFormatError:
            continue


def _differences(
    known: KnownHosts, host: str, port: int, announced: tuple[PublicKey, ...], blobs: frozenset[bytes]
) -> tuple[tuple[PublicKey, ...], tuple[HostEntry, ...]]:
    """The keys that are not known, and the lines with keys that were not announced."""
    entries = known.find(host, port)
    there = {entry.blob for entry in entries}
    new = tuple(key for key in announced if key.blob not in there)
    return new, tuple(entry for entry in entries if not entry.marker and entry.blob not in blobs)


def _objection(
    known: KnownHosts,
    host: str,
    port: int,
    current: PublicKey,
    announced: tuple[PublicKey, ...],
    old: tuple[HostEntry, ...],
) -> str:
    """Why what is known of the host should be left alone; ``""`` if it may be changed."""
    entries = known.find(host, port)
    if current not in announced:
        return "the key of this connection is not among the host keys that the server tells of"
    if all(entry.marker or entry.blob != current.blob for entry in entries):
        return "the key of this connection is not known by a line of its own"
    for entry in entries:
        if entry.marker:
            return f"{_where(entry)} has the marker {entry.marker}"
        if any(mark in entry.names for mark in "*?!,"):
            return f"{_where(entry)} has a pattern or several names"
    concerned = {key.blob for key in announced} | {entry.blob for entry in old}
    name = lookup_name(host, port)
    for entry in known.entries:
        if entry.blob in concerned and not entry.covers(name):
            return f"{_where(entry)} has one of the keys under another name"
    return ""


def _where(entry: HostEntry) -> str:
    return f"line {entry.line}" + (f" of {entry.file}" if entry.file else "")
