"""Whether a server is the one that is meant: its host key, or its certificate, against what is known of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.errors import HostKeyChanged, HostKeyRevoked, HostKeyUnknown, InvalidArgument
from sshproto.events import HostKeyOffered
from sshproto.keys.known_hosts import KnownHosts, Trust
from sshproto.keys.public import PublicKey

if TYPE_CHECKING:
    from sshproto.config import ClientConfig
    from sshproto.keys.known_hosts import HostEntry

HostKeyCheck = Callable[[HostKeyOffered], Any]
"""Whether the key that the server has proved to hold is the server's: True or False. May be asynchronous where
functions may be, or an operation; may raise a :class:`~sshproto.errors.HostKeyRejected` that says more."""

Clock = Callable[[], float]
"""The time, in seconds since 1970."""


def host_key_check(
    trusted: KnownHosts | PublicKey | HostKeyCheck, host: str, port: int, *, clock: Clock | None = None
) -> HostKeyCheck:
    """What decides whether a server's key is good.

    Args:
        trusted: Keys and authorities that are known, the one key that is good, or a function that decides.
        host: Where we dial, as the user wrote it: what it is looked up as.
        port: The port there.
        clock: Tells whether certificates are valid; without it they don't count, only the keys in them.
    """
    if isinstance(trusted, KnownHosts):
        known = trusted
        return lambda question: _look_up(known, host, port, question, clock)
    if isinstance(trusted, PublicKey):
        pinned = trusted
        return lambda question: _compare(pinned, question.key)
    if not callable(trusted):
        raise InvalidArgument(f"host_key must be KnownHosts, a PublicKey or a function, not {trusted!r}")
    return trusted


def _look_up(known: KnownHosts, host: str, port: int, question: HostKeyOffered, clock: Clock | None) -> bool:
    key, certificate = question.key, question.certificate
    if clock is None or certificate is None:
        match = known.lookup(host, port, key)
    else:
        match = known.lookup(host, port, key, certificate, now=clock())
    came = f"{key.type} {key.fingerprint()}"
    besides = f"; {match.problem}" if match.problem else ""
    match match.trust:
        case Trust.MATCH:
            return True
        case Trust.REVOKED:
            raise HostKeyRevoked(f"the host key of {host} port {port} ({came}) is revoked{_where(match.entry)}")
        case Trust.CHANGED:
            raise HostKeyChanged(
                f"the host key of {host} port {port} has changed: {came} is not the one that is"
                f" known{_where(match.entry)}{besides}"
            )
        case _:
            others = ", ".join(dict.fromkeys(entry.key_type for entry in match.known))
            known_as = f"; known are keys of the types {others}" if others else ""
            raise HostKeyUnknown(f"the host key of {host} port {port} is not known: {came}{known_as}{besides}")


def _where(entry: HostEntry | None) -> str:
    """Which line says so, if it is known of which file."""
    return f" (line {entry.line} of {entry.file})" if entry is not None and entry.file else ""


def _compare(pinned: PublicKey, key: PublicKey) -> bool:
    if key == pinned:
        return True
    raise HostKeyChanged(
        f"the host key is {key.type} {key.fingerprint()}, expected {pinned.type} {pinned.fingerprint()}"
    )


def prefer_known(
    config: ClientConfig, known: KnownHosts, host: str, port: int, *, certificates: bool = True
) -> ClientConfig:
    """``config``, asking first for what is known of a host: see :meth:`KnownHosts.host_key_order
    <sshproto.keys.known_hosts.KnownHosts.host_key_order>`.

    So a host is not taken for a new one because it has other keys beside the one that is known, and shows its
    certificate to who trusts the authority that has signed it.

    Args:
        config: What to prefer otherwise.
        known: What is known.
        host: Where we dial, as the user wrote it.
        port: The port there.
        certificates: Whether certificates count, see ``clock`` of :func:`host_key_check`.
    """
    names = known.host_key_order(host, port, config.preferences.host_key, certificates=certificates)
    return attrs.evolve(config, preferences=attrs.evolve(config.preferences, host_key=names))
