"""A client logs in as it likes: services, requests of every method, signatures, prompts, at any time."""

from __future__ import annotations

from fuzz import conversation
from fuzz.running import main
from fuzz.steps import Do, mutate, script
from sshproto.auth import methods
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.samples import SAMPLES

STATES = ("A", "T", "A?", "Akbd", "Alate", "t", "A-", "AR2")
MODULES = ("sshproto.auth.server", "sshproto.auth.methods", "sshproto.server", "sshproto.engine")


def fuzz(data: bytes) -> None:
    """Go on from a state before login."""
    conversation.fuzz(Role.SERVER, STATES, data)


def seeds() -> list[bytes]:
    """Every request by itself, and whole logins."""
    ask = [(Do.SAY, methods.request("alice", form).encode()) for form in (
        methods.NoneForm(), methods.Password("xyzzy"), methods.KeyboardInteractive("", ""))]  # fmt: skip
    service = (Do.SAY, m.ServiceRequest("ssh-userauth").encode())
    answers = (Do.SAY, m.UserauthInfoResponse(("xyzzy",)).encode())
    session = (Do.SAY, m.ChannelOpen("session", 5, 1000, 32768).encode())
    return [
        *conversation.seeds(Role.SERVER, STATES, SAMPLES),
        script((1, 1), service, ask[0], (Do.ACT, b"\1"), ask[1], (Do.ACT, b"\0"), session),
        script((1, 0), ask[2], (Do.ACT, b"\5abc"), answers, (Do.ACT, b"\5a"), answers, (Do.ACT, b"\0"), session),
        script((1, 0), ask[1], (Do.ACT, b"\2"), ask[2], (Do.ACT, b"\5a"), answers, (Do.ACT, b"\0")),
        script((1, 0), ask[1], (Do.ACT, b"\6new"), ask[1], (Do.ACT, b"\0")),
    ]


if __name__ == "__main__":
    main("login_server", fuzz, seeds, mutate, MODULES)
