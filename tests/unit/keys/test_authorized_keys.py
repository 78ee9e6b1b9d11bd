from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import (
    FOREVER,
    KRL,
    Assertion,
    AuthorizedKeys,
    Certificate,
    CertificateKind,
    LoginRefused,
    Permit,
    PrivateKey,
    PublicKey,
)
from sshproto.keys.authorized_keys import parse, parse_principals
from sshproto.keys.key_options import MOST_TARGETS, MOST_VARIABLES, read_options, source_allowed, split_options
from tests.support.authenticator import Authenticator

KEY = PrivateKey.generate(comment="me here").public_key
OTHER = PrivateKey.generate("ecdsa-sha2-nistp384").public_key
AUTHORITY = PrivateKey.generate()
STRANGER = PrivateKey.generate()
NOW = 1_800_000_000


def line(options: str, key: PublicKey = KEY) -> AuthorizedKeys:
    return parse(f"{options} {key.openssh()}\n".lstrip())


def permit(options: str, key: PublicKey = KEY) -> Permit:
    keys = line(options, key)
    assert not keys.problems
    return keys.entries[0].permit


def refusal(keys, shown, **told):
    with pytest.raises(LoginRefused) as caught:
        keys.authorize(shown, told.pop("user", "alice"), now=told.pop("now", NOW), **told)
    return str(caught.value)


def certify(key: PublicKey = KEY, authority: PrivateKey = AUTHORITY, **told) -> Certificate:
    values = {"key_id": "alice's", "principals": ["alice"], "valid_before": FOREVER, **told}
    return Certificate.issue(authority, key, values.pop("kind", CertificateKind.USER), **values)


# ---------------------------------------------------------------------------------------------------------------- lines


def test_keys_without_options():
    keys = parse(f"# mine\n\n{KEY.openssh()}\r\n  {OTHER.openssh()}\n")
    assert [entry.line for entry in keys.entries] == [3, 4]
    assert keys.problems == ()
    (entry,) = keys.matches(KEY)
    assert entry.key.comment == "me here"
    assert entry.options == {}
    assert entry.permit == Permit()
    assert keys.matches(PrivateKey.generate().public_key) == ()


def test_options():
    field = 'no-pty,command="echo \\"a, b\\" c",permitopen="a:1",PermitOpen="b:2",environment="X=1 2"'
    (entry,) = line(field).matches(KEY)
    assert entry.key.comment == "me here"
    assert entry.options == {
        "no-pty": (),
        "command": ('echo "a, b" c',),
        "permitopen": ("a:1", "b:2"),
        "environment": ("X=1 2",),
    }
    assert entry.permit == Permit(
        pty=False,
        force_command='echo "a, b" c',
        permit_open=(("a", 1), ("b", 2)),
        environment=(("X", "1 2"),),
    )


RESTRICTED = Permit(pty=False, user_rc=False, port_forwarding=False, agent_forwarding=False, x11_forwarding=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("no-pty", Permit(pty=False)),
        ("no-user-rc", Permit(user_rc=False)),
        ("no-port-forwarding", Permit(port_forwarding=False)),
        ("no-agent-forwarding", Permit(agent_forwarding=False)),
        ("No-X11-Forwarding", Permit(x11_forwarding=False)),
        ("no-touch-required", Permit(touch_required=False)),
        ("verify-required", Permit(verify_required=True)),
        ("no-verify-required", Permit()),
        ("restrict", RESTRICTED),
        ("restrict,pty,user-rc,port-forwarding,agent-forwarding,X11-forwarding", Permit()),
        ("pty,restrict", RESTRICTED),  # from left to right
        ("no-pty,pty", Permit()),
        ("no-pty,,pty,", Permit()),
        ("pty,no-pty,pty,no-pty", Permit(pty=False)),
        ('environment="A=1",environment="B=",environment="A=2"', Permit(environment=(("A", "1"), ("B", "")))),
        ('permitopen="[::1]:22",permitopen="*:80"', Permit(permit_open=(("::1", 22), ("*", 80)))),
        ('permitopen="h:*"', Permit(permit_open=(("h", None),))),
        ('permitopen="h/7"', Permit(permit_open=(("h", 7),))),
        ('permitlisten="8080",permitlisten="*.x:1"', Permit(permit_listen=(("*", 8080), ("*.x", 1)))),
        ('permitlisten="*"', Permit(permit_listen=(("*", None),))),
        ('tunnel="0"', Permit(tunnel=0)),
        ('tunnel="any"', Permit(tunnel="any")),
        ('expiry-time="20300101Z"', Permit(expires=1893456000)),
        ('expiry-time="20310101Z",expiry-time="20300101Z",expiry-time="20320101Z"', Permit(expires=1893456000)),
        ('command=""', Permit(force_command="")),
        ('command="a\\\\"b"', Permit(force_command='a\\"b')),
    ],
)
def test_what_options_leave(options, expected):
    assert permit(options) == expected


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("frobnicate", "option frobnicate is not known"),
        ("no-restrict", "not known"),
        ("no-cert-authority", "not known"),
        ('pty="1"', "option pty has no value"),
        ("command", "option command needs a value"),
        ('command="a",command="a"', "option command stands there twice"),
        ('from="10.0.0.1",from="10.0.0.2"', "option from stands there twice"),
        ('cert-authority,principals="a",principals="b"', "option principals stands there twice"),
        ('principals="alice"', "option principals goes with cert-authority"),
        ('from="10.0.0.1/8"', "but no network"),
        ('from="10.0.0.0/33"', "but no network"),
        ('from="10.0.0.0/255.0.0.0"', "the mask is a number of bits"),
        ('from="a,,b"', "empty pattern"),
        ('from="!"', "empty pattern"),
        ('environment="A"', "is not NAME=value"),
        ('environment="=1"', "is not NAME=value"),
        ('environment="A-B=1"', "is not NAME=value"),
        ('permitopen="a"', "is not host:port"),
        ('permitopen="a:0"', "is not host:port"),
        ('permitopen="a:65536"', "is not host:port"),
        ('permitopen="a:ssh"', "is not host:port"),
        ('permitopen=":1"', "is not host:port"),
        ('permitopen="[::1]"', "is not host:port"),
        ('permitopen="[::1:1"', "is not host:port"),
        ('permitlisten="x"', "is not host:port"),
        ('tunnel="-1"', "neither a number nor any"),
        ('tunnel="2147483647"', "neither a number nor any"),
        ('expiry-time="tomorrow"', "option expiry-time"),
        ('command="a\0b"', "NUL"),
    ],
)
def test_what_is_not_understood_grants_nothing(options, why):
    keys = line(options)
    assert keys.entries == ()
    ((number, problem),) = keys.problems
    assert number == 1
    assert why in problem
    assert "no line has it" in refusal(keys, KEY)


def test_values_of_variables_are_not_shown():
    """They may be secrets: a token for what the forced command talks to."""
    found = parse(f'environment="TOKEN=hush",no-pty {KEY.openssh()}')
    assert found.entries[0].permit.environment == (("TOKEN", "hush"),)
    assert "hush" not in repr(found)
    assert "options=<environment, no-pty>" in repr(found)


def test_lists_of_options_have_an_end():
    many = ",".join(f'permitopen="h:{number}"' for number in range(1, MOST_TARGETS + 1))
    assert len(permit(many).permit_open or ()) == MOST_TARGETS
    assert "more than" in line(f'{many},permitopen="h:*"').problems[0][1]
    many = ",".join(f'environment="A{number}="' for number in range(MOST_VARIABLES))
    assert len(permit(many).environment) == MOST_VARIABLES
    assert "more than" in line(f'{many},environment="B="').problems[0][1]


def test_a_time_without_a_zone_is_that_of_the_caller():
    ahead = timezone(timedelta(hours=2))
    content = f'expiry-time="20300101" {KEY.openssh()}'
    there = parse(content, local=lambda moment: moment.replace(tzinfo=ahead).timestamp()).entries[0].permit.expires
    assert there == datetime(2029, 12, 31, 22, tzinfo=UTC).timestamp()
    assert parse(content).entries[0].permit.expires == there + 7200


@pytest.mark.covers("V51")
def test_a_certificate_authority_does_not_log_in():
    keys = parse(f"cert-authority {KEY.openssh()}\nno-pty {KEY.openssh()}\n")
    assert keys.entries[0].authority
    (entry,) = keys.matches(KEY)
    assert entry.line == 2
    assert parse(f"Cert-Authority {KEY.openssh()}\n").matches(KEY) == ()
    assert "no line has it" in refusal(line("cert-authority"), KEY)


@pytest.mark.covers("V71")
def test_a_quoted_key_in_a_command_is_no_key():
    keys = parse(f'command="x {KEY.openssh()}" {OTHER.openssh()}\n')
    assert not keys.matches(KEY)
    assert keys.matches(OTHER)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("ssh-ed25519", "nothing follows the key type"),
        (f'command="x {KEY.openssh()}', "a quote in the options does not end"),
        ("command=x " + KEY.openssh(), "not in quotes"),
        ("pty;pty " + KEY.openssh(), "not an option"),
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
def test_a_bad_line_grants_nothing_and_hides_no_other(content, why):
    keys = parse(f"{content}\n{KEY.openssh()}\n")
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
    assert not keys.matches(OTHER)
    assert keys.matches(KEY)


@pytest.mark.parametrize("field", ['a="b"c', 'a="b""c"', 'a="', 'a=b"', 'a="x"y"'])
def test_odd_quotes(field):
    with pytest.raises(KeyFormatError):
        split_options(field)


# ----------------------------------------------------------------------------------------------------------------- keys


def test_a_key_lets_in_by_the_first_line_that_does():
    keys = parse(
        f'from="10.9.9.9" {KEY.openssh()}\nexpiry-time="20200101" {KEY.openssh()}\nno-pty {KEY.openssh()}\n'
        f"{KEY.openssh()}\n"
    )
    found = keys.authorize(KEY, "alice", now=NOW, address="10.0.0.1")
    assert found == Permit(pty=False)
    assert found.grounds == "line 3"


def test_why_a_key_lets_nobody_in():
    assert refusal(AuthorizedKeys(), KEY) == f"ssh-ed25519 {KEY.fingerprint()}: no line has it"
    assert refusal(line('expiry-time="20200101"'), KEY).endswith("line 1: it has expired")
    keys = line('from="10.0.0.0/8"')
    told = "line 1: it may be used from 10.0.0.0/8, not from 192.0.2.1, h.example.org"
    assert refusal(keys, KEY, address="192.0.2.1", hostnames=["h.example.org"]).endswith(told)
    assert "not from nowhere that is known" in refusal(keys, KEY)
    many = parse(f'expiry-time="20200101" {KEY.openssh()}\n' * 6)
    assert refusal(many, KEY).endswith("line 4: it has expired; and 2 more")


def test_a_key_is_good_until_it_expires():
    keys = line('expiry-time="20300101Z"')
    assert keys.authorize(KEY, "alice", now=1893456000).expires == 1893456000
    assert "expired" in refusal(keys, KEY, now=1893456001)


def test_a_revoked_key_lets_nobody_in():
    revoked = KRL().revoke(KEY)
    assert "is revoked" in refusal(line(""), KEY, revoked=revoked)
    assert line("", OTHER).authorize(OTHER, "alice", now=NOW, revoked=revoked) == Permit()


@pytest.mark.parametrize(
    ("patterns", "address", "names", "allowed"),
    [
        ("10.0.0.1", "10.0.0.1", (), True),
        ("10.0.0.1", "10.0.0.2", (), False),
        ("10.0.0.*", "10.0.0.2", (), True),
        ("10.0.0.?", "10.0.0.20", (), False),
        ("10.0.0.0/8", "10.255.0.1", (), True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", (), True),
        ("10.0.0.0/8,!10.0.0.1", "10.0.0.1", (), False),
        ("!10.0.0.1,10.0.0.0/8", "10.0.0.1", (), False),
        ("!10.0.0.1", "10.0.0.2", (), False),  # nothing says yes
        ("*,!10.0.0.*", "10.0.0.2", (), False),
        ("*", "10.0.0.2", (), True),
        ("*", None, (), False),
        ("2001:db8::/32", "2001:db8::5", (), True),
        ("2001:db8::/32", "10.0.0.1", (), False),
        ("2001:DB8::5", "2001:db8:0::5", (), True),
        ("*.example.org", "10.0.0.1", ("h.Example.org",), True),
        ("*.Example.org", "10.0.0.1", ("h.example.org",), True),
        ("*.example.org", "10.0.0.1", (), False),
        ("10.0.0.1,!*.example.org", "10.0.0.1", ("h.example.org",), False),
        ("cafe.de", "10.0.0.1", ("cafe.de",), True),
        ("h.example.org", "no address", ("h.example.org",), True),
    ],
)
def test_from(patterns, address, names, allowed):
    keys = line(f'from="{patterns}"')
    if allowed:
        assert keys.authorize(KEY, "alice", now=NOW, address=address, hostnames=names) == Permit()
    else:
        assert "may be used from" in refusal(keys, KEY, address=address, hostnames=names)


@pytest.mark.parametrize(
    "address", ["127.1", "127.0.1", "0177.0.0.1", "127.0.0.01", "0x7f.1", "0x7f000001", "2130706433"]
)
def test_an_address_in_an_old_form_is_not_taken_for_a_pattern(address):
    """sshd knows 127.1 as 127.0.0.1. As a pattern it would match nothing, and to exclude it would exclude nobody."""
    for patterns in (f"!{address},*", f"*,!{address}/32", address):
        found = line(f'from="{patterns}"')
        assert not found.entries
        assert "is not written as four numbers" in found.problems[0][1]
    with pytest.raises(InvalidArgument):
        source_allowed(f"!{address},*", "127.0.0.1")
    assert source_allowed("127.*,0x7f.example.org", "127.0.0.1")


@pytest.mark.covers("V52")
def test_what_a_security_key_has_to_show():
    touched, untouched, verified = Assertion(1, 0), Assertion(0, 0), Assertion(5, 0)
    key = Authenticator().public_key
    assert line("", key).authorize(key, "alice", now=NOW, assertion=touched) == Permit()
    assert "without being touched" in refusal(line("", key), key, assertion=untouched)
    assert not line("no-touch-required", key).authorize(key, "alice", now=NOW, assertion=untouched).touch_required
    assert "without a PIN" in refusal(line("verify-required", key), key, assertion=touched)
    assert line("verify-required", key).authorize(key, "alice", now=NOW, assertion=verified).verify_required
    assert line("verify-required", key).authorize(key, "alice", now=NOW).verify_required  # to be shown yet


# --------------------------------------------------------------------------------------------------------- certificates

CA = line("cert-authority", AUTHORITY.public_key)


def test_a_certificate_lets_in_by_its_authority_s_line():
    assert CA.authorize(certify(), "alice", now=NOW) == Permit()
    assert "for alice, not for bob" in refusal(CA, certify(), user="bob")
    by_stranger = certify(authority=STRANGER)
    assert refusal(CA, by_stranger).endswith(f"{STRANGER.public_key.fingerprint()}, which is not trusted")
    # Neither the key's own line nor one of the authority's key as a key of a user counts.
    assert "is not trusted" in refusal(line(""), certify())
    assert "is not trusted" in refusal(line("", AUTHORITY.public_key), certify())
    # Nor does a certificate that the authority has for itself.
    assert "no line has it" in refusal(CA, AUTHORITY.public_key)


def test_principals_of_a_line_go_before_the_name_of_the_user():
    keys = line('cert-authority,principals="bob,carol"', AUTHORITY.public_key)
    assert "for alice, not for bob, carol" in refusal(keys, certify())
    found = keys.authorize(certify(principals=["carol"]), "alice", now=NOW)
    assert found.grounds == "line 1, principal carol"


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("told", "origin", "why"),
    [
        ({"principals": ["bob"]}, {}, "for bob, not for alice"),
        ({"principals": ["Alice"]}, {}, "not for alice"),
        ({"valid_before": NOW}, {}, "has expired"),
        ({"valid_after": NOW + 1}, {}, "is not valid yet"),
        ({"kind": CertificateKind.HOST, "extensions": {}}, {}, "is for a host"),
        ({"critical_options": {"source-address": "10.0.0.0/8"}}, {"address": "192.0.2.1"}, "may be used from"),
        ({"critical_options": {"source-address": "10.0.0.0/8"}}, {}, "address is not told"),
        ({"critical_options": {"odd@example.org": ""}}, {}, "is not known"),
        ({"serial": 7}, {"revoked": KRL().revoke_serials(AUTHORITY.public_key, 7)}, "is revoked"),
        ({}, {"revoked": KRL().revoke(AUTHORITY.public_key)}, "is revoked"),
        ({}, {"revoked": KRL().revoke(KEY)}, "is revoked"),
    ],
)
@pytest.mark.parametrize("way", ["line", "authority"])
def test_why_a_certificate_lets_nobody_in(told, origin, why, way):
    keys = CA if way == "line" else AuthorizedKeys()
    authorities = () if way == "line" else (AUTHORITY.public_key,)
    assert why in refusal(keys, certify(**told), authorities=authorities, **origin)


def test_a_certificate_and_its_line_have_both_to_allow_what_is_allowed():
    keys = line('cert-authority,no-pty,command="ls"', AUTHORITY.public_key)
    found = keys.authorize(certify(extensions={"permit-pty": "", "permit-port-forwarding": ""}), "alice", now=NOW)
    assert found == Permit(force_command="ls", pty=False, user_rc=False, agent_forwarding=False, x11_forwarding=False)
    forcing = {"critical_options": {"force-command": "ls"}}
    assert keys.authorize(certify(**forcing), "alice", now=NOW).force_command == "ls"
    assert CA.authorize(certify(**forcing), "alice", now=NOW).force_command == "ls"
    other = certify(critical_options={"force-command": "id"})
    assert refusal(keys, other).endswith("line 1: two commands are forced that differ: 'ls' and 'id'")


def test_only_both_together_waive_the_touch():
    key = Authenticator().public_key
    waiving, other = certify(key, extensions={"no-touch-required": ""}), certify(key)
    untouched = Assertion(0, 0)
    keys = line("cert-authority,no-touch-required", AUTHORITY.public_key)
    assert not keys.authorize(waiving, "alice", now=NOW, assertion=untouched).touch_required
    assert "touched" in refusal(keys, other, assertion=untouched)
    assert "touched" in refusal(CA, waiving, assertion=untouched)
    trusted = {"authorities": (AUTHORITY.public_key,)}
    assert not AuthorizedKeys().authorize(waiving, "alice", now=NOW, assertion=untouched, **trusted).touch_required
    assert "touched" in refusal(AuthorizedKeys(), other, assertion=untouched, **trusted)


def test_an_authority_for_all_users():
    trusted = {"authorities": (AUTHORITY.public_key,)}
    found = AuthorizedKeys().authorize(certify(), "alice", now=NOW, **trusted)
    assert found == Permit()
    assert found.grounds == "principal alice"
    assert "for all users: the certificate" in refusal(AuthorizedKeys(), certify(), user="bob", **trusted)
    # A line may let in whom the authority alone does not.
    keys = line('cert-authority,principals="alice"', AUTHORITY.public_key)
    assert keys.authorize(certify(), "bob", now=NOW, **trusted).grounds == "line 1, principal alice"


def test_principals_in_a_file():
    principals = parse_principals(
        '# who\n\nroot # nobody\nno-pty,command="a b"\tops\nfrom="10.0.0.0/8" web\nops\npty ,no-pty odd\n'
        'cert-authority ca\nfrob x\ncommand="a x\n'
    )
    assert [(entry.line, entry.name) for entry in principals.entries] == [
        (3, "root"),
        (4, "ops"),
        (5, "web"),
        (6, "ops"),
    ]
    assert [number for number, _ in principals.problems] == [7, 8, 9, 10]
    trusted = {"authorities": (AUTHORITY.public_key,), "principals": principals}
    keys = AuthorizedKeys()
    found = keys.authorize(certify(principals=["x", "ops"]), "alice", now=NOW, **trusted)
    assert found == Permit(pty=False, force_command="a b")
    assert found.grounds == "line 4 of the principals, principal ops"
    assert "it is for alice; none of the names" in refusal(keys, certify(), **trusted)
    assert "may be used from" in refusal(keys, certify(principals=["web"]), **trusted)
    assert keys.authorize(certify(principals=["web"]), "x", now=NOW, address="10.1.1.1", **trusted) == Permit()


# ------------------------------------------------------------------------------------------------------------ arbitrary


@given(st.binary(max_size=200))
@example(b"\x0b")
@example(b"\xc2\xa0 ssh-ed25519")
@example(b'permitopen="\xc2\xb2:\xc2\xb2" ssh-ed25519 AAAA')
def test_no_content_raises(content):
    parse(content)
    parse_principals(content)


PIECES = [
    *("ssh-ed25519", KEY.openssh(), '"', "\\", ",", "=", "a", " ", "\t", "AAAA", "\n", "no-", "restrict", "pty"),
    *("command=", "from=", "!", "*", "10.0.0.0/8", "environment=", "permitopen=", "permitlisten=", ":", "[", "]", "22"),
    *("expiry-time=", "20300101", "Z", "cert-authority", "principals=", "tunnel=", "any", "\0", "é", "²", "\udcff"),
]


@given(st.lists(st.sampled_from(PIECES)))
def test_no_mixture_raises(parts):
    keys = parse("".join(parts))
    parse_principals("".join(parts))
    try:
        keys.authorize(KEY, "alice", now=NOW, address="10.0.0.1", hostnames=["a"])
    except LoginRefused as error:
        assert len(str(error)) < 8192


OPTIONS = st.lists(
    st.tuples(
        st.sampled_from(["command", "environment", "permitopen", "permitlisten", "from", "tunnel", "expiry-time"]),
        st.sampled_from(["a", "A=1", "h:1", "*", "10.0.0.0/8", "0", "20300101", "20200101Z", ""]),
    )
    | st.tuples(st.sampled_from(["restrict", "pty", "no-pty", "cert-authority", "verify-required"]), st.none()),
    max_size=8,
)


@given(OPTIONS)
def test_restrictions_never_get_lost(options):
    """Whatever follows, what is said once about a value holds, and an option that is refused refuses the line."""
    try:
        found = read_options(options)
    except KeyFormatError:
        return
    names = [name for name, _ in options]
    assert ("command" in names) == (found.permit.force_command is not None)
    assert ("permitopen" in names) == (found.permit.permit_open is not None)
    assert ("permitlisten" in names) == (found.permit.permit_listen is not None)
    assert ("expiry-time" in names) == (found.permit.expires is not None)
    assert ("from" in names) == (found.sources is not None)
    assert found.authority == ("cert-authority" in names)
    assert found.permit.verify_required == ("verify-required" in names)
