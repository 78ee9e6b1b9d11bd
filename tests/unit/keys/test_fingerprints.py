"""Bubble babble and pictures, as ssh-keygen shows them."""

from __future__ import annotations

import hashlib

import pytest

from sshproto.errors import InvalidArgument
from sshproto.keys import PrivateKey
from sshproto.keys.fingerprints import bishop, bubblebabble, randomart_of

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "xexax"),
        (b"1234567890", "xesef-disof-gytuf-katof-movif-baxux"),
        (b"Pineapple", "xigak-nyryk-humil-bosek-sonax"),
    ],
)
def test_bubblebabble(data, words):
    """The examples of Huima's draft."""
    assert bubblebabble(data) == words


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_draws_the_same(ssh_keygen, tmp_path, keys, kind):
    path = tmp_path / "id.pub"
    for key in (keys[kind], *(PrivateKey.generate(kind) for _ in range(0 if kind == "ssh-rsa" else 5))):
        public = key.public_key
        path.write_text(public.openssh() + "\n")
        for name in ("sha256", "md5"):
            first, *picture = ssh_keygen("-lv", "-E", name, "-f", path).splitlines()
            assert picture == public.randomart(name).splitlines()
            assert first.split()[0] == str(public.bits)
        assert ssh_keygen("-B", "-f", path).split()[1] == public.bubblebabble()


def test_the_frame():
    """A title that is too long loses the size; what is of odd length has the shorter dash on the left."""
    art = randomart_of(b"", "ED25519-CERT", 256).splitlines()
    assert art[0] == "+-[ED25519-CERT]--+"
    assert randomart_of(b"", "RSA", 16384, "md5").splitlines()[0] == "+---[RSA 16384]---+"
    assert art[-1] == "+----[SHA256]-----+"
    assert {len(line) for line in art} == {19}
    assert len(art) == 11


def test_the_way_of_the_bishop():
    """Figure 1 of Loss, Limmer and von Gernler's paper; and one that stays in a corner."""
    digest = bytes.fromhex("fc94b0c1e5b0987c5843997697ee9fb7")
    assert bishop(digest) == [
        "       .=o.  .   ",
        "     . *+*. o    ",
        "      =.*..o     ",
        "       o + ..    ",
        "        S o.     ",
        "         o  .    ",
        "          .  . . ",
        "              o .",
        "               E.",
    ]
    corner = bishop(b"\0" * 100)
    assert corner[0] == "E....            "
    assert corner[4] == "        S        "
    assert bishop(b"") == [" " * 17] * 4 + ["        E        "] + [" " * 17] * 4
    dance = bishop(bytes((0b00110011,)) * 64)
    assert dance[5] == "         ^       "


def test_other_hashes(keys):
    for name in ("sha1", "SHA256", ""):
        with pytest.raises(InvalidArgument, match="sha256 or md5"):
            keys["ssh-ed25519"].public_key.randomart(name)


def test_bubblebabble_is_of_sha1(keys):
    public = keys["ssh-ed25519"].public_key
    assert public.bubblebabble() == bubblebabble(hashlib.sha1(public.blob).digest())
