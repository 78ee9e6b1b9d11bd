from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto.algorithms import CERTIFICATE_EXTRA, SIGNATURE_DEFAULT
from sshproto.errors import InvalidArgument
from sshproto.keys import (
    KRL,
    Certificate,
    CertificateKind,
    KnownHosts,
    PrivateKey,
    Trust,
    known_hosts,
)
from sshproto.keys.known_hosts import line_for, match_pattern, parse

KEY = PrivateKey.generate().public_key
OTHER = PrivateKey.generate().public_key
ECDSA = PrivateKey.generate("ecdsa-sha2-nistp256").public_key


def line(names: str, key=KEY, marker: str = "", comment: str = "") -> str:
    bare = " ".join(key.openssh().split()[:2])
    return " ".join(word for word in (marker, names, bare, comment) if word)


def file(*lines: str) -> str:
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------------------- ssh-keygen -F

FILE = file(
    "# a comment",
    line("plain.example.org"),
    line("two.example.org,192.0.2.1"),
    line("*.example.com"),
    line("*.example.net,!bad.example.net"),
    line("!*.example.info,*"),
    line("[port.example.org]:2222"),
    line("[*.example.org]:2200"),
    line("h?st"),
    "",
    line("2001:db8::1"),
    line("[2001:db8::2]:22022"),
    line("UPPER.Example.Org"),
    line("plain.example.org", ECDSA),
    line("revoked.example.org", OTHER, "@revoked"),
    line("*.ca.example", ECDSA, "@cert-authority"),
    "this is not a line",
    line("last.example.org", comment="with a comment"),
)
HOSTS = [
    ("plain.example.org", 22),
    ("PLAIN.example.ORG", 22),
    ("plain.example.org", 2222),
    ("two.example.org", 22),
    ("192.0.2.1", 22),
    ("192.0.2.10", 22),
    ("a.example.com", 22),
    ("a.b.example.com", 22),
    ("example.com", 22),
    ("a.example.com", 2222),
    ("good.example.net", 22),
    ("bad.example.net", 22),
    ("x.example.info", 22),
    ("anything", 22),
    ("port.example.org", 2222),
    ("port.example.org", 22),
    ("x.example.org", 2200),
    ("host", 22),
    ("hst", 22),
    ("2001:db8::1", 22),
    ("2001:db8::2", 22022),
    ("upper.example.org", 22),
    ("revoked.example.org", 22),
    ("x.ca.example", 22),
    ("last.example.org", 22),
]


def found_by_ssh_keygen(ssh_keygen, path, host: str, port: int) -> list[int]:
    name = host if port == 22 else f"[{host}]:{port}"
    said = ssh_keygen("-F", name, "-f", path, check=False)
    return [int(number) for number in re.findall(r"^# Host .* found: line (\d+)", said, re.MULTILINE)]


@pytest.mark.parametrize(("host", "port"), HOSTS)
def test_find_is_what_ssh_keygen_finds(ssh_keygen, tmp_path, host, port):
    path = tmp_path / "known_hosts"
    path.write_text(FILE)
    ours = [entry.line for entry in parse(FILE).find(host, port)]
    assert ours == found_by_ssh_keygen(ssh_keygen, path, host, port)


@pytest.mark.parametrize(("host", "port"), HOSTS)
def test_find_in_a_file_hashed_by_ssh_keygen(ssh_keygen, tmp_path, host, port):
    path = tmp_path / "known_hosts"
    path.write_text(file(line("plain.example.org,192.0.2.1"), line("[port.example.org]:2222"), line("*.example.com")))
    ssh_keygen("-H", "-f", path)
    text = path.read_text()
    assert text.count("|1|") == 3
    # Lower case: ssh lower-cases a host before it looks it up, ssh-keygen -F does not for hashed names.
    host = host.lower()
    assert [entry.line for entry in parse(text).find(host, port)] == found_by_ssh_keygen(ssh_keygen, path, host, port)


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("port", [22, 2222])
def test_ssh_keygen_finds_the_lines_we_write(ssh_keygen, tmp_path, port, hashed):
    text = line_for("Host.example.org", port, KEY, hashed=hashed)
    path = tmp_path / "known_hosts"
    path.write_text(text)
    assert ("host" in text) != hashed
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert found_by_ssh_keygen(ssh_keygen, path, "host.example.org", port) == [1]
    assert parse(text).lookup("host.EXAMPLE.org", port, KEY).trust is Trust.MATCH
    assert parse(text).lookup("host.example.org", port + 1, KEY).trust is Trust.UNKNOWN


# --------------------------------------------------------------------------------------------------------------- lookup


@pytest.mark.covers("V08", "R11")
def test_match_unknown_changed():
    hosts = parse(file("# one", line("h", OTHER), line("h", KEY), line("other", ECDSA)))
    match = hosts.lookup("h", 22, KEY)
    assert (match.trust, match.line) == (Trust.MATCH, 3)  # a second key of the same type is not a change
    changed = hosts.lookup("h", 22, PrivateKey.generate().public_key)
    assert (changed.trust, changed.line) == (Trust.CHANGED, 2)
    assert changed.entry is not None
    assert changed.entry.key() == OTHER
    new_type = hosts.lookup("h", 22, ECDSA)
    assert (new_type.trust, new_type.line, len(new_type.known)) == (Trust.UNKNOWN, None, 2)
    nothing = hosts.lookup("nobody", 22, KEY)
    assert (nothing.trust, nothing.known) == (Trust.UNKNOWN, ())
    assert KnownHosts().lookup("h", 22, KEY).trust is Trust.UNKNOWN


@pytest.mark.covers("V08")
def test_revocation_wins_over_a_match():
    hosts = parse(file(line("h"), line("*", KEY, "@revoked")))
    match = hosts.lookup("h", 22, KEY)
    assert (match.trust, match.line) == (Trust.REVOKED, 2)
    assert hosts.lookup("h", 22, OTHER).trust is Trust.CHANGED
    assert hosts.algorithms_for("h") == ()


@pytest.mark.covers("V51")
def test_a_certificate_authority_is_not_a_host_key():
    hosts = parse(file(line("*", KEY, "@cert-authority")))
    assert hosts.entries[0].marker == "@cert-authority"
    assert hosts.lookup("h", 22, KEY).trust is Trust.UNKNOWN
    assert hosts.lookup("h", 22, OTHER).trust is Trust.UNKNOWN
    assert hosts.algorithms_for("h") == ()


# --------------------------------------------------------------------------------------------------------- certificates

NOW = 1_000_000
AUTHORITY = PrivateKey.generate()


def certify(key=KEY, principals=("*.example.org",), authority=AUTHORITY, kind=CertificateKind.HOST, **changes):
    told = {"valid_after": NOW - 10, "valid_before": NOW + 10, **changes}
    return Certificate.issue(authority, key, kind, key_id="it", principals=principals, **told)


def trusting(*lines: str) -> KnownHosts:
    return parse(file(line("*.example.org", AUTHORITY.public_key, "@cert-authority"), *lines))


@pytest.mark.covers("V51")
def test_a_trusted_authority_vouches():
    hosts = trusting(line("a.example.org", OTHER))
    certificate = certify()
    match = hosts.lookup("A.example.org", 22, KEY, certificate, now=NOW)
    assert (match.trust, match.line, match.certificate, match.problem) == (Trust.MATCH, 1, certificate, "")
    assert match.entry is hosts.entries[0]
    assert match.known == hosts.entries[1:]
    assert hosts.lookup("a.example.org", 22, KEY).trust is Trust.CHANGED  # without its certificate
    ported = parse(file(line("[*.example.org]:2222", AUTHORITY.public_key, "@cert-authority")))
    assert ported.lookup("a.example.org", 2222, KEY, certificate, now=NOW).trust is Trust.MATCH
    assert ported.lookup("a.example.org", 22, KEY, certificate, now=NOW).trust is Trust.UNKNOWN


@pytest.mark.covers("V51")
@pytest.mark.parametrize(
    ("host", "changes", "why"),
    [
        ("a.example.com", {}, "no @cert-authority line for the host"),
        ("a.example.org", {"authority": PrivateKey.generate()}, "no @cert-authority line for the host"),
        ("a.example.org", {"principals": ("b.example.org",)}, "is for b.example.org, not for a.example.org"),
        ("a.example.org", {"valid_before": NOW}, "has expired"),
        ("a.example.org", {"valid_after": NOW + 1}, "not valid yet"),
        ("a.example.org", {"kind": CertificateKind.USER, "principals": ("a",)}, "is for a user"),
    ],
)
def test_a_certificate_that_does_not_count_leaves_the_key(host, changes, why):
    certificate = certify(**changes)
    match = trusting().lookup(host, 22, KEY, certificate, now=NOW)
    assert (match.trust, match.certificate) == (Trust.UNKNOWN, None)
    assert why in match.problem
    for key, verdict in ((KEY, Trust.MATCH), (OTHER, Trust.CHANGED), (ECDSA, Trust.UNKNOWN)):
        match = trusting(line(host, key)).lookup(host, 22, KEY, certificate, now=NOW)
        assert (match.trust, match.certificate) == (verdict, None)
        assert why in match.problem


@pytest.mark.covers("V08", "V51")
def test_revocation_wins_over_an_authority():
    certificate = certify()
    for marked in (line("*", KEY, "@revoked"), line("a.*", AUTHORITY.public_key, "@revoked")):
        hosts = trusting(line("a.example.org"), marked)
        match = hosts.lookup("a.example.org", 22, KEY, certificate, now=NOW)
        assert (match.trust, match.line) == (Trust.REVOKED, 3)
    hosts = trusting(line("a.example.org"))
    for revoked in (
        KRL(keys=frozenset((KEY.blob,))),
        KRL(keys=frozenset((AUTHORITY.public_key.blob,))),
    ):
        match = hosts.lookup("a.example.org", 22, KEY, certificate, now=NOW, revoked=revoked)
        assert (match.trust, match.line, match.entry) == (Trust.REVOKED, None, None)
        assert "is listed" in match.problem
    assert hosts.lookup("a.example.org", 22, KEY, revoked=KRL(keys=frozenset((KEY.blob,)))).trust is Trust.REVOKED
    # An authority that is revoked does not matter to a key that came alone.
    assert (
        trusting(line("a.example.org"), line("*", AUTHORITY.public_key, "@revoked"))
        .lookup("a.example.org", 22, KEY)
        .trust
        is Trust.MATCH
    )


def test_a_certificate_needs_a_time_and_its_own_key():
    with pytest.raises(InvalidArgument, match="without a time"):
        trusting().lookup("a.example.org", 22, KEY, certify())
    with pytest.raises(InvalidArgument, match="another key"):
        trusting().lookup("a.example.org", 22, OTHER, certify(), now=NOW)


def test_several_files_are_one():
    user = parse(file(line("a", OTHER), "bad"), "~/.ssh/known_hosts")
    system = parse(file("# system", line("a,b", KEY), line("c", KEY, "@revoked")), "/etc/ssh/ssh_known_hosts")
    hosts = KnownHosts.joined((user, system))
    found = hosts.lookup("a", 22, KEY)
    assert (found.trust, found.line, found.entry.file) == (Trust.MATCH, 2, "/etc/ssh/ssh_known_hosts")
    changed = hosts.lookup("a", 22, PrivateKey.generate().public_key)
    assert (changed.trust, changed.line, changed.entry.file) == (Trust.CHANGED, 1, "~/.ssh/known_hosts")
    assert hosts.lookup("c", 22, KEY).entry.file == "/etc/ssh/ssh_known_hosts"
    assert hosts.problems == user.problems
    assert KnownHosts.joined(()) == KnownHosts()


# ---------------------------------------------------------------------------------------------------------------- order


def test_order_of_algorithms():
    wanted = SIGNATURE_DEFAULT
    assert parse(file(line("a"))).host_key_order("b", 22, wanted) == wanted
    first = "ecdsa-sha2-nistp256"
    others = tuple(name for name in wanted if name != first)
    assert parse(file(line("a", ECDSA))).host_key_order("a", 22, wanted) == (first, *others)
    assert parse(file(line("a", ECDSA), line("a", ECDSA, "@revoked"))).host_key_order("a", 22, wanted) == wanted


def test_certificates_are_asked_for_first_where_an_authority_is_trusted():
    hosts = trusting(line("*", ECDSA))
    order = hosts.host_key_order("a.example.org", 22, SIGNATURE_DEFAULT)
    certified = tuple(name for name in CERTIFICATE_EXTRA if "mldsa" not in name)  # the plain one is no default either
    assert order[: len(certified)] == certified
    assert order[len(certified)] == "ecdsa-sha2-nistp256"
    assert sorted(order) == sorted(certified + SIGNATURE_DEFAULT)
    assert hosts.host_key_order("a.example.com", 22, ("ssh-ed25519",)) == ("ssh-ed25519",)
    rsa = ("rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-256")
    assert hosts.host_key_order("a.example.org", 22, rsa[1:]) == rsa
    assert hosts.host_key_order("a.example.org", 22, ("rsa-sha2-256",), certificates=False) == ("rsa-sha2-256",)
    # One that is named stays where it stands among the certificates, and is not named twice.
    named = ("ssh-ed25519", "rsa-sha2-256-cert-v01@openssh.com", "ssh-ed25519-cert-v01@openssh.com")
    assert hosts.host_key_order("a.example.org", 22, named) == (
        "ssh-ed25519-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "ssh-ed25519"
    )  # fmt: skip
    assert hosts.host_key_order("b", 22, named) == named
    revoked = trusting(line("*", AUTHORITY.public_key, "@revoked"))
    assert revoked.authorities("a.example.org") == ()
    assert revoked.host_key_order("a.example.org", 22, ("ssh-ed25519",)) == ("ssh-ed25519",)
    assert [entry.line for entry in hosts.authorities("a.example.org")] == [1]


# ---------------------------------------------------------------------------------------------------------------- names


def test_negation():
    hosts = parse(file(line("*.example.org,!bad.example.org"), line("!only.negated")))
    assert hosts.lookup("good.example.org", 22, KEY).trust is Trust.MATCH
    assert hosts.lookup("bad.example.org", 22, KEY).trust is Trust.UNKNOWN
    assert hosts.lookup("else", 22, KEY).trust is Trust.UNKNOWN


def test_a_portless_line_is_not_for_another_port():
    hosts = parse(file(line("h")))
    assert hosts.lookup("h", 2222, KEY).trust is Trust.UNKNOWN


def test_algorithms_for():
    hosts = parse(file(line("h", ECDSA), line("h"), line("h", OTHER), line("g")))
    assert hosts.algorithms_for("h", 22) == ("ecdsa-sha2-nistp256", "ssh-ed25519")
    assert hosts.algorithms_for("x") == ()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("h ssh-ed25519", "2 words"),
        ("h ssh-ed25519 !!!!", "not base64"),
        (line("h").replace("ssh-ed25519", "ssh-rsa"), "the line says ssh-rsa, the key in it is of type ssh-ed25519"),
        ("h ssh-ed25519 AAAA", "not a public key"),
        (line("h", marker="@trusted"), "unknown marker @trusted"),
        (line("|1|AAAA|AAAA"), "20 bytes"),
        (line("|2|a|b"), r"\|1\|salt\|hash"),
        ("h 2048 65537 123456789", "SSH-1"),
        ("\x1b[2J \x1b[0m \x07", r"\\x07"),
    ],
    ids=lambda text: text.replace(KEY.openssh().split()[1], "KEY"),
)
def test_a_bad_line_is_listed_and_hides_no_other(bad, why):
    hosts = parse(file(bad, line("h")))
    ((number, problem),) = hosts.problems
    assert number == 1
    assert re.search(why, problem)
    assert problem.isprintable()
    assert hosts.lookup("h", 22, KEY) == known_hosts.Match(Trust.MATCH, 2, hosts.entries[0], hosts.entries)


def test_lines_end_at_line_feeds_only():
    hosts = parse(line("a", comment="x\x0b" + line("evil", OTHER)) + "\r\n" + line("b\u2028evil") + "\n")
    assert [entry.line for entry in hosts.entries] == [1, 2]
    assert hosts.lookup("evil", 22, OTHER).trust is Trust.UNKNOWN


def test_keys_of_types_we_do_not_have_are_kept():
    encoded = "AAAAB3NzaC1kc3MAAACB"  # string "ssh-dss" and a little
    hosts = parse(f"h ssh-dss {encoded}\n")
    assert hosts.algorithms_for("h") == ("ssh-dss",)
    with pytest.raises(ValueError, match="DSA is too weak"):
        hosts.entries[0].key()


@pytest.mark.covers("V71")
@pytest.mark.parametrize("host", ["", "*", "a,b", "!a", "a b", "a\nb", "|1|x", "#a", "@revoked", "a?", "[a]", "a\x00"])
def test_hosts_that_would_be_patterns_are_refused(host):
    for call in (lambda: line_for(host, 22, KEY), lambda: parse("").lookup(host, 22, KEY)):
        with pytest.raises(InvalidArgument, match="not a host name"):
            call()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports(port):
    with pytest.raises(InvalidArgument, match="not a port"):
        line_for("h", port, KEY)


def test_hashed_line_takes_its_salt_from_entropy():
    made = line_for("h", 22, KEY, hashed=True, entropy=lambda count, label: b"s" * count)
    assert made == line_for("h", 22, KEY, hashed=True, entropy=lambda count, label: b"s" * count)
    assert made.startswith("|1|c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=|")


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_are_what_a_regular_expression_says(pattern, name):
    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    assert match_pattern(name, pattern) == bool(re.fullmatch(expression, name))


@pytest.mark.covers("V45")
def test_patterns_take_no_exponential_time():
    start = time.perf_counter()
    assert not match_pattern("a" * 200, "*a" * 100 + "b")
    assert time.perf_counter() - start < 1


@given(st.binary(max_size=200))
@example(b"\x0b")
@example(b"@revoked")
def test_no_content_raises(content):
    parse(content).find("host")


@given(st.lists(st.sampled_from(["@revoked", "h", "ssh-ed25519", KEY.openssh(), "|1|", "\n", "\t", "#", "AAAA", "\r"])))
def test_no_mixture_raises(words):
    parse(" ".join(words)).lookup("h", 22, KEY)
