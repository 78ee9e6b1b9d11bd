"""Keys, signatures and fingerprints exchanged with the real ssh-keygen."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest

from sshproto.errors import KeyFormatError, SignatureInvalid
from sshproto.keys import PassphraseNeeded, PassphraseWrong, PrivateKey, PublicKey
from sshproto.keys.openssh import CIPHERS
from sshproto.wire.codec import Reader, string, text, uint32

# ssh-keygen's -t and -b, and what the type is called in SSH.
KINDS = {
    "ssh-ed25519": ("ed25519", None),
    "ecdsa-sha2-nistp256": ("ecdsa", 256),
    "ecdsa-sha2-nistp384": ("ecdsa", 384),
    "ecdsa-sha2-nistp521": ("ecdsa", 521),
    "ssh-rsa": ("rsa", 2048),
}
# -m; ssh-keygen before 9.6 writes Ed25519 in its own format whatever is asked for, which has to load just as well.
FORMATS = ("RFC4716", "PEM", "PKCS8")
PASSPHRASE = "correct horse"


def generate(ssh_keygen, path: Path, kind: str, *extra: object, passphrase: str = "", form: str = "RFC4716") -> None:
    name, bits = KINDS[kind]
    size = [] if bits is None else ["-b", bits]
    ssh_keygen("-q", "-t", name, *size, "-m", form, "-a", 2, "-N", passphrase, "-C", "me@here", "-f", path, *extra)


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE], ids=["plain", "encrypted"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_ssh_keygen_writes_loads(ssh_keygen, tmp_path, kind, form, passphrase):
    path = tmp_path / "id"
    generate(ssh_keygen, path, kind, passphrase=passphrase, form=form)
    data = path.read_bytes()
    public = PublicKey.parse((tmp_path / "id.pub").read_bytes())
    assert public.type == kind
    assert public.comment == "me@here"
    assert (public.openssh() + "\n").encode() == (tmp_path / "id.pub").read_bytes()
    if passphrase:
        with pytest.raises(PassphraseNeeded, match="encrypted") as needed:
            PrivateKey.load(data)
        assert needed.value.public_key == (public if b"OPENSSH" in data else None)
        with pytest.raises(PassphraseWrong):
            PrivateKey.load(data, b"incorrect horse")
    key = PrivateKey.load(data, passphrase.encode() or None)
    assert key.public_key == public
    assert key.comment == ("me@here" if b"OPENSSH" in data else "")
    for algorithm in public.signature_algorithms:
        public.verify(key.sign(b"data", algorithm), b"data", algorithm)


def test_a_passphrase_for_a_plain_key_is_not_used(ssh_keygen, tmp_path):
    for form in FORMATS:
        path = tmp_path / form
        generate(ssh_keygen, path, "ecdsa-sha2-nistp256", form=form)
        assert PrivateKey.load(path.read_bytes(), b"needless").public_key.type == "ecdsa-sha2-nistp256"


def test_ciphers_of_encrypted_files(ssh_keygen, tmp_path, keys):
    """There is no cipher that ssh-keygen has and we have not; each way, and a wrong passphrase names it."""
    have = subprocess.run(["ssh", "-Q", "cipher"], capture_output=True, check=True).stdout.decode().split()
    assert set(have) <= set(CIPHERS)
    key = keys["ssh-ed25519"]
    for number, cipher in enumerate(CIPHERS):
        path = tmp_path / f"{number}"
        generate(ssh_keygen, path, "ssh-ed25519", "-Z", cipher, passphrase=PASSPHRASE)
        data = path.read_bytes()
        loaded = PrivateKey.load(data, PASSPHRASE.encode())
        assert loaded.public_key == PublicKey.parse(path.with_name(path.name + ".pub").read_text())
        with pytest.raises(PassphraseWrong, match=cipher):
            PrivateKey.load(data, b"another")
        path.write_bytes(key.openssh(PASSPHRASE.encode(), rounds=1, cipher=cipher))
        assert ssh_keygen("-y", "-P", PASSPHRASE, "-f", path).strip() == key.public_key.openssh()
        assert PrivateKey.load(path.read_bytes(), PASSPHRASE.encode()).public_key == key.public_key


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE.encode()], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_loads_in_ssh_keygen(ssh_keygen, tmp_path, keys, kind, passphrase):
    key = keys[kind]
    path = tmp_path / "id"
    path.write_bytes(key.openssh(passphrase, rounds=2))
    path.chmod(0o600)
    words = (passphrase or b"").decode()
    assert ssh_keygen("-y", "-P", words, "-f", path).strip() == key.public_key.openssh()
    _, fingerprint, *_comment = ssh_keygen("-l", "-f", path).split()
    assert fingerprint == key.public_key.fingerprint()
    again = PrivateKey.load(path.read_bytes(), passphrase)
    assert again.public_key == key.public_key
    assert again.comment == key.comment


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE.encode()], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_pkcs8_of_ours_loads_in_ssh_keygen_and_openssl(ssh_keygen, openssl, tmp_path, keys, kind, passphrase):
    key = keys[kind]
    path = tmp_path / "id"
    path.write_bytes(key.pkcs8(passphrase, iterations=3000))
    path.chmod(0o600)
    again = PrivateKey.load(path.read_bytes(), passphrase)
    assert again.public_key == key.public_key
    assert again.comment == ""
    words = (passphrase or b"").decode()
    form = [] if kind == "ssh-ed25519" else ["-traditional"]
    rewritten = openssl("pkey", "-in", path, "-passin", f"pass:{words}", *form).encode()
    assert PrivateKey.load(rewritten).public_key == key.public_key
    if kind != "ssh-ed25519":  # which ssh-keygen does not read from PKCS#8 before 9.6
        line = ssh_keygen("-y", "-P", words, "-f", path).strip()
        assert PublicKey.parse(line) == key.public_key


# openssl pkcs8's options for encryption, and what is said of those that cryptography does not know.
SCHEMES = {
    "-v2 aes-256-cbc -v2prf hmacWithSHA512": "",
    "-v2 aes-256-cbc -v2prf hmacWithSHA384 -iter 5000": "",
    "-v2 aes-192-cbc -v2prf hmacWithSHA224": "",
    "-v2 aes-128-cbc -v2prf hmacWithSHA1": "",
    "-v2 des-ede3-cbc": "",
    "-scrypt": "",
    "-v1 PBE-SHA1-3DES": "",
    "-v2 aria-256-cbc": r"unsupported encryption, the object identifier 1\.2\.410\.200046\.1\.1\.12",
    "-v2 camellia-256-cbc": "unsupported encryption, the object identifier 1.2.392.200011",
    "-v1 PBE-SHA1-2DES": r"unsupported encryption, the object identifier 1\.2\.840\.113549\.1\.12\.1\.4",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ways_in_which_pkcs8_is_encrypted(openssl, tmp_path, keys, scheme):
    key, path = keys["ecdsa-sha2-nistp384"], tmp_path / "id"
    path.write_bytes(key.pkcs8())
    content = openssl("pkcs8", "-topk8", "-in", path, "-passout", f"pass:{PASSPHRASE}", *scheme.split())
    if SCHEMES[scheme]:
        with pytest.raises(KeyFormatError, match=SCHEMES[scheme]) as raised:
            PrivateKey.load(content, PASSPHRASE.encode())
        assert not isinstance(raised.value, PassphraseWrong)
        return
    assert PrivateKey.load(content, PASSPHRASE.encode()).public_key == key.public_key
    with pytest.raises(PassphraseWrong):
        PrivateKey.load(content, b"incorrect horse")
    with pytest.raises(PassphraseNeeded):
        PrivateKey.load(content)


@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp521", "ssh-rsa"])
@pytest.mark.parametrize("cipher", ["aes128", "aes256", "des3", "aes192", "camellia128"])
def test_the_ways_in_which_traditional_pem_is_encrypted(openssl, tmp_path, keys, kind, cipher):
    key, path = keys[kind], tmp_path / "id"
    path.write_bytes(key.pkcs8())
    content = openssl("pkey", "-in", path, "-traditional", f"-{cipher}", "-passout", f"pass:{PASSPHRASE}")
    assert "DEK-Info: " in content
    if cipher in ("aes192", "camellia128"):
        with pytest.raises(KeyFormatError, match=r"unsupported cipher (AES-192|CAMELLIA-128)-CBC; supported are AES"):
            PrivateKey.load(content, PASSPHRASE.encode())
        return
    assert PrivateKey.load(content, PASSPHRASE.encode()).public_key == key.public_key
    with pytest.raises(PassphraseWrong):
        PrivateKey.load(content, b"incorrect horse")


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints(ssh_keygen, tmp_path, keys, kind):
    public = keys[kind].public_key
    path = tmp_path / "id.pub"
    path.write_text(public.openssh() + "\n")
    for name in ("sha256", "md5"):
        assert ssh_keygen("-l", "-E", name, "-f", path).split()[1] == public.fingerprint(name)


# ----------------------------------------------------------------------------------------------------------- signatures

NAMESPACE = "file"
MESSAGE = b"a message\n"


def sshsig_data() -> bytes:
    """What is signed for MESSAGE (OpenSSH PROTOCOL.sshsig)."""
    return b"SSHSIG" + text(NAMESPACE) + string(b"") + text("sha512") + string(hashlib.sha512(MESSAGE).digest())


@pytest.mark.parametrize("kind", KINDS)
def test_we_verify_what_ssh_keygen_signs(ssh_keygen, tmp_path, keys, kind):
    key = keys[kind]
    path = tmp_path / "id"
    path.write_bytes(key.openssh())
    path.chmod(0o600)
    (tmp_path / "message").write_bytes(MESSAGE)
    ssh_keygen("-q", "-Y", "sign", "-f", path, "-n", NAMESPACE, tmp_path / "message")
    armoured = (tmp_path / "message.sig").read_text().splitlines()
    reader = Reader(base64.b64decode("".join(armoured[1:-1])), "SSHSIG", 6)
    assert reader.uint32() == 1
    public = PublicKey.from_blob(reader.string())
    _, _, hash_name, signature = reader.text(), reader.string(), reader.text(), reader.string()
    assert public == key.public_key
    assert hash_name == "sha512"
    algorithm = Reader(signature, "signature").name()
    public.verify(signature, sshsig_data(), algorithm)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        public.verify(signature, sshsig_data() + b"!", algorithm)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [(kind, kind) for kind in KINDS if kind != "ssh-rsa"] + [("ssh-rsa", "rsa-sha2-256"), ("ssh-rsa", "rsa-sha2-512")],
)
def test_ssh_keygen_verifies_what_we_sign(ssh_keygen, tmp_path, keys, kind, algorithm):
    key = keys[kind]
    signature = key.sign(sshsig_data(), algorithm)
    blob = b"SSHSIG" + uint32(1) + string(key.public_key.blob)
    blob += text(NAMESPACE) + string(b"") + text("sha512") + string(signature)
    encoded = base64.b64encode(blob).decode()
    lines = [encoded[at : at + 70] for at in range(0, len(encoded), 70)]
    path = tmp_path / "message.sig"
    path.write_text("\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""]))
    said = ssh_keygen("-Y", "check-novalidate", "-n", NAMESPACE, "-s", path, stdin=MESSAGE)
    assert "Good" in said
    assert key.public_key.fingerprint() in said
