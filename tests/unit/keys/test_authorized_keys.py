from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto.errors import KeyFormatError
from sshproto.keys import PrivateKey
from sshproto.keys.authorized_keys import parse, parse_options

KEY = PrivateKey.generate(comment="me here").public_key
OTHER = PrivateKey.generate("ecdsa-sha2-nistp384").public_key


def test_keys_without_options():
    keys = parse(f"# mine\n\n{KEY.openssh()}\r\n  {OTHER.openssh()}\n")
    assert [entry.line for entry in keys.entries] == [3, 4]
    assert keys.problems == ()
    entry = keys.find(KEY)
    assert entry is not None
    assert entry.key.comment == "me here"
    assert entry.options == {}
    assert entry.unsupported() == ()
    assert keys.find(PrivateKey.generate().public_key) is None


def test_options():
    field = 'no-pty,command="echo \\"a, b\\" c",permitopen="a:1",PermitOpen="b:2",environment="X=1 2"'
    entry = parse(f"{field} {KEY.openssh()}\n").find(KEY)
    assert entry is not None
    assert entry.key.comment == "me here"
    assert entry.options == {
        "no-pty": (),
        "command": ('echo "a, b" c',),
        "permitopen": ("a:1", "b:2"),
        "environment": ("X=1 2",),
    }
    assert entry.unsupported() == ("no-pty", "command", "permitopen", "environment")
    assert entry.unsupported({"command", "no-pty"}) == ("permitopen", "environment")


@pytest.mark.covers("V51")
def test_an_unknown_option_is_never_passed_over():
    entry = parse(f"frobnicate {KEY.openssh()}\n").find(KEY)
    assert entry is not None
    assert entry.unsupported() == ("frobnicate",)


def test_options_that_only_permit_are_not_restrictions():
    entry = parse(f"restrict,pty,x11-forwarding {KEY.openssh()}\n").find(KEY)
    assert entry is not None
    assert entry.unsupported() == ("restrict",)
    assert entry.unsupported(["restrict"]) == ()


@pytest.mark.covers("V51")
def test_a_certificate_authority_does_not_log_in():
    keys = parse(f"cert-authority {KEY.openssh()}\nno-pty {KEY.openssh()}\n")
    assert keys.entries[0].authority
    entry = keys.find(KEY)
    assert entry is not None
    assert entry.line == 2
    assert parse(f"Cert-Authority {KEY.openssh()}\n").find(KEY) is None


def test_the_first_line_of_a_key_counts_and_all_can_be_had():
    keys = parse(f'from="10.0.0.1" {KEY.openssh()}\n{KEY.openssh()}\n')
    entry = keys.find(KEY)
    assert entry is not None
    assert entry.line == 1
    assert [entry.line for entry in keys.matches(KEY)] == [1, 2]


@pytest.mark.covers("V71")
def test_a_quoted_key_in_a_command_is_no_key():
    entry = parse(f'command="x {KEY.openssh()}" {OTHER.openssh()}\n')
    assert entry.find(KEY) is None
    assert entry.find(OTHER) is not None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ssh-ed25519", "nothing follows the key type"),
        (f'command="x {KEY.openssh()}', "a quote in the options does not end"),
        ("command=x " + KEY.openssh(), "not in quotes"),
        ("a,,b " + KEY.openssh(), "not an option"),
        ("=x " + KEY.openssh(), "not an option"),
        ("sk-ssh-ed25519@openssh.com AAAA me", "not a public key"),
        ("ssh-dss AAAA me", "DSA is too weak"),
        ("no-pty sk-ssh-rsa@openssh.com AAAA me", "not known"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA me", "certificates are not supported"),
        ("ssh-ed25519 AAAA me", "not a public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "this is an OpenSSH private key"),
        ("word", "expected"),
        ("two words", "expected"),
    ],
    ids=lambda text: text.replace(KEY.openssh().split()[1], "KEY"),
)
def test_a_bad_line_grants_nothing_and_hides_no_other(line, why):
    keys = parse(f"{line}\n{KEY.openssh()}\n")
    ((number, problem),) = keys.problems
    assert number == 1
    assert why in problem
    assert [entry.line for entry in keys.entries] == [2]


def test_weak_rsa_keys_need_to_be_asked_for(weak_rsa):
    assert "1024 bits" in parse(weak_rsa).problems[0][1]
    assert len(parse(weak_rsa, minimum_rsa_bits=1024).entries) == 1


@pytest.fixture
def weak_rsa() -> str:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = rsa.generate_private_key(65537, 1024).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " weak\n"


def test_lines_end_at_line_feeds_only():
    keys = parse(f'command="a\x0c{OTHER.openssh()}" {KEY.openssh()}\n')
    assert keys.find(OTHER) is None
    assert keys.find(KEY) is not None


@pytest.mark.parametrize("field", ['a="b"c', 'a="b""c"', 'a="', 'a=b"', 'a="x"y"'])
def test_odd_quotes(field):
    with pytest.raises(KeyFormatError):
        parse_options(field)


@given(st.binary(max_size=200))
@example(b"\x0b")
@example(b"\xc2\xa0 ssh-ed25519")
def test_no_content_raises(content):
    parse(content)


@given(st.lists(st.sampled_from(["ssh-ed25519", KEY.openssh(), '"', "\\", ",", "=", "a", " ", "\t", "AAAA", "\n"])))
def test_no_mixture_raises(parts):
    parse("".join(parts))
