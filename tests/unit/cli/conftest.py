"""Fixtures: the real ssh-keygen and the like."""

from __future__ import annotations

from tests.unit.keys.conftest import keys, openssl, puttygen, ssh_keygen

__all__ = ["keys", "openssl", "puttygen", "ssh_keygen"]
