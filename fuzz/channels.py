"""After login: what the peer of either role may say, for the targets ``channels_client`` and ``channels_server``."""

from __future__ import annotations

from fuzz import conversation
from fuzz.steps import Do, script
from sshproto.channels import requests as r
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.puppet import CHANNEL
from tests.support.samples import SAMPLES

STATES = ("C", "C0", "CR1", "CR2", "CR3", "C-")
MODULES = ("sshproto.channels",)


def seeds(role: Role) -> list[bytes]:
    """Every message by itself, and channels from their beginning to their end."""
    shell = (Do.SAY, m.ChannelRequest(CHANNEL, "shell", True, b"").encode())
    data = (Do.SAY, m.ChannelData(CHANNEL, b"data" * 20).encode())
    kept = (Do.SAY, m.ChannelData(CHANNEL, b"kept" * 20).encode())
    errors = (Do.SAY, m.ChannelExtendedData(CHANNEL, 1, b"data").encode())
    more = (Do.SAY, m.ChannelWindowAdjust(CHANNEL, 4000).encode())
    eof, close = (Do.SAY, m.ChannelEof(CHANNEL).encode()), (Do.SAY, m.ChannelClose(CHANNEL).encode())
    forward = (Do.SAY, m.GlobalRequest("tcpip-forward", True, r.TcpipForward("", 0).encode()).encode())
    again = (Do.SAY, m.ChannelOpen("session", 6, 1000, 32768).encode())
    granted = (Do.SAY, m.RequestSuccess((2222).to_bytes(4, "big")).encode())
    come = (Do.SAY, m.ChannelOpen("forwarded-tcpip", 7, 9, 9, r.ForwardedTcpip("", 2222, "", 1).encode()).encode())
    unknown = [(Do.SAY, m.Unimplemented(number).encode()) for number in range(8)]
    keys = (Do.SAY, m.NewKeys().encode())
    acts = [(Do.ACT, bytes((192 + number,)) + bytes(more)) for number in range(14) for more in ((0, 1), (0, 1, 2))]
    return [
        *conversation.seeds(role, STATES, SAMPLES),
        script((1, 0), shell, (Do.ACT, b"\0"), data, kept, errors, more, acts[6], acts[12], eof, close, again),
        script((1, 0), forward, (Do.ACT, b"\0\0\0\x16\0"), again, (Do.ACT, b"\0"), close, (Do.ACT, b"\xc5\0"), close),
        script((1, 0), (Do.ACT, b"\xc2\0"), granted, come, (Do.ACT, b"\0"), (Do.ACT, b"\xc2\1"), granted, come),
        script((1, 0), (Do.ACT, b"\xc2\2"), granted, (Do.ACT, b"\xc2\5"), granted),
        script((1, 0), (Do.ACT, b"\xc2\0"), (Do.ACT, b"\xc0\0"), *unknown),
        script((1, 4), *acts, keys, data, more),
        script((1, 4), forward, shell, again, (Do.ACT, b"\0"), (Do.ACT, b"\0"), (Do.ACT, b"\0"), *acts[8:16], keys),
        script((0, 0), more, *acts[6:8] * 12, *[acts[6]] * 12, (Do.TAKE, b""), data, more),
        script((0, 0), *acts[:8], more, *acts[8:22]),
        *(script((1, place), act, data, more, act, close) for place in (0, 1, 2) for act in acts),
    ]
