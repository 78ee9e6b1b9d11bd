from __future__ import annotations

import base64
import contextlib
import copy
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import PublicKey
from sshproto.wire.codec import mpint, string, text

# RFC 8032 section 7.1, TEST 1.
ED25519 = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def add(a, b):
    """Addition on edwards25519, straight from RFC 8032 section 5.1.4 in affine form."""
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def small_order_points():
    """All points whose order divides 8, found by multiplying some point by the order of the large subgroup."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if x * x % P != square:
            x = x * pow(2, (P - 1) // 4, P) % P
        if x * x % P != square:
            continue
        result, point, scalar = (0, 1), (x, y), order
        while scalar:
            if scalar & 1:
                result = add(result, point)
            point = add(point, point)
            scalar >>= 1
        points = [(0, 1)]
        while len(points) < 8 and (following := add(points[-1], result)) != (0, 1):
            points.append(following)
        if len(points) == 8:
            return points
    raise AssertionError("no generator of the small subgroup found")


def ed25519(point: bytes) -> bytes:
    return text("ssh-ed25519") + string(point)


def rsa(e: int, n: int) -> bytes:
    return text("ssh-rsa") + mpint(e) + mpint(n)


def ecdsa(point: bytes, kind: str = "nistp256", inner: str | None = None) -> bytes:
    return text(f"ecdsa-sha2-{kind}") + text(kind if inner is None else inner) + string(point)


# -------------------------------------------------------------------------------------------------------------- Ed25519


@pytest.mark.covers("V47")
@pytest.mark.parametrize("point", small_order_points(), ids=lambda point: hex(point[1])[:10])
def test_small_order_ed25519(point):
    _x, y = point
    for sign in (0, 1):  # the wrong sign, too: decoders differ on x = 0
        with pytest.raises(KeyFormatError, match="small order"):
            PublicKey.from_blob(ed25519((y | sign << 255).to_bytes(32, "little")))


@pytest.mark.covers("V47")
@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_non_canonical_ed25519(y, sign):
    with pytest.raises(KeyFormatError, match="not encoded in the one way"):
        PublicKey.from_blob(ed25519((y | sign << 255).to_bytes(32, "little")))


@pytest.mark.covers("R137", "V46")
@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_length_of_ed25519(size):
    with pytest.raises(KeyFormatError, match=f"Ed25519 key of {size} bytes: it has 32"):
        PublicKey.from_blob(ed25519(b"\x09" * size))


# ------------------------------------------------------------------------------------------------------------------ RSA


@pytest.mark.covers("V45")
@pytest.mark.parametrize(
    ("bits", "minimum", "good"),
    [
        (2048, 2048, True),
        (2047, 2048, False),
        (1024, 2048, False),
        (1024, 1024, True),
        (1023, 1024, False),
        (3072, 3072, True),
        (3071, 3072, False),
        (16384, 2048, True),
    ],
)
def test_size_of_rsa(bits, minimum, good):
    blob = rsa(65537, 2**bits - 1)
    if good:
        key = PublicKey.from_blob(blob, minimum_rsa_bits=minimum)
        assert key.type == "ssh-rsa"
        assert pickle.loads(pickle.dumps(key)) == key
    else:
        with pytest.raises(KeyFormatError, match=f"RSA key of {bits} bits: {minimum} to 16384"):
            PublicKey.from_blob(blob, minimum_rsa_bits=minimum)


@pytest.mark.covers("V45")
def test_an_rsa_key_of_more_than_16384_bits():
    with pytest.raises(KeyFormatError, match=r"mpint of 16385 bits"):
        PublicKey.from_blob(rsa(65537, 2**16385 - 1))
    with pytest.raises(KeyFormatError, match="at most 2049"):
        PublicKey.from_blob(rsa(65537, 2**60000 - 1))


def test_the_rsa_minimum_has_a_minimum():
    for minimum in (0, 1023, 16385):
        with pytest.raises(InvalidArgument, match="from 1024 to 16384"):
            PublicKey.from_blob(rsa(65537, 2**2048 - 1), minimum_rsa_bits=minimum)


@pytest.mark.covers("V45")
@pytest.mark.parametrize("e", [0, 1, 2, 4, 65536, -3, 2**32, 2**32 + 1, 2**64 + 1, 2**2000 + 1])
def test_bad_rsa_exponents(e):
    with pytest.raises(KeyFormatError, match=r"the public exponent is .*odd number from 3 up to 2\^32"):
        PublicKey.from_blob(rsa(e, 2**2048 - 1))


@pytest.mark.parametrize("e", [3, 65537, 2**32 - 1])
def test_good_rsa_exponents(e):
    assert PublicKey.from_blob(rsa(e, 2**2048 - 1)).type == "ssh-rsa"


@pytest.mark.covers("V45")
@pytest.mark.parametrize(("n", "why"), [(2**2048 - 2, "even"), (0, "positive"), (-(2**2048) + 1, "positive")])
def test_bad_rsa_moduli(n, why):
    with pytest.raises(KeyFormatError, match=why):
        PublicKey.from_blob(rsa(65537, n))


@pytest.mark.covers("V32")
def test_superfluous_zeros_in_an_mpint():
    blob = text("ssh-rsa") + string(b"\0\1\0\1") + mpint(2**2048 - 1)
    with pytest.raises(KeyFormatError, match="superfluous leading 00"):
        PublicKey.from_blob(blob)


# ---------------------------------------------------------------------------------------------------------------- ECDSA


def point_of(keys, kind: str) -> bytes:
    size = {"nistp256": 65, "nistp384": 97, "nistp521": 133}[kind]
    return keys[f"ecdsa-sha2-{kind}"].public_key.blob[-size:]


@pytest.mark.covers("V46", "R120")
@pytest.mark.parametrize("kind", ["nistp256", "nistp384", "nistp521"])
def test_points_that_are_not_plain(keys, kind):
    good = point_of(keys, kind)
    half = len(good) // 2
    compressed = bytes([2 + (good[-1] & 1)]) + good[1 : 1 + half]
    hybrid = bytes([6 + (good[-1] & 1)]) + good[1:]
    for point in (b"", b"\0", compressed, hybrid, good[:-1], good + b"\0", b"\3" + good[1:]):
        with pytest.raises(KeyFormatError, match="uncompressed point"):
            PublicKey.from_blob(ecdsa(point, kind))
    off = good[:-1] + bytes([good[-1] ^ 1])
    for point in (off, b"\4" + bytes(2 * half), b"\4" + b"\xff" * (2 * half)):
        with pytest.raises(KeyFormatError, match=f"ecdsa-sha2-{kind} key"):
            PublicKey.from_blob(ecdsa(point, kind))
    assert PublicKey.from_blob(ecdsa(good, kind)).blob == ecdsa(good, kind)


@pytest.mark.covers("V46", "R121")
def test_curve_inside_is_not_that_of_the_type(keys):
    with pytest.raises(KeyFormatError, match="the type says nistp256, the curve inside is nistp384"):
        PublicKey.from_blob(ecdsa(point_of(keys, "nistp384"), "nistp256", "nistp384"))
    with pytest.raises(KeyFormatError, match="uncompressed point on nistp256"):
        PublicKey.from_blob(ecdsa(point_of(keys, "nistp384"), "nistp256"))


# ---------------------------------------------------------------------------------------------------------------- blobs


@pytest.mark.covers("V26", "V27")
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
def test_truncated_and_prolonged_blobs(keys, kind):
    blob = keys[kind].public_key.blob
    for size in range(len(blob)):
        with pytest.raises(KeyFormatError):
            PublicKey.from_blob(blob[:size])
    with pytest.raises(KeyFormatError, match="1 bytes too many"):
        PublicKey.from_blob(blob + b"\0")
    assert PublicKey.from_blob(memoryview(blob)).blob == blob


@pytest.mark.covers("V51", "V52")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ssh-dss", "DSA is too weak"),
        ("sk-ssh-rsa@openssh.com", "not known"),
        ("ssh-ed25519-cert-v01@openssh.com", "certificates are not supported in place of a key"),
        ("rsa-sha2-256", "not known"),  # an algorithm, never a type
        ("\x1b[2J", r"\\x1b\[2J"),
    ],
)
def test_unsupported_types_are_named(name, why):
    with pytest.raises(KeyFormatError, match=why) as raised:
        PublicKey.from_blob(text(name) + string(b"x"))
    assert "supported are ssh-ed25519" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.covers("V26", "B22")
def test_a_huge_blob_is_not_looked_at():
    with pytest.raises(KeyFormatError, match="at most 16384"):
        PublicKey.from_blob(bytes(16385))
    with pytest.raises(KeyFormatError, match="no key is longer"):
        PublicKey.parse("ssh-rsa " + "A" * 100_000)


@pytest.mark.covers("R158")
@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_else(data):
    for blob in (data, ed25519(data), ecdsa(data), text("ssh-rsa") + data):
        with contextlib.suppress(KeyFormatError):
            PublicKey.from_blob(blob)


# ----------------------------------------------------------------------------------------------------------------- text


def test_parse_and_openssh():
    key = PublicKey.from_blob(ed25519(ED25519))
    line = key.openssh()
    assert line == "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
    assert PublicKey.parse(line) == key
    named = PublicKey.parse(f"# from me\n\n {line}\tme and  you \r\n".encode())
    assert named == key
    assert hash(named) == hash(key)
    assert named.comment == "me and  you"
    assert named.openssh() == line + " me and  you"
    assert PublicKey.parse(line + " caf\xe9".encode("latin-1").decode("utf-8", "surrogateescape")) == key


@pytest.mark.covers("V70")
def test_a_comment_cannot_add_a_line():
    key = PublicKey.from_blob(ed25519(ED25519), "me\r\nssh-rsa AAAA evil\0")
    assert key.openssh().endswith(" me ssh-rsa AAAA evil")
    assert "\n" not in key.openssh()
    assert "\n" not in repr(key)


@pytest.mark.covers("V70")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "this is empty"),
        ("\n \n", "this is empty"),
        ("ssh-ed25519", "one word came"),
        ("ssh-ed25519 %%%", "not base64"),
        ("ssh-ed25519 AAAA", "not a public key"),
        ("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", "line says ssh-rsa, the key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "an OpenSSH private key"),
        ("-----BEGIN RSA PRIVATE KEY-----\n", "a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\n", "PUBLIC KEY: the file is cut short"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\n", "RFC 4716"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "a PuTTY private key"),
        ("ssh-dss AAAA", "DSA is too weak"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificates"),
        ("ssh-ed25519 AAAA\nssh-ed25519 AAAA\n", "2 lines came"),
        ("\x0b", "this is empty"),
        ("ssh-ed25519\u2028AAAA", "one word came"),
        ("hello world", "unsupported key type hello"),
    ],
)
def test_what_is_no_public_key_is_named(content, why):
    with pytest.raises(KeyFormatError, match=why):
        PublicKey.parse(content)


def test_fingerprints_and_equality(keys):
    key = PublicKey.from_blob(ed25519(ED25519), "me")
    assert key.fingerprint().startswith("SHA256:")
    assert "=" not in key.fingerprint()
    assert len(base64.b64decode(key.fingerprint()[7:] + "=")) == 32
    assert len(key.fingerprint("md5")) == 4 + 47
    with pytest.raises(InvalidArgument, match="sha256 or md5"):
        key.fingerprint("sha1")
    assert key != keys["ssh-ed25519"].public_key
    assert key != key.blob
    assert repr(key) == f"<PublicKey ssh-ed25519 {key.fingerprint()} 'me'>"
    with pytest.raises(AttributeError):
        key.comment = "you"  # type: ignore[misc]
    for twin in (pickle.loads(pickle.dumps(key)), copy.deepcopy(key), copy.copy(key)):
        assert twin == key
        assert twin.comment == "me"


def test_importing_keys_does_not_import_what_few_keys_need():
    code = (
        "import sys, sshproto.keys;"
        "sys.exit(any('.asymmetric' in m or '.serialization' in m or m == 'bcrypt' for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == 0
