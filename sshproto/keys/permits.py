"""What a login may do: the restrictions of sshd(8), "AUTHORIZED_KEYS FILE FORMAT", and of OpenSSH's certificates.

A :class:`Permit` is what remains of a line's options and of a certificate once it is known that they let somebody in.
A server enforces it: :func:`sshproto.operations.serving.serve` does.
"""

from __future__ import annotations

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
        permit_open: Where connections may lead to, hosts letter for letter (of either case); None: anywhere.
        permit_listen: Where may be listened, hosts as patterns with ``*`` and ``?``; None: anywhere.
        agent_forwarding: Whether an agent may be forwarded.
        x11_forwarding: Whether X11 may be forwarded.
        tunnel: The number of the ``tun`` device that may be used, or ``"any"``; None: none was named.
        expires: From this second since 1970 on nobody is let in any more; None: never. Who is in stays in.
        touch_required: Whether a security key has to be touched for the login.
        verify_required: Whether a security key has to verify its owner for the login.
        grounds: What all this follows from, for logs.
    """

    force_command: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
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
        return any(each.lower() == host.lower() and number in (None, port) for each, number in self.permit_open)

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
        return any(match_pattern(host, each.lower()) and number in (None, port) for each, number in self.permit_listen)

    def check_assertion(self, assertion: Assertion) -> None:
        """Check what a security key says of the login's signature.

        Raises:
            SignatureInvalid: It was not touched, or has not verified its owner, although it has to.
        """
        if self.touch_required and not assertion.user_present:
            raise SignatureInvalid("the security key signed without being touched (user presence is required)")
        if self.verify_required and not assertion.user_verified:
            raise SignatureInvalid("the security key signed without a PIN or the like (user verification is required)")

    def within(self, grant: CertificateGrant) -> Permit:
        """What is left of this where a certificate has its say as well: what both allow, under the demands of each.

        Args:
            grant: What the certificate permits.

        Raises:
            InvalidArgument: Each of them forces a command, and not the same.
        """
        forced, theirs = self.force_command, grant.force_command
        if forced is not None and theirs is not None and forced != theirs:
            raise InvalidArgument(
                f"the certificate forces the command {printable(theirs, 64)!r}, and its line {printable(forced, 64)!r}"
            )
        return attrs.evolve(
            self,
            force_command=forced if forced is not None else theirs,
            pty=self.pty and grant.pty,
            user_rc=self.user_rc and grant.user_rc,
            port_forwarding=self.port_forwarding and grant.port_forwarding,
            agent_forwarding=self.agent_forwarding and grant.agent_forwarding,
            x11_forwarding=self.x11_forwarding and grant.x11_forwarding,
            touch_required=self.touch_required or grant.touch_required,
            verify_required=self.verify_required or grant.verify_required,
        )
