"""We log in to the stock OpenSSH server, and to ours, with security keys in software, whose signatures they check."""

from __future__ import annotations

import pytest

from sshproto import PublicKey
from sshproto.errors import SSHError
from sshproto.operations.login import LoginPlan
from sshproto_io import blocking
from tests.support import ours, peers
from tests.support.authenticator import ECDSA, ED25519, TOUCHED, VERIFIED, WEBAUTHN, Authenticator

TOKENS = {
    (kind, options): Authenticator(kind)
    for kind in (ED25519, ECDSA)
    for options in ("", "no-touch-required ", "verify-required ")
}


LINES = [options + token.public_key.openssh() for (_, options), token in TOKENS.items()]


@pytest.fixture(scope="module", params=["sshd", "ours"])
def server(request):
    with {"sshd": peers.sshd, "ours": ours.serve}[request.param](authorized_keys=LINES) as found:
        yield found


def logs_in(server: peers.Server, token: Authenticator, flags: int) -> bool:
    def sign(question):
        browse = question.algorithm == WEBAUTHN
        return token.browse(question.data, flags) if browse else token.sign(question.data, flags)

    plan = LoginPlan([token.public_key], signer=sign)
    host_key = PublicKey.parse(server.host_keys[0])
    try:
        client = blocking.connect(peers.HOST, server.port, user=server.user, host_key=host_key, credentials=plan)
    except SSHError:
        return False
    with client:
        return client.run("echo it ran").stdout == b"it ran\n"


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_a_server_takes_what_the_token_signs_if_its_flags_will_do(server, kind):
    for options, fits in (
        ("", {TOUCHED, TOUCHED | VERIFIED}),
        ("no-touch-required ", {0, TOUCHED, VERIFIED, TOUCHED | VERIFIED}),
        ("verify-required ", {TOUCHED | VERIFIED}),
    ):
        token = TOKENS[kind, options]
        for flags in (0, TOUCHED, VERIFIED, TOUCHED | VERIFIED):
            assert logs_in(server, token, flags) == (flags in fits), (options, flags)


@pytest.mark.parametrize(
    ("option", "let_in"), [("--touch-required", TOUCHED), ("--verify-required", VERIFIED), ("-v", 0)]
)
def test_what_our_server_asks_of_all_tokens(option, let_in):
    token = TOKENS[ED25519, "no-touch-required "]
    with ours.serve([option], authorized_keys=LINES) as server:
        for flags in (0, TOUCHED, VERIFIED, TOUCHED | VERIFIED):
            assert logs_in(server, token, flags) == (flags & let_in == let_in)
