"""What our three faces have in common here: keys, and configurations that are the default but for the algorithms."""

from __future__ import annotations

from sshproto import ClientConfig, PrivateKey, ServerConfig
from sshproto.config import Limits, Preferences
from tests.bench.ends import KEX, Setting

CHUNK = 256 * 1024
"""What is read at once, at most."""


def preferences(setting: Setting) -> Preferences:
    cipher, mac = setting.algorithms
    return Preferences(kex=(KEX,), cipher=(cipher,), **({"mac": (mac,)} if mac else {}))


def client_config(setting: Setting) -> ClientConfig:
    return ClientConfig(user=setting.user, preferences=preferences(setting))


def server_config(setting: Setting) -> ServerConfig:
    limits = Limits(sessions=1000, channels_from_peer=1000)  # ten sessions are usual, and 50 at once are measured
    return ServerConfig(host_keys=[key(setting, "host_key")], preferences=preferences(setting), limits=limits)


def key(setting: Setting, name: str) -> PrivateKey:
    return PrivateKey.load(setting.key(name))
