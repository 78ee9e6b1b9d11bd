"""SSH by a script: the very bytes of a login and of commands, by code that can do nothing else.

It stands between the floor, which has no protocol, and a library: real key exchange, real messages, straight from and
to bytes, and whatever a library is for is left out.  Nothing is checked but the cryptography, there is one algorithm
of each kind, no state that could be wrong, no limits, no rekeying, no timers; a handler is an ``if``.  So it tells how
much of what a library costs is Python moving SSH's messages, and how much is the library.  This is what does not depend
on how bytes are moved.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from struct import Struct

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.bench.ends import KEX, Setting

_IDENT = b"SSH-2.0-script"
_UINT32 = Struct(">I")
_TWO = Struct(">II")
_FOUR = Struct(">IIII")
_HEADER = Struct(">IB")
_PADDING = bytes(32)
_WINDOW = 2 * 1024 * 1024
_PACKET = 32 * 1024
_LISTS = (KEX, "ssh-ed25519", *["aes128-gcm@openssh.com"] * 2, *["hmac-sha2-256"] * 2, *["none"] * 2, "", "")
_ED25519 = b"\0\0\0\x0bssh-ed25519"


def _string(data: bytes) -> bytes:
    return _UINT32.pack(len(data)) + data


def _mpint(data: bytes) -> bytes:
    data = data.lstrip(b"\0")
    return _string(b"\0" + data if data[:1] >= b"\x80" else data)


def _strings(data: bytes, at: int, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        end = at + 4 + _UINT32.unpack_from(data, at)[0]
        found.append(data[at + 4 : end])
        at = end
    return found


class End:
    """What both ends have; who moves the bytes sees that it is told of the connection, and of what is received."""

    server = False
    write: Callable[[bytes], object]

    def __init__(self, own: Ed25519PrivateKey, peer: Ed25519PublicKey) -> None:
        self.own, self.peer = own, peer
        self.buffer = b""
        self.peer_ident = b""
        self.sealer: AESGCM | None = None
        self.opener: AESGCM | None = None

    # ------------------------------------------------------------------------------------------------------- packets

    def connected(self, write: Callable[[bytes], object]) -> None:
        self.write = write
        names = b"".join(_string(each.encode()) for each in _LISTS)
        self.kexinit = b"\x14" + os.urandom(16) + names + bytes(5)
        write(_IDENT + b"\r\n" + self.clear(self.kexinit))

    @staticmethod
    def clear(payload: bytes) -> bytes:
        padding = 11 - (len(payload) + 8) % 8
        return _HEADER.pack(len(payload) + padding + 1, padding) + payload + _PADDING[:padding]

    def seal(self, payload: bytes) -> bytes:
        if self.sealer is None:
            return self.clear(payload)
        padding = 19 - (len(payload) + 4) % 16
        length = _UINT32.pack(len(payload) + padding + 1)
        plain = b"%c%b%b" % (padding, payload, _PADDING[:padding])
        nonce = self.sent_prefix + self.sent.to_bytes(8, "big")
        self.sent += 1
        return length + self.sealer.encrypt(nonce, plain, length)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        at = 0
        if not self.peer_ident:
            at = buffer.index(b"\n") + 1
            self.peer_ident = buffer[: at - 2]
        answers: list[bytes] = []
        while len(buffer) - at >= 4:
            opener = self.opener
            end = at + 4 + _UINT32.unpack_from(buffer, at)[0] + (0 if opener is None else 16)
            if len(buffer) < end:
                break
            if opener is None:
                plain = buffer[at + 4 : end]
            else:
                nonce = self.got_prefix + self.got.to_bytes(8, "big")
                self.got += 1
                plain = opener.decrypt(nonce, buffer[at + 4 : end], buffer[at : at + 4])
            self.take(plain[1], plain[1 : len(plain) - plain[0]], answers)
            at = end
        self.buffer = buffer[at:]
        if answers:
            self.write(b"".join(answers))

    def take(self, number: int, payload: bytes, answers: list[bytes]) -> None:
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------- key exchange

    def negotiate(self, payload: bytes) -> None:
        self.peer_kexinit = payload
        theirs = [each.split(b",") for each in _strings(payload, 17, 8)]
        if any(ours.encode() not in names for ours, names in zip(_LISTS, theirs, strict=False)):
            raise AssertionError("nothing in common")

    def begin(self) -> bytes:
        self.secret = X25519PrivateKey.generate()
        self.share = self.secret.public_key().public_bytes_raw()
        return self.share

    def agree(self, host_key: bytes, theirs: bytes) -> bytes:
        self.shared = _mpint(self.secret.exchange(X25519PublicKey.from_public_bytes(theirs)))
        parts = [(_IDENT, self.peer_ident), (self.kexinit, self.peer_kexinit), (self.share, theirs)]
        flip = -1 if self.server else 1
        (v_c, v_s), (i_c, i_s), (q_c, q_s) = (pair[::flip] for pair in parts)
        hashed = b"".join(map(_string, (v_c, v_s, i_c, i_s, host_key, q_c, q_s))) + self.shared
        self.session_id = sha256(hashed).digest()
        return self.session_id

    def keys(self) -> None:
        start = self.shared + self.session_id
        made = [sha256(start + letter + self.session_id).digest() for letter in (b"A", b"B", b"C", b"D")]
        out, come = (1, 0) if self.server else (0, 1)
        self.next_out = AESGCM(made[2 + out][:16]), made[out]
        self.next_in = AESGCM(made[2 + come][:16]), made[come]

    def send_new_keys(self, answers: list[bytes]) -> None:
        answers.append(self.seal(b"\x15"))
        self.sealer, iv = self.next_out
        self.sent_prefix, self.sent = iv[:4], int.from_bytes(iv[4:12], "big")

    def take_new_keys(self) -> None:
        self.opener, iv = self.next_in
        self.got_prefix, self.got = iv[:4], int.from_bytes(iv[4:12], "big")


def _blob(key: Ed25519PublicKey) -> bytes:
    return _ED25519 + _string(key.public_bytes_raw())


def _signed(session_id: bytes, user: str, blob: bytes) -> tuple[bytes, bytes]:
    """What a client signs, and the request without its signature."""
    request = (
        b"2" + _string(user.encode()) + b"\0\0\0\x0essh-connection\0\0\0\x09publickey\1" + _ED25519 + _string(blob)
    )
    return _string(session_id) + request, request


class Server(End):
    server = True

    def take(self, number: int, payload: bytes, answers: list[bytes]) -> None:
        if number == 90:  # CHANNEL_OPEN
            sender = _UINT32.unpack_from(payload, 12)[0]
            answers.append(self.seal(b"[" + _FOUR.pack(sender, sender, _WINDOW, _PACKET)))
        elif number == 98:  # CHANNEL_REQUEST
            channel = payload[1:5]
            if payload[5:13] == b"\0\0\0\x04exec":
                answers += (
                    self.seal(b"c" + channel),
                    self.seal(b"b" + channel + b"\0\0\0\x0bexit-status\0\0\0\0\0"),
                    self.seal(b"`" + channel),
                    self.seal(b"a" + channel),
                )
        elif number == 20:
            self.negotiate(payload)
        elif number == 30:
            theirs = payload[5:]
            share, host_key = self.begin(), _blob(self.own.public_key())
            signature = self.own.sign(self.agree(host_key, theirs))
            reply = b"\x1f" + _string(host_key) + _string(share) + _string(_ED25519 + _string(signature))
            answers.append(self.seal(reply))
            self.keys()
            self.send_new_keys(answers)
        elif number == 21:
            self.take_new_keys()
        elif number == 5:
            answers.append(self.seal(b"\6" + payload[1:]))
        elif number == 50:
            (user,) = _strings(payload, 1, 1)
            data, request = _signed(self.session_id, user.decode(), _blob(self.peer))
            self.peer.verify(payload[len(request) + 4 + 19 :], data)
            answers.append(self.seal(b"4"))


class Client(End):
    user = "bench"
    count = 0

    def logged_in(self) -> None:
        raise NotImplementedError

    def ended(self, channel: int) -> None:
        raise NotImplementedError

    def take(self, number: int, payload: bytes, answers: list[bytes]) -> None:
        if number == 91:  # CHANNEL_OPEN_CONFIRMATION
            answers.append(self.seal(b"b" + payload[5:9] + b"\0\0\0\x04exec\1\0\0\0\x04true"))
        elif number == 97:  # CHANNEL_CLOSE
            answers.append(self.seal(payload))
            self.ended(_UINT32.unpack_from(payload, 1)[0])
        elif number == 20:
            self.negotiate(payload)
            answers.append(self.seal(b"\x1e" + _string(self.begin())))
        elif number == 31:
            host_key, theirs, signature = _strings(payload, 1, 3)
            assert host_key == _blob(self.peer)
            self.peer.verify(signature[19:], self.agree(host_key, theirs))
            self.keys()
            self.send_new_keys(answers)
            answers.append(self.seal(b"\5\0\0\0\x0cssh-userauth"))
        elif number == 21:
            self.take_new_keys()
        elif number == 6:
            data, request = _signed(self.session_id, self.user, _blob(self.own.public_key()))
            answers.append(self.seal(request + _string(_ED25519 + _string(self.own.sign(data)))))
        elif number == 52:
            self.logged_in()

    def open(self) -> int:
        """Begin a command, and say on which channel."""
        self.count += 1
        self.write(self.seal(b"Z\0\0\0\x07session" + _UINT32.pack(self.count) + _TWO.pack(_WINDOW, _PACKET)))
        return self.count


def keys(setting: Setting, own: str, peer: str) -> tuple[Ed25519PrivateKey, Ed25519PublicKey]:
    """An end's own key, and the one that it knows its peer by."""
    return _load(setting, own), _load(setting, peer).public_key()


def _load(setting: Setting, name: str) -> Ed25519PrivateKey:
    key = serialization.load_ssh_private_key(setting.key(name), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key
