"""How logins with certificates, and bound to a host key, are shown."""

from __future__ import annotations

import pytest

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.replay import rows
from sshproto_cli import describe
from tests.support.seeds import AUTHORITY_KEY, HOST_KEY, USER_CERTIFICATE, USER_KEY

NAME = "ssh-ed25519-cert-v01@openssh.com"


@pytest.mark.parametrize(("signature", "what"), [(b"", "would this key do?"), (b"s", "here is its signature")])
@pytest.mark.parametrize("host_key", [None, HOST_KEY.public_key.blob, b"no key"])
def test_a_login_that_is_bound_to_a_host_key(signature, what, host_key):
    signed = USER_KEY.sign(b"x") if signature else b""
    blob = USER_CERTIFICATE.blob
    form = methods.key_signed(NAME, blob, host_key, signed) if signed else methods.key_query(NAME, blob, host_key)
    words = describe._userauth_request(methods.request("alice", form))
    assert words.summary == f"alice, publickey: {what}"
    told = dict(words.details)
    assert told["fingerprint"] == USER_KEY.public_key.fingerprint()
    assert AUTHORITY_KEY.public_key.fingerprint() in told["signed by"]
    bound = {None: None, b"no key": "6 bytes"}.get(host_key, HOST_KEY.public_key.fingerprint())
    assert told.get("host key") == bound


def test_a_certificate_in_a_row():
    asked = ev.KeyAuth(id=1, user="alice", key=USER_KEY.public_key, algorithm=NAME, certificate=USER_CERTIFICATE)
    fingerprint = USER_KEY.public_key.fingerprint()
    assert rows._WORDS[ev.KeyAuth](asked) == f'alice with a certificate "alice\'s" for {fingerprint}'
