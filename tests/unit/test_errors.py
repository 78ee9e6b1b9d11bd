"""The families of errors, the codes they carry, and what they say."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from sshproto import errors
from sshproto.errors import (
    AuthExhausted,
    ConnectionLoss,
    DisconnectCode,
    Incompatible,
    InternalError,
    InvalidArgument,
    KeyFormatError,
    LimitExceeded,
    LocalClose,
    PeerDisconnected,
    ProtocolViolation,
    SignatureInvalid,
    SSHError,
    TimedOut,
    UnexpectedEof,
    UsageError,
    VersionUnsupported,
    WireError,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, SSHError) and value is not SSHError
]

# RFC 4250 section 4.2.2.
CODES = {
    "HOST_NOT_ALLOWED_TO_CONNECT": 1,
    "PROTOCOL_ERROR": 2,
    "KEY_EXCHANGE_FAILED": 3,
    "RESERVED": 4,
    "MAC_ERROR": 5,
    "COMPRESSION_ERROR": 6,
    "SERVICE_NOT_AVAILABLE": 7,
    "PROTOCOL_VERSION_NOT_SUPPORTED": 8,
    "HOST_KEY_NOT_VERIFIABLE": 9,
    "CONNECTION_LOST": 10,
    "BY_APPLICATION": 11,
    "TOO_MANY_CONNECTIONS": 12,
    "AUTH_CANCELLED_BY_USER": 13,
    "NO_MORE_AUTH_METHODS_AVAILABLE": 14,
    "ILLEGAL_USER_NAME": 15,
}

LOSSES: list[tuple[ConnectionLoss, int | None]] = [
    (ProtocolViolation("p"), 2),
    (ProtocolViolation("p", 3), 3),
    (VersionUnsupported("p", "SSH-1.5-x"), 8),
    (Incompatible("kex", ["a"], ["b"]), 3),
    (errors.KeyExchangeFailed("p"), 3),
    (errors.HostKeySignatureInvalid("p"), 3),
    (errors.HostKeyRejected("p"), 9),
    (errors.HostKeyUnknown("p"), 9),
    (errors.HostKeyChanged("p"), 9),
    (errors.HostKeyRevoked("p"), 9),
    (errors.MacError("p"), 5),
    (errors.CompressionError("p"), 6),
    (errors.ServiceRefused("p"), 7),
    (AuthExhausted("p", ["password"], ["publickey"]), 14),
    (PeerDisconnected(99, "p"), 99),
    (UnexpectedEof("p", "packet"), None),
    (errors.ClosedEarly("p", "identification"), None),
    (TimedOut("p", "rekey"), 11),
    (LimitExceeded("p", "packet"), 2),
    (LimitExceeded("p", "names", 3), 3),
    (LocalClose("p"), 11),
    (LocalClose("p", None), None),
    (InternalError("p"), 11),
]
EVERY: list[SSHError] = [loss for loss, _ in LOSSES] + [
    WireError("KexInit", "cookie", 1, "p"),
    InvalidArgument("p"),
    KeyFormatError("p"),
    SignatureInvalid("p"),
    errors.OpenRefused("a session", 1, "p"),
    errors.RequestRefused("p"),
    errors.ChannelEnded("p"),
]


def test_the_codes_are_the_standards() -> None:
    assert {member.name: member.value for member in DisconnectCode} == CODES


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_of_one_family(kind: type[SSHError]) -> None:
    """What is raised for misuse is never what ends a connection."""
    refusals = (errors.Refusal, errors.ChannelEnded)
    families = (UsageError, ConnectionLoss, WireError, KeyFormatError, SignatureInvalid, *refusals)
    assert sum(issubclass(kind, family) for family in families) == 1


def test_bad_values_are_value_errors() -> None:
    assert issubclass(InvalidArgument, ValueError)
    assert issubclass(WireError, ValueError)
    assert issubclass(KeyFormatError, ValueError)


@pytest.mark.parametrize(("loss", "code"), LOSSES, ids=lambda value: type(value).__name__)
def test_every_loss_has_its_code_and_words(loss: ConnectionLoss, code: int | None) -> None:
    assert loss.code == code
    assert str(loss)


def test_every_loss_is_in_this_test() -> None:
    tested = {type(loss) for loss, _ in LOSSES}
    assert tested == {kind for kind in CLASSES if issubclass(kind, ConnectionLoss) and kind is not ConnectionLoss}


def test_a_wire_error_says_what_and_where() -> None:
    error = WireError("KexInit", "cookie", 1, "needs 16 bytes, 3 are left")
    assert str(error) == "KexInit.cookie at offset 1: needs 16 bytes, 3 are left"
    assert (error.where, error.field, error.offset, error.problem) == (
        "KexInit",
        "cookie",
        1,
        "needs 16 bytes, 3 are left",
    )
    assert str(WireError("NewKeys", "", 1, "1 bytes too many")) == "NewKeys at offset 1: 1 bytes too many"


@pytest.mark.covers("V70", "R31")
def test_incompatible_shows_both_offers_and_nothing_raw() -> None:
    error = Incompatible("cipher client to server", iter(["aes"]), iter(["rc4\x1b[2J", "des"]))
    assert (error.category, error.ours, error.theirs) == ("cipher client to server", ("aes",), ("rc4\x1b[2J", "des"))
    assert str(error) == ("no common cipher client to server algorithm: we offer aes; the peer offers rc4\\x1b[2J, des")
    assert str(Incompatible("kex", [], [])) == "no common kex algorithm: we offer nothing; the peer offers nothing"
    assert len(str(Incompatible("kex", ["a"], ["x" * 5000]))) < 1200


@pytest.mark.covers("V70", "R48")
@pytest.mark.parametrize(
    ("code", "name"), [(2, "PROTOCOL_ERROR"), (11, "BY_APPLICATION"), (0, "code"), (4294967295, "code")]
)
def test_a_peers_goodbye(code: int, name: str) -> None:
    """Codes that nobody knows are kept; words are made printable."""
    error = PeerDisconnected(code, "bye\x1b[2J\nnow" + "x" * 300)
    assert error.code == code
    assert error.description.startswith("bye\\x1b[2J\\nnowxxx")
    assert error.description.endswith("…")
    assert str(error).startswith(f"the peer disconnected: {name} ({code}): bye\\x1b[2J")


def test_more_is_told_in_attributes() -> None:
    assert VersionUnsupported("p", "SSH-1.5-x").received == "SSH-1.5-x"
    assert VersionUnsupported("p").received == ""
    exhausted = AuthExhausted("p", ["password"], iter(["publickey"]))
    assert (exhausted.methods, exhausted.tried) == (("password",), ("publickey",))
    assert UnexpectedEof("p", "packet").where == "packet"
    assert TimedOut("p", "rekey").timer == "rekey"
    assert LimitExceeded("p", "packet").limit == "packet"
    assert str(LocalClose("going home")) == "closed by this side: going home"


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_errors_can_be_copied_and_pickled(error: SSHError) -> None:
    """A process pool, multiprocessing or pytest-xdist sends exceptions from one process to another."""
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))
