from __future__ import annotations

import base64
import copy
import os
import pickle
import time
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
from sshproto.keys import PassphraseNeeded, PassphraseWrong, PrivateKey, PublicKey, openssh, pem
from sshproto.wire.codec import Reader, mpint, string, text, uint32
from tests.support.panic import PanicException

KINDS = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-ed25519", "ssh-rsa")


def armour(data: bytes) -> bytes:
    return f"{openssh.BEGIN}\n{base64.b64encode(data).decode()}\n{openssh.END}\n".encode()


def bare(content: bytes) -> bytes:
    return base64.b64decode(b"".join(content.splitlines()[1:-1]))


def container(public: bytes, private: bytes, *, cipher="none", kdf="none", options=b"", count=1, rest=b"") -> bytes:
    data = openssh.MAGIC + text(cipher) + text(kdf) + string(options) + uint32(count) + string(public) + string(private)
    return armour(data + rest)


def plain(fields: bytes, comment: str = "", *, padding: bytes | None = None, checks: bytes = b"abcdabcd") -> bytes:
    data = checks + fields + text(comment)
    return data + (bytes(range(1, -len(data) % 8 + 1)) if padding is None else padding)


def fields_of(key: PrivateKey) -> bytes:
    """The private fields of a key, with its type, as they stand in its file."""
    reader = Reader(bare(key.openssh()), "file", len(openssh.MAGIC))
    for _ in range(3):
        reader.string()
    reader.uint32()
    reader.string()
    data = reader.string()
    length = len(data) - len(data[8:]) + data[8:].rindex(text(key.comment))
    return data[8:length]


# --------------------------------------------------------------------------------------------------------------- making


@pytest.mark.parametrize("kind", KINDS)
def test_writing_and_reading(keys, kind):
    key = keys[kind]
    again = PrivateKey.load(key.openssh())
    assert again.public_key == key.public_key
    assert again.comment == key.comment == f"{kind} key"
    assert again.openssh(entropy=lambda n, label: bytes(n)) == key.openssh(entropy=lambda n, label: bytes(n))
    assert PrivateKey.load(key.openssh().decode(), comment="mine").comment == "mine"
    assert (
        PrivateKey.load(b"some words before\r\n" + key.openssh().replace(b"\n", b"\r\n")).public_key == key.public_key
    )


@pytest.mark.parametrize(
    ("kind", "bits", "why"),
    [
        ("ssh-dss", None, "cannot be made"),
        ("rsa-sha2-512", None, "cannot be made"),
        ("ssh-ed25519", 256, "one size only"),
        ("ssh-rsa", 1024, "2048 to 16384"),
        ("ssh-rsa", 16385, "2048 to 16384"),
    ],
)
def test_keys_that_cannot_be_made(kind, bits, why):
    with pytest.raises(InvalidArgument, match=why):
        PrivateKey.generate(kind, bits)


@pytest.mark.covers("V49")
def test_generated_keys_differ():
    assert len({PrivateKey.generate().public_key for _ in range(20)}) == 20


# -------------------------------------------------------------------------------------------------------------- signing


@pytest.mark.parametrize("kind", KINDS)
def test_signing(keys, kind):
    key = keys[kind]
    for algorithm in (None, *key.public_key.signature_algorithms):
        used = algorithm or key.public_key.signature_algorithms[0]
        signature = key.sign(bytearray(b"data"), algorithm)
        assert signature.startswith(text(used))
        key.public_key.verify(signature, b"data", used)
    for algorithm in ("", "ssh-dss", "ssh-ed25519" if kind != "ssh-ed25519" else "ssh-rsa"):
        with pytest.raises(InvalidArgument, match="cannot sign as"):
            key.sign(b"data", algorithm)


@pytest.mark.covers("V48")
@pytest.mark.parametrize("kind", KINDS)
def test_a_faulty_signature_is_withheld(keys, kind):
    """A signature spoilt by a fault (here: by another key's handle) never leaves."""
    key = keys[kind]
    other = PrivateKey.generate(kind, 2048 if kind == "ssh-rsa" else None)
    faulty = PrivateKey(other._handle, key.public_key)
    with pytest.raises(SignatureInvalid, match="withheld"):
        faulty.sign(b"data")


# -------------------------------------------------------------------------------------------------------------- privacy


@pytest.mark.covers("R169")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_private_shows(keys, kind):
    key = keys[kind]
    assert repr(key) == str(key) == f"<PrivateKey {kind} {key.public_key.fingerprint()}>"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(key, protocol)
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    assert not hasattr(key, "__dict__")
    with pytest.raises(AttributeError, match="immutable"):
        key.public_key = None  # type: ignore[misc,assignment]


@pytest.mark.covers("R169")
def test_errors_do_not_show_the_passphrase_or_the_key(keys):
    secret = b"canary-passphrase"
    content = keys["ssh-ed25519"].openssh(b"another", rounds=1)
    for call in (lambda: PrivateKey.load(content, secret), lambda: PrivateKey.load(b"nothing", secret)):
        with pytest.raises(KeyFormatError) as raised:
            call()
        shown = "".join(traceback.format_exception(raised.value))
        assert "canary" not in shown
        assert raised.value.__cause__ is None


# ---------------------------------------------------------------------------------------------------------- passphrases


def test_passphrases(keys):
    key = keys["ssh-ed25519"]
    content = key.openssh(b"word", rounds=1)
    assert key.comment.encode() not in bare(content)
    assert PrivateKey.load(content, b"word").public_key == key.public_key
    for none in (None, b""):
        with pytest.raises(PassphraseNeeded, match=r"encrypted \(aes256-ctr\) and no passphrase was given") as raised:
            PrivateKey.load(content, none)
        assert raised.value.public_key == key.public_key
    with pytest.raises(PassphraseWrong, match="does not open the ssh-ed25519 private key SHA256:"):
        PrivateKey.load(content, b"Word")
    assert key.openssh(b"word", rounds=1) != content  # a fresh salt
    with pytest.raises(InvalidArgument, match="empty passphrase"):
        key.openssh(b"")
    for call in (key.openssh, lambda words: PrivateKey.load(content, words)):
        with pytest.raises(InvalidArgument, match="has to be bytes"):
            call("word")
    for rounds in (0, 2049):
        with pytest.raises(InvalidArgument, match="1 to 2048 rounds"):
            key.openssh(b"word", rounds=rounds)


@pytest.mark.covers("V45")
@pytest.mark.parametrize("rounds", [0, 2049, 2**31, 2**32 - 1])
def test_bcrypt_rounds_are_bounded_before_any_work(keys, rounds):
    blob = keys["ssh-ed25519"].public_key.blob
    options = string(b"s" * 16) + uint32(rounds)
    content = container(blob, bytes(160), cipher="aes256-ctr", kdf="bcrypt", options=options)
    start = time.perf_counter()
    with pytest.raises(KeyFormatError, match=f"bcrypt with {rounds} rounds .*1 to 2048"):
        PrivateKey.load(content, b"word")
    assert time.perf_counter() - start < 1


def test_2048_rounds_are_accepted(keys):
    blob = keys["ssh-ed25519"].public_key.blob
    options = string(b"s" * 16) + uint32(2048)
    content = container(blob, bytes(160), cipher="aes256-ctr", kdf="bcrypt", options=options)
    with pytest.raises(PassphraseNeeded):  # got as far as to ask, without doing the work
        PrivateKey.load(content)


def test_without_bcrypt_the_error_says_so(keys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bcrypt", None)
    key = keys["ssh-ed25519"]
    with pytest.raises(KeyFormatError, match="encrypted-keys"):
        key.openssh(b"word")
    assert PrivateKey.load(key.openssh()).public_key == key.public_key


# -------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.covers("V82")
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files(keys, kind):
    data = bare(keys[kind].openssh())
    for size in range(0, len(data), 7):
        with pytest.raises(KeyFormatError):
            PrivateKey.load(armour(data[:size]))
    with pytest.raises(KeyFormatError, match="1 bytes too many"):
        PrivateKey.load(armour(data + b"\0"))


@pytest.mark.covers("V82")
def test_malformed_containers(keys):
    key = keys["ssh-ed25519"]
    blob, fields = key.public_key.blob, fields_of(key)
    good = container(blob, plain(fields, "c"))
    assert PrivateKey.load(good).comment == "c"
    bcrypt = {"cipher": "aes256-ctr", "kdf": "bcrypt", "options": string(b"salt") + uint32(1)}
    for content, why in (
        (container(blob, plain(fields), count=0), "has 0 keys, expected 1"),
        (container(blob, plain(fields), count=2), "has 2 keys, expected 1"),
        (container(blob, plain(fields), count=2**32 - 1), "has 4294967295 keys"),
        (container(blob, plain(fields), rest=b"x"), "1 bytes too many"),
        (container(blob, plain(fields)[:-1]), "expected a multiple of 8"),
        (container(blob, b""), "expected a multiple of 8"),
        (container(blob, plain(fields, checks=b"abcdabce")), "check numbers differ"),
        (container(blob, plain(fields, "xyzw") + bytes(8)), "padding is not 01 02 03"),
        (container(blob, bytes(152), **(bcrypt | {"cipher": "rot13"})), "unsupported cipher rot13"),
        (container(blob, bytes(152), **(bcrypt | {"kdf": "scrypt"})), "unsupported KDF scrypt"),
        (container(blob, bytes(152), **(bcrypt | {"kdf": "none", "options": b""})), "KDF none with cipher aes256-ctr"),
        (container(blob, bytes(152), **(bcrypt | {"cipher": "none"})), "KDF bcrypt with cipher none"),
        (container(blob, bytes(160), **(bcrypt | {"options": string(b"") + uint32(1)})), "a salt that is not empty"),
        (container(blob, bytes(160), **(bcrypt | {"options": string(b"salt")})), "rounds"),
        (container(blob, bytes(152), **bcrypt), "expected a multiple of 16"),
        (container(b"", plain(fields)), "not a public key"),
        (good.replace(b"-----END", b"-----ENT"), "cut short"),
        (good.replace(b"b3BlbnNzaC1rZXktdjE", b"b3BlbnNzaC1rZXktdjI"), "expected b'openssh-key-v1"),
        (good.replace(b"b3Bl", b"!!!!"), "not base64"),
    ):  # fmt: skip
        with pytest.raises(KeyFormatError) as raised:
            PrivateKey.load(content, b"word")
        assert why in str(raised.value)


def test_public_and_private_part_must_belong_together(keys):
    for kind in KINDS:
        key = keys[kind]
        other = PrivateKey.generate(kind, 2048 if kind == "ssh-rsa" else None)
        with pytest.raises(KeyFormatError, match="different"):
            PrivateKey.load(container(other.public_key.blob, plain(fields_of(key))))
    with pytest.raises(KeyFormatError, match="private ssh-ed25519 key with a public ssh-rsa key"):
        PrivateKey.load(container(keys["ssh-rsa"].public_key.blob, plain(fields_of(keys["ssh-ed25519"]))))
    # The public halves agree with one another, the seed is another one's: signing would give the seed away.
    key = keys["ssh-ed25519"]
    point = key.public_key.blob[-32:]
    fields = key.public_key.blob + string(os.urandom(32) + point)
    with pytest.raises(KeyFormatError, match="different"):
        PrivateKey.load(container(key.public_key.blob, plain(fields)))
    for size in (0, 32, 63, 65):
        fields = key.public_key.blob + string(bytes(size))
        with pytest.raises(KeyFormatError, match="seed and public key have 64"):
            PrivateKey.load(container(key.public_key.blob, plain(fields)))
    # Another scalar for the same point.
    public = keys["ecdsa-sha2-nistp256"].public_key
    for value, why in ((5, "different"), (0, "not positive"), (-5, "not positive"), (2**256 - 1, "out of range")):
        with pytest.raises(KeyFormatError, match=why):
            PrivateKey.load(container(public.blob, plain(public.blob + mpint(value))))


def test_rsa_numbers_that_do_not_belong_together(keys):
    key = keys["ssh-rsa"]
    reader = Reader(fields_of(key), "fields")
    reader.string()
    n, e, d, iqmp, p, q = (reader.mpint() for _ in range(6))
    reader.end()

    def load(*numbers: int) -> PrivateKey:
        return PrivateKey.load(container(key.public_key.blob, plain(text("ssh-rsa") + b"".join(map(mpint, numbers)))))

    assert load(n, e, d, iqmp, p, q).public_key == key.public_key
    for numbers in (
        (n, e, d, iqmp, 1, n), (n, e, d, iqmp, n, 1), (n, e, d, iqmp, p + 2, q), (n, e, 0, iqmp, p, q),
        (n, e, d + 2, iqmp, p, q), (n, e, d, iqmp + 1, p, q), (n, e, d, 0, p, q), (n, e, -d, iqmp, p, q),
        (n, e, d, iqmp, -p, -q), (n, e, d, iqmp, q, p),
    ):  # fmt: skip
        with pytest.raises(KeyFormatError, match="RSA private key: the private numbers do not") as raised:
            load(*numbers)
        assert str(d) not in str(raised.value)
    with pytest.raises(KeyFormatError, match="different ssh-rsa keys"):
        load(n + 2, e, d, iqmp, p, q)


def test_unsupported_private_types(keys):
    blob = keys["ssh-ed25519"].public_key.blob
    for kind, why in (("ssh-dss", "DSA"), ("sk-ssh-rsa@openssh.com", "not known"), ("x", "not known")):
        with pytest.raises(KeyFormatError, match=why):
            PrivateKey.load(container(blob, plain(text(kind) + string(b""))))
        with pytest.raises(KeyFormatError, match=why):
            PrivateKey.load(container(text(kind) + string(b""), plain(text(kind))))


@pytest.mark.covers("V82")
@given(st.data())
def test_no_damage_raises_anything_else(keys, data):
    kind = data.draw(st.sampled_from(KINDS))
    content = bytearray(bare(keys[kind].openssh()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        key = PrivateKey.load(armour(bytes(content)), b"word")
    except KeyFormatError:
        return
    assert key.public_key == keys[kind].public_key


@pytest.mark.covers("V82")
@given(st.binary(max_size=100))
def test_no_content_raises_anything_else(data):
    for content in (data, armour(data), armour(openssh.MAGIC + data), pem_block("PRIVATE KEY", data)):
        with pytest.raises(KeyFormatError):
            PrivateKey.load(content, b"word")
    for label in ("ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"):
        with pytest.raises(KeyFormatError):
            PrivateKey.load(pem_block(label, data), b"word")


# ------------------------------------------------------------------------------------------------------------------ PEM


def pem_block(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


def pkcs8(key, passphrase: bytes | None = None) -> bytes:
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_ed25519_in_pkcs8():
    key = ed25519.Ed25519PrivateKey.generate()
    assert PrivateKey.load(pkcs8(key)).public_key.blob[-32:] == key.public_key().public_bytes_raw()
    content = pkcs8(key, b"word")
    assert PrivateKey.load(content, b"word", "me").comment == "me"
    with pytest.raises(PassphraseNeeded, match="ENCRYPTED PRIVATE KEY"):
        PrivateKey.load(content)
    with pytest.raises(PassphraseWrong):
        PrivateKey.load(content, b"other")


def test_the_private_key_among_other_blocks():
    key = ec.generate_private_key(ec.SECP384R1())
    sec1 = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    content = b"Bag Attributes\n" + pem_block("EC PARAMETERS", b"\x06\x05\x2b\x81\x04\x00\x22") + sec1
    assert PrivateKey.load(content).public_key.type == "ecdsa-sha2-nistp384"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: ec.generate_private_key(ec.SECP256K1()), "EC on the curve secp256k1"),
        (ed448.Ed448PrivateKey.generate, "Ed448"),
        (lambda: dsa.generate_private_key(1024), "DSA"),
    ],
    ids=["secp256k1", "ed448", "dsa"],
)
def test_pem_keys_that_ssh_does_not_have(make, why):
    with pytest.raises(KeyFormatError, match=f"unsupported key type {why}.*supported are RSA, Ed25519, and EC"):
        PrivateKey.load(pkcs8(make()))


def test_weak_rsa_needs_to_be_asked_for():
    key = rsa.generate_private_key(65537, 1024)
    native = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    for content in (pkcs8(key), native):
        with pytest.raises(KeyFormatError, match="RSA key of 1024 bits: 2048 to 16384"):
            PrivateKey.load(content)
        weak = PrivateKey.load(content, minimum_rsa_bits=1024, comment="old")
        weak.public_key.verify(weak.sign(b"data"), b"data", "rsa-sha2-512")


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    head = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + head + content


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def pbes2(kdf: bytes) -> bytes:
    aes = der(0x30, bytes.fromhex("060960864801650304012a") + der(4, bytes(16)))
    algorithm = der(0x30, bytes.fromhex("06092a864886f70d01050d") + der(0x30, kdf + aes))
    return pem_block("ENCRYPTED PRIVATE KEY", der(0x30, algorithm + der(4, bytes(64))))


def pbkdf2(iterations: int) -> bytes:
    prf = der(0x30, bytes.fromhex("06082a864886f70d02090500"))
    return der(
        0x30, bytes.fromhex("06092a864886f70d01050c") + der(0x30, der(4, b"saltsalt") + integer(iterations) + prf)
    )


def scrypt(n: int, r: int, p: int) -> bytes:
    return der(
        0x30,
        bytes.fromhex("06092b06010401da47040b") + der(0x30, der(4, b"saltsalt") + integer(n) + integer(r) + integer(p)),
    )


@pytest.mark.covers("V45")
def test_the_cost_of_pkcs8_is_bounded_before_any_work():
    start = time.perf_counter()
    for iterations in (0, -1, pem.MAXIMUM_ITERATIONS + 1, 2**31, 2**63):
        with pytest.raises(KeyFormatError, match=f"{iterations} times; 1 to {pem.MAXIMUM_ITERATIONS}"):
            PrivateKey.load(pbes2(pbkdf2(iterations)), b"word")
    for numbers in ((2**21, 8, 1), (2**14, 8, 128), (2**23, 8, 1), (2**10, 2**10, 2**10)):
        with pytest.raises(KeyFormatError, match="too much memory"):
            PrivateKey.load(pbes2(scrypt(*numbers)), b"word")
    assert time.perf_counter() - start < 1
    with pytest.raises(PassphraseNeeded):
        PrivateKey.load(pbes2(pbkdf2(pem.MAXIMUM_ITERATIONS)))
    with pytest.raises(PassphraseNeeded):
        PrivateKey.load(pbes2(scrypt(2**20, 8, 1)))
    with pytest.raises(PassphraseWrong):
        PrivateKey.load(pbes2(pbkdf2(2048)), b"word")


@pytest.mark.parametrize("passphrase", [None, b"word"], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_writing_pkcs8(keys, kind, passphrase):
    key = keys[kind]
    content = key.pkcs8(passphrase, iterations=7)
    assert PrivateKey.load(content, passphrase).public_key == key.public_key
    handle = load_pem_private_key(content, passphrase)
    assert handle.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) == key.pkcs8()
    assert max(map(len, content.splitlines())) == 64
    assert key.pkcs8(passphrase, iterations=7, entropy=lambda n, label: bytes(n)) == key.pkcs8(
        passphrase, iterations=7, entropy=lambda n, label: bytes(n)
    )
    if passphrase:
        assert content != key.pkcs8(passphrase, iterations=7)  # a fresh salt
        with pytest.raises(PassphraseWrong):
            PrivateKey.load(content, b"another")
        with pytest.raises(PassphraseNeeded):
            PrivateKey.load(content)


def test_what_pkcs8_cannot_be_written_with(keys):
    key = keys["ssh-ed25519"]
    for iterations in (0, -1, pem.MAXIMUM_ITERATIONS + 1):
        with pytest.raises(InvalidArgument, match="1 to 10000000 iterations"):
            key.pkcs8(b"word", iterations=iterations)
    with pytest.raises(InvalidArgument, match="empty passphrase"):
        key.pkcs8(b"")
    with pytest.raises(InvalidArgument, match="has to be bytes"):
        key.pkcs8("word")
    assert b"\x02\x03\x09\x27\xc0" in bare(key.pkcs8(b"word"))  # 600000


def test_object_identifiers_that_are_not_encryption():
    for identifier, why in (
        ("06092a864886f70d01050e", r"object identifier 1\.2\.840\.113549\.1\.5\.14"),
        ("06038837ff", "not the base64 of an EncryptedPrivateKeyInfo|object identifier"),
        ("0602" + "8837", r"object identifier 2\.999"),
        ("0600", "not the base64 of an EncryptedPrivateKeyInfo"),
        ("0603" + "ffffff", "not the base64 of an EncryptedPrivateKeyInfo"),
    ):
        content = der(0x30, der(0x30, bytes.fromhex(identifier)) + der(4, bytes(16)))
        with pytest.raises(KeyFormatError, match=why):
            PrivateKey.load(pem_block("ENCRYPTED PRIVATE KEY", content), b"word")
    content = der(0x30, der(0x30, der(6, b"\xff" * 16000 + b"\1")) + der(4, bytes(16)))
    start = time.process_time()
    with pytest.raises(KeyFormatError, match="EncryptedPrivateKeyInfo"):
        PrivateKey.load(pem_block("ENCRYPTED PRIVATE KEY", content), b"word")
    assert time.process_time() - start < 1


@pytest.mark.parametrize("kind", ["PEM", "OpenSSH", "public"])
def test_a_panic_of_the_backend_is_a_key_that_cannot_be_read(keys, kind, monkeypatch):
    handle = ed25519.Ed25519PrivateKey.generate()
    encoding = Encoding.PEM, PrivateFormat.PKCS8 if kind == "PEM" else PrivateFormat.OpenSSH, NoEncryption()
    content, blob = handle.private_bytes(*encoding), keys["ssh-ed25519"].public_key.blob[:-1] + b"\x55"  # a new one
    error: BaseException = PanicException("index out of bounds")

    def give_up(*args):
        raise error

    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_pem_private_key", give_up)
    monkeypatch.setattr(ed25519.Ed25519PrivateKey, "from_private_bytes", give_up)
    if kind == "public":
        monkeypatch.setattr(ed25519.Ed25519PublicKey, "from_public_bytes", give_up)

    def read():
        return PublicKey.from_blob(blob) if kind == "public" else PrivateKey.load(content)

    with pytest.raises(KeyFormatError, match="the crypto backend gave up on it"):
        read()
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        read()


@pytest.mark.parametrize("cipher", ["AES-256-CBC", "AES-128-CBC", "DES-EDE3-CBC"])
def test_an_iv_that_is_too_short_does_not_reach_the_backend(cipher):
    """Whose code panics on it, which no ``except Exception`` of an application's would catch."""
    handle = ec.derive_private_key(5, ec.SECP256R1())
    good = handle.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"xyzzy"))
    before, _, rest = good.partition(b"DEK-Info: ")
    iv, _, body = rest.partition(b"\n")
    assert PrivateKey.load(good, b"xyzzy").public_key.type == "ecdsa-sha2-nistp256"
    digits = iv.partition(b",")[2]
    size = 32 if cipher.startswith("AES") else 16
    for count in (0, 1, 2, 14, 15, size - 2, size - 1, size + 1, size + 2):
        headers = f"DEK-Info: {cipher},".encode() + (digits * 2)[:count] + b"\n"
        with pytest.raises(KeyFormatError, match=f"an IV of {count} hexadecimal digits for {cipher}, expected {size}"):
            PrivateKey.load(before + headers + body, b"xyzzy")
    for headers in (b"", b"DEK-Info: \n", b"DEK-Info: AES-256-CBC,zz\n", b"X: y\nDEK-Info: " + iv + b"\n"):
        with pytest.raises(KeyFormatError, match="two headers of RFC 1421"):
            PrivateKey.load(before + headers + body, b"xyzzy")
    assert (
        PrivateKey.load(good.replace(b"\n", b"\r\n"), b"xyzzy").public_key == PrivateKey.load(good, b"xyzzy").public_key
    )


def test_deeply_nested_der():
    content = b""
    while len(content) < 16_000:
        content = der(0x30, content)
    with pytest.raises(KeyFormatError, match="EncryptedPrivateKeyInfo"):
        PrivateKey.load(pem_block("ENCRYPTED PRIVATE KEY", content), b"word")


# ------------------------------------------------------------------------------------------------- files of other kinds


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "this is empty"),
        (b"\n\n", "this is empty"),
        (b"hello\x1b", r"it starts with 'hello\\"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "PuTTY private key: .*expected the header Comment"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\n", "a public key in RFC 4716 form"),
        (b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n", "SSH Communications"),
        (b"-----BEGIN PUBLIC KEY-----\n", "a public key in PEM form"),
        (b"-----BEGIN RSA PUBLIC KEY-----\n", "an RSA public key"),
        (b"-----BEGIN CERTIFICATE-----\n", "X.509"),
        (b"-----BEGIN SSH SIGNATURE-----\n", "a signature"),
        (b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0", "SSH-1"),
        (b"ssh-ed25519 AAAA me", "a public key; .*without .pub"),
        (b"sk-ssh-ed25519@openssh.com AAAA me", "a public key"),
        (b"ssh-rsa-cert-v01@openssh.com AAAA me", "a certificate"),
        (b"0\x82\x04\xa3\x02\x01", "perhaps DER"),
        (b"-----BEGIN DSA PRIVATE KEY-----\n", "unsupported kind of private key DSA PRIVATE KEY: DSA is too weak"),
        (
            b"-----BEGIN ANY PRIVATE KEY-----\n",
            "unsupported kind of private key ANY PRIVATE KEY; supported are OPENSSH",
        ),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", "cut short"),
        (pem_block("PRIVATE KEY", b"x"), "PRIVATE KEY: malformed"),
        (pem_block("RSA PRIVATE KEY", bytes(20_000)), "at most 24576"),
        (bytes(70_000), "70000 bytes; at most 65536"),
    ],
)
def test_what_is_no_private_key_is_named(content, why):
    with pytest.raises(KeyFormatError, match=why) as raised:
        PrivateKey.load(content, b"word")
    assert str(raised.value).isprintable()
