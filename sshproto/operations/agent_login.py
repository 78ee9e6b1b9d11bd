"""A client's login by the keys of an agent: which are tried and in what order, and how they sign.

The order is OpenSSH's: first the keys of the agent that are among those given otherwise, then the agent's others, then
what is left of those given.  So nobody is asked for the passphrase of a file as long as the agent has a key to try.

Before anything else the connection to the agent is bound to the SSH connection (``session-bind@openssh.com``), so that
it shows the keys which are good for this server, and signs with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sshproto.agent.framing import AgentError, AgentRefused, ExtensionUnsupported
from sshproto.agent.replies import Identity
from sshproto.errors import KeyFormatError
from sshproto.keys.certificates import Certificate
from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey
from sshproto.operations.steps import Operation, call
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.events import CredentialNeeded, SignatureNeeded


class AgentLike(Protocol):
    """What a login needs of an agent.

    Its methods may be operations, as those of :class:`sshproto.operations.agents.Agent`; asynchronous where functions
    may be, as those of the faces' agents; or neither.
    """

    def identities(self) -> Any:
        """The keys and certificates that it holds: a sequence of :class:`~sshproto.agent.Identity`."""
        ...

    def sign(self, key: bytes, data: bytes, algorithm: str | None = None) -> Any:
        """The signature of the key, or certificate, of this blob."""
        ...

    def bind(self, host_key: bytes, session_id: bytes, signature: bytes, *, forwarding: bool = False) -> Any:
        """Bind it to an SSH connection."""
        ...


@frozen
class AgentKey:
    """A key of an agent, to log in with.

    Attributes:
        key: The key.
        certificate: To be shown in its place; None shows the key.
        alone: The agent has the key without the certificate.
    """

    key: PublicKey
    certificate: Certificate | None = None
    alone: bool = False

    @property
    def blob(self) -> bytes:
        """What the agent knows it by."""
        return self.key.blob if self.certificate is None or self.alone else self.certificate.blob


class AgentKeys:
    """The keys of an agent, for one login.

    What goes wrong with the agent does not end the login, which goes on with what there is besides.

    Args:
        agent: A connection to the agent, for this login alone: it is bound to it.

    Attributes:
        offered: The key that was offered last, if it is the agent's.
        problem: What went wrong with the agent; None if nothing has.
    """

    def __init__(self, agent: AgentLike) -> None:
        self._agent: AgentLike = getattr(agent, "operations", agent)  # of those whose methods would wait without end
        self.offered: AgentKey | None = None
        self.problem: AgentError | None = None
        self._plain: frozenset[bytes] = frozenset()  # what it could sign with for a certificate that is elsewhere

    def fetch(
        self, conn: ClientConnection, given: Iterable[bytes] = (), *, only: bool = False
    ) -> Operation[tuple[AgentKey, ...]]:
        """Bind the agent to the connection, and have it list what it has. Keys that are of no use are left out.

        Args:
            conn: The connection that is to log in.
            given: The blobs of the keys and certificates that were given otherwise: if the agent has them, they come
                first.
            only: Leave out all that are not among these (OpenSSH's ``IdentitiesOnly``).
        """
        host_key, session_id, signature = conn.host_key_blob, conn.session_id, conn.host_key_signature
        identities: Sequence[Identity] = ()
        try:
            if host_key is not None and session_id is not None and signature is not None:
                try:
                    yield from call(self._agent.bind, host_key, session_id, signature)
                except ExtensionUnsupported:  # as of most agents but OpenSSH's and ours
                    pass
                except AgentRefused as error:  # it is bound elsewhere: some keys are missing
                    self.problem = error
            identities = yield from call(self._agent.identities)
        except AgentError as error:
            self.problem = error
        wanted = frozenset(given)
        named: list[AgentKey] = []
        others: list[AgentKey] = []
        for identity in identities:
            try:
                loaded = identity.load(minimum_rsa_bits=LOWEST_RSA_BITS)
            except KeyFormatError:
                continue
            key = AgentKey(loaded.key, loaded) if isinstance(loaded, Certificate) else AgentKey(loaded)
            (named if key.blob in wanted else others).append(key)
        self._plain = frozenset(key.blob for key in (*named, *others) if key.certificate is None)
        return tuple(named) if only else (*named, *others)

    def lend(self, key: object, certificate: Certificate) -> AgentKey | None:
        """What to try for a certificate whose key is known to the agent only; None if the agent does not have it."""
        if isinstance(key, PublicKey) and key.blob in self._plain:
            return AgentKey(key, certificate, alone=True)
        return None

    def offer(self, conn: ClientConnection, question: CredentialNeeded, key: object) -> bool:
        """Try a key, if it is one of the agent's; False if it is not.

        Raises:
            InvalidArgument: It makes no signature that both sides allow.
        """
        self.offered = key if isinstance(key, AgentKey) else None
        if self.offered is None:
            return False
        conn.auth_public_key(question, self.offered.key, certificate=self.offered.certificate)
        return True

    def sign(self, question: SignatureNeeded) -> Operation[bytes | None]:
        """Have a login signed with the key that was offered last; None if the agent does not."""
        if self.offered is None:
            return None
        try:
            signature: bytes = yield from call(self._agent.sign, self.offered.blob, question.data, question.algorithm)
        except AgentError as error:
            self.problem = error
            return None
        return signature
