"""ssh_config(5) without a machine: what others say about names, files and commands is given; whatever a file holds, it
is read or refused with its place. What ``ssh -G`` says of the same is for the interop tests."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.ssh_config import (
    KEYWORDS,
    OPENSSH_9_2,
    OURS,
    AlgorithmList,
    ConfigError,
    Forward,
    HostConfig,
    Source,
    Standing,
    World,
    reader,
    resolve,
)
from sshproto.ssh_config import keywords as table
from sshproto.ssh_config.keywords import BY_NAME, SHOWN, Rule
from sshproto.text import printable
from tests.support.sshconfigs import VALUES

WORLD = World(user="me", home="/home/me", uid=7, local_host="desk.example.org", environment={"A": "x", "AGENT": "/a"})


def read(text: str | bytes, host: str = "web", world: World = WORLD, options: Iterable[str] = ()) -> HostConfig:
    content = text.encode() if isinstance(text, str) else text
    return resolve(host, [Source("file", content)], world, options=options)


def refused(text: str | bytes, says: str, line: int = 1, world: World = WORLD, host: str = "web") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text, host, world)
    assert says in str(caught.value)
    assert caught.value.problems[0].place.line == line
    return caught.value


# ------------------------------------------------------------------------------------------------------------ whatever


@given(st.binary(max_size=400), st.sampled_from(("web", "10.0.0.1", "a.b.c")))
def test_any_bytes(content: bytes, host: str) -> None:
    try:
        found = read(content, host)
    except ConfigError as error:
        for problem in error.problems:
            assert printable(str(problem), 10_000) == str(problem)
            assert 0 <= problem.place.line <= content.count(b"\n") + 1
        return
    assert found.shown(OURS)


LINES = st.one_of(
    st.sampled_from((*VALUES, "Host", "Match", "Include", "IgnoreUnknown", "Tag", "Nonsense")),
)
REST = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ("yes", "no", "none", "* !x", "all", "final", "host web", "a:b", "80 x:80", "%h", "${A}", "+a,b", "5m")
    ),
)


@given(st.lists(st.tuples(LINES, st.sampled_from((" ", "=", " = ")), REST), max_size=12))
def test_lines_of_all_keywords(lines: list[tuple[str, str, str]]) -> None:
    text = "\n".join("".join(parts).replace("\n", " ") for parts in lines)
    try:
        found = read(text.encode("utf-8", "surrogatepass"))
    except ConfigError as error:
        assert printable(str(error), 10_000) == str(error)
        return
    assert len(found.shown(OPENSSH_9_2)) >= len(SHOWN) - 30
    assert found == read(text.encode("utf-8", "surrogatepass"))
    hash(found)


def test_a_configuration_is_a_value() -> None:
    found = read("Port 5\nTag x\n")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.port = 6  # type: ignore[misc]
    error = refused("Port x\nPort y\n", "bad port: 'x'; and 1 more")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert [str(problem) for problem in error.problems] == ["file line 1: bad port: 'x'", "file line 2: bad port: 'y'"]


# -------------------------------------------------------------------------------------------------------------- bounds


def test_bounds() -> None:
    assert read(b"#" + bytes(reader.LINE_BYTES - 1)).port == 22
    refused(b"#" + b" " * reader.LINE_BYTES, "more than 65536")
    refused(b"#\n" * (reader.FILE_BYTES // 2 + 1), "more than 1048576", line=0)
    refused("".join(f"IdentityFile {number}\n" for number in range(101)), "there can be 100", line=101)
    assert len(read("".join(f"IdentityFile {number}\n" for number in range(100))).identity_files) == 100
    refused("x 1\n" * 1000, f"and {reader.PROBLEMS - 1} more")
    began = time.process_time()
    read(("Host " + "*a" * 2000 + "\nPort 5\n") * 20, host="a" * 1000)
    assert time.process_time() - began < 5
    for host in ("", "x" * 1025, "a\0b"):
        with pytest.raises(ConfigError, match="no host name"):
            read("", host)


def test_what_a_shell_would_not_take_for_a_name_is_no_host() -> None:
    """CVE-2023-51385: a host that others choose gets to commands as %h."""
    ran: list[str] = []

    def run(command: str) -> int:
        ran.append(command)
        return 0

    world = attrs.evolve(WORLD, run=run)
    for host in (
        "-oProxyCommand=x",
        "a b",
        "a\nb",
        "a\x1bb",
        *(f"a{letter}b" for letter in "'`\"$\\;&<>|(){}\t\r\x7f"),
    ):
        with pytest.raises(ConfigError, match="no host name"):
            read('Match exec "ping %h"\nPort 5', host, world)
    assert not ran
    for host in ("a-b.example.org", "fe80::1%eth0", "10.0.0.1", "a_b", "bücher.example", "a@b", "a!b*c?"):
        assert read("ProxyCommand nc %h %p", host).host == host


def including(files: dict[str, str]) -> World:
    def include(pattern: str) -> list[tuple[str, bytes]]:
        return [(name, text.encode()) for name, text in files.items() if pattern.endswith(name.partition(" ")[0])]

    return attrs.evolve(WORLD, include=include)


def test_includes() -> None:
    asked: list[str] = []

    def include(pattern: str) -> list[tuple[str, bytes]]:
        asked.append(pattern)
        return [("one", b"Host other\nPort 1\nHost web\nPort 2\n"), ("two", b"Port 3\nUser x\n")]

    world = attrs.evolve(WORLD, include=include)
    found = read("Include a '~/b c' /d\nCompression yes\n", world=world)
    assert asked == ["~/.ssh/a", "~/b c", "/d"]
    assert (found.port, found.user, found.compression) == (2, "x", True)
    found = read("Host other\nInclude a\nCompression yes\n", world=world)
    assert (found.port, found.user, found.compression) == (22, "me", False)
    asked.clear()
    resolve("web", [Source("system", b"Include a", True)], world)
    assert asked == ["/etc/ssh/a"]
    with pytest.raises(ConfigError, match="bad include path ~/a"):
        resolve("web", [Source("system", b"Include ~/a", True)], world)


def test_includes_have_an_end() -> None:
    refused("Include me", "too many recursive includes", world=including({"me": "Include me"}))
    many = {f"me {number}": "" for number in range(600)}
    refused("Include me\nInclude me", "too many files", line=2, world=including(many))
    deep = {f"f{number}": f"Include f{number + 1}" for number in range(1, 16)} | {"f16": "Port 5"}
    assert read("Include f1", world=including(deep)).port == 5
    error = refused("Nonsense x\nInclude bad\n", "bad configuration option", world=including({"bad": "Port x"}))
    assert [(one.place.file, one.place.line) for one in error.problems] == [("file", 1), ("bad", 1)]

    def broken(pattern: str) -> list[tuple[str, bytes]]:
        raise PermissionError(13, "not for you", pattern)

    refused("Include x", "include ~/.ssh/x: not for you", world=attrs.evolve(WORLD, include=broken))


# -------------------------------------------------------------------------------------------------- what others say


def test_commands_are_run_only_if_they_may_be() -> None:
    refused("Match exec true\nPort 5", "commands are not run here")
    ran: list[str] = []

    def run(command: str) -> int:
        ran.append(command)
        return 0 if "yes" in command else 1

    world = attrs.evolve(WORLD, run=run)
    text = 'Match exec "yes %h %n %p %r %u %l %L %d %i %k %%"\nPort 5\nMatch host other exec yes\nPort 6\n'
    assert read(text, world=world).port == 5
    assert ran == ["yes web web 22 me me desk.example.org desk /home/me 7 web %"]
    assert read("Match !exec no\nPort 5", world=world).port == 5
    assert read("Match exec no\nPort 5", world=world).port == 22
    refused("Match exec %z\n", "%z in '%z' is no token here", world=world)


def test_what_is_newer() -> None:
    found = read("Tag mine\nMatch tagged other,m*\nPort 5\nMatch tagged x\nUser y\nMatch all\nChannelTimeout a=1 b=2")
    assert (found.tag, found.port, found.user, found.other["channeltimeout"]) == ("mine", 5, "me", "a=1 b=2")


def naming(names: dict[str, str]) -> tuple[World, list[str]]:
    asked: list[str] = []

    def canonical(name: str) -> str | None:
        asked.append(name)
        return names.get(name)

    return attrs.evolve(WORLD, canonical=canonical), asked


def test_names_are_made_canonical() -> None:
    world, asked = naming({"web.b.org.": "web.b.org", "a.b.c": "x.example.net"})
    text = "CanonicalizeHostname yes\nCanonicalDomains a.org b.org c.org\n"
    more = "Match canonical\nPort 5\nHost web.b.org\nUser x\nHost web\nUser y\n"
    found = read(text + more, world=world)
    assert asked == ["web.a.org.", "web.b.org."]
    assert (found.hostname, found.host, found.port) == ("web.b.org", "web", 5)
    assert found.user == "y"  # in the first pass
    assert found.tokens["h"] == "web.b.org"
    assert found.tokens["n"] == "web"
    assert read(text + "CanonicalizeFallbackLocal no\nCanonicalizeMaxDots 0\n", "a.b", world).hostname == "a.b"
    with pytest.raises(ConfigError, match="could not resolve host 'nobody'"):
        read(text + "CanonicalizeFallbackLocal no\n", "nobody", world)
    assert read(text, "nobody", world).hostname == "nobody"
    asked.clear()
    assert read(text + "ProxyJump gate\n", world=world).hostname == "web"
    assert not asked
    assert read(text.replace("yes", "always") + "ProxyJump gate\n", world=world).hostname == "web.b.org"
    assert read(text, "web.b.org.", world).hostname == "web.b.org"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("*.org:*.net", "real.example.net"),
        ("*.com:*,*.org:*.com", "web.b.org"),
        ("*.com:* *.org:!x.*,*.net", "real.example.net"),
        ("*", "real.example.net"),
        ("none", "web.b.org"),
    ],
)
def test_aliases_are_followed_where_that_is_permitted(rules: str, expected: str) -> None:
    world, _ = naming({"web.b.org.": "real.example.net", "web": "real.example.net"})
    text = f"CanonicalizeHostname yes\nCanonicalDomains b.org\nCanonicalizePermittedCNAMEs {rules}\n"
    assert read(text, world=world).hostname == expected
    for odd in ("$(touch x).net", "-x.net", "a b.net", ""):
        assert read(text, world=naming({"web.b.org.": odd})[0]).hostname == "web.b.org"
    refused_rules = text.replace("yes", "no")
    assert read(refused_rules, world=world).hostname == "web"  # nothing is followed if it is not wanted


def test_addresses_take_their_usual_form() -> None:
    world = attrs.evolve(WORLD, address={"127.1": "127.0.0.1", "::0:1": "::1"}.get)
    assert read("Match final host 127.0.0.1\nPort 5", "127.1", world).port == 5
    assert read("", "::0:1", world).hostname == "::1"
    assert read("AddressFamily inet", "::0:1", world).hostname == "::0:1"


# -------------------------------------------------------------------------------------------------------------- values


def test_paths() -> None:
    world = attrs.evolve(WORLD, homes={"root": "/root"}.get)
    text = "IdentityFile ~/%h-%r\nIdentityFile none\nIdentityFile ~root/${A}\nIdentityFile /%%\nCertificateFile %d/c\n"
    found = read(text, world=world)
    assert found.identity_paths() == ("/home/me/web-me", "/root/x", "/%")
    assert found.certificate_paths() == ("/home/me/c",)
    for bad, says in (("~nobody/x", "no user 'nobody'"), ("%z", "no token"), ("${NO}", "is not set"), ("${", "brace")):
        with pytest.raises(ConfigError, match=says):
            read(f"IdentityFile {bad}", world=world).identity_paths()


def test_agents() -> None:
    world = attrs.evolve(WORLD, environment={"SSH_AUTH_SOCK": "/s", "AGENT": "/a"})
    for text, mine, theirs in (
        ("", "/s", None),
        ("IdentityAgent none\nForwardAgent yes", None, None),
        ("IdentityAgent $AGENT\nForwardAgent yes", "/a", "/a"),
        ("IdentityAgent ~/x\nForwardAgent $AGENT", "/home/me/x", "/a"),
        ("IdentityAgent $NOTHING\nForwardAgent SSH_AUTH_SOCK", None, "/s"),
    ):
        found = read(text, world=world)
        assert (found.agent_path(), found.forwarded_agent_path()) == (mine, theirs)


def test_proxies() -> None:
    found = read("ProxyCommand nc '%h' %p # %r %n %k %%\nPort 5\nHostKeyAlias Al")
    assert found.proxy_command_line() == "nc 'web' 5 # me web al %"
    with pytest.raises(ConfigError, match="%d in"):
        read("ProxyCommand %d").proxy_command_line()
    found = read("ProxyJump %r@g%p:%%,b\n".replace(":%%", ":5"))
    assert [(jump.user, jump.host, jump.port) for jump in found.jumps()] == [("me", "g22", 5), (None, "b", None)]
    assert found.proxy_command_line() is None


def test_forwards() -> None:
    found = read("LocalForward *:80 [::1]:81\nRemoteForward /s:%h 9\nRemoteForward 1\nDynamicForward localhost:5\n")
    assert found.local_forwards == (Forward(("*", 80), ("::1", 81)),)
    assert found.dynamic_forwards == (Forward(("localhost", 5)),)
    assert read("RemoteForward 0 /x%h").remote_forwards == (Forward((None, 0), "/xweb"),)
    refused("LocalForward 0 a:1", "bad forwarding")
    refused(f"LocalForward 1 /{'x' * 108}", "bad forwarding")
    refused("LocalForward 1 a:99999999999999999999", "bad forwarding")


def test_variables() -> None:
    found = read("SendEnv A LC_*\nSetEnv A=2 B=3=4\n")
    assert found.sent({"A": "1", "LC_X": "y", "HOME": "h"}) == {"LC_X": "y", "A": "2", "B": "3=4"}


def test_lists_of_algorithms() -> None:
    default, known = ("a", "b1", "b2"), ("c", "b2", "b1", "a")
    for text, chosen in (
        ("c,a", ("c", "a")),
        ("+c,a", ("a", "b1", "b2", "c")),
        ("^b2,c", ("b2", "c", "a", "b1")),
        ("-b*", ("a",)),
        ("b*", ("b2", "b1")),
        ("nosuch", ()),
    ):
        assert AlgorithmList(text).choose(default, known) == chosen
    found = read("Ciphers +aes128-cbc\nMACs umac-64@openssh.com,hmac-sha1\n")
    assert found.algorithms("ciphers", OURS)[-1] == "aes128-cbc"
    assert found.algorithms("macs", OURS) == ("hmac-sha1",)
    assert found.lacking("macs", OURS) == ("umac-64@openssh.com",)
    assert read("KexAlgorithms mlkem768x25519-sha256").said == {"kexalgorithms"}
    with pytest.raises(ConfigError, match="mlkem768x25519-sha256"):  # which OpenSSH 9.2 does not have
        resolve("web", [Source("f", b"KexAlgorithms mlkem768x25519-sha256")], WORLD, catalogue=OPENSSH_9_2)


def test_what_is_said_and_what_is_only_so() -> None:
    found = read("Host web\nPort 22\nHost other\nUser x\nHost *\nControlMaster no\nRSAAuthentication yes\n")
    assert found.said == {"port", "controlmaster", "rsaauthentication"}
    assert [str(note) for note in found.notes] == ["file line 7: RSAAuthentication has no meaning any more"]
    found = read("IgnoreUnknown X*\nXthing a 'b c'\n")
    assert [(one.keyword, one.value, one.place.line) for one in found.unknown] == [("xthing", "a 'b c'", 2)]
    refused("Xthing 1\nIgnoreUnknown X*\n", "bad configuration option: xthing")


def test_options_come_first() -> None:
    found = read("Port 5\nUser x\n", options=["Port=6", "user y"])
    assert (found.port, found.user) == (6, "y")
    for bad in ("Host x", "Match all", "Include x", "Port", "Nonsense=1"):
        with pytest.raises(ConfigError, match=r"^command-line: "):
            read("", options=[bad])


# ----------------------------------------------------------------------------------------------------------- the table


def test_the_table_of_keywords() -> None:
    names = [name for keyword in KEYWORDS for name in (keyword.key, *keyword.aliases)]
    assert len(set(names)) == len(names)
    assert set(SHOWN) <= set(BY_NAME)
    fields = {field.name for field in attrs.fields(HostConfig)}
    assert {keyword.field for keyword in KEYWORDS if keyword.field} <= fields
    shown = set(SHOWN)
    for keyword in KEYWORDS:
        ordinary = keyword.standing in (Standing.OBEYED, Standing.KEPT)
        assert keyword.key in shown or not ordinary or keyword.key in ("host", "match", "include"), keyword.name


@pytest.mark.parametrize("keyword", [one for one in KEYWORDS if one.rule is not Rule.SPECIAL], ids=lambda it: it.name)
def test_every_default_is_shown_as_a_value_would_be(keyword: table.Keyword) -> None:
    show: Callable[[object], str] = keyword.kind.show
    if keyword.default not in (None, ()):
        assert show(keyword.default)
