"""Host certificates in the key exchange, both roles (PROTOCOL.certkeys): what is offered, shown and signed."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.algorithms import CERTIFICATE_EXTRA, SIGNATURE_DEFAULT
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.errors import HostKeySignatureInvalid, InvalidArgument, KeyExchangeFailed
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey, PublicKey
from sshproto.transport import keyexchange
from sshproto.transport.link import Phase
from sshproto.wire.codec import string
from tests.support.pair import Pair, client_answers, server_answers

AUTHORITY = PrivateKey.generate("ssh-ed25519")
KEYS = {
    "ssh-ed25519": PrivateKey.generate("ssh-ed25519"),
    "ecdsa-sha2-nistp256": PrivateKey.generate("ecdsa-sha2-nistp256"),
    "ssh-rsa": PrivateKey.generate("ssh-rsa"),
}
ED25519 = KEYS["ssh-ed25519"]
CERTIFIED = Preferences(host_key=CERTIFICATE_EXTRA + SIGNATURE_DEFAULT)


def certify(key: PrivateKey, **changes: Any) -> Certificate:
    told: dict[str, Any] = {"key_id": "a host", "principals": ("localhost",), "valid_before": FOREVER, **changes}
    return Certificate.issue(AUTHORITY, key.public_key, told.pop("kind", CertificateKind.HOST), **told)


def make(*, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None, **more: Any) -> Pair:
    keys = tuple(KEYS.values())
    told = {"host_keys": keys, "host_certificates": tuple(map(certify, keys)), "debug_raise": True}
    return Pair.make(
        ClientConfig(**{"user": "alice", "preferences": CERTIFIED, "debug_raise": True, **(client or {})}),
        ServerConfig(**{**told, **(server or {})}),
        **more,
    )


@pytest.mark.parametrize(
    ("algorithm", "key_type", "plain"),
    [
        ("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519", "ssh-ed25519"),
        ("ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
        ("rsa-sha2-256-cert-v01@openssh.com", "ssh-rsa", "rsa-sha2-256"),
    ],
)
def test_a_certificate_is_shown_and_its_key_has_signed(algorithm: str, key_type: str, plain: str) -> None:
    pair = make(client={"preferences": Preferences(host_key=(algorithm,))})
    pair.run()
    (offered,) = pair.client.of(ev.HostKeyOffered)
    certificate = certify(KEYS[key_type])
    assert offered.key == KEYS[key_type].public_key == offered.certificate.key
    assert offered.algorithm == algorithm
    assert offered.certificate.authority == AUTHORITY.public_key
    client, server = pair.client.conn, pair.server.conn
    assert client.phase is Phase.OPEN
    assert client.negotiated.host_key == server.negotiated.host_key == algorithm
    for conn in (client, server):
        assert conn.host_key == offered.key
        assert conn.host_key_blob == offered.certificate.blob
        assert offered.key.verify(conn.host_key_signature, conn.session_id, plain) is None
    assert certificate.type == offered.certificate.type


def test_a_plain_key_is_told_as_well_and_nothing_is_known_before() -> None:
    pair = make(client={"preferences": Preferences()}, client_answer=None)
    assert pair.client.conn.host_key_blob is pair.server.conn.host_key_signature is None
    pair.run()
    (offered,) = pair.client.of(ev.HostKeyOffered)
    assert offered.certificate is None
    assert pair.client.conn.host_key is None  # not accepted yet
    assert pair.client.conn.host_key_blob == offered.key.blob == pair.server.conn.host_key_blob
    assert pair.client.conn.host_key_signature == pair.server.conn.host_key_signature


def offers(preferences: Preferences, certified: tuple[str, ...]) -> tuple[str, ...]:
    keys = tuple(KEYS.values())
    config: Any = ServerConfig(
        host_keys=keys,  # type: ignore[arg-type]
        host_certificates=tuple(certify(KEYS[name]) for name in certified),
        preferences=preferences,
    )
    return keyexchange.KeyExchange(keyexchange.Role.SERVER, config, _Nobody()).start().server_host_key_algorithms


class _Nobody:
    """An outlet that takes whatever it is given."""

    def __init__(self) -> None:
        self.outbox: Any = self

    def send_now(self, *_: Any) -> None:
        pass

    def hold(self) -> None:
        pass


def test_a_server_offers_what_its_certificates_can_do() -> None:
    rsa = ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com")
    plain = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    assert offers(Preferences(), ()) == plain
    assert offers(Preferences(), ("ssh-rsa",)) == (*rsa, *plain)
    assert offers(Preferences(), ("ssh-rsa", "ssh-ed25519")) == ("ssh-ed25519-cert-v01@openssh.com", *rsa, *plain)
    # What the preferences leave out is not offered by way of a certificate either.
    assert offers(Preferences(host_key=("rsa-sha2-256",)), ("ssh-rsa", "ssh-ed25519")) == (rsa[1], "rsa-sha2-256")
    # Who names certificate algorithms decides on their order, and on which.
    named = ("ssh-ed25519", "rsa-sha2-256-cert-v01@openssh.com")
    assert offers(Preferences(host_key=named), ("ssh-rsa", "ssh-ed25519")) == named
    assert offers(Preferences(host_key=named), ()) == ("ssh-ed25519",)


def test_a_client_asks_for_no_certificate_unless_told() -> None:
    assert not set(Preferences().host_key) & set(CERTIFICATE_EXTRA)
    pair = make(client={"preferences": Preferences()})
    pair.run()
    assert pair.client.conn.negotiated.host_key == "ssh-ed25519"


def test_who_keeps_the_signing_key_elsewhere_can_be_certified() -> None:
    def sign(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.SignatureNeeded):
            asked.append(question)
            with pytest.raises(InvalidArgument):
                conn.sign(question, PrivateKey.generate().sign(question.data, "ssh-ed25519"))
            conn.sign(question, ED25519.sign(question.data, question.algorithm))
        else:
            server_answers(conn, question)

    asked: list[ev.SignatureNeeded] = []
    server = {"host_keys": (ED25519.public_key,), "host_certificates": (certify(ED25519),)}
    pair = make(server=server, server_answer=sign)
    pair.run()
    assert pair.client.conn.phase is Phase.OPEN
    assert pair.client.of(ev.HostKeyOffered)[0].certificate is not None
    assert [(it.key, it.algorithm, it.purpose) for it in asked] == [(ED25519.public_key, "ssh-ed25519", "host key")]


def test_a_later_exchange_goes_on_with_the_same_key() -> None:
    pair = make()
    pair.run()
    blob, signature = pair.client.conn.host_key_blob, pair.client.conn.host_key_signature
    pair.server.conn.rekey()
    pair.run()
    pair.client.conn.rekey()
    pair.run()
    assert len(pair.client.of(ev.KeysExchanged)) == 3
    assert len(pair.client.of(ev.HostKeyOffered)) == 1
    assert {event.host_key for event in pair.client.of(ev.KeysExchanged)} == {ED25519.public_key}
    for conn in (pair.client.conn, pair.server.conn):  # of the first exchange, for ever
        assert (conn.host_key_blob, conn.host_key_signature) == (blob, signature)


# -------------------------------------------------------------------------------------------------------- what is wrong


def show(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Pair:
    """A server that shows something else than it should."""
    honest = keyexchange._shown
    monkeypatch.setattr(keyexchange, "_shown", lambda *args: attrs.evolve(honest(*args), **changes))
    pair = make(client={"preferences": Preferences(host_key=("ssh-ed25519-cert-v01@openssh.com",))})
    pair.run()
    return pair


def lost(pair: Pair) -> Exception:
    assert pair.client.lost is not None
    assert not pair.client.of(ev.HostKeyOffered)
    return pair.client.lost.error


@pytest.mark.covers("V51")
def test_another_key_than_the_certified_one_has_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    error = lost(show(monkeypatch, blob=certify(PrivateKey.generate()).blob))
    assert isinstance(error, HostKeySignatureInvalid)


@pytest.mark.covers("V51")
def test_a_certificate_of_another_type_than_agreed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = lost(show(monkeypatch, blob=certify(KEYS["ecdsa-sha2-nistp256"]).blob))
    assert isinstance(error, HostKeySignatureInvalid)
    assert "is shown as ecdsa-sha2-nistp256-cert-v01@openssh.com" in str(error)


@pytest.mark.covers("V51")
def test_a_plain_key_in_place_of_a_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = lost(show(monkeypatch, blob=ED25519.public_key.blob))
    assert isinstance(error, KeyExchangeFailed)
    assert "this is a plain key of type ssh-ed25519" in str(error)


@pytest.mark.covers("V51")
def test_a_certificate_in_place_of_a_plain_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = keyexchange._shown
    blob = certify(ED25519).blob
    monkeypatch.setattr(keyexchange, "_shown", lambda *args: attrs.evolve(honest(*args), blob=blob))
    pair = make(client={"preferences": Preferences()})
    pair.run()
    assert isinstance(lost(pair), KeyExchangeFailed)


@pytest.mark.covers("V51")
def test_an_authority_that_did_not_sign_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = bytearray(certify(ED25519).blob)
    blob[-1] ^= 1
    error = lost(show(monkeypatch, blob=bytes(blob)))
    assert isinstance(error, KeyExchangeFailed)
    assert "the certificate's signature is no good" in str(error)


@pytest.mark.covers("V51")
def test_the_name_of_the_signature_is_the_plain_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """PROTOCOL.certkeys: who signs as ``...-cert-v01`` has misunderstood it."""
    original = keyexchange.KeyExchange._reply

    def reply(self: Any, now: Any, reply: Any, secrets: Any, signature: bytes) -> None:
        name = b"ssh-ed25519-cert-v01@openssh.com"
        original(self, now, reply, secrets, string(name) + signature[4 + len(b"ssh-ed25519") :])

    monkeypatch.setattr(keyexchange.KeyExchange, "_reply", reply)
    pair = make()
    pair.run()
    assert isinstance(lost(pair), HostKeySignatureInvalid)


def test_a_server_is_told_at_once_what_does_not_belong_to_it() -> None:
    other = PrivateKey.generate()

    def config(*certificates: Any) -> ServerConfig:
        keys: Any = (ED25519,)
        return ServerConfig(host_keys=keys, host_certificates=certificates)

    config(certify(ED25519))
    with pytest.raises(InvalidArgument, match="for none of the host keys"):
        config(certify(other))
    with pytest.raises(InvalidArgument, match="this is one for a user"):
        config(certify(ED25519, kind=CertificateKind.USER))
    with pytest.raises(InvalidArgument, match="there are several for"):
        config(certify(ED25519), certify(ED25519))
    with pytest.raises(InvalidArgument, match="must be certificates"):
        config(ED25519.public_key)
    with pytest.raises(InvalidArgument, match="must be a sequence"):
        ServerConfig(host_keys=(ED25519,), host_certificates=5)  # type: ignore[arg-type]


def test_preferences_know_certificates_for_host_keys_only() -> None:
    assert Preferences(host_key=CERTIFICATE_EXTRA).host_key == CERTIFICATE_EXTRA
    with pytest.raises(InvalidArgument, match="is not implemented"):
        Preferences(signature=CERTIFICATE_EXTRA)
    with pytest.raises(InvalidArgument, match="is not implemented"):
        Preferences(host_key=("ssh-dss-cert-v01@openssh.com",))


def test_a_public_key_can_be_compared_as_ever() -> None:
    pair = make(client_answer=lambda conn, question: _pinned(conn, question, ED25519.public_key))
    pair.run()
    assert pair.client.conn.phase is Phase.OPEN


def _pinned(conn: Any, question: ev.Question, key: PublicKey) -> None:
    if isinstance(question, ev.HostKeyOffered) and question.key != key:
        conn.reject_host_key(question)
    else:
        client_answers(conn, question)
