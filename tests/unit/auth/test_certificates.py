"""Both login machines with certificates in place of keys, and with logins that are bound to the host key."""

from __future__ import annotations

import attrs
import pytest

from sshproto.auth import methods
from sshproto.config import Limits, Preferences
from sshproto.errors import InvalidArgument, ProtocolViolation
from sshproto.events import (
    Authenticated,
    AuthSucceeded,
    CredentialNeeded,
    KeyAuth,
    KeyProbe,
    SignatureNeeded,
)
from sshproto.keys import CERTIFICATE_ALGORITHMS, FOREVER, Certificate, CertificateKind, PrivateKey, PublicKey
from sshproto.wire.messages import UserauthFailure, UserauthPkOk, UserauthRequest, UserauthSuccess
from tests.support.authenticator import ECDSA as SK_ECDSA
from tests.support.authenticator import ED25519 as SK_ED25519
from tests.support.authenticator import TOUCHED, WEBAUTHN, Authenticator
from tests.unit.auth.test_client import Client
from tests.unit.auth.test_server import HOST_KEY, NO, OK, SESSION, Server, signed

AUTHORITY = PrivateKey.generate()
KEY = PrivateKey.generate()
RSA = PrivateKey.generate("ssh-rsa", 2048)
ECDSA = PrivateKey.generate("ecdsa-sha2-nistp384")


def certify(key: PublicKey, kind: CertificateKind = CertificateKind.USER, authority: PrivateKey = AUTHORITY):
    extensions = {} if kind is CertificateKind.HOST else None
    told = {"key_id": "me", "principals": ["me"], "valid_before": FOREVER, "extensions": extensions}
    return Certificate.issue(authority, key, kind, **told)


CERTIFICATE = certify(KEY.public_key)
CERTIFIED = {
    "ed25519": (KEY, CERTIFICATE),
    "rsa": (RSA, certify(RSA.public_key)),
    "ecdsa": (ECDSA, certify(ECDSA.public_key)),
}
NAME = "ssh-ed25519-cert-v01@openssh.com"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client() -> Client:
    return Client()


def proof(key, certificate, name=None, *, host_key=None, algorithm=None, session=SESSION, user="me"):
    """The request of a login with a certificate, signed."""
    name = name or certificate.signature_algorithms[0]
    algorithm = algorithm or CERTIFICATE_ALGORITHMS[name].signature
    data = methods.signed_data(session, user, methods.SERVICE, name, certificate.blob, host_key)
    return methods.key_signed(name, certificate.blob, host_key, key.sign(data, algorithm))


# --------------------------------------------------------------------------------------------------------------- server


@pytest.mark.covers("R155")
@pytest.mark.parametrize("host_key", [None, HOST_KEY], ids=["plain", "bound"])
@pytest.mark.parametrize(("key", "certificate"), CERTIFIED.values(), ids=CERTIFIED)
def test_a_certificate_stands_in_place_of_the_key(server: Server, key, certificate, host_key) -> None:
    for name in certificate.signature_algorithms:
        if name == "ssh-rsa-cert-v01@openssh.com":
            continue
        probe = server.ask(methods.key_query(name, certificate.blob, host_key), KeyProbe)
        assert (probe.key, probe.algorithm, probe.certificate) == (key.public_key, name, certificate)
        server.machine.offer_key(probe)
        server.says(UserauthPkOk(name, certificate.blob))
        asked = server.ask(proof(key, certificate, name, host_key=host_key), KeyAuth)
        assert (asked.key, asked.algorithm, asked.certificate) == (key.public_key, name, certificate)
        assert asked.assertion is None
        server.machine.reject(asked)
        server.says(NO)
    server.machine.accept(server.ask(proof(key, certificate, host_key=host_key), KeyAuth))
    server.says(OK)
    expected = Authenticated(user="me", method="publickey", key=key.public_key, certificate=certificate)
    assert server.event(Authenticated) == expected


@pytest.mark.parametrize("first", ["key", "certificate"])
def test_a_key_and_its_certificate_are_one_key(server: Server, first: str) -> None:
    proofs = {"key": signed(KEY), "certificate": proof(KEY, CERTIFICATE)}
    server.machine.reject(server.ask(proofs.pop(first), KeyAuth), partial=True, methods=["publickey"])
    server.says(UserauthFailure(("publickey",), True))
    for form in (*proofs.values(), methods.PublicKeyQuery(NAME, CERTIFICATE.blob)):
        server.refused(form, UserauthFailure(("publickey",), False))


@pytest.mark.covers("V50", "R67")
def test_sha1_is_no_more_allowed_with_a_certificate_than_without(server: Server) -> None:
    key, certificate = CERTIFIED["rsa"]
    server.refused(methods.PublicKeyQuery("ssh-rsa-cert-v01@openssh.com", certificate.blob))
    server.refused(proof(key, certificate, "ssh-rsa-cert-v01@openssh.com"))
    server.refused(proof(key, certificate, algorithm="ssh-rsa"))
    server.refused(proof(key, certificate, algorithm="rsa-sha2-256"))  # nor another one than was named
    lenient = Server(preferences=Preferences(signature=("ssh-rsa",)))
    assert lenient.ask(proof(key, certificate, "ssh-rsa-cert-v01@openssh.com"), KeyAuth)
    lenient = Server(preferences=Preferences(signature=("ssh-rsa",)))
    lenient.refused(proof(key, certificate))


BLOBS = {
    "nothing": b"",
    "a plain key": KEY.public_key.blob,
    "cut short": CERTIFICATE.blob[:-1],
    "too long by one": CERTIFICATE.blob + b"\0",
    "a broken signature": CERTIFICATE.blob[:-1] + bytes([CERTIFICATE.blob[-1] ^ 1]),
    "another key": CERTIFICATE.blob.replace(KEY.public_key.blob[-32:], AUTHORITY.public_key.blob[-32:]),
    "of a host": certify(KEY.public_key, CertificateKind.HOST).blob,
    "of another type": CERTIFIED["ecdsa"][1].blob,
    "beyond the limit": CERTIFICATE.blob + bytes(20_000),
}


@pytest.mark.covers("V51", "V66", "R71")
@pytest.mark.parametrize("blob", BLOBS.values(), ids=BLOBS)
def test_a_certificate_that_is_none_fails_the_login_only(server: Server, blob: bytes) -> None:
    assert blob != CERTIFICATE.blob
    server.refused(methods.PublicKeyQuery(NAME, blob))
    data = methods.signed_data(SESSION, "me", methods.SERVICE, NAME, blob)
    server.refused(methods.PublicKeySigned(NAME, blob, KEY.sign(data)))
    assert server.ask(proof(KEY, CERTIFICATE), KeyAuth).certificate == CERTIFICATE


@pytest.mark.covers("V12", "R68")
def test_who_shows_a_certificate_has_to_hold_its_key() -> None:
    server = Server(limits=Limits(auth_failures=50))
    server.refused(proof(AUTHORITY, CERTIFICATE))
    server.refused(proof(KEY, CERTIFICATE, session=b"other"))
    server.refused(proof(KEY, CERTIFICATE, user="root"))
    plain = signed(KEY)
    assert isinstance(plain, methods.PublicKeySigned)
    server.refused(methods.PublicKeySigned(NAME, CERTIFICATE.blob, plain.signature))  # over the plain key's request
    good = proof(KEY, CERTIFICATE)
    server.refused(attrs.evolve(good, signature=good.signature + b"\0"))
    server.refused(attrs.evolve(good, algorithm="ssh-ed25519"))
    server.refused(attrs.evolve(good, algorithm="x-cert-v01@openssh.com"))
    server.refused(methods.PublicKeySigned(NAME, KEY.public_key.blob, good.signature))
    # What comes back from the application is not what counts.
    asked = server.ask(good, KeyAuth)
    server.machine.accept(attrs.evolve(asked, key=AUTHORITY.public_key, certificate=None))
    assert server.event(Authenticated).certificate == CERTIFICATE


@pytest.mark.covers("V52")
@pytest.mark.parametrize(("kind", "algorithm"), [(SK_ED25519, SK_ED25519), (SK_ECDSA, SK_ECDSA), (SK_ECDSA, WEBAUTHN)])
def test_the_certificate_of_a_security_key(kind: str, algorithm: str) -> None:
    token = Authenticator(kind)
    certificate = certify(token.public_key)
    name = next(each for each, it in CERTIFICATE_ALGORITHMS.items() if it.signature == algorithm)
    data = methods.signed_data(SESSION, "me", methods.SERVICE, name, certificate.blob)
    for flags, good in ((TOUCHED, True), (0, False)):
        signature = token.browse(data, flags) if algorithm == WEBAUTHN else token.sign(data, flags)
        form = methods.PublicKeySigned(name, certificate.blob, signature)
        if good:
            asked = Server().ask(form, KeyAuth)
            assert asked.assertion is not None
            assert asked.assertion.user_present
        else:
            Server().refused(form)


@pytest.mark.covers("V67", "R155")
def test_a_login_for_another_host_fails(server: Server) -> None:
    for host_key in (b"", b"another host key", HOST_KEY + b"\0", AUTHORITY.public_key.blob):
        server = Server()
        server.refused(methods.HostBoundQuery(NAME, CERTIFICATE.blob, host_key))
        server.refused(proof(KEY, CERTIFICATE, host_key=host_key))
    # Nor is it enough to write the right one over what was signed for another, or for none.
    for host_key in (None, b"another host key"):
        elsewhere = proof(KEY, CERTIFICATE, host_key=host_key)
        server.refused(methods.HostBoundSigned(NAME, CERTIFICATE.blob, HOST_KEY, elsewhere.signature))
    bound = proof(KEY, CERTIFICATE, host_key=HOST_KEY)
    server.refused(methods.PublicKeySigned(NAME, CERTIFICATE.blob, bound.signature))
    assert server.ask(bound, KeyAuth)


@pytest.mark.covers("R155", "R73")
def test_being_bound_is_no_method_of_its_own() -> None:
    server = Server(auth_methods=("password",))
    server.refused(proof(KEY, CERTIFICATE, host_key=HOST_KEY), UserauthFailure(("password",), False))
    server = Server()
    server.machine.reject(server.ask(proof(KEY, CERTIFICATE, host_key=HOST_KEY), KeyAuth), partial=True)
    server.says(UserauthFailure(("password", "keyboard-interactive"), True))
    server.refused(
        methods.HostBoundQuery(NAME, CERTIFICATE.blob, HOST_KEY),
        UserauthFailure(("password", "keyboard-interactive"), False),
    )


# --------------------------------------------------------------------------------------------------------------- client


@pytest.mark.covers("R67")
@pytest.mark.parametrize("host_key", [None, b"its host key"], ids=["plain", "bound"])
@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize(("key", "certificate"), CERTIFIED.values(), ids=CERTIFIED)
def test_a_key_that_signs_here(client: Client, key, certificate, probe, host_key) -> None:
    client.machine.host_key = host_key
    client.machine.public_key(client.event(CredentialNeeded), key, certificate=certificate, probe=probe)
    name = certificate.signature_algorithms[0]
    if probe:
        assert client.form() == methods.key_query(name, certificate.blob, host_key)
        client.receive(UserauthPkOk(name, certificate.blob))
    form = client.form()
    assert isinstance(form, methods.PublicKeySigned if host_key is None else methods.HostBoundSigned)
    assert (form.algorithm, form.key, methods.bound_to(form)) == (name, certificate.blob, host_key)
    data = methods.signed_data(SESSION, "me", "ssh-connection", name, certificate.blob, host_key)
    certificate.verify(form.signature, data, name)
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("publickey", False)


def test_a_key_that_signs_elsewhere(client: Client) -> None:
    client.machine.host_key = b"its host key"
    key, certificate = CERTIFIED["rsa"]
    client.machine.public_key(client.event(CredentialNeeded), key.public_key, certificate=certificate)
    client.form()
    client.machine.host_key = b"what is told late does not change what was asked"
    client.receive(UserauthPkOk("ssh-rsa-cert-v01@openssh.com", certificate.blob))  # the type, as some echo it
    question = client.event(SignatureNeeded)
    assert (question.key, question.algorithm, question.certificate) == (key.public_key, "rsa-sha2-512", certificate)
    name = "rsa-sha2-512-cert-v01@openssh.com"
    expected = methods.signed_data(SESSION, "me", "ssh-connection", name, certificate.blob, b"its host key")
    assert question.data == expected
    with pytest.raises(InvalidArgument, match="rsa-sha2-512"):
        client.machine.sign(question, key.sign(question.data, "rsa-sha2-256"))
    client.machine.sign(question, key.sign(question.data, "rsa-sha2-512"))
    form = client.form()
    assert isinstance(form, methods.HostBoundSigned)
    assert (form.algorithm, form.host_key) == (name, b"its host key")


@pytest.mark.covers("V12", "R70")
@pytest.mark.parametrize(
    "answer",
    [
        UserauthPkOk("ssh-ed25519", KEY.public_key.blob),
        UserauthPkOk(NAME, KEY.public_key.blob),
        UserauthPkOk("ssh-ed25519", CERTIFICATE.blob),
        UserauthPkOk(NAME, certify(KEY.public_key).blob),
        UserauthSuccess(),
    ],
)
def test_wrong_answers_to_a_query(client: Client, answer) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY, certificate=CERTIFICATE, probe=True)
    client.form()
    with pytest.raises(ProtocolViolation):
        client.receive(answer)
    assert client.outlet.take_sent() == []


@pytest.mark.covers("R133")
def test_what_the_server_takes_counts_for_certificates(client: Client) -> None:
    key, certificate = CERTIFIED["rsa"]
    question = client.event(CredentialNeeded)
    client.machine.server_signature_algorithms = ("ssh-rsa",)
    before = client.snapshot()
    with pytest.raises(InvalidArgument, match="the server takes ssh-rsa"):
        client.machine.public_key(question, key, certificate=certificate)
    with pytest.raises(InvalidArgument, match="the certificate is for ssh-rsa"):
        client.machine.public_key(question, KEY, certificate=certificate)
    with pytest.raises(InvalidArgument, match=r"cannot sign with 'rsa-sha2-256-cert-v01@openssh\.com'"):
        client.machine.public_key(question, key, certificate=certificate, algorithm="rsa-sha2-256-cert-v01@openssh.com")
    assert client.snapshot() == before
    client.machine.server_signature_algorithms = ("rsa-sha2-256",)
    client.machine.public_key(question, key, certificate=certificate)
    (message,) = client.outlet.take_sent()
    assert isinstance(message, UserauthRequest)
    assert b"rsa-sha2-256-cert-v01@openssh.com" in message.payload


def test_the_first_of_the_algorithms_that_we_want(client: Client) -> None:
    key, certificate = CERTIFIED["rsa"]
    client = Client(preferences=Preferences(signature=("rsa-sha2-256", "rsa-sha2-512")))
    client.machine.public_key(client.event(CredentialNeeded), key, certificate=certificate)
    form = client.form()
    assert isinstance(form, methods.PublicKeySigned)
    assert form.algorithm == "rsa-sha2-256-cert-v01@openssh.com"
