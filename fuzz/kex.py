"""The first key exchange and later ones, of every method family, with a peer that says anything; both roles."""

from __future__ import annotations

from fuzz import conversation
from fuzz.running import main
from fuzz.steps import Do, mutate, script
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.security.test_schema import SAMPLES
from tests.support.puppet import SHARE, Puppet

STATES = ("K0", "K1", "k1", "K1x", "k1x", "Kg1", "Kg2", "Kd1", "K2", "k2", "TR2", "CR1", "CR2", "CR12", "CR3", "I")
MODULES = ("sshproto.transport.keyexchange", "sshproto.transport.kex", "sshproto.transport.negotiation",
           "sshproto.transport.keyschedule", "sshproto.transport.link")  # fmt: skip
_ROLES = tuple(Role)


def fuzz(data: bytes) -> None:
    """Go on from a state in a key exchange; a bit says on which side."""
    conversation.fuzz(_ROLES[bool(data and data[0] & 2)], STATES, data)


def seeds() -> list[bytes]:
    """Every message by itself, and whole exchanges."""
    found: list[bytes] = []
    for number, role in enumerate(_ROLES):
        found += [bytes((it[0] | number << 1,)) + it[1:] for it in conversation.seeds(role, STATES, SAMPLES)]
        puppet = Puppet.new(role)
        for strict in (True, False):
            first = (Do.SAY, puppet.kexinit(strict=strict))
            share = (Do.SAY, m.KexEcdhInit(SHARE).encode())
            keys = (Do.SAY, m.NewKeys().encode())
            found.append(script((1 | number << 1, 0), first, share, keys, (Do.SAY, m.Ignore(b"").encode()), first))
            found.append(script((1 | number << 1, 15), (Do.RAW, b"SSH-2.0-x\r\n"), first, share, (Do.ACT, b"\0"), keys))
    return found


if __name__ == "__main__":
    main("kex", fuzz, seeds, mutate, MODULES)
