"""What ``connect`` is asked for, in every face: the arguments, checked and put together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from sshproto.config import ClientConfig
from sshproto.errors import InvalidArgument, discreet
from sshproto.keys.known_hosts import KnownHosts
from sshproto.operations.host_keys import HostKeyCheck, host_key_check, prefer_known
from sshproto.operations.login import Credentials, LoginKey, LoginPlan
from sshproto.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sshproto.keys.public import PublicKey


@frozen(kw_only=True)
class Setup:
    """What ``connect`` was asked for.

    Attributes:
        host, port: Where to.
        config: The client's decisions.
        host_key: Whether a key is the server's.
        credentials: Who we are.
    """

    host: str
    port: int
    config: ClientConfig
    host_key: HostKeyCheck
    credentials: Credentials

    @classmethod
    @discreet
    def of(
        cls,
        host: str,
        port: int,
        *,
        user: str | None,
        host_key: KnownHosts | PublicKey | HostKeyCheck,
        keys: Iterable[LoginKey],
        password: str | None,
        credentials: Credentials | None,
        config: ClientConfig | None,
    ) -> Setup:
        """From the arguments of ``connect``.

        Raises:
            InvalidArgument: They do not go together.
        """
        if not 0 < port < 65536:
            raise InvalidArgument(f"there is no port {port}: they are 1 to 65535")
        if config is None:
            if user is None:
                raise InvalidArgument("nobody to log in as: give user or config")
            config = ClientConfig(user=user)
        elif user is not None:
            config = attrs.evolve(config, user=user)
        keys = tuple(keys)
        if credentials is None:
            credentials = LoginPlan(keys, password=password)
        elif keys or password is not None:
            raise InvalidArgument("credentials stands in the place of keys and password")
        if isinstance(host_key, KnownHosts):
            config = prefer_known(config, host_key, host, port)
        return cls(
            host=host,
            port=port,
            config=config,
            host_key=host_key_check(host_key, host, port, clock=time.time),
            credentials=credentials,
        )
