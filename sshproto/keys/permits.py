"""What a login may do: the restrictions of sshd(8), "AUTHORIZED_KEYS FILE FORMAT", and of OpenSSH's certificates.

A :class:`Permit` is what remains of a line's options and of a certificate once it is known that they let somebody in.
A server enforces it: :func:`sshproto.operations.serving.serve` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from sshproto.errors import InvalidArgument, SignatureInvalid
from sshproto.keys.known_hosts import match_pattern
from sshproto.text import printable
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.keys.grants import CertificateGrant
    from sshproto.keys.security_keys import Assertion

Target = tuple[str, int | None]
"""A host and a port; None stands for any port."""


@frozen(kw_only=True)
class Permit:
    """What a login may do. Without arguments: everything.

    What a permit allows, the server need not grant: it says what is out of the question.

    Attributes:
        force_command: What is run, whatever the client asks for; None leaves it to the client.
        environment: Pairs of a name and a value, for whatever runs; the client's variables do not replace them.
        pty: Whether there may be a pseudo-terminal.
        user_rc: Whether the user's ``~/.ssh/rc`` may run, where the server has such a thing.
        port_forwarding: Whether anything may be forwarded: connections, and what is listened for.
        permit_open: Where connections may lead to, hosts letter for letter, ``"*"`` for any; None: anywhere.
        permit_listen: Where may be listened, hosts as patterns with ``*`` and ``?``; None: anywhere.
        agent_forwarding: Whether an agent may be forwarded.
        x11_forwarding: Whether X11 may be forwarded.
        tunnel: The number of the ``tun`` device that may be used, or ``"any"``; None: none was named.
        expires: After this second since 1970 nobody is let in any more; None: it does not end. Who is in stays in.
        touch_required: Whether a security key has to be touched for the login.
        verify_required: Whether a security key has to verify its owner for the login.
        grounds: What all this follows from, for logs.
    """

    force_command: str | None = None
    environment: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    pty: bool = True
    user_rc: bool = True
    port_forwarding: bool = True
    permit_open: tuple[Target, ...] | None = None
    permit_listen: tuple[Target, ...] | None = None
    agent_forwarding: bool = True
    x11_forwarding: bool = True
    tunnel: int | str | None = None
    expires: float | None = None
    touch_required: bool = True
    verify_required: bool = False
    grounds: str = attrs.field(default="", eq=False)

    def expired(self, now: float) -> bool:
        """Whether it is too late to let anybody in.

        Args:
            now: Seconds since 1970.
        """
        return self.expires is not None and now > self.expires

    def connects(self, target: tuple[str, int] | str) -> bool:
        """Whether a connection may be made for the client.

        Args:
            target: A host and a port, or the path of a socket; where there is a list, it has no paths.
        """
        if not self.port_forwarding:
            return False
        if self.permit_open is None:
            return True
        if isinstance(target, str):
            return False
        host, port = target
        return any(each in ("*", host) and number in (None, port) for each, number in self.permit_open)

    def listens(self, address: tuple[str, int] | str) -> bool:
        """Whether to listen for the client.

        Args:
            address: A host and a port as the client gives them (``""`` and ``"localhost"`` are names like others, a
                port of 0 is one that the server chooses), or the path of a socket; where there is a list, it has no
                paths.
        """
        if not self.port_forwarding:
            return False
        if self.permit_listen is None:
            return True
        if isinstance(address, str):
            return False
        host, port = address[0].lower(), address[1]
        return any(match_pattern(host, each) and number in (None, port) for each, number in self.permit_listen)

    def check_assertion(self, assertion: Assertion) -> None:
        """Check what a security key says of the login's signature.

        Raises:
            SignatureInvalid: It was not touched, or has not verified its owner, although it has to.
        """
        if self.touch_required and not assertion.user_present:
            raise SignatureInvalid("the security key signed without being touched (user presence is required)")
        if self.verify_required and not assertion.user_verified:
            raise SignatureInvalid("the security key signed without a PIN or the like (user verification is required)")

    @classmethod
    def of(cls, grant: CertificateGrant) -> Permit:
        """What a certificate permits."""
        return cls(
            force_command=grant.force_command,
            pty=grant.pty,
            user_rc=grant.user_rc,
            port_forwarding=grant.port_forwarding,
            agent_forwarding=grant.agent_forwarding,
            x11_forwarding=grant.x11_forwarding,
            touch_required=grant.touch_required,
            verify_required=grant.verify_required,
            grounds=f"principal {printable(grant.principal, 64)}",
        )

    def narrowed(self, other: Permit) -> Permit:
        """What both allow, under the demands of each.

        Of two variables of one name this permit's is kept, and its tunnel. Where both list hosts to listen at, a host
        is kept if both patterns surely cover it.

        Raises:
            InvalidArgument: Each of them forces a command, and not the same.
        """
        forced, theirs = self.force_command, other.force_command
        if forced is not None and theirs is not None and forced != theirs:
            raise InvalidArgument(
                f"two commands are forced that differ: {printable(forced, 64)!r} and {printable(theirs, 64)!r}"
            )
        ends = [end for end in (self.expires, other.expires) if end is not None]
        return Permit(
            force_command=theirs if forced is None else forced,
            environment=tuple({**dict(other.environment), **dict(self.environment)}.items()),
            pty=self.pty and other.pty,
            user_rc=self.user_rc and other.user_rc,
            port_forwarding=self.port_forwarding and other.port_forwarding,
            permit_open=_common(self.permit_open, other.permit_open, lambda host, pattern: host == pattern),
            permit_listen=_common(self.permit_listen, other.permit_listen, _covers),
            agent_forwarding=self.agent_forwarding and other.agent_forwarding,
            x11_forwarding=self.x11_forwarding and other.x11_forwarding,
            tunnel=other.tunnel if self.tunnel is None else self.tunnel,
            expires=min(ends, default=None),
            touch_required=self.touch_required or other.touch_required,
            verify_required=self.verify_required or other.verify_required,
            grounds="; ".join(filter(None, (self.grounds, other.grounds))),
        )


def _covers(host: str, pattern: str) -> bool:
    """Whether what one pattern covers another one surely covers as well."""
    return host == pattern or (not {"*", "?"} & set(host) and match_pattern(host, pattern))


def _common(
    these: tuple[Target, ...] | None, those: tuple[Target, ...] | None, covered: Callable[[str, str], bool]
) -> tuple[Target, ...] | None:
    """The targets that two lists have in common; ``covered`` tells whether a host is one that a pattern stands for."""
    if these is None or those is None:
        return those if these is None else these
    found: dict[Target, None] = {}
    for host, port in these:
        for other, number in those:
            if port is None or number is None or port == number:
                if other == "*" or covered(host, other):
                    found[host, number if port is None else port] = None
                elif host == "*" or covered(other, host):
                    found[other, number if port is None else port] = None
    return tuple(found)
