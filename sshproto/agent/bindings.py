"""Which SSH connections a connection to an agent serves, and what a key's destination constraints make of it.

A client binds its connection to the agent to each SSH connection that it is used for, and shows the server's signature
as a proof (``session-bind@openssh.com``).  A connection that is forwarded is bound by the client that forwards it, once
for each hop, and then by the one that logs in at the end.  The bindings in their order are the way; a key with
constraints is good if each hop of the way is allowed (OpenSSH's PROTOCOL.agent sections 1 and 2).
"""

from __future__ import annotations

from collections.abc import Sequence

from sshproto.agent.constraints import DestinationConstraint, Hop
from sshproto.agent.messages import SessionBind
from sshproto.agent.signing import LoginRequest
from sshproto.config import UNATTENDED
from sshproto.errors import KeyFormatError, SignatureInvalid
from sshproto.keys.certificates import SOUND_ALGORITHMS, Certificate, signed_with
from sshproto.keys.grants import CertificateKind
from sshproto.keys.known_hosts import match_pattern
from sshproto.keys.public import MINIMUM_RSA_BITS, PublicKey, blob_type
from sshproto.text import printable
from sshproto.values import frozen

MAXIMUM_BINDINGS = 16
"""Most SSH connections that one connection to an agent is bound to, as in OpenSSH."""


class NotPermitted(Exception):
    """What is asked is not allowed here; why is its text."""


@frozen
class Binding:
    """An SSH connection that a connection to the agent serves, proved by its server.

    Attributes:
        key: The server's key; of a certificate, the certified one.
        certificate: The server's certificate, if it has shown one.
        session_id: Of the SSH connection.
        forwarding: What comes after this comes from that server.
    """

    key: PublicKey
    certificate: Certificate | None
    session_id: bytes
    forwarding: bool

    @property
    def blob(self) -> bytes:
        """The server's key, or its certificate, as it was shown."""
        return self.key.blob if self.certificate is None else self.certificate.blob


class Bindings:
    """The bindings of one connection.

    Attributes:
        all: In the order in which they came.
        attempted: Somebody has tried to bind it.
    """

    __slots__ = ("all", "attempted")

    def __init__(self) -> None:
        self.all: list[Binding] = []
        self.attempted = False

    def bind(self, request: SessionBind, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> None:
        """Bind the connection once more; to repeat a binding changes nothing.

        Raises:
            NotPermitted: The proof is none, or the binding goes against those that there are.
        """
        self.attempted = True
        binding = _proved(request, minimum_rsa_bits)
        for other in self.all:
            if not other.forwarding:
                raise NotPermitted("the connection is bound for a login and can't be bound to anything else")
            if other.session_id == binding.session_id:
                if other.blob == binding.blob:
                    return
                raise NotPermitted("the session is bound to another host key")
        if len(self.all) >= MAXIMUM_BINDINGS:
            raise NotPermitted(f"the connection is bound to {MAXIMUM_BINDINGS} sessions, no more are accepted")
        self.all.append(binding)

    # ------------------------------------------------------------------------------------------------ what they permit

    def check_visible(self, constraints: Sequence[DestinationConstraint], now: float) -> None:
        """See that a key with these constraints can be seen, added anew and removed here.

        Raises:
            NotPermitted: It can't.
        """
        self._check(constraints, None, now)

    def check_login(self, constraints: Sequence[DestinationConstraint], login: LoginRequest, now: float) -> None:
        """See that a key with these constraints may sign a login here.

        Raises:
            NotPermitted: It may not.
        """
        if not constraints:
            return
        if not self.all:
            raise NotPermitted("the key has destination constraints, and the connection is bound to no session")
        self._check(constraints, login.user, now)
        last = self.all[-1]
        if login.session_id != last.session_id:
            raise NotPermitted("the login is on another session than the one that was bound last")
        if login.host_key is None and len(self.all) > 1:
            raise NotPermitted("the login comes from another host and is not bound to the server's key")
        if login.host_key is not None and login.host_key != last.blob:
            raise NotPermitted("the login is bound to another host key than the session")

    def _check(self, constraints: Sequence[DestinationConstraint], user: str | None, now: float) -> None:
        """Go along the way, hop by hop.

        Args:
            constraints: The key's; with none it may be used in every way.
            user: Who logs in at its end, if this is about a login.
            now: Seconds since 1970, for certificates.
        """
        if not constraints:
            return
        if not self.all:
            if self.attempted:
                raise NotPermitted("the key has destination constraints, and binding the connection has failed")
            return  # who is here, and is not forwarded
        start: Binding | None = None
        last = self.all[-1]
        for binding in self.all:
            if binding is last and binding.forwarding and user is not None:
                raise NotPermitted("the connection is bound for forwarding, and not for this login")
            wanted = user if binding is last else None
            if not any(_permits(each, start, binding, wanted, now) for each in constraints):
                who = "" if wanted is None else f" as {printable(wanted)}"
                origin = "from here" if start is None else f"from the host with the key {start.key.fingerprint()}"
                raise NotPermitted(
                    f"no destination constraint of the key allows to go {origin} to the host with the key "
                    f"{binding.key.fingerprint()}{who}"
                )
            start = binding
        # What is good for a login there, and for nothing beyond, need not be seen there.
        if last.forwarding and user is None and not any(_begins(each.start, last, now) for each in constraints):
            raise NotPermitted("no destination constraint of the key allows to use it from there")


def _proved(request: SessionBind, minimum: int) -> Binding:
    """The binding, if the server has signed its session.

    Raises:
        NotPermitted: It has not.
    """
    try:
        certificate: Certificate | None = None
        if blob_type(request.host_key).endswith("-cert-v01@openssh.com"):
            certificate = Certificate.from_blob(request.host_key, minimum_rsa_bits=minimum)
            key = certificate.key
        else:
            key = PublicKey.from_blob(request.host_key, minimum_rsa_bits=minimum)
        algorithm = signed_with(request.signature)
        if algorithm not in SOUND_ALGORITHMS:
            raise NotPermitted(f"the server's proof is signed with {printable(algorithm, 64)}, which is not accepted")
        key.verify(request.signature, request.session_id, algorithm, policy=UNATTENDED)  # as in the key exchange
    except (KeyFormatError, SignatureInvalid) as error:
        raise NotPermitted(f"the server's proof is none: {error}") from None
    if not request.session_id:
        raise NotPermitted("the session has no identifier")
    return Binding(key, certificate, request.session_id, request.forwarding)


def _permits(
    constraint: DestinationConstraint, start: Binding | None, end: Binding, user: str | None, now: float
) -> bool:
    if start is None:
        if constraint.start.host or constraint.start.keys:
            return False
    elif not _begins(constraint.start, start, now):
        return False
    if not _is_at(constraint.end, end, now):
        return False
    return user is None or not constraint.end.user or match_pattern(user, constraint.end.user)


def _begins(hop: Hop, binding: Binding, now: float) -> bool:
    return bool(hop.keys) and _is_at(hop, binding, now)


def _is_at(hop: Hop, binding: Binding, now: float) -> bool:
    """Whether the server of ``binding`` is the host of ``hop``."""
    certificate = binding.certificate
    if certificate is None:
        return any(not spec.authority and spec.blob == binding.key.blob for spec in hop.keys)
    if not any(spec.authority and spec.blob == certificate.authority.blob for spec in hop.keys):
        return False
    try:
        certificate.check(CertificateKind.HOST, hop.host, authorities=(certificate.authority,), now=now)
    except KeyFormatError:
        return False
    return True
