"""What can be said of a connection in a few words."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs

from sshproto.errors import PeerDisconnected
from sshproto.events import AuthSucceeded, ConnectionLost, VersionReceived
from sshproto.replay.events import (
    Ended,
    KexSeen,
    KeysMissing,
    Missing,
    Observed,
    OfferSeen,
    PacketOpened,
    PacketSealed,
    Problem,
    Reopened,
    RolesSeen,
    SecretFound,
    Side,
)
from sshproto.transport import negotiation
from sshproto.transport.negotiation import Negotiated
from sshproto.values import define
from sshproto.wire.messages import KexInit
from sshproto.wire.table import Role

_PROBLEMS = 100
"""So many problems are kept; the rest is counted."""

_WAYS = {Role.CLIENT: "client_to_server", Role.SERVER: "server_to_client"}


def hassh(kexinit: KexInit, role: Role) -> str:
    """The HASSH fingerprint of a side: the MD5 of what its first KEXINIT offers for the direction that it sends.

    Args:
        kexinit: The message.
        role: Whose it is; a server's is known as hasshServer.
    """
    lists: list[tuple[str, ...]] = [kexinit.kex_algorithms]
    lists += [getattr(kexinit, f"{kind}_algorithms_{_WAYS[role]}") for kind in ("encryption", "mac", "compression")]
    text = ";".join(",".join(names) for names in lists)
    return hashlib.md5(text.encode("ascii", "surrogateescape"), usedforsecurity=False).hexdigest()


@define(eq=False)
class _SideSeen:
    """What one side has sent."""

    version: str | None = None
    offer: KexInit | None = None
    messages: bytearray = attrs.Factory(bytearray)
    payloads: Any = attrs.Factory(hashlib.sha256)
    encrypted: bool = False
    sealed: bool = False
    missing: bool = False
    ended: bool = False


class Summary:
    """Collects what an observer tells about one connection.

    Attributes:
        client: Who is the client, as far as that is known.
        sure: The key exchange showed it.
        negotiated: What the first key exchange chose.
        session_id: The exchange hash of the first key exchange.
        problems: What could not be followed, in order; at most a hundred.
        more_problems: How many there were beyond these.
    """

    def __init__(self) -> None:
        self.client: Side | None = None
        self.sure = False
        self.negotiated: Negotiated | None = None
        self.session_id: bytes | None = None
        self.problems: list[str] = []
        self.more_problems = 0
        self._host_key = ""
        self._epochs = 0
        self._auth = False
        self._ended = False
        self._secrets = False
        self._sides = {side: _SideSeen() for side in Side}

    def add(self, seen: Observed) -> None:
        """Take one of the observer's events, in their order."""
        side = self._sides[seen.side]
        match seen.event:
            case PacketOpened() as packet:
                side.messages.append(packet.number)
                side.payloads.update(packet.payload)
                side.encrypted |= packet.epoch > 0
            case VersionReceived(line=line):
                side.version = line
            case OfferSeen(kexinit=kexinit):
                if side.offer is None:
                    side.offer = kexinit
            case RolesSeen(client=client, sure=sure):
                self.client, self.sure = client, sure
            case KexSeen() as kex:
                self._epochs += 1
                if self.negotiated is None:
                    self.negotiated = kex.negotiated
                if not self._host_key:
                    self._host_key = kex.fingerprint
            case KeysMissing(problem=problem):
                side.sealed = True
                if side.encrypted:  # without any key that is no problem but the usual thing
                    self._problem(seen, problem)
            case PacketSealed():
                side.sealed = True
            case Reopened():
                side.sealed = side.missing = False
            case SecretFound(session_id=session_id):
                self._secrets = True
                self.session_id = self.session_id or session_id
            case AuthSucceeded():
                self._auth = True
            case Ended():
                side.ended = True
            case ConnectionLost(error=PeerDisconnected()):
                self._ended = True
            case Missing(problem=problem):
                side.missing = True
                self._problem(seen, problem)
            case Problem(problem=problem, fatal=fatal):
                side.missing |= fatal
                self._problem(seen, problem)
            case _:
                pass

    def _problem(self, seen: Observed, problem: str) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems.append(f"{seen.side.value}: {problem}")
        else:
            self.more_problems += 1

    def ended(self) -> None:
        """The recording shows the end of the transport, which the observer was not told."""
        self._ended = True

    @property
    def complete(self) -> bool:
        """Nothing is missing: both sides are there, from their identification to the end."""
        sides = self._sides.values()
        whole = all(side.version is not None and not side.missing for side in sides)
        return whole and (self._ended or all(side.ended for side in sides))

    @property
    def opened(self) -> bool:
        """It was encrypted, and all of it could be read."""
        return self._secrets and not any(side.sealed for side in self._sides.values())

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain values, for JSON.

        What is not known is None. The MACs are what the lists of both sides add up to, also where the cipher brings
        its own and they are void. ``kex_epochs`` counts the key exchanges that were seen. ``auth_success`` is None if
        no login was seen to succeed, and it may have succeeded where nothing could be read. ``decrypted`` is None
        unless :attr:`opened`: then it has for both sides the numbers of the messages, and the SHA-256 of all payloads.
        """
        dialler = self.client or Side.DIALLER
        client, server = self._sides[dialler], self._sides[dialler.other]
        chosen = self.negotiated
        return {
            "client_version": client.version,
            "server_version": server.version,
            "kex": chosen.kex if chosen else None,
            "host_key_alg": chosen.host_key if chosen else None,
            "host_key_sha256": self._host_key or None,
            "cipher_c2s": chosen.cipher_client_to_server if chosen else None,
            "cipher_s2c": chosen.cipher_server_to_client if chosen else None,
            "mac_c2s": self._mac(Role.CLIENT, client.offer, server.offer),
            "mac_s2c": self._mac(Role.SERVER, client.offer, server.offer),
            "compression_c2s": chosen.compression_client_to_server if chosen else None,
            "compression_s2c": chosen.compression_server_to_client if chosen else None,
            "strict_kex": self._strict_kex(client.offer, server.offer),
            "hassh": hassh(client.offer, Role.CLIENT) if client.offer else None,
            "hassh_server": hassh(server.offer, Role.SERVER) if server.offer else None,
            "session_id": self.session_id.hex() if self.session_id else None,
            "kex_epochs": self._epochs,
            "auth_success": True if self._auth else False if self.opened else None,
            "complete": self.complete,
            "decrypted": {"client": _decrypted(client), "server": _decrypted(server)} if self.opened else None,
        }

    def _mac(self, sender: Role, client: KexInit | None, server: KexInit | None) -> str | None:
        if self.negotiated is None or client is None or server is None:
            return None
        offered, known = (getattr(kexinit, f"mac_algorithms_{_WAYS[sender]}") for kexinit in (client, server))
        return next((name for name in offered if name in known), None)

    @staticmethod
    def _strict_kex(client: KexInit | None, server: KexInit | None) -> bool | None:
        if client is None or server is None:
            return None
        return negotiation.strict_agreed(client, server)


def _decrypted(side: _SideSeen) -> dict[str, Any]:
    return {"messages": list(side.messages), "payload_sha256": side.payloads.hexdigest()}
