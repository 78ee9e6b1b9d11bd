"""The first key exchange and later ones, of every method family, with a peer that says anything; both roles."""

from __future__ import annotations

from fuzz import conversation
from fuzz.running import main
from fuzz.steps import Do, mutate, script
from sshproto.transport.kex import METHODS
from sshproto.transport.kex.groups import GROUP14
from sshproto.wire import messages as m
from sshproto.wire.codec import string
from sshproto.wire.table import Role
from tests.support.puppet import SHARE, Puppet
from tests.support.rogue import kexinit
from tests.support.samples import SAMPLES
from tests.support.seeds import HOST_KEY

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
    return found + _methods() + _accepted()


def _methods() -> list[bytes]:
    """The first message of each side, for every method that there is: a share of zeros, or the base point."""
    found: list[bytes] = []
    sizes = {"mlkem768": (1184, 1088), "sntrup761": (1158, 1039), "mlkem1024": (1568, 1568)}
    points = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
    for name in METHODS:
        first = (Do.SAY, kexinit(kex_algorithms=(name,)))
        ours, theirs = next((size for part, size in sizes.items() if part in name), (0, 0))
        tail = next((b"\4".ljust(size, b"\1") for part, size in points.items() if part in name), SHARE)
        old = "diffie-hellman" in name
        init = m.KexDhInit(GROUP14.prime // 3) if old else m.KexEcdhInit(bytes(ours) + tail)
        number = _ROLES.index(Role.SERVER) << 1
        found.append(script((1 | number, 0), first, (Do.SAY, init.encode()), (Do.SAY, m.NewKeys().encode())))
        if not old:
            reply = m.KexEcdhReply(
                HOST_KEY.public_key.blob, bytes(theirs) + tail, string(b"ssh-ed25519") + string(bytes(64))
            )
            number = _ROLES.index(Role.CLIENT) << 1
            found.append(script((1 | number, 0), first, (Do.SAY, reply.encode())))
    return found


def _accepted() -> list[bytes]:
    """A server's reply that a client takes, and what it does then."""
    puppet = conversation.bring(Role.CLIENT, "K1")
    head = 1 | _ROLES.index(Role.CLIENT) << 1, STATES.index("K1")
    reply, keys = (Do.SAY, puppet.reply().encode()), (Do.SAY, m.NewKeys().encode())
    service = (Do.SAY, m.ServiceAccept("ssh-userauth").encode())
    return [
        *(script(head, reply, (Do.ACT, bytes((how,))), keys, service, (Do.ACT, b"\0")) for how in range(3)),
        script(head, reply, keys, (Do.ACT, b"\0"), (Do.SAY, m.Ignore(b"").encode()), service),
    ]


if __name__ == "__main__":
    main("kex", fuzz, seeds, mutate, MODULES)
