"""A security key in software: what a FIDO token and a browser would do, for tests (OpenSSH's PROTOCOL.u2f)."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sshproto.keys import PublicKey
from sshproto.wire.codec import byte, mpint, string, text, uint32

ED25519 = "sk-ssh-ed25519@openssh.com"
ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
WEBAUTHN = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"

TOUCHED = 0x01
VERIFIED = 0x04


class Authenticator:
    """One key in a token."""

    def __init__(self, kind: str = ED25519, application: str = "ssh:") -> None:
        self.kind = kind
        self.application = application
        self.counter = 0
        self._ed25519 = Ed25519PrivateKey.generate()
        self._ecdsa = ec.generate_private_key(ec.SECP256R1())
        if kind == ED25519:
            fields = string(self._ed25519.public_key().public_bytes_raw())
        else:
            point = self._ecdsa.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            fields = text("nistp256") + string(point)
        self.public_key = PublicKey.from_blob(text(kind) + fields + text(application), "a token")

    def _body(self, signed: bytes) -> bytes:
        if self.kind == ED25519:
            return self._ed25519.sign(signed)
        return b"".join(map(mpint, utils.decode_dss_signature(self._ecdsa.sign(signed, ec.ECDSA(SHA256())))))

    def touch(self, message: bytes, flags: int, extensions: bytes = b"", application: str | None = None) -> bytes:
        """The inner signature over what is hashed to SHA-256, by the token."""
        self.counter += 1
        name = self.application if application is None else application
        head = hashlib.sha256(name.encode()).digest() + byte(flags) + uint32(self.counter) + extensions
        return self._body(head + hashlib.sha256(message).digest())

    def sign(self, data: bytes, flags: int = TOUCHED, application: str | None = None) -> bytes:
        """A signature in SSH form."""
        body = self.touch(data, flags, application=application)
        return text(self.kind) + string(body) + byte(flags) + uint32(self.counter)

    def browse(
        self,
        data: bytes,
        flags: int = TOUCHED,
        origin: str = "https://example.org",
        extensions: bytes = b"",
        *,
        client_data: bytes | None = None,
    ) -> bytes:
        """A signature in SSH form, made through a browser."""
        if client_data is None:
            challenge = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
            client_data = (
                f'{{"type":"webauthn.get","challenge":"{challenge}","origin":"{origin}","crossOrigin":false}}'.encode()
            )
        body = self.touch(client_data, flags, extensions)
        tail = text(origin) + string(client_data) + string(extensions)
        return text(WEBAUTHN) + string(body) + byte(flags) + uint32(self.counter) + tail
