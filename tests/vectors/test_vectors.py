"""Published vectors, through our own code: key exchange, signatures, MACs, key derivation, packets; see README.md."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.poly1305 import Poly1305

from sshproto.config import compute_now
from sshproto.errors import KeyExchangeFailed, KeyFormatError, MacError, SignatureInvalid
from sshproto.keys import signatures
from sshproto.keys.public import PublicKey
from sshproto.transport import kex
from sshproto.transport.kex.ecdh import CURVE448, CURVE25519, NISTP256, NISTP384, NISTP521, Curve
from sshproto.transport.kex.hybrid import MLKEM768, MLKEM1024, Kem
from sshproto.transport.keyschedule import derive, direction_keys
from sshproto.transport.macs import MACS, Mac
from sshproto.transport.packets import Opener, Sealer
from sshproto.transport.suites import DirectionKeys, key_sizes
from sshproto.wire.codec import mpint, string
from sshproto.wire.messages import KexEcdhInit, KexEcdhReply
from sshproto.wire.table import Role

HERE = Path(__file__).parent


def load(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text())


def rows(name: str) -> Iterator[Any]:
    """The tests of a file; those of signatures with their key before them."""
    key = None
    for row in load(f"wycheproof/{name}"):
        if isinstance(row, dict):
            key = row["key"]
        else:
            yield row if key is None else [key, *row]


# --------------------------------------------------------------------------------------------------------- key exchange


def agree(curve: Curve, private: bytes, share: bytes) -> bytes:
    """The secret of a client whose private value is known, when a server sends ``share``; by a whole exchange."""
    names = {CURVE25519: "curve25519-sha256", CURVE448: "curve448-sha512"}
    name = names.get(curve, f"ecdh-sha2-{curve.name}")
    method = kex.METHODS[name]
    own = curve.restore(private)
    assert own is not None
    client = kex.client_exchange(
        method, entropy=scalar(curve, private), oracle=compute_now, gex_bits=(2048, 2048, 8192)
    )
    init = client.start()
    assert isinstance(init, KexEcdhInit)
    assert init.share == own.share
    client.receive(KexEcdhReply(b"", share, b""))
    assert client.secret == mpint(int.from_bytes(own.agree(share), "big"))
    return own.agree(share)


def scalar(curve: Curve, private: bytes) -> Callable[[int, str], bytes]:
    """Entropy of which the curve makes this private value."""

    def draw(count: int, label: str) -> bytes:
        if count == len(private) and curve in {CURVE25519, CURVE448}:
            return private
        return (int.from_bytes(private, "big") - 1).to_bytes(count, "big")  # see Weierstrass.ephemeral

    return draw


@pytest.mark.covers("V42", "R138", "R139")
def test_x25519() -> None:
    refused = 0
    for number, comment, result, private, public, shared in rows("x25519"):
        if int(shared, 16) == 0:  # of small order: what RFC 7748 leaves open RFC 8731 section 3 forbids
            with pytest.raises(KeyExchangeFailed):
                agree(CURVE25519, bytes.fromhex(private), bytes.fromhex(public))
            refused += 1
        else:
            assert agree(CURVE25519, bytes.fromhex(private), bytes.fromhex(public)).hex() == shared, (number, comment)
            assert result in {"valid", "acceptable"}
    assert refused >= 10


@pytest.mark.covers("R138", "R139")
@pytest.mark.parametrize("curve", [CURVE25519, CURVE448], ids=lambda curve: curve.name)
def test_the_examples_of_rfc_7748(curve: Curve) -> None:
    name = {CURVE25519: "x25519", CURVE448: "x448"}[curve]
    for section, private, public, shared in load("rfc/rfc7748")[name]:
        assert agree(curve, bytes.fromhex(private), bytes.fromhex(public)).hex() == shared, section


@pytest.mark.covers("V42", "R120")
@pytest.mark.parametrize("curve", [NISTP256, NISTP384, NISTP521], ids=lambda curve: curve.name)
def test_points_of_nist_curves(curve: Curve) -> None:
    seen = set()
    for number, comment, result, private, public, shared in rows(f"ecdh-p{curve.name.removeprefix('nistp')}"):
        share, secret = bytes.fromhex(public), int(private, 16).to_bytes(curve.size, "big")
        seen.add(result)
        if result == "valid" and share[:1] == b"\x04":
            assert agree(curve, secret, share).hex() == shared, (number, comment)
        else:  # compressed points are acceptable to others
            with pytest.raises(KeyExchangeFailed):
                agree(curve, secret, share)
    assert seen == {"valid", "acceptable", "invalid"}


@pytest.mark.covers("V53")
@pytest.mark.parametrize(
    ("kem", "method"), [(MLKEM768, "mlkem768x25519-sha256"), (MLKEM1024, "mlkem1024nistp384-sha384")]
)
def test_bad_keys_of_ml_kem(kem: Kem, method: str) -> None:
    curve = CURVE25519 if kem is MLKEM768 else NISTP384
    point = curve.ephemeral(lambda count, label: bytes(count - 1) + b"\x09").share
    count = 0
    for _, _, result, public in rows(f"mlkem{kem.name.removeprefix('ML-KEM-')}"):
        assert result == "invalid"
        server = kex.server_exchange(
            kex.METHODS[method], entropy=lambda count, label: bytes(count), oracle=compute_now, host_key=b""
        )
        with pytest.raises(KeyExchangeFailed):
            server.receive(KexEcdhInit(bytes.fromhex(public) + point))
        assert server.secret is None
        count += 1
    assert count >= 4


@pytest.mark.covers("V53")
def test_ciphertexts_of_ml_kem() -> None:
    count = 0
    theirs = CURVE25519.ephemeral(lambda count, label: bytes(count - 1) + b"\x07")
    for number, _, result, seed, ciphertext, shared in rows("mlkem768-decaps"):
        private = bytes(31) + b"\x05"
        draws = iter((bytes.fromhex(seed), private))
        if len(seed) != 128:
            continue  # a fault of keys that are read; ours are made
        client = kex.client_exchange(
            kex.METHODS["mlkem768x25519-sha256"],
            entropy=lambda count, label, draws=draws: next(draws),
            oracle=compute_now,
            gex_bits=(2048, 2048, 8192),
        )
        client.start()
        reply = KexEcdhReply(b"", bytes.fromhex(ciphertext) + theirs.share, b"")
        if result == "valid":
            client.receive(reply)
            classical = CURVE25519.restore(private)
            assert classical is not None
            both = bytes.fromhex(shared) + classical.agree(theirs.share)
            assert client.secret == string(hashlib.sha256(both).digest()), number
        else:
            with pytest.raises(KeyExchangeFailed):
                client.receive(reply)
        count += 1
    assert count


# ----------------------------------------------------------------------------------------------------------- signatures


def accepted(blob: bytes, signature: bytes, data: bytes, algorithm: str) -> bool:
    """Whether a key of the peer's and a signature of its pass."""
    try:
        PublicKey.from_blob(blob).verify(signature, data, algorithm)
    except (SignatureInvalid, KeyFormatError):
        return False
    return True


@pytest.mark.covers("V47", "R137")
def test_ed25519() -> None:
    seen = set()
    for key, number, comment, result, message, signature in rows("ed25519"):
        blob = string(b"ssh-ed25519") + string(bytes.fromhex(key))
        packed = signatures.pack("ssh-ed25519", bytes.fromhex(signature))
        good = accepted(blob, packed, bytes.fromhex(message), "ssh-ed25519")
        assert good == (result == "valid"), (number, comment)
        seen.add(result)
    assert seen == {"valid", "invalid"}


def mpints(signature: bytes, size: int) -> bytes:
    """r and s as SSH carries them, from both one after the other; what is not twice ``size`` is cut in two as it is."""
    middle = len(signature) // 2 if len(signature) != 2 * size else size
    return mpint(int.from_bytes(signature[:middle], "big")) + mpint(int.from_bytes(signature[middle:], "big"))


@pytest.mark.covers("V47")
@pytest.mark.parametrize(("bits", "size"), [(256, 32), (384, 48), (521, 66)])
def test_ecdsa(bits: int, size: int) -> None:
    curve = f"nistp{bits}".encode()
    name = f"ecdsa-sha2-nistp{bits}"
    seen = set()
    for key, number, comment, result, message, signature in rows(f"ecdsa-p{bits}"):
        body = bytes.fromhex(signature)
        if len(body) != 2 * size:
            continue  # a fault of the form that SSH does not have: its numbers bring their lengths
        blob = string(name.encode()) + string(curve) + string(bytes.fromhex(key))
        packed = signatures.pack(name, mpints(body, size))
        assert accepted(blob, packed, bytes.fromhex(message), name) == (result == "valid"), (number, comment)
        seen.add(result)
    assert seen == {"valid", "invalid"}


@pytest.mark.covers("V47", "R135", "R136")
@pytest.mark.parametrize("bits", [256, 512])
def test_rsa(bits: int) -> None:
    name = f"rsa-sha2-{bits}"
    seen = set()
    for (modulus, exponent), number, comment, result, message, signature in rows(f"rsa-sha{bits}"):
        blob = string(b"ssh-rsa") + mpint(int(exponent, 16)) + mpint(int(modulus, 16))
        packed = signatures.pack(name, bytes.fromhex(signature))
        good = accepted(blob, packed, bytes.fromhex(message), name)
        assert good == (result == "valid"), (number, comment)
        other = "rsa-sha2-512" if bits == 256 else "rsa-sha2-256"
        assert not accepted(blob, packed, bytes.fromhex(message), other)
        seen.add(result)
    assert seen >= {"valid", "invalid"}


# -------------------------------------------------------------------------------------------------------- MACs and keys


@pytest.mark.covers("V40", "R26", "R123")
@pytest.mark.parametrize(
    ("file", "name"), [("sha1", "hmac-sha1"), ("sha256", "hmac-sha2-256"), ("sha512", "hmac-sha2-512")]
)
def test_hmac(file: str, name: str) -> None:
    """The first four bytes of each message are taken for a sequence number."""
    seen = set()
    for number, comment, result, key, message, tag in rows(f"hmac-{file}"):
        data = bytes.fromhex(message)
        mac = Mac(MACS[name], bytes.fromhex(key))
        good = mac.verify(int.from_bytes(data[:4], "big"), data[4:], bytes.fromhex(tag))
        assert good == (result == "valid"), (number, comment)
        seen.add(result)
    assert seen == {"valid", "invalid"}


@pytest.mark.covers("R37", "R38")
@pytest.mark.parametrize("row", load("acvp/ssh-kdf"), ids=lambda row: f"{row['hash']}-{row['tcId']}")
def test_key_derivation(row: Any) -> None:
    k, h, session = (bytes.fromhex(row[name]) for name in ("k", "h", "sessionId"))
    for letter in "ABCDEF":
        expected = bytes.fromhex(row[letter])
        assert derive(row["hash"], k, h, session, letter.encode(), len(expected)) == expected
    for sender, letters in ((Role.CLIENT, "ACE"), (Role.SERVER, "BDF")):
        parts = [bytes.fromhex(row[letter]) for letter in letters]
        sizes = (len(parts[0]), len(parts[1]), len(parts[2]))
        keys = direction_keys(row["hash"], k, h, session, sender=sender, sizes=sizes)
        assert [keys.iv, keys.key, keys.mac_key] == parts


# -------------------------------------------------------------------------------------------------------------- packets


def xored(left: bytes, right: bytes) -> str:
    return bytes(a ^ b for a, b in zip(left, right, strict=False)).hex()


@pytest.mark.covers("R143")
@pytest.mark.parametrize(
    ("number", "key", "sequence", "block", "stream"), load("rfc/rfc8439"), ids=lambda value: f"{value}"[:3]
)
def test_the_key_streams_of_rfc_8439(number: int, key: str, sequence: int, block: int, stream: str) -> None:
    """In a packet of so many before it: block 0 hides the length, or is the tag's key; the others hide the rest."""
    chosen, other = bytes.fromhex(key), bytes(range(32))
    for halves in (chosen + other, other + chosen):  # K_2, for the packet, and K_1, for its length
        sealer = Sealer(entropy=lambda count, label: bytes(count))
        sealer.switch("chacha20-poly1305@openssh.com", None, DirectionKeys(b"", halves, b""), reset_sequence=True)
        for _ in range(sequence):
            sealer.seal(b"before")
        payload = bytes(range(200))
        packet = bytes(sealer.seal(payload))
        plain = (len(packet) - 20).to_bytes(4, "big") + bytes((len(packet) - 21 - len(payload),)) + payload
        if block:
            start = 4 + 64 * (block - 1)
            assert (xored(packet[start:], plain[start : start + 64]) == stream) == halves.startswith(chosen)
        elif halves.startswith(chosen):
            tag = Poly1305.generate_tag(bytes.fromhex(stream)[:32], packet[:-16])
            assert packet[-16:] == tag
        else:
            assert xored(packet, plain[:4]) == stream[:8]


SESSIONS = sorted(path.stem for path in (HERE / "packets").glob("*.json"))
SENDERS = {"client": Role.CLIENT, "server": Role.SERVER}


def opened(
    session: Any, sender: str, keys: DirectionKeys, *, cut: int = 1 << 30, flip: int | None = None
) -> list[bytes]:
    """The payloads of one side's stream.

    Args:
        session: A recording.
        sender: Whose.
        keys: Of that direction.
        cut: How many bytes are fed at once.
        flip: Which byte of the encrypted part to spoil.
    """
    side = session[sender]
    stream = bytearray(base64.b64decode(side["stream"]))
    start = stream.index(b"\r\n") + 2
    # Delayed compression begins behind a server's success, and with a client's first message after that: AsyncSSH says
    # IGNORE before it opens a channel.
    numbers = side["messages"]
    delayed = numbers.index(52) + 1 if sender == "server" else numbers.index(90) - 1
    opener = Opener(packet_limit=256 * 1024)
    found: list[bytes] = []
    position = start
    while position < len(stream):
        opener.feed(bytes(stream[position : position + cut]))
        position += cut
        while (payload := opener.next_packet()) is not None:
            found.append(bytes(payload))
            if payload[0] == 21:
                opener.switch(side["cipher"], side["mac"], keys, reset_sequence=session["strict"])
                if flip is not None:
                    rest = bytearray(opener.rest())
                    rest[flip] ^= 1
                    opener.feed(bytes(rest))
            if len(found) == delayed:
                opener.set_compression(side["compression"], authenticated=True)
    return found


def keys_of(session: Any, sender: str) -> DirectionKeys:
    side = session[sender]
    secret, digest, session_id = (bytes.fromhex(session[name]) for name in ("K", "H", "session_id"))
    sizes = key_sizes(side["cipher"], side["mac"])
    return direction_keys(session["hash"], secret, digest, session_id, sender=SENDERS[sender], sizes=sizes)


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.covers("R21", "R25", "R26", "R37", "R39", "R116", "R142", "R143", "R146", "R147", "R163")
def test_packets_of_real_programs(name: str, sender: str) -> None:
    session = load(f"packets/{name}")
    side = session[sender]
    keys = keys_of(session, sender)
    for made, known in ((keys.iv, "iv"), (keys.key, "key"), (keys.mac_key, "mac_key")):
        assert bytes.fromhex(side[known]).startswith(made)
    for cut in (1 << 30, 1, 7):
        payloads = opened(session, sender, keys, cut=cut)
        assert [payload[0] for payload in payloads] == side["messages"]
        assert hashlib.sha256(b"".join(payloads)).hexdigest() == side["payload_sha256"]


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.covers("V40", "V55", "R142", "R143", "R146")
def test_no_byte_of_the_first_packet_can_be_changed(name: str) -> None:
    session = load(f"packets/{name}")
    keys = keys_of(session, "client")
    for flip in range(4, 24):
        with pytest.raises(MacError):
            opened(session, "client", keys, flip=flip)
