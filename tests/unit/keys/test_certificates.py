"""Certificates: read from and issued for the real ssh-keygen, checked, and none of the ways around the checks."""

from __future__ import annotations

import copy
import datetime as dt
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.config import SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
from sshproto.keys import KRL, PrivateKey, PublicKey
from sshproto.keys.certificates import (
    AUTHORITY_ALGORITHMS,
    CERTIFICATE_ALGORITHMS,
    Certificate,
    certificate_algorithms,
)
from sshproto.keys.grants import FOREVER, PERMISSIONS, CertificateKind, CertificateRefused, address_allowed
from sshproto.keys.signatures import SIGNATURES
from sshproto.wire.codec import string, text, uint32, uint64
from tests.support.authenticator import ECDSA, ED25519, TOUCHED, VERIFIED, WEBAUTHN, Authenticator
from tests.support.seeds import USER_KEY

USER, HOST = CertificateKind.USER, CertificateKind.HOST
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
# Each type is certified, and certifies, by itself and with another.
PAIRS = tuple((kind, KINDS[(at + step) % len(KINDS)]) for at, kind in enumerate(KINDS) for step in (0, 2))
AUTHORITY = PrivateKey.generate(comment="the authority")
KEY = USER_KEY.public_key
NOW = 1_700_000_000


def issue(kind=USER, key=KEY, **changes) -> Certificate:
    values = {
        "key_id": "alice's laptop",
        "principals": ("alice",) if kind is USER else ("host.example.org",),
        "valid_before": NOW + 3600,
        "valid_after": NOW - 3600,
        "serial": 5,
    }
    return Certificate.issue(AUTHORITY, key, kind, **(values | changes))


def check(certificate, names=None, kind=USER, **changes):
    values = {"authorities": [AUTHORITY.public_key], "now": NOW}
    return certificate.check(
        kind, ("alice" if kind is USER else "host.example.org") if names is None else names, **(values | changes)
    )


def handmade(**changes) -> bytes:
    """A blob signed by AUTHORITY in which anything may be wrong."""
    fields = {
        "type": text("ssh-ed25519-cert-v01@openssh.com"),
        "nonce": string(bytes(32)),
        "key": string(KEY.blob[-32:]),
        "serial": uint64(5),
        "kind": uint32(1),
        "key_id": text("id"),
        "principals": string(text("alice")),
        "valid_after": uint64(0),
        "valid_before": uint64(FOREVER),
        "options": string(b""),
        "extensions": string(b""),
        "reserved": string(b""),
        "authority": string(AUTHORITY.public_key.blob),
    }
    signer = changes.pop("signer", AUTHORITY)
    algorithm = changes.pop("algorithm", None)
    trailing = changes.pop("trailing", b"")
    signed = b"".join((fields | changes).values())
    return signed + string(signer.sign(signed, algorithm)) + trailing


def options(*pairs: tuple[str, bytes]) -> bytes:
    return string(b"".join(text(name) + string(data) for name, data in pairs))


# ----------------------------------------------------------------------------------------------------------- ssh-keygen


@pytest.fixture
def sign(ssh_keygen, tmp_path, keys):
    """What ssh-keygen certifies with one of our keys as the authority's."""

    def signed(kind: str | PublicKey, authority: str, *arguments: object, host: bool = False) -> Certificate:
        path = tmp_path / f"ca_{authority}"
        if not path.exists():
            path.write_bytes(keys[authority].openssh())
            path.chmod(0o600)
        key = keys[kind].public_key if isinstance(kind, str) else kind
        (tmp_path / "id.pub").write_text(key.openssh() + "\n")
        more = ["-h"] if host else []
        ssh_keygen("-q", "-s", path, *more, *arguments, tmp_path / "id.pub")
        content = (tmp_path / "id-cert.pub").read_text()
        certificate = Certificate.parse(content)
        assert certificate.openssh() + "\n" == content
        return certificate

    return signed


@pytest.mark.parametrize(("kind", "authority"), PAIRS)
def test_what_ssh_keygen_signs(sign, keys, kind, authority):
    certificate = sign(kind, authority, "-I", "an id", "-n", "alice,bob", "-z", 2**64 - 1, "-V", "20200101Z:20300101Z")
    assert certificate.type == kind + "-cert-v01@openssh.com"
    assert certificate.key == keys[kind].public_key
    assert certificate.authority == keys[authority].public_key
    assert certificate.authority_algorithm == keys[authority].public_key.signature_algorithms[0]
    assert certificate.kind is USER
    assert certificate.principals == ("alice", "bob")
    assert certificate.serial == 2**64 - 1
    assert certificate.key_id == "an id"
    assert certificate.comment == f"{kind} key"
    assert len(certificate.nonce) == 32
    assert certificate.valid_after == dt.datetime(2020, 1, 1, tzinfo=dt.UTC).timestamp()
    assert certificate.valid_before == dt.datetime(2030, 1, 1, tzinfo=dt.UTC).timestamp()
    assert not certificate.critical_options
    assert tuple(certificate.extensions) == tuple(PERMISSIONS)
    grant = check(certificate, "bob", authorities=[keys[authority].public_key])
    assert grant.principal == "bob"
    assert (grant.pty, grant.user_rc, grant.port_forwarding, grant.agent_forwarding, grant.x11_forwarding) == (
        True,
    ) * 5
    assert grant.touch_required
    assert grant.force_command is None
    assert grant.source_address == grant.unknown == ()


def test_options_of_ssh_keygen(sign, keys):
    certificate = sign(
        *("ssh-ed25519", "ssh-ed25519", "-I", "", "-n", "alice", "-O", "clear", "-O", "force-command=ls -l"),
        *("-O", "source-address=10.0.0.0/8,2001:db8::/32,192.0.2.7", "-O", "extension:zz@example.org=value"),
        *("-O", "extension:aa@example.org", "-O", "permit-pty", "-O", "no-touch-required"),
    )
    assert certificate.critical_options == {
        "force-command": text("ls -l"),
        "source-address": text("10.0.0.0/8,2001:db8::/32,192.0.2.7"),
    }
    assert certificate.extensions["zz@example.org"] == text("value")
    assert certificate.valid_before == FOREVER
    trusted = {"authorities": {keys["ssh-ed25519"].public_key}, "enforced": ["force-command"]}
    grant = check(certificate, address="192.0.2.7", **trusted)
    assert grant.force_command == "ls -l"
    assert grant.source_address == ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7")
    assert grant.pty
    assert not grant.touch_required
    assert not (grant.user_rc or grant.port_forwarding or grant.agent_forwarding or grant.x11_forwarding)
    assert grant.unknown == ("aa@example.org", "zz@example.org")
    with pytest.raises(CertificateRefused, match=r"may be used from 10.0.0.0/8,.* not from 192.0.2.8") as raised:
        check(certificate, address="192.0.2.8", **trusted)
    assert raised.value.cause == "address"


def test_a_host_certificate_and_one_for_anybody_of_ssh_keygen(sign, keys):
    trusted = [keys["ssh-rsa"].public_key]
    certificate = sign("ssh-rsa", "ssh-rsa", "-I", "id", "-n", "*.example.org,H?st", host=True)
    for name in ("a.example.org", "A.B.Example.ORG", "host", "HUST"):
        assert check(certificate, name, HOST, authorities=trusted).principal in certificate.principals
    for name in ("example.org", "haast", "", "example.com"):
        with pytest.raises(CertificateRefused, match=r"is for \*.example.org, H\?st, not for"):
            check(certificate, name, HOST, authorities=trusted)
    anything = issue(HOST, principals=["*"])
    assert check(anything, "any.example.org", HOST).principal == "*"
    with pytest.raises(CertificateRefused, match=r"is for \*, not for"):
        check(anything, "", HOST)
    for host in (True, False):
        certificate = sign("ssh-ed25519", "ssh-rsa", "-I", "id", host=host)
        assert certificate.principals == ()
        with pytest.raises(CertificateRefused, match="nobody: it names no principals") as raised:
            check(certificate, "alice", HOST if host else USER, authorities=trusted)
        assert raised.value.cause == "principal"


@pytest.mark.parametrize("algorithm", ["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"])
def test_rsa_signatures_of_an_authority(sign, algorithm):
    if algorithm == "ssh-rsa":
        with pytest.raises(KeyFormatError, match=r"signed with ssh-rsa; accepted are ssh-ed25519, .*rsa-sha2-256"):
            sign("ssh-ed25519", "ssh-rsa", "-I", "id", "-t", algorithm)
    else:
        assert sign("ssh-ed25519", "ssh-rsa", "-I", "id", "-t", algorithm).authority_algorithm == algorithm


def shown(ssh_keygen, tmp_path, certificate) -> list[str]:
    path = tmp_path / "ours-cert.pub"
    path.write_text(certificate.openssh() + "\n")
    return [line.strip() for line in ssh_keygen("-L", "-f", path).splitlines()[1:]]


@pytest.mark.parametrize(("kind", "authority"), PAIRS)
def test_ssh_keygen_reads_what_we_issue(ssh_keygen, tmp_path, keys, kind, authority):
    certificate = Certificate.issue(
        keys[authority],
        keys[kind].public_key,
        USER,
        key_id="the id",
        principals=["alice", "bob"],
        valid_after=NOW,
        valid_before=FOREVER,
        serial=2**63,
        critical_options={"source-address": "10.0.0.0/8", "force-command": "ls", "odd@example.org": "x"},
    )
    lines = shown(ssh_keygen, tmp_path, certificate)
    used = keys[authority].public_key.signature_algorithms[0]
    assert lines[0] == f"Type: {kind}-cert-v01@openssh.com user certificate"
    assert certificate.fingerprint() in lines[1]
    assert keys[authority].public_key.fingerprint() in lines[2]
    assert f"(using {used})" in lines[2]
    assert lines[3:5] == ['Key ID: "the id"', f"Serial: {2**63}"]
    assert lines[5].startswith("Valid: after 2023-11-1")
    assert lines[6:9] == ["Principals:", "alice", "bob"]
    assert lines[9:12] == [
        "Critical Options:",
        "force-command ls",
        "odd@example.org UNKNOWN OPTION: 0000000178 (len 5)",
    ]
    assert lines[12:] == ["source-address 10.0.0.0/8", "Extensions:", *PERMISSIONS]


def test_ssh_keygen_reads_a_host_certificate_of_ours(ssh_keygen, tmp_path):
    certificate = issue(HOST, principals=["a.example.org", "*.example.net"], valid_before=FOREVER, valid_after=0)
    lines = shown(ssh_keygen, tmp_path, certificate)
    assert lines[0] == "Type: ssh-ed25519-cert-v01@openssh.com host certificate"
    assert lines[5:] == [
        *("Valid: forever", "Principals:", "a.example.org", "*.example.net"),
        *("Critical Options: (none)", "Extensions: (none)"),
    ]


# -------------------------------------------------------------------------------------------------------------- reading


def test_a_certificate_is_a_value():
    certificate = issue()
    again = Certificate.parse(f"# a comment\n\n{certificate.openssh()}\n")
    assert again == certificate
    assert hash(again) == hash(certificate)
    assert again != issue()  # another nonce
    assert Certificate.from_blob(memoryview(certificate.blob)) == certificate
    for other in (pickle.loads(pickle.dumps(certificate)), copy.deepcopy(certificate)):
        assert other == certificate
        assert other.critical_options == certificate.critical_options
    assert certificate.fingerprint("md5") == KEY.fingerprint("md5")
    assert 'user "alice\'s laptop" serial 5' in repr(certificate)
    with pytest.raises(TypeError):
        certificate.extensions["permit-pty"] = b""
    with pytest.raises(InvalidArgument):
        certificate.fingerprint("sha512")


def test_a_comment_stays_on_its_line():
    certificate = Certificate.from_blob(issue().blob, "one\ntwo\r\0three")
    assert certificate.openssh().endswith(" one two  three")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_and_prolonged_blobs(keys, kind):
    blob = issue(key=keys[kind].public_key, critical_options={"force-command": "ls"}).blob
    for size in range(0, len(blob), 1 if kind == "ssh-ed25519" else 7):
        with pytest.raises(KeyFormatError):
            Certificate.from_blob(blob[:size])
    with pytest.raises(KeyFormatError, match="1 bytes too many"):
        Certificate.from_blob(blob + b"\0")


@pytest.mark.covers("V51")
def test_every_byte_is_signed():
    blob = issue(critical_options={"force-command": "ls"}).blob
    assert Certificate.from_blob(handmade()).principals == ("alice",)  # so that what is made by hand can be good
    for place in range(len(blob)):
        changed = bytearray(blob)
        changed[place] ^= 1
        with pytest.raises(KeyFormatError):
            Certificate.from_blob(changed)


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": uint32(0)}, "for kind 0; 1 is for users"),
        ({"kind": uint32(3)}, "for kind 3"),
        ({"nonce": string(b"")}, "nonce .*is empty"),
        ({"key": string(KEY.blob[-31:])}, "Ed25519 key of 31 bytes"),
        ({"key": string(bytes(32))}, "small order"),
        ({"key_id": string(b"a\0b")}, "key id .*NUL"),
        ({"principals": string(text("alice") + text("bob\0x"))}, "principal .*NUL"),
        ({"principals": string(text("alice") + text(""))}, "principal .*is empty"),
        ({"principals": string(text("alice") + b"\0")}, "principal .*needs 4 bytes"),
        ({"principals": string(b"alice")}, "principals.principal .*declares a string"),
        ({"principals": string(text("a") * 257)}, "more than 256 principals"),
        ({"options": options(("b", b""), ("a", b""))}, "'a' follows 'b'"),
        ({"options": options(("a", b""), ("a", b""))}, "'a' stands there twice"),
        ({"options": options(("", b""))}, "names are in order"),
        ({"options": string(text("a"))}, r"critical options\.a "),
        ({"options": options(("a\0", b""))}, "NUL"),
        ({"options": string(text("a\x1b[2J"))}, r"critical options\.a\\x1b\[2J "),
        ({"extensions": options(("b", b""), ("a", b""))}, "extensions .*'a' follows 'b'"),
        ({"extensions": options(("a", b""), ("b", b""), ("a", b""))}, "'a' stands there twice"),
        ({"authority": string(b"")}, "not a public key"),
        ({"authority": string(text("ssh-dss") + string(b"x"))}, "DSA is too weak"),
        ({"signer": USER_KEY}, "signature is no good: .*does not verify"),
        ({"trailing": b"\0"}, "1 bytes too many"),
    ],
)
def test_malformed_certificates(changes, problem):
    with pytest.raises(KeyFormatError, match=problem) as raised:
        Certificate.from_blob(handmade(**changes))
    assert str(raised.value).isprintable()


@pytest.mark.covers("V51")
def test_a_certificate_is_no_authority():
    """Neither one that would have been signed well, nor one nested so deep that reading it would recurse."""
    nested = issue()
    blob = handmade(authority=string(nested.blob))
    with pytest.raises(KeyFormatError, match="signing key is itself a certificate; there are no chains"):
        Certificate.from_blob(blob)
    with pytest.raises(KeyFormatError, match="itself a certificate"):
        Certificate.from_blob(handmade(authority=string(blob), signer=USER_KEY))


@pytest.mark.covers("V51")
def test_a_certificate_signed_with_sha1_is_accepted_only_if_the_caller_says_so(keys):
    blob = handmade(authority=string(keys["ssh-rsa"].public_key.blob), signer=keys["ssh-rsa"], algorithm="ssh-rsa")
    assert "ssh-rsa" not in AUTHORITY_ALGORITHMS
    with pytest.raises(KeyFormatError, match="signed with ssh-rsa; accepted are"):
        Certificate.from_blob(blob)
    certificate = Certificate.from_blob(blob, authority_algorithms=("ssh-rsa",))
    assert certificate.authority_algorithm == "ssh-rsa"
    assert pickle.loads(pickle.dumps(certificate)) == certificate
    with pytest.raises(KeyFormatError, match="signed with ssh-ed25519; accepted are ssh-rsa"):
        Certificate.from_blob(handmade(), authority_algorithms=("ssh-rsa",))


@pytest.mark.covers("V51", "V46")
def test_the_authority_s_key_signs_as_its_type_can():
    """The name inside the signature is the attacker's choice; an Ed25519 signature in the name of another algorithm."""
    good = handmade()
    body = good.rindex(text("ssh-ed25519"))
    renamed = good[: body - 4] + string(text("rsa-sha2-512") + good[body + 15 :])
    with pytest.raises(KeyFormatError, match="a key of type ssh-ed25519 cannot sign as rsa-sha2-512"):
        Certificate.from_blob(renamed)


@pytest.mark.covers("B22")
def test_what_is_too_large_is_not_looked_at():
    with pytest.raises(KeyFormatError, match="at most 16384"):
        Certificate.from_blob(bytes(16385))
    with pytest.raises(KeyFormatError, match="no key is longer"):
        Certificate.parse("ssh-ed25519-cert-v01@openssh.com " + "A" * 100_000)
    most = issue(principals=["a"] * 256)
    assert len(most.principals) == 256
    with pytest.raises(InvalidArgument, match="1 to 256 principals, not 257"):
        issue(principals=["a"] * 257)
    with pytest.raises(InvalidArgument, match="bytes is too long: 16384"):
        issue(principals=["a" * 100] * 200)


def test_weak_keys_and_weak_authorities(keys):
    weak = PrivateKey.load(_rsa_1024(), minimum_rsa_bits=1024)
    certified = issue(key=weak.public_key)
    signed = Certificate.issue(weak, KEY, USER, key_id="", principals=["alice"], valid_before=FOREVER)
    for certificate in (certified, signed):
        with pytest.raises(KeyFormatError, match="1024 bits: 2048 to"):
            Certificate.from_blob(certificate.blob)
        assert Certificate.from_blob(certificate.blob, minimum_rsa_bits=1024) == certificate
        assert Certificate.parse(certificate.openssh(), minimum_rsa_bits=1024) == certificate


def _rsa_1024() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 1024).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "not a certificate: this is empty; expected one line"),
        (KEY.openssh(), "this is a plain key of type ssh-ed25519; certificates are of type"),
        ("rsa-sha2-512-cert-v01@openssh.com AAAA", "unsupported certificate type rsa-sha2-512-cert"),
        ("ssh-dss-cert-v01@openssh.com AAAA", "unsupported certificate type ssh-dss-cert"),
        ("ssh-ed25519-cert-v01@openssh.com", "one word, 'ssh-ed25519-cert-v01@openssh.com', came"),
        ("ssh-ed25519-cert-v01@openssh.com A", "not base64"),
        ("a b\nc d", "2 lines came"),
        ("-----BEGIN CERTIFICATE-----\n", "this is an X.509 certificate"),
        (
            "ssh-rsa-cert-v01@openssh.com " + issue().openssh().split()[1],
            "the line says ssh-rsa-cert.* of type ssh-ed2",
        ),
        ("\x1b[2J x", r"\\x1b\[2J"),
    ],
)
def test_other_lines(line, problem):
    with pytest.raises(KeyFormatError, match=problem) as raised:
        Certificate.parse(line)
    assert str(raised.value).isprintable()


def test_a_plain_key_is_not_read_from_a_certificate():
    with pytest.raises(KeyFormatError, match="certificate"):
        PublicKey.parse(issue().openssh())


@given(st.data())
def test_mutated_blobs_raise_nothing_else(data):
    blob = bytearray(data.draw(st.sampled_from(BLOBS)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(blob) - 1))
        cut = data.draw(st.integers(0, 5))
        blob[place : place + cut] = data.draw(st.binary(max_size=5))
        if not blob:
            break
    try:
        certificate = Certificate.from_blob(blob)
    except KeyFormatError as error:
        assert str(error).isprintable()
    else:
        assert certificate.blob in BLOBS


@given(st.binary(max_size=100), st.sampled_from(sorted(CERTIFICATE_ALGORITHMS)))
def test_any_bytes_raise_nothing_else(data, name):
    for blob in (data, text(name) + data):
        with pytest.raises(KeyFormatError):
            Certificate.from_blob(blob)


@given(st.text(max_size=60))
def test_any_text_raises_nothing_else(line):
    with pytest.raises(KeyFormatError):
        Certificate.parse(line)


BLOBS = [
    issue(critical_options={"force-command": "ls", "source-address": "10.0.0.0/8"}).blob,
    issue(HOST).blob,
    handmade(extensions=options(("x@example.org", b"x"))),
]


# ----------------------------------------------------------------------------------------------------------- algorithms


def test_every_certificate_algorithm_leads_to_a_plain_one():
    for name, algorithm in CERTIFICATE_ALGORITHMS.items():
        assert algorithm.name == name
        assert SIGNATURES[algorithm.signature].key_type == algorithm.key_type
        assert name == f"{algorithm.signature.removesuffix('@openssh.com')}-cert-v01@openssh.com"
    assert [algorithm.signature for algorithm in CERTIFICATE_ALGORITHMS.values()] == list(SIGNATURES)
    assert certificate_algorithms("ssh-rsa-cert-v01@openssh.com") == (
        "rsa-sha2-512-cert-v01@openssh.com",
        "rsa-sha2-256-cert-v01@openssh.com",
        "ssh-rsa-cert-v01@openssh.com",
    )
    assert certificate_algorithms("rsa-sha2-512-cert-v01@openssh.com") == ()


@pytest.mark.covers("V46")
@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_verifies_as_its_key_does(keys, kind):
    certificate = issue(key=keys[kind].public_key)
    for name in certificate.signature_algorithms:
        plain = CERTIFICATE_ALGORITHMS[name].signature
        signature = keys[kind].sign(b"data", plain)
        certificate.verify(signature, b"data", name)
        with pytest.raises(SignatureInvalid):
            certificate.verify(signature, b"other", name)
        with pytest.raises(SignatureInvalid, match="is shown as"):
            certificate.verify(signature, b"data", plain)
    other = "ssh-ed25519" if kind == "ssh-rsa" else "rsa-sha2-512"
    with pytest.raises(SignatureInvalid, match=f"shown as {certificate.signature_algorithms[0]}.*not {other}-cert"):
        certificate.verify(b"", b"data", f"{other}-cert-v01@openssh.com")


# -------------------------------------------------------------------------------------------------------- security keys


class TokenAuthority:
    """An authority whose key is in a token; what :meth:`Certificate.issue` asks of a private key."""

    def __init__(self, token: Authenticator, flags: int = TOUCHED) -> None:
        self.token = token
        self.flags = flags
        self.public_key = token.public_key

    def sign(self, data: bytes, algorithm: str) -> bytes:
        return self.token.browse(data) if algorithm.startswith("webauthn-") else self.token.sign(data, self.flags)


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_certificates_of_security_keys(ssh_keygen, tmp_path, sign, keys, kind):
    token = Authenticator(kind)
    ours = issue(key=token.public_key, extensions={"no-touch-required": ""}, critical_options={"verify-required": ""})
    lines = shown(ssh_keygen, tmp_path, ours)
    assert lines[0] == f"Type: {kind.partition('@')[0]}-cert-v01@openssh.com user certificate"
    assert lines[-3:] == ["verify-required", "Extensions:", "no-touch-required"]
    assert Certificate.parse(ours.openssh()).key == token.public_key
    theirs = sign(token.public_key, "ssh-rsa", "-I", "id", "-n", "alice", "-O", "verify-required")
    assert theirs.key == token.public_key
    with pytest.raises(CertificateRefused, match="verify-required is not enforced"):
        check(ours)
    grant = check(ours, enforced=["verify-required"])
    assert grant.policy == SecurityKeyPolicy(user_presence=False, user_verification=True)
    assert check(theirs, authorities=[keys["ssh-rsa"].public_key], enforced=["verify-required"]).policy == (
        SecurityKeyPolicy(user_presence=True, user_verification=True)
    )
    assert check(issue(key=token.public_key)).policy == SecurityKeyPolicy()
    name = ours.signature_algorithms[0]
    verified = ours.verify(token.sign(b"data", VERIFIED), b"data", name, policy=grant.policy)
    assert verified is not None
    assert verified.user_verified
    with pytest.raises(SignatureInvalid, match="user verification is required"):
        ours.verify(token.sign(b"data", TOUCHED), b"data", name, policy=grant.policy)
    with pytest.raises(SignatureInvalid, match="user presence is required"):
        ours.verify(token.sign(b"data", VERIFIED), b"data", name)
    if kind == ECDSA:
        browser = ours.signature_algorithms[1]
        assert browser == "webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com"
        assert ours.verify(token.browse(b"data"), b"data", browser) is not None


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_an_authority_in_a_token(ssh_keygen, tmp_path, kind):
    authority = TokenAuthority(Authenticator(kind))
    given = {"key_id": "", "principals": ["alice"], "valid_before": FOREVER}
    certificate = Certificate.issue(authority, KEY, USER, **given)
    assert certificate.authority_algorithm == kind
    assert check(certificate, authorities=[authority.public_key]).principal == "alice"
    assert f"(using {kind})" in shown(ssh_keygen, tmp_path, certificate)[2]
    assert KRL().revoke(authority.public_key).revokes(certificate)
    with pytest.raises(KeyFormatError, match="user presence is required"):
        Certificate.issue(TokenAuthority(authority.token, 0), KEY, USER, **given)
    if kind == ECDSA:
        with pytest.raises(InvalidArgument, match="not as webauthn"):
            Certificate.issue(authority, KEY, USER, algorithm=WEBAUTHN, **given)


# ------------------------------------------------------------------------------------------------------------- checking


@pytest.mark.covers("V51")
def test_a_certificate_is_good_for_its_kind_only():
    for kind, other in ((USER, HOST), (HOST, USER)):
        name = "host.example.org"
        certificate = issue(kind, principals=[name])
        assert check(certificate, name, kind).certificate == certificate
        with pytest.raises(
            CertificateRefused, match=f"is for a {kind.name.lower()}; one for a {other.name.lower()} is"
        ):
            check(certificate, name, other)


@pytest.mark.covers("V51")
def test_only_authorities_that_are_trusted_count():
    certificate = issue()
    for authorities in ([], [KEY], {USER_KEY.public_key}):
        with pytest.raises(CertificateRefused, match=f"none of the {len(authorities)} authorities") as raised:
            check(certificate, authorities=authorities)
        assert raised.value.cause == "authority"
        assert AUTHORITY.public_key.fingerprint() in str(raised.value)


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("after", "before", "now", "problem"),
    [
        (100, 200, 99, "is not valid yet: it is valid from 1970-01-01T00:01:40Z to 1970-01-01T00:03:20Z, now is 1970-"),
        (100, 200, 99.9, "not valid yet"),
        (100, 200, 100, None),
        (100, 200, 199.9, None),
        (100, 200, 200, "has expired"),
        (0, 0, 0, "has expired"),
        (200, 100, 150, "not valid yet"),
        (0, FOREVER, 2**62, None),
        (2**62, FOREVER, 5, "from second 4611686018427387904 to forever"),
        (0, 1, float("nan"), "has expired"),
    ],
)
def test_a_certificate_has_its_time(after, before, now, problem):
    certificate = Certificate.from_blob(handmade(valid_after=uint64(after), valid_before=uint64(before)))
    if problem is None:
        check(certificate, now=now)
    else:
        with pytest.raises(CertificateRefused, match=problem) as raised:
            check(certificate, now=now)
        assert raised.value.cause == "time"


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("principals", "names", "match"),
    [
        (("alice",), "alice", "alice"),
        (("alice", "bob"), ("carol", "bob"), "bob"),
        (("alice",), "Alice", None),
        (("alice",), "alice,bob", None),
        (("a,b",), ("a", "b"), None),
        (("a,b",), "a,b", "a,b"),
        (("*",), "alice", None),
        (("al?ce",), "alice", None),
        (("alice",), "*", None),
        (("alice",), "", None),
        (("alice",), (), None),
        ((), "alice", None),
        ((), "", None),
    ],
)
def test_principals_of_users_are_exact(principals, names, match):
    certificate = Certificate.from_blob(handmade(principals=string(b"".join(map(text, principals)))))
    if match is None:
        with pytest.raises(CertificateRefused, match=r"is for .*, not for") as raised:
            check(certificate, names)
        assert raised.value.cause == "principal"
    else:
        assert check(certificate, names).principal == match


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("option", "data", "cause", "problem"),
    [
        (
            "unheard@example.org",
            b"",
            "option",
            "unheard@example.org is not known; there are force-command, source-addr",
        ),
        ("Force-Command", text("ls"), "option", "Force-Command is not known"),
        ("permit-pty", b"", "option", "permit-pty is not known"),
        ("force-command", b"", "option", "value"),
        ("force-command", text(""), "option", "value .*is empty"),
        ("force-command", text("ls\0-l"), "option", "NUL"),
        ("force-command", text("ls") + b"x", "option", "1 bytes too many"),
        ("force-command", b"ls", "option", "needs 4 bytes"),
        ("verify-required", b"x", "option", "1 bytes of data"),
        ("verify-required", b"", "option", "needs a security key, this is one of type ssh-ed25519"),
        ("source-address", text(""), "option", "is empty"),
        ("source-address", text("10.0.0.0/8,"), "option", "'' is no address"),
        ("source-address", text(",10.0.0.0/8"), "option", "'' is no address"),
        ("source-address", text("10.0.0.1/8"), "option", "host bits"),
        ("source-address", text("10.0.0.0/33"), "option", "33"),
        ("source-address", text("10.0.0.0/"), "option", "no address"),
        ("source-address", text("10.0.0.0/255.0.0.0"), "option", "no address"),
        ("source-address", text("!10.0.0.0/8"), "option", "no address"),
        ("source-address", text("10.*"), "option", "no address"),
        ("source-address", text("example.org"), "option", "no address"),
        ("source-address", text("10.0.0.0/8, 10.9.0.1"), "option", "no address"),
        ("source-address", text("10.9.0.0/16"), "address", "not from 10.8.0.1"),
    ],
)
def test_critical_options_that_cannot_be_obeyed(option, data, cause, problem):
    certificate = Certificate.from_blob(handmade(options=options((option, data))))
    with pytest.raises(CertificateRefused, match=problem) as raised:
        check(certificate, address="10.8.0.1", enforced=["force-command", "verify-required"])
    assert raised.value.cause == cause
    assert option in str(raised.value) or cause == "address"
    assert str(raised.value).isprintable()


@pytest.mark.covers("V51")
def test_what_nobody_enforces_refuses():
    certificate = issue(critical_options={"force-command": "ls"})
    assert check(certificate, enforced={"force-command"}).force_command == "ls"
    with pytest.raises(CertificateRefused, match="force-command is not enforced by whoever checks it"):
        check(certificate)
    certificate = issue(critical_options={"source-address": "10.0.0.0/8"})
    assert check(certificate, address="10.255.0.1").source_address == ("10.0.0.0/8",)
    with pytest.raises(CertificateRefused, match="the client's address is not told") as raised:
        check(certificate)
    assert raised.value.cause == "address"


@pytest.mark.covers("V51")
def test_hosts_have_no_critical_options():
    certificate = Certificate.from_blob(
        handmade(kind=uint32(2), options=options(("force-command", text("ls"))), principals=string(text("h")))
    )
    with pytest.raises(CertificateRefused, match="has the critical option force-command; hosts have none"):
        check(certificate, "h", HOST, enforced=["force-command"])
    grant = check(issue(HOST, extensions={"x@example.org": ""}), kind=HOST)
    assert grant.unknown == ("x@example.org",)
    assert not grant.pty


def test_extensions_that_are_known_have_no_data_and_others_any():
    certificate = Certificate.from_blob(handmade(extensions=options(("permit-pty", b"x"))))
    with pytest.raises(CertificateRefused, match="permit-pty has 1 bytes of data; it has none"):
        check(certificate)
    grant = check(issue(extensions={}))
    assert not (grant.pty or grant.user_rc or grant.port_forwarding or grant.agent_forwarding or grant.x11_forwarding)


@pytest.mark.covers("V51")
def test_what_is_revoked_is_refused():
    certificate = issue()
    nothing = KRL()
    assert check(certificate, revoked=nothing).principal == "alice"
    for revoked, why in (
        (nothing.revoke(certificate), "serial number 5"),
        (nothing.revoke(KEY), "the key ssh-ed25519 SHA256:.* is listed"),
        (nothing.revoke(AUTHORITY.public_key), "its authority is: the key"),
        (nothing.revoke_key_ids(None, "alice's laptop"), "with the key id"),
    ):
        with pytest.raises(CertificateRefused, match=f"is revoked: .*{why}") as raised:
            check(certificate, revoked=revoked)
        assert raised.value.cause == "revoked"


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        ("192.0.2.1", "192.0.2.0/24", True),
        ("192.0.3.1", "192.0.2.0/24", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "10.0.0.0/8,192.0.2.1/32", True),
        ("2001:db8::1", "2001:DB8::/32", True),
        ("2001:db8::1", "0.0.0.0/0", False),
        ("192.0.2.1", "::/0", False),
        ("::ffff:192.0.2.1", "192.0.2.0/24", True),
        ("::ffff:192.0.2.1", "::/0", False),
        ("fe80::1%eth0", "fe80::/10", False),
        ("fe80::1", "fe80::/10", True),
        ("example.org", "0.0.0.0/0", False),
        ("", "0.0.0.0/0,::/0", False),
        ("192.0.2.01", "0.0.0.0/0", False),
    ],
)
def test_addresses(address, allowed, expected):
    assert address_allowed(address, allowed) is expected


def test_a_list_of_addresses_that_is_none():
    with pytest.raises(InvalidArgument, match="not a list of addresses: 'localhost' is no address"):
        address_allowed("127.0.0.1", "localhost")


@given(st.text(max_size=40), st.text("0123456789./:,afAF", max_size=40))
def test_any_list_is_one_or_is_refused(address, allowed):
    try:
        assert address_allowed(address, allowed) in (True, False)
    except InvalidArgument as error:
        assert str(error).isprintable()


# -------------------------------------------------------------------------------------------------------------- issuing


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"principals": []}, "1 to 256 principals, not 0"),
        ({"principals": "alice"}, "a sequence of principals is needed, not one string"),
        ({"principals": [""]}, "not a principal"),
        ({"principals": ["a,b"]}, "not a principal: 'a,b'"),
        ({"principals": ["a\0b"]}, "not a principal"),
        ({"principals": ["al*"]}, "no wildcards in users' names"),
        ({"valid_before": NOW - 3600}, "never valid"),
        ({"valid_before": FOREVER + 1}, "never valid"),
        ({"valid_after": -1}, "never valid"),
        ({"serial": -1}, "serial number"),
        ({"serial": 2**64}, "serial number"),
        ({"key_id": "a\0"}, "NUL"),
        ({"algorithm": "rsa-sha2-512"}, "ssh-ed25519 key signs certificates as ssh-ed25519, not as rsa-sha2-512"),
        (
            {"critical_options": {"force_command": "ls"}},
            "not a critical option: 'force_command'; there are force-command",
        ),
        ({"critical_options": {"a b@c": "ls"}}, "not a critical option"),
        ({"critical_options": {"force-command": ""}}, "not empty"),
        ({"critical_options": {"source-address": ""}}, "no address"),
        ({"critical_options": {"source-address": "10.0.0.1/8"}}, "host bits"),
        ({"critical_options": {"verify-required": "x"}}, "no value"),
        ({"critical_options": {"verify-required": ""}}, "asks for a security key, the key is of type ssh-ed25519"),
        (
            {"extensions": {"permit-everything": ""}},
            "not an extension: 'permit-everything'; there are no-touch-required",
        ),
        ({"extensions": {"permit-pty": "x"}}, "permit-pty has no value"),
    ],
)
def test_what_is_not_issued(changes, problem):
    with pytest.raises(InvalidArgument, match=problem):
        issue(**changes)


def test_what_is_not_issued_for_hosts():
    for changes in ({"critical_options": {"force-command": "ls"}}, {"critical_options": {"a@b": ""}}):
        with pytest.raises(InvalidArgument, match="host certificates have none"):
            issue(HOST, **changes)
    with pytest.raises(InvalidArgument, match="not an extension: 'permit-pty'; host certificates have none"):
        issue(HOST, extensions={"permit-pty": ""})


def test_no_certificate_of_ours_is_signed_with_sha1(ssh_keygen, tmp_path, keys):
    rsa = keys["ssh-rsa"]
    with pytest.raises(InvalidArgument, match="signs certificates as rsa-sha2-512, rsa-sha2-256, not as ssh-rsa"):
        Certificate.issue(rsa, KEY, USER, key_id="", principals=["a"], valid_before=FOREVER, algorithm="ssh-rsa")
    for algorithm in (None, "rsa-sha2-256"):
        made = Certificate.issue(rsa, KEY, USER, key_id="", principals=["a"], valid_before=1, algorithm=algorithm)
        assert made.authority_algorithm == (algorithm or "rsa-sha2-512")
        assert f"(using {made.authority_algorithm})" in shown(ssh_keygen, tmp_path, made)[2]


def test_the_nonce_is_the_caller_s_entropy():
    asked = []

    def entropy(count: int, label: str) -> bytes:
        asked.append((count, label))
        return b"n" * count

    assert issue(entropy=entropy).blob == issue(entropy=entropy).blob
    assert asked == [(32, "certificate nonce")] * 2
    assert issue(entropy=entropy).nonce == b"n" * 32


@given(
    key_id=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    principals=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0,*?"), min_size=1), min_size=1, max_size=5
    ),
    serial=st.integers(0, 2**64 - 1),
    times=st.lists(st.integers(0, FOREVER), min_size=2, max_size=2, unique=True),
    command=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30),
)
def test_what_is_issued_is_read_again(key_id, principals, serial, times, command):
    after, before = sorted(times)
    critical = {} if command is None else {"force-command": command}
    certificate = issue(
        key_id=key_id,
        principals=principals,
        serial=serial,
        valid_after=after,
        valid_before=before,
        critical_options=critical,
    )
    again = Certificate.parse(certificate.openssh())
    assert (again.key_id, again.principals, again.serial) == (key_id, tuple(principals), serial)
    assert (again.valid_after, again.valid_before) == (after, before)
    grant = check(again, principals[-1], now=after, enforced=["force-command"])
    assert grant.force_command == command
