"""The key-exchange methods: one file a family, one registry for all.

:mod:`~sshproto.transport.kex.ecdh` (RFC 5656, RFC 8731), :mod:`~sshproto.transport.kex.hybrid`
(draft-ietf-sshm-mlkem-hybrid-kex), :mod:`~sshproto.transport.kex.dh` (RFC 4253 section 8, RFC 8268) and
:mod:`~sshproto.transport.kex.gex` (RFC 4419).  The names are those of :mod:`sshproto.algorithms`.
"""

from __future__ import annotations

from sshproto.config import Entropy, Oracle
from sshproto.transport.kex import dh, ecdh, gex, hybrid
from sshproto.transport.kex.base import ClientExchange, Exchange, Family, KexMethod, ServerExchange

__all__ = [
    "METHODS",
    "ClientExchange",
    "Exchange",
    "Family",
    "KexMethod",
    "ServerExchange",
    "client_exchange",
    "server_exchange",
]

METHODS: dict[str, KexMethod] = {
    method.name: method for method in (*hybrid.METHODS, *ecdh.METHODS, *dh.METHODS, *gex.METHODS)
}
"""Every method, by name."""


def client_exchange(
    method: KexMethod, *, entropy: Entropy, oracle: Oracle, gex_bits: tuple[int, int, int]
) -> ClientExchange:
    """A client's run of ``method``; nothing secret is made before ``start()``.

    Args:
        method: One of :data:`METHODS`.
        entropy: Source of private values, drawn under the label ``"kex"``.
        oracle: See :data:`sshproto.config.Oracle`.
        gex_bits: Smallest, preferred and largest group for group exchange, in bits.
    """
    return method.client(entropy, oracle, gex_bits)


def server_exchange(method: KexMethod, *, entropy: Entropy, oracle: Oracle, host_key: bytes) -> ServerExchange:
    """A server's run of ``method``; nothing secret is made before the client's public value came.

    Args:
        method: One of :data:`METHODS`.
        entropy: Source of private values, drawn under the label ``"kex"``.
        oracle: Source of ML-KEM encapsulations, see :data:`sshproto.config.Oracle`.
        host_key: The public key blob for the reply.
    """
    return method.server(entropy, oracle, host_key)
