"""A server answers a login as it likes: refusals, prompts, success, at any time."""

from __future__ import annotations

from fuzz import conversation
from fuzz.running import main
from fuzz.steps import Do, mutate, script
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.samples import SAMPLES
from tests.support.seeds import USER_KEY

STATES = ("A", "T", "Anone", "Apassword", "Aquery", "Asigned", "Akbd", "Akbd?", "Akbd!", "t", "A-", "AR2")
MODULES = ("sshproto.auth.client", "sshproto.auth.methods", "sshproto.client", "sshproto.engine")


def fuzz(data: bytes) -> None:
    """Go on from a state before login."""
    conversation.fuzz(Role.CLIENT, STATES, data)


def seeds() -> list[bytes]:
    """Every answer by itself, and whole logins."""
    no = (Do.SAY, m.UserauthFailure(("password", "keyboard-interactive", "publickey"), partial_success=False).encode())
    partly = (Do.SAY, m.UserauthFailure(("password",), partial_success=True).encode())
    ask = (Do.SAY, m.UserauthInfoRequest("name", "do", "", (("Word: ", False),)).encode())
    expired = (Do.SAY, m.UserauthPasswdChangereq("new", "").encode())
    would_do = (Do.SAY, m.UserauthPkOk("ssh-ed25519", USER_KEY.public_key.blob).encode())
    yes = (Do.SAY, m.UserauthSuccess().encode())
    return [
        *conversation.seeds(Role.CLIENT, STATES, SAMPLES),
        script((1, 0), (Do.ACT, b"\0"), no, (Do.ACT, b"\1"), partly, (Do.ACT, b"\1"), yes),
        script((1, 0), (Do.ACT, b"\5"), ask, (Do.ACT, b"\0x"), ask, (Do.ACT, b"\0x"), yes),
        script((1, 0), (Do.ACT, b"\1"), expired, (Do.ACT, b"\0new"), no, (Do.ACT, b"\2"), yes),
        *(script((1, 0), (Do.ACT, b"\4"), would_do, (Do.ACT, bytes((how,)) + b"x"), yes) for how in range(3)),
        script((1, 0), (Do.ACT, b"\3"), would_do, no, *((Do.ACT, b"\0"), no) * 20),
        script((1, 0), *[(Do.SAY, m.UserauthBanner("x", "").encode())] * 70),
        script((1, 0), (Do.ACT, b"\4"), no, (Do.ACT, b"\3"), no, (Do.ACT, b"\6")),
    ]


if __name__ == "__main__":
    main("login_client", fuzz, seeds, mutate, MODULES)
