"""Signatures over files: exchanged with the real ssh-keygen, made by others, changed, and what is none."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.clear import fit_to_show
from sshproto.config import UNATTENDED, SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey, PublicKey, sshsig
from sshproto.keys.sshsig import BEGIN, END, FileSignature, MessageHash
from sshproto.wire.codec import string, text, uint32
from tests.support.authenticator import ECDSA, ED25519, TOUCHED, VERIFIED, WEBAUTHN, Authenticator
from tests.unit.keys.test_ssh_keygen import KINDS, generate

VECTORS = Path(__file__).parents[2] / "vectors" / "openssh-sk"
MESSAGE = b"a message, and\r\nmore of it\0" * 5
NAMESPACE = "file"
KEY = PrivateKey.generate()
CERTIFICATE = Certificate.issue(
    PrivateKey.generate(), KEY.public_key, CertificateKind.USER, key_id="k", principals=["alice"], valid_before=FOREVER
)
GOOD = sshsig.sign(KEY, MESSAGE, NAMESPACE)
PIN = SecurityKeyPolicy(user_verification=True)


def same_but(of: FileSignature, /, **changes: bytes) -> bytes:
    """The bytes of a signature in which some fields are others."""
    fields = {
        "magic": b"SSHSIG",
        "version": uint32(1),
        "key": string(of.signer.blob),
        "namespace": text(of.namespace),
        "reserved": string(of.reserved),
        "hash": text(of.hash_name),
        "signature": string(of.signature),
        "more": b"",
    }
    assert not changes.keys() - fields.keys()
    return b"".join((fields | changes).values())


# ---------------------------------------------------------------------------------------------- the real one, both ways


def checked(ssh_keygen, folder: Path, signature: FileSignature, message: bytes = MESSAGE) -> str:
    """What ``ssh-keygen -Y check-novalidate`` says of a signature of ours."""
    path = folder / "ours.sig"
    path.write_text(signature.armoured())
    said = ssh_keygen("-Y", "check-novalidate", "-n", signature.namespace, "-s", path, stdin=message, check=False)
    assert isinstance(said, str)
    return said.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_both_ways(ssh_keygen, tmp_path, kind):
    path = tmp_path / "id"
    generate(ssh_keygen, path, kind)
    key = PrivateKey.load(path.read_bytes())
    for hash_name in sshsig.HASHES:
        for namespace in ("file", "email", "git", "näh@example.org"):
            made = ssh_keygen("-Y", "sign", "-q", "-f", path, "-n", namespace, "-O", f"hashalg={hash_name}",
                              stdin=MESSAGE)  # fmt: skip
            theirs = FileSignature.parse(made)
            assert theirs.signer == key.public_key
            assert (theirs.namespace, theirs.hash_name, theirs.reserved) == (namespace, hash_name, b"")
            assert theirs.armoured() == made
            assert FileSignature.parse(theirs.encode()) == theirs
            theirs.verify(MESSAGE, namespace)
            with pytest.raises(SignatureInvalid, match="does not verify"):
                theirs.verify(MESSAGE + b"!", namespace)
            ours = sshsig.sign(key, MESSAGE, namespace, hash_name=hash_name)
            if kind == "ssh-ed25519":
                assert ours.armoured() == made
            assert checked(ssh_keygen, tmp_path, ours).startswith(f'Good "{namespace}" signature with')
        assert checked(ssh_keygen, tmp_path, ours, MESSAGE + b"!") == "Could not verify signature."


def test_rsa_signs_with_the_hash_of_the_message_or_as_told(ssh_keygen, tmp_path, keys):
    key = keys["ssh-rsa"]
    for hash_name, algorithm, expected in (
        ("sha512", None, "rsa-sha2-512"),
        ("sha256", None, "rsa-sha2-256"),
        ("sha512", "rsa-sha2-256", "rsa-sha2-256"),
        ("sha256", "rsa-sha2-512", "rsa-sha2-512"),
    ):
        made = sshsig.sign(key, MESSAGE, NAMESPACE, hash_name=hash_name, algorithm=algorithm)
        assert (made.hash_name, made.algorithm) == (hash_name, expected)
        made.verify(MESSAGE, NAMESPACE)
        assert checked(ssh_keygen, tmp_path, made).startswith("Good")
    with pytest.raises(InvalidArgument, match="cannot sign a message as ssh-rsa; it can as rsa-sha2-512, rsa-sha2-256"):
        sshsig.sign(key, MESSAGE, NAMESPACE, algorithm="ssh-rsa")


def test_sha1_is_no_signature(ssh_keygen, tmp_path, keys):
    key = keys["ssh-rsa"]
    request = sshsig.request(key.public_key, MESSAGE, NAMESPACE)
    weak = key.sign(request.data, "ssh-rsa")
    with pytest.raises(SignatureInvalid, match="made with ssh-rsa, not with rsa-sha2-512"):
        request.finish(weak)
    forged = FileSignature.parse(same_but(request.finish(key.sign(request.data)), signature=string(weak)))
    with pytest.raises(SignatureInvalid, match="made with ssh-rsa; a ssh-rsa key signs files as rsa-sha2-512"):
        forged.verify(MESSAGE, NAMESPACE)
    assert checked(ssh_keygen, tmp_path, forged) == "Could not verify signature."


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_sign_both_ways(ssh_keygen, tmp_path, kind):
    path = tmp_path / "id"
    generate(ssh_keygen, path, kind)
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ca")
    ssh_keygen("-q", "-s", tmp_path / "ca", "-I", "me", "-n", "alice", tmp_path / "id.pub")
    certificate = Certificate.parse((tmp_path / "id-cert.pub").read_bytes())
    theirs = FileSignature.parse(
        ssh_keygen("-Y", "sign", "-q", "-f", tmp_path / "id-cert.pub", "-n", NAMESPACE, stdin=MESSAGE)
    )
    assert theirs.signer == theirs.certificate == certificate
    assert theirs.key == certificate.key
    theirs.verify(MESSAGE, NAMESPACE)
    key = PrivateKey.load(path.read_bytes())
    ours = sshsig.sign(key, MESSAGE, NAMESPACE, certificate=certificate)
    assert ours.certificate == certificate
    assert checked(ssh_keygen, tmp_path, ours).startswith("Good")


def test_a_certificate_for_another_key_does_not_sign():
    with pytest.raises(InvalidArgument, match="the certificate is for the key SHA256:"):
        sshsig.sign(PrivateKey.generate(), MESSAGE, NAMESPACE, certificate=CERTIFICATE)


# ------------------------------------------------------------------------------------------------------------ in pieces


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_message_in_pieces_is_the_same(pieces):
    hashed = MessageHash("sha256")
    for piece in pieces:
        assert hashed.update(memoryview(piece)) is hashed
    whole = b"".join(pieces)
    made = sshsig.sign(KEY, hashed, NAMESPACE)
    assert made == sshsig.sign(KEY, whole, NAMESPACE, hash_name="sha256")
    fed = made.hash()
    for piece in pieces:
        fed.update(piece)
    made.verify(fed, NAMESPACE)
    made.verify(bytearray(whole), NAMESPACE)


def test_a_hash_of_another_kind_is_a_mistake():
    with pytest.raises(InvalidArgument, match="has been hashed with sha256, sha512 is needed"):
        GOOD.verify(MessageHash("sha256").update(MESSAGE), NAMESPACE)
    with pytest.raises(InvalidArgument, match="has been hashed with sha512, sha256 is needed"):
        sshsig.sign(KEY, MessageHash(), NAMESPACE, hash_name="sha256")
    for wrong in ("md5", "SHA512", ""):
        with pytest.raises(InvalidArgument, match="hashed with sha512 or sha256, not with"):
            MessageHash(wrong)
    with pytest.raises(InvalidArgument, match="not with 'sha1'"):
        sshsig.sign(KEY, MESSAGE, NAMESPACE, hash_name="sha1")
    assert repr(MessageHash("sha256")).startswith("<MessageHash sha256 e3b0c442")


# -------------------------------------------------------------------------------------------------- somebody else signs


def test_somebody_else_signs(ssh_keygen, tmp_path, keys):
    for kind, key in keys.items():
        for signer in (key.public_key, CERTIFICATE if kind == "ssh-ed25519" else key.public_key):
            holder = KEY if signer is CERTIFICATE else key
            request = sshsig.request(signer, MESSAGE, "git")
            assert request.key == holder.public_key
            assert request.data.startswith(b"SSHSIG" + text("git") + string(b"") + text("sha512"))
            made = request.finish(bytearray(holder.sign(request.data, request.algorithm)))
            assert made.signer == signer
            made.verify(MESSAGE, "git")
            assert checked(ssh_keygen, tmp_path, made).startswith('Good "git"')


def test_what_is_not_signed_is_not_finished():
    request = sshsig.request(KEY.public_key, MESSAGE, NAMESPACE)
    for wrong in (KEY.sign(b"another"), PrivateKey.generate().sign(request.data)):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            request.finish(wrong)
    for wrong in (b"", b"\0\0\0\x0bssh-ed25519", KEY.sign(request.data) + b"\0"):
        with pytest.raises(SignatureInvalid, match=r"not a signature blob|not with ssh-ed25519"):
            request.finish(wrong)


# -------------------------------------------------------------------------------------------------------- security keys


@pytest.mark.parametrize("name", ["ed25519_sk", "ecdsa_sk", "ecdsa_sk_webauthn"])
def test_vectors_of_openssh(name):
    signature = FileSignature.parse((VECTORS / f"{name}.sig").read_bytes())
    assert signature.signer == PublicKey.parse((VECTORS / f"{name}.pub").read_bytes())
    assert signature.namespace == "unittest"
    message = b"This is a test, this is only a test"
    assertion = signature.verify(message, "unittest")
    assert assertion is not None
    assert assertion.user_present
    with pytest.raises(SignatureInvalid, match="user verification is required"):
        signature.verify(message, "unittest", policy=PIN)


@pytest.mark.parametrize("kind", [ED25519, ECDSA, WEBAUTHN])
def test_what_a_token_must_have_done(ssh_keygen, tmp_path, kind):
    token = Authenticator(ECDSA if kind == WEBAUTHN else kind)
    request = sshsig.request(token.public_key, MESSAGE, NAMESPACE)
    make = token.browse if kind == WEBAUTHN else token.sign
    untouched = request.finish(make(request.data, 0))
    with pytest.raises(SignatureInvalid, match="without being touched"):
        untouched.verify(MESSAGE, NAMESPACE)
    assertion = untouched.verify(MESSAGE, NAMESPACE, policy=UNATTENDED)
    assert assertion is not None
    assert not assertion.user_present
    good = request.finish(make(request.data, TOUCHED | VERIFIED))
    assert good.algorithm == kind
    assertion = good.verify(MESSAGE, NAMESPACE, policy=PIN)
    assert assertion is not None
    assert assertion.counter == 2
    for signature in (untouched, good):
        assert checked(ssh_keygen, tmp_path, signature).startswith("Good")


# ----------------------------------------------------------------------------------------------------------- namespaces


def test_a_signature_is_for_one_namespace(ssh_keygen, tmp_path):
    with pytest.raises(SignatureInvalid, match="is for the namespace 'file', not for 'email'"):
        GOOD.verify(MESSAGE, "email")
    moved = FileSignature.parse(same_but(GOOD, namespace=text("email")))
    with pytest.raises(SignatureInvalid, match="does not verify"):
        moved.verify(MESSAGE, "email")
    assert checked(ssh_keygen, tmp_path, moved) == "Could not verify signature."
    for wrong in ("", "a\0b"):
        with pytest.raises(InvalidArgument, match="not a namespace"):
            sshsig.sign(KEY, MESSAGE, wrong)
        with pytest.raises(KeyFormatError, match="namespace"):
            FileSignature.parse(same_but(GOOD, namespace=text(wrong)))


# ----------------------------------------------------------------------------------------------------- what is accepted


def lines(text: str) -> str:
    return "".join(text.splitlines()[1:-1])


@pytest.mark.parametrize(
    "changed",
    [
        lambda good: good,
        lambda good: good + "what follows\n",
        lambda good: good.removesuffix("\n"),
        lambda good: f"{BEGIN}\n{lines(good)}\n{END}",
        lambda good: f"{BEGIN}\n" + "\n".join(lines(good)) + f"\n{END}\n",
        lambda good: good.replace("\n", "\n\n", 3),
        lambda good: good.replace("\n", " \t\n", 3).replace(" \t", "", 1),
    ],
    ids=["as it is", "more behind", "no line end", "one line", "a line for each character", "empty lines", "spaces"],
)
def test_armour_that_ssh_keygen_takes_too(ssh_keygen, tmp_path, changed):
    content = changed(GOOD.armoured())
    assert FileSignature.parse(content) == GOOD
    (tmp_path / "sig").write_text(content)
    assert "Good" in ssh_keygen(
        "-Y", "check-novalidate", "-n", NAMESPACE, "-s", tmp_path / "sig", stdin=MESSAGE, check=False
    )


def test_line_ends_of_windows():
    assert FileSignature.parse(GOOD.armoured().replace("\n", "\r\n")) == GOOD  # as ssh-keygen since 9.4


def test_a_signature_without_armour():
    assert FileSignature.parse(GOOD.encode()) == FileSignature.parse(bytearray(GOOD.encode())) == GOOD
    with_certificate = sshsig.sign(KEY, MESSAGE, NAMESPACE, certificate=CERTIFICATE)
    assert FileSignature.parse(memoryview(with_certificate.encode())) == with_certificate


def test_what_is_reserved_is_signed(ssh_keygen, tmp_path):
    request = sshsig.request(KEY.public_key, MESSAGE, NAMESPACE)
    data = request.data.replace(text("file") + string(b""), text("file") + string(b"tags"))
    signature = FileSignature.parse(same_but(GOOD, reserved=string(b"tags"), signature=string(KEY.sign(data))))
    assert signature.reserved == b"tags"
    signature.verify(MESSAGE, NAMESPACE)
    assert FileSignature.parse(signature.encode()) == signature
    unsigned = FileSignature.parse(same_but(GOOD, reserved=string(b"tags")))
    with pytest.raises(SignatureInvalid, match="does not verify"):
        unsigned.verify(MESSAGE, NAMESPACE)
    assert checked(ssh_keygen, tmp_path, unsigned).startswith("Good")  # ssh-keygen has it the other way round
    assert checked(ssh_keygen, tmp_path, signature) == "Could not verify signature."


def test_what_ssh_keygen_takes_and_we_do_not(ssh_keygen, tmp_path):
    old = same_but(GOOD, version=uint32(0))
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id")
    ssh_keygen("-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", tmp_path / "ca")
    ssh_keygen("-q", "-s", tmp_path / "ca", "-t", "ssh-rsa", "-I", "k", "-n", "a", tmp_path / "id.pub")
    sha1 = ssh_keygen("-Y", "sign", "-q", "-f", tmp_path / "id-cert.pub", "-n", NAMESPACE, stdin=MESSAGE)
    armoured = f"{BEGIN}\n{base64.b64encode(old).decode()}\n{END}\n"
    for content, words in ((armoured, "of version 0"), (sha1, "the certificate is signed with ssh-rsa")):
        (tmp_path / "sig").write_text(content)
        said = ssh_keygen("-Y", "check-novalidate", "-n", NAMESPACE, "-s", tmp_path / "sig", stdin=MESSAGE)
        assert said.startswith("Good")
        with pytest.raises(KeyFormatError, match=words):
            FileSignature.parse(content)


# ------------------------------------------------------------------------------------------------------ what is refused

ARMOURED = GOOD.armoured()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a signature: this is empty"),
        ("\n" + ARMOURED, "text before a signature"),
        (" " + ARMOURED, "text before a signature"),
        (BEGIN, "cut off"),
        (f"{BEGIN}\n", "its last line is missing"),
        (f"{BEGIN}\n{END}\n", "its last line is missing"),
        (ARMOURED.replace("\n-----END", " -----END"), "its last line is missing"),
        (f"{BEGIN}\n\n{END}\n", "it starts with b''"),
        (f"{BEGIN}\nAAAA\n{END}\n", "expected b'SSHSIG'"),
        (f"{BEGIN}\nA$AA\n{END}\n", "not base64"),
        (f"{BEGIN}\nAAA\n{END}\n", "not base64"),
        (ARMOURED.replace("SSH SIGNATURE-----\n", "SSH SIGNATURE----- \n", 1), "text before a signature"),
        ("-----BEGIN PGP SIGNATURE-----\n", "this is a PGP message or key"),
        (KEY.public_key.openssh(), "it starts with b'ssh-ed25519 AAAA"),
        (b"SSHSIG", "malformed signature"),
        (b"\x00\xff" * 40000, "80000 bytes; at most 65536"),
        (b"\x1b]0;title\x07", r"\\x1b"),
        (same_but(GOOD, version=uint32(0)), "of version 0, there is 1"),
        (same_but(GOOD, version=uint32(2)), "of version 2, there is 1"),
        (same_but(GOOD, more=b"\0"), "malformed signature"),
        (same_but(GOOD, hash=text("sha1")), "hashed with sha1; there are sha512 and sha256"),
        (same_but(GOOD, hash=text("SHA512")), "hashed with SHA512"),
        (same_but(GOOD, hash=text("sha512\0")), "hashed with"),
        (same_but(GOOD, hash=text("\x1b[2J")), r"hashed with \\x1b"),
        (same_but(GOOD, key=string(b"")), "not a public key"),
        (same_but(GOOD, key=string(text("ssh-dss"))), "DSA is too weak"),
        (same_but(GOOD, key=string(text("x-cert-v01@openssh.com"))), "unsupported certificate type"),
        (same_but(GOOD, key=string(CERTIFICATE.blob[:-1] + b"\xff")), "certificate"),
        (same_but(GOOD, signature=string(b"")), "malformed signature: not a signature blob"),
        (same_but(GOOD, signature=string(text("a\x80"))), "malformed signature: not a signature blob"),
    ],
    ids=lambda _: "",  # keys in names would be others in each process
)  # fmt: skip
def test_what_is_no_signature(content, words):
    with pytest.raises(KeyFormatError, match=words):
        FileSignature.parse(content)


def test_weak_rsa_is_refused_unless_asked_for(ssh_keygen, tmp_path):
    ssh_keygen("-q", "-t", "rsa", "-b", 1024, "-N", "", "-f", tmp_path / "id")
    made = ssh_keygen("-Y", "sign", "-q", "-f", tmp_path / "id", "-n", NAMESPACE, stdin=MESSAGE)
    with pytest.raises(KeyFormatError, match="RSA key of 1024 bits"):
        FileSignature.parse(made)
    FileSignature.parse(made, minimum_rsa_bits=1024).verify(MESSAGE, NAMESPACE)


# ------------------------------------------------------------------------------------------------ arbitrary and mutated


def judge(content: bytes) -> None:
    """Read something and have it verified: nothing but what is documented happens, and there are no forgeries."""
    try:
        signature = FileSignature.parse(content)
    except KeyFormatError as error:
        fit_to_show(error, 12_000)
        return
    assert FileSignature.parse(signature.encode()) == FileSignature.parse(signature.armoured()) == signature
    assert pickle.loads(pickle.dumps(signature)) == signature
    fit_to_show(repr(signature), 12_000)
    try:
        signature.verify(MESSAGE, NAMESPACE)
    except SignatureInvalid as error:
        fit_to_show(error, 12_000)
    else:
        assert signature.signer in (KEY.public_key, CERTIFICATE)
        assert signature.signature == GOOD.signature


ENCODED = [GOOD.encode(), sshsig.sign(KEY, MESSAGE, NAMESPACE, certificate=CERTIFICATE).encode()]


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"SSHSIG\0\0\0\1" + rest))
@example(b"SSHSIG")
def test_arbitrary_bytes(data):
    judge(data)
    judge(f"{BEGIN}\n{base64.b64encode(data).decode()}\n{END}\n".encode())


@settings(max_examples=150)
@given(st.sampled_from([*ENCODED, ARMOURED.encode()]), st.data())
def test_mutated(good, data):
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        stop = at + data.draw(st.integers(0, 4))
        content[at:stop] = data.draw(st.binary(max_size=4))
        if not content:
            break
    judge(bytes(content))


def test_every_bit_counts():
    for good in ENCODED:
        for at in range(len(good)):
            for bad in (good[:at] + bytes((good[at] ^ 1 << at % 8,)) + good[at + 1 :], good[:at]):
                judge(bad)
                with pytest.raises((KeyFormatError, SignatureInvalid)):
                    FileSignature.parse(bad).verify(MESSAGE, NAMESPACE)
