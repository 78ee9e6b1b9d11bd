"""Two KEXINITs, whatever is in them: what they add up to is what RFC 4253 section 7.1 says, written once more.

An input is a byte of flags and two payloads, each after its length of two bytes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from fuzz import schema
from fuzz.clear import fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.config import Limits, Preferences
from sshproto.errors import ConnectionLoss, Incompatible, WireError
from sshproto.transport import negotiation
from sshproto.wire.messages import KexInit
from sshproto.wire.table import Role
from tests.support.rogue import kexinit

LIMITS = Limits(names=20, name_list=500)
MODULES = ("sshproto.transport.negotiation", "sshproto.wire.codec")
_SLOTS = {
    "kex": "kex_algorithms",
    "host_key": "server_host_key_algorithms",
    "cipher_client_to_server": "encryption_algorithms_client_to_server",
    "cipher_server_to_client": "encryption_algorithms_server_to_client",
    "compression_client_to_server": "compression_algorithms_client_to_server",
    "compression_server_to_client": "compression_algorithms_server_to_client",
}
_MARKS = ("ext-info-", "kex-strict-")


def _split(data: bytes) -> tuple[int, bytes, bytes]:
    size = int.from_bytes(data[1:3], "big")
    return (data[0] if data else 0), data[3 : 3 + size], data[3 + size :]


def _join(flags: int, client: bytes, server: bytes) -> bytes:
    return bytes((flags,)) + len(client).to_bytes(2, "big") + client + server


def _within(message: KexInit) -> bool:
    try:
        negotiation.check_offer(message, LIMITS)
    except ConnectionLoss:
        return False
    return True


def fuzz(data: bytes) -> None:
    """Negotiate."""
    flags, *payloads = _split(data)
    try:
        client, server = (KexInit.parse(payload) for payload in payloads)
    except WireError:
        return
    for message, payload in zip((client, server), payloads, strict=True):
        again = KexInit.parse(message.encode())
        if again != message:
            raise AssertionError(f"encoded it is another: {payload!r}")
        if _within(message) and any(len(getattr(message, field)) > LIMITS.names for field in _SLOTS.values()):
            raise AssertionError("too many names are accepted")
    strict = negotiation.strict_agreed(client, server)
    negotiation.guess_is_right(client, server)
    preferences = (None, Preferences(), Preferences(allow_terrapin=True))[flags % 3]
    try:
        found = negotiation.negotiate(client, server, us=tuple(Role)[flags & 1], preferences=preferences, strict=strict)
    except ConnectionLoss as error:
        if not isinstance(error, Incompatible):  # which shows what is ours as it is, and here nothing is
            fit_to_show(error)
        return
    except KeyError:
        # A cipher that nobody here has, which only an observer meets.
        if preferences is not None and not strict:
            return
        raise
    for slot, field in _SLOTS.items():
        offered = [name for name in getattr(server, field) if not name.startswith(_MARKS)]
        expected = next(name for name in getattr(client, field) if name in offered)
        if getattr(found, slot) != expected:
            raise AssertionError(f"{slot} is {getattr(found, slot)!r}, expected {expected!r}")


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change fields."""
    if not rng.randrange(10):
        return mutate_bytes(data, others, rng)
    flags, client, server = _split(data)
    if not rng.randrange(6):
        server = _split(rng.choice(others))[2]
    if rng.randrange(2):
        client = schema.changed(client, rng)
    if rng.randrange(2):
        server = schema.changed(server, rng)
    return _join(flags if rng.randrange(4) else rng.randrange(256), client[:65535], server[:65535])


def seeds() -> list[bytes]:
    """Pairs that agree and pairs that don't."""
    strict = kexinit(kex_algorithms=("curve25519-sha256", "kex-strict-c-v00@openssh.com", "ext-info-c"))
    theirs = kexinit(kex_algorithms=("curve25519-sha256", "kex-strict-s-v00@openssh.com", "ext-info-s"))
    odd = [
        kexinit(encryption_algorithms_client_to_server=("chacha20-poly1305@openssh.com",)),
        kexinit(kex_algorithms=("ext-info-s", "x@example.org"), first_kex_packet_follows=True),
        kexinit(mac_algorithms_client_to_server=(), encryption_algorithms_client_to_server=("aes128-gcm@openssh.com",)),
        kexinit(encryption_algorithms_server_to_client=("aes128-cbc",),
                mac_algorithms_server_to_client=("hmac-sha2-256-etm@openssh.com",)),
    ]  # fmt: skip
    every = [kexinit(), strict, theirs, *odd]
    return [_join(flags, one, two) for flags in range(3) for one in every for two in every]


if __name__ == "__main__":
    main("negotiation", fuzz, seeds, mutate, MODULES)
