"""The forms of USERAUTH_REQUEST, and what is signed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.auth import methods
from sshproto.errors import InvalidArgument, WireError
from sshproto.keys.private import PrivateKey
from sshproto.wire.messages import SAFE_PAYLOAD, UserauthInfoResponse, UserauthRequest, check_size

FORMS = [
    methods.NoneForm(),
    methods.PublicKeyQuery("ssh-ed25519", b"blob"),
    methods.PublicKeySigned("ssh-ed25519", b"blob", b"signature"),
    methods.HostBoundQuery("ssh-ed25519", b"blob", b"host"),
    methods.HostBoundSigned("ssh-ed25519", b"blob", b"host", b"signature"),
    methods.Password("geheim"),
    methods.PasswordChange("geheim", "geheimer"),
    methods.KeyboardInteractive("", "otp,pam"),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_forms_survive_the_wire(form: methods.Form) -> None:
    assert methods.parse(form.method, form.encode()) == form


@pytest.mark.covers("R158", "R159", "R71")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_every_truncation_and_a_trailing_byte_are_wire_errors(form: methods.Form) -> None:
    payload = form.encode()
    for length in range(len(payload)):
        with pytest.raises(WireError):
            methods.parse(form.method, payload[:length])
    with pytest.raises(WireError):
        methods.parse(form.method, payload + b"\0")


def test_bytes_of_the_forms() -> None:
    assert methods.Password("x").encode() == bytes.fromhex("00 00000001 78")
    assert methods.PasswordChange("x", "yz").encode() == bytes.fromhex("01 00000001 78 00000002 797a")
    assert methods.PublicKeyQuery("a", b"k").encode() == bytes.fromhex("00 00000001 61 00000001 6b")
    assert methods.PublicKeySigned("a", b"k", b"s").encode() == bytes.fromhex("01 00000001 61 00000001 6b 00000001 73")
    assert methods.KeyboardInteractive("", "").encode() == bytes(8)
    assert methods.NoneForm().encode() == b""


@pytest.mark.covers("R1")
def test_all_non_zero_booleans_are_true() -> None:
    payload = methods.PublicKeySigned("a", b"k", b"s").encode()
    for value in (1, 2, 0x80, 0xFF):
        assert isinstance(methods.parse("publickey", bytes((value,)) + payload[1:]), methods.PublicKeySigned)


def test_a_form_does_not_read_as_the_other() -> None:
    with pytest.raises(WireError, match="flag"):
        methods.PublicKeySigned.parse(methods.PublicKeyQuery("a", b"k").encode())
    with pytest.raises(WireError, match="flag"):
        methods.Password.parse(methods.PasswordChange("a", "b").encode())


@pytest.mark.parametrize("name", ["", "hostbased", "gssapi-with-mic", "publickey-hostbound@openssh.com", "NONE"])
def test_unknown_methods_are_not_read(name: str) -> None:
    assert methods.parse(name, b"\xff" * 9) is None


@given(st.sampled_from(sorted(methods.FORMS)), st.binary(max_size=60))
def test_arbitrary_payloads_read_or_are_wire_errors(method: str, payload: bytes) -> None:
    try:
        form = methods.parse(method, payload)
    except WireError:
        return
    assert form is not None
    assert form.method == method
    assert methods.parse(method, form.encode()) == form


@pytest.mark.covers("R68")
def test_signed_data_is_that_of_rfc_4252_section_7() -> None:
    expected = bytes.fromhex(
        "00000003 736964"  # session identifier
        "32"
        "00000002 6d65"  # user name
        "0000000e 7373682d636f6e6e656374696f6e"  # ssh-connection
        "00000009 7075626c69636b6579"  # publickey
        "01"
        "0000000b 7373682d65643235353139"  # ssh-ed25519
        "00000004 626c6f62"
    )
    assert methods.signed_data(b"sid", "me", "ssh-connection", "ssh-ed25519", b"blob") == expected
    other = methods.signed_data(b"sid", "me", "foo", "ssh-ed25519", b"blob")
    assert other == expected.replace(b"\0\0\0\x0essh-connection", b"\0\0\0\3foo")
    # It is the request up to the signature, with the session identifier in front.
    request = methods.request("me", methods.PublicKeySigned("ssh-ed25519", b"blob", b"sig")).encode()
    assert expected[7:] + bytes.fromhex("00000003") + b"sig" == request


@pytest.mark.covers("R155", "V67")
def test_signed_data_that_is_bound_to_the_host_is_that_of_openssh() -> None:
    expected = bytes.fromhex(
        "00000003 736964"  # session identifier
        "32"
        "00000002 6d65"  # user name
        "0000000e 7373682d636f6e6e656374696f6e"  # ssh-connection
        "00000023 7075626c69636b65792d686f7374626f756e642d763030406f70656e7373682e636f6d"
        "01"
        "0000000b 7373682d65643235353139"  # ssh-ed25519
        "00000004 626c6f62"
        "00000004 686f7374"  # the server's host key
    )
    assert methods.signed_data(b"sid", "me", "ssh-connection", "ssh-ed25519", b"blob", b"host") == expected
    request = methods.request("me", methods.HostBoundSigned("ssh-ed25519", b"blob", b"host", b"sig")).encode()
    assert expected[7:] + bytes.fromhex("00000003") + b"sig" == request


@pytest.mark.covers("R169")
def test_secrets_do_not_show() -> None:
    secret = "correct-horse"
    forms = (methods.Password(secret), methods.PasswordChange(secret, secret), UserauthInfoResponse((secret,)))
    for value in (*forms, methods.request("me", methods.Password(secret))):
        assert secret not in repr(value)
    assert isinstance(methods.request("me", forms[0]), UserauthRequest)


@pytest.fixture(scope="module")
def rsa() -> PrivateKey:
    return PrivateKey.generate("ssh-rsa", 2048)


@pytest.fixture(scope="module")
def ed25519() -> PrivateKey:
    return PrivateKey.generate()


DEFAULT = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")


@pytest.mark.covers("R133", "R135")
@pytest.mark.parametrize(
    ("willing", "accepted", "chosen"),
    [
        (DEFAULT, None, "rsa-sha2-512"),
        (DEFAULT, ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"), "rsa-sha2-512"),
        (DEFAULT, ("rsa-sha2-256", "ssh-ed25519"), "rsa-sha2-256"),
        (("rsa-sha2-256", "rsa-sha2-512"), None, "rsa-sha2-256"),
        ((*DEFAULT, "ssh-rsa"), ("ssh-rsa",), "ssh-rsa"),
    ],
)
def test_rsa_algorithm(rsa: PrivateKey, willing: tuple[str, ...], accepted: tuple[str, ...], chosen: str) -> None:
    assert methods.choose_algorithm(rsa.public_key, willing, accepted) == chosen


def test_no_algorithm_fits_and_both_sides_are_named(rsa: PrivateKey) -> None:
    with pytest.raises(InvalidArgument, match=r"rsa-sha2-512, rsa-sha2-256; the server takes ssh-rsa, ssh-ed25519"):
        methods.choose_algorithm(rsa.public_key, DEFAULT, ("ssh-rsa", "ssh-ed25519"))
    with pytest.raises(InvalidArgument, match=r"the server takes nothing"):
        methods.choose_algorithm(rsa.public_key, DEFAULT, ())
    with pytest.raises(InvalidArgument, match=r"Preferences.signature has ssh-ed25519"):
        methods.choose_algorithm(rsa.public_key, ("ssh-ed25519",), None)


def test_a_key_with_one_algorithm_does_not_need_the_servers_word(ed25519: PrivateKey) -> None:
    """OpenSSH 7.2 names only rsa-sha2-* in server-sig-algs and takes Ed25519 all the same."""
    accepted = ("rsa-sha2-256", "rsa-sha2-512")
    assert methods.choose_algorithm(ed25519.public_key, DEFAULT, accepted) == "ssh-ed25519"


@pytest.mark.covers("V62")
@pytest.mark.parametrize("bad", ["a\x00", "a\x1b[m", "\x7f", "a\x9bm", "line\nbreak", "\udcff", "x" * 1025, "é" * 513])
def test_not_plain(bad: str) -> None:
    assert not methods.is_plain(bad, 1024)


@pytest.mark.parametrize("good", ["", "root", "Jörg", "x" * 1024, "é" * 512, "a b", "-rf", "日本"])
def test_plain(good: str) -> None:
    assert methods.is_plain(good, 1024)


def test_check_text_and_size() -> None:
    with pytest.raises(InvalidArgument, match="a password must be a str, not bytes"):
        methods.check_text(b"x", "a password")
    with pytest.raises(InvalidArgument, match="surrogate") as caught:
        methods.check_text("hunter2\udc80", "a password")
    assert "hunter2" not in str(caught.value)
    check_size(UserauthInfoResponse(("x" * (SAFE_PAYLOAD - 9),)))
    with pytest.raises(InvalidArgument, match="32769 bytes"):
        check_size(UserauthInfoResponse(("x" * (SAFE_PAYLOAD - 8),)))
