"""-L, -R, -D and -J as ssh spells them (ssh(1), and readconf.c's parse_forward and parse_jump)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto_cli.options import Failure
from sshproto_cli.specs import (
    DynamicForward,
    Hop,
    LocalForward,
    RemoteForward,
    dynamic_forward,
    hop,
    hops,
    local_forward,
    remote_forward,
)


def loopback(port):
    return ("localhost", port)


def everywhere(port):
    return ("", port)


@pytest.mark.parametrize(
    ("text", "listen", "target"),
    [
        ("8080:example.org:80", loopback(8080), ("example.org", 80)),
        ("localhost:8080:example.org:80", loopback(8080), ("example.org", 80)),
        ("127.0.0.1:8080:example.org:80", ("127.0.0.1", 8080), ("example.org", 80)),
        ("[::1]:8080:[2001:db8::1]:80", ("::1", 8080), ("2001:db8::1", 80)),
        ("[fe80::1%eth0]:1:h:2", ("fe80::1%eth0", 1), ("h", 2)),
        ("me.example:8080:h:80", ("me.example", 8080), ("h", 80)),
        ("*:8080:h:80", everywhere(8080), ("h", 80)),
        (":8080:h:80", everywhere(8080), ("h", 80)),
        ("[]:8080:h:80", everywhere(8080), ("h", 80)),
        ("8080:/run/s", loopback(8080), "/run/s"),
        ("*:8080:./s", everywhere(8080), "./s"),
        ("[::1]:8080:/run/s", ("::1", 8080), "/run/s"),
        ("/tmp/s:h:80", "/tmp/s", ("h", 80)),
        ("./s:[::1]:80", "./s", ("::1", 80)),
        ("/tmp/s:/run/s", "/tmp/s", "/run/s"),
        ("[/tmp/a:b]:h:80", "/tmp/a:b", ("h", 80)),
        (r"/tmp/a\:b:h:80", "/tmp/a:b", ("h", 80)),
        (r"8080:/a\\b\:c", loopback(8080), r"/a\b:c"),
        ("1:h:65535", loopback(1), ("h", 65535)),
    ],
)
def test_local(text, listen, target):
    assert local_forward(text) == LocalForward(listen, target)


@pytest.mark.parametrize(
    ("text", "listen", "target"),
    [
        ("8080:h:80", ("localhost", 8080), ("h", 80)),
        ("localhost:8080:h:80", ("localhost", 8080), ("h", 80)),
        ("*:8080:h:80", ("", 8080), ("h", 80)),
        (":8080:h:80", ("", 8080), ("h", 80)),
        ("0.0.0.0:8080:h:80", ("0.0.0.0", 8080), ("h", 80)),
        ("[::]:8080:h:80", ("::", 8080), ("h", 80)),
        ("0:h:80", ("localhost", 0), ("h", 80)),
        ("*:0:/run/s", ("", 0), "/run/s"),
        ("/run/s:h:80", "/run/s", ("h", 80)),
        ("/run/s:/tmp/s", "/run/s", "/tmp/s"),
    ],
)
def test_remote(text, listen, target):
    assert remote_forward(text) == RemoteForward(listen, target)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("1080", loopback(1080)),
        ("localhost:1080", loopback(1080)),
        ("127.0.0.2:1080", ("127.0.0.2", 1080)),
        ("[::1]:1080", ("::1", 1080)),
        ("*:1080", everywhere(1080)),
        (":1080", everywhere(1080)),
        ("/tmp/socks", "/tmp/socks"),
    ],
)
def test_dynamic(text, listen):
    assert dynamic_forward(text) == DynamicForward(listen)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing to connect to"),
        ("8080", "nothing to connect to"),
        ("8080:h", "nothing to connect to"),
        ("/tmp/s", "nothing to connect to"),
        (r"8080:a\/b", "nothing to connect to"),  # as ssh has it, a slash behind a backslash makes no path
        ("8080:h:", "not a port number: ''"),
        ("8080:h:80:", "not a port number: 'h'"),
        ("8080:h:http", "not a port number: 'http'"),
        ("8080:h:0", "not a port number: '0'"),
        ("8080:h:65536", "not a port number: '65536'"),
        ("8080:h:-1", "not a port number: '-1'"),
        ("8080:h:²", "not a port number: '²'"),
        ("8080:h:٣", "not a port number: '٣'"),
        ("x:h:80", "not a port number: 'x'"),
        ("0:h:80", "port 0, which leaves the choice to the server, is for -R only"),
        ("8080::80", "the host to connect to is empty"),
        ("8080:/a:80", "'/a' is no host"),
        ("/a:8080:h:80", "'/a' is no address"),
        ("::1:8080:h:80", "too many colons; an IPv6 address stands in brackets"),
        ("::1:80", "not a port number: ''; an IPv6 address stands in brackets"),
        ("[::1:8080:h:80", "a bracket is not closed"),
        ("[::1]x:8080:h:80", "something else than ':' follows it"),
        ("8080:h:80\\", "'\\' ends it"),
    ],
)
def test_local_malformed(text, says):
    with pytest.raises(Failure) as raised:
        local_forward(text)
    message = str(raised.value)
    assert message.startswith(f"-L {text}: ")
    assert says in message
    assert "; expected [bind_address:]port:host:hostport, " in message


@pytest.mark.parametrize("text", ["1080", "localhost:1080", "[::1]:1080", "0"])
def test_a_proxy_at_the_servers_side_is_refused(text):
    with pytest.raises(
        Failure, match=r"^-R .*: there is no target; a SOCKS proxy at the server's side is not supported$"
    ):
        remote_forward(text)


@pytest.mark.parametrize("text", ["", "x", "0", "1080:h:80", "::1:1080", "/a:1080", "1080:", "*"])
def test_dynamic_malformed(text):
    with pytest.raises(Failure) as raised:
        dynamic_forward(text)
    assert str(raised.value).startswith(f"-D {text}: ")
    assert str(raised.value).endswith("expected [bind_address:]port")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gate", [Hop(None, "gate", 22)]),
        ("me@gate", [Hop("me", "gate", 22)]),
        ("me@gate:2222", [Hop("me", "gate", 2222)]),
        ("me@there@gate", [Hop("me@there", "gate", 22)]),
        ("gate:2222", [Hop(None, "gate", 2222)]),
        ("[::1]", [Hop(None, "::1", 22)]),
        ("me@[fe80::1%eth0]:2222", [Hop("me", "fe80::1%eth0", 2222)]),
        ("a,b@c:3,ssh://d", [Hop(None, "a", 22), Hop("b", "c", 3), Hop(None, "d", 22)]),
        ("ssh://gate", [Hop(None, "gate", 22)]),
        ("ssh://gate/", [Hop(None, "gate", 22)]),
        ("ssh://me@gate:2222", [Hop("me", "gate", 2222)]),
        ("ssh://me%40there;x=y@[::1]:2222/", [Hop("me@there", "::1", 2222)]),
        ("none", []),
        ("NONE", []),
    ],
)
def test_hops(text, expected):
    assert hops(text) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no host"),
        ("a,", "there is no host"),
        ("a,,b", "there is no host"),
        ("@gate", "there is no user before '@'"),
        ("ssh://@gate", "there is no user before '@'"),
        ("me@", "there is no host"),
        ("gate:", "not a port number: ''"),
        ("gate:0", "not a port number: '0'"),
        ("gate:ssh", "not a port number: 'ssh'"),
        ("::1", "an IPv6 address stands in brackets"),
        ("fe80::1:22", "an IPv6 address stands in brackets"),
        ("[::1", "an IPv6 address stands in brackets"),
        ("[::1]22", "is no host"),
        ("-oProxyCommand=x", "is no host"),
        ("a b", "is no host"),
        ("a\x1b", "is no host"),
        ("sftp://gate", "not a port number: '//gate'"),
        ("gate/path", "is no host"),
        ("ssh://gate/path", "no use for the path '/path'"),
    ],
)
def test_hops_malformed(text, says):
    with pytest.raises(Failure) as raised:
        hops(text)
    message = str(raised.value)
    assert message.startswith(f"-J {text}: ")
    assert says in message
    assert "; expected [user@]host[:port] or ssh://" in message


SPELLING = st.text(st.sampled_from("0189ahL:[]/\\*@,.%-") | st.characters(exclude_categories=["Cs"]), max_size=30)


@given(SPELLING)
def test_anything_else_is_a_failure(text):
    for read in (local_forward, remote_forward, dynamic_forward, hops, hop):
        try:
            read(text)
        except Failure as failure:
            assert text in str(failure)


PORT = st.integers(1, 65535)
HOST = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True).filter(lambda name: name != "localhost")
ADDRESS = st.ip_addresses(v=6).map(str)
NAMED = HOST | ADDRESS
PATH = st.text(st.sampled_from("/:[]\\ab "), max_size=10).map(lambda text: "/" + text)


def bracketed(host):
    return f"[{host}]" if ":" in host else host


def escaped(path):
    return path.replace("\\", "\\\\").replace(":", "\\:")


@given(NAMED, PORT, NAMED, PORT)
def test_what_is_written_is_read(bind, listen, host, port):
    where = f"{bracketed(bind)}:{listen}"
    assert local_forward(f"{where}:{bracketed(host)}:{port}") == LocalForward((bind, listen), (host, port))
    assert remote_forward(f"{where}:{bracketed(host)}:{port}") == RemoteForward((bind, listen), (host, port))
    assert dynamic_forward(where) == DynamicForward((bind, listen))
    assert hops(where) == (Hop(None, bind, listen),)


@given(PATH, PATH)
def test_any_path_can_be_written(near, far):
    assert local_forward(f"{escaped(near)}:{escaped(far)}") == LocalForward(near, far)
