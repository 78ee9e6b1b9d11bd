"""Who may in at ``sshproto serve``: what its files say, and what it says of them when it starts."""

from __future__ import annotations

import grp
import os
import pwd
import time
from types import SimpleNamespace

import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, LoginRefused, Permit, PrivateKey
from sshproto_cli import main as command
from sshproto_cli import serve as serve_verb
from sshproto_cli.gate import Gate, KeyFiles
from sshproto_cli.options import Failure
from sshproto_cli.settings import others_may_write

KEY, OTHER, AUTHORITY, HOST_KEY = (PrivateKey.generate() for _ in range(4))
LINE = KEY.public_key.openssh()
NOW = int(time.time())


def certify(key=KEY, kind=CertificateKind.USER, **told):
    extensions = {} if kind is CertificateKind.HOST else None
    values = {"key_id": "id", "principals": ["alice"], "valid_before": FOREVER, "extensions": extensions, **told}
    return Certificate.issue(AUTHORITY, key.public_key, kind, **values)


@pytest.fixture
def files(tmp_path):
    """Writes files: what names them."""

    def write(**contents) -> KeyFiles:
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else f"{content}\n".encode()
            (tmp_path / name).write_bytes(data)
        return KeyFiles(**{name: tmp_path / name for name in contents})

    return write


def refusal(found: KeyFiles, shown, user="alice", address="10.0.0.1") -> str:
    with pytest.raises(LoginRefused) as caught:
        Gate(found, None).by_key(shown, user, address)
    return str(caught.value)


def test_files_are_read_anew_for_each_login(files):
    found = files(keys=LINE)
    gate = Gate(found, None)
    assert gate.by_key(KEY.public_key, "whoever", None) == Permit()
    files(keys=f'command="ls",from="10.0.0.0/8" {LINE}')
    assert gate.by_key(KEY.public_key, "whoever", "10.0.0.1") == Permit(force_command="ls")
    assert "not from 192.0.2.1" in refusal(found, KEY.public_key, address="192.0.2.1")
    found.keys.unlink()
    assert "No such file" in refusal(found, KEY.public_key)


def test_the_clock_and_the_zone_are_the_systems(files):
    tomorrow, yesterday = (time.strftime("%Y%m%d%H%M%S", time.localtime(NOW + hours * 3600)) for hours in (1, -1))
    assert files(keys=f'expiry-time="{tomorrow}" {LINE}').authorize(KEY.public_key, "alice", None).expires == NOW + 3600
    assert "it has expired" in refusal(files(keys=f'expiry-time="{yesterday}" {LINE}'), KEY.public_key)
    found = files(authorities=AUTHORITY.public_key.openssh())
    assert "has expired" in refusal(found, certify(valid_before=NOW - 5))
    assert found.authorize(certify(valid_before=NOW + 3600), "alice", None)


def test_certificates_of_authorities(files):
    found = files(authorities=f"# ours\n{AUTHORITY.public_key.openssh()}")
    assert found.authorize(certify(), "alice", None) == Permit()
    assert "not for bob" in refusal(found, certify(), "bob")
    assert "no line has it" in refusal(found, KEY.public_key)
    assert "no line has it" in refusal(found, AUTHORITY.public_key)
    found = files(authorities=AUTHORITY.public_key.openssh(), principals="no-pty alice")
    assert found.authorize(certify(), "bob", None) == Permit(pty=False)
    # With options it is something else than a list of authorities.
    assert "not trusted" in refusal(files(authorities=f"no-pty {AUTHORITY.public_key.openssh()}"), certify())


def test_what_is_revoked(files):
    for revoked in (KRL().revoke(KEY.public_key).encode(), LINE):
        assert "is revoked" in refusal(files(keys=LINE, revoked=revoked), KEY.public_key)
    other = files(keys=LINE, revoked=OTHER.public_key.openssh())
    assert other.authorize(KEY.public_key, "alice", None) == Permit()
    # A list that nobody can read may have anybody in it.
    assert "revoked keys file" in refusal(files(keys=LINE, revoked="who knows"), KEY.public_key)
    other.revoked.unlink()
    assert "No such file" in refusal(other, KEY.public_key)


@pytest.mark.parametrize("name", ["keys", "authorities", "principals"])
def test_files_that_others_may_write_let_nobody_in(files, name):
    """As with sshd's StrictModes: who can add a line to them is let in, as whoever runs the server."""
    contents = {"keys": LINE, "authorities": AUTHORITY.public_key.openssh(), "principals": "alice"}
    found = files(**contents)
    shown = KEY.public_key if name == "keys" else certify()
    assert found.authorize(shown, "alice", None) == Permit()
    getattr(found, name).chmod(0o646)
    assert "others may write it" in refusal(found, shown)
    with pytest.raises(Failure, match="others may write it"):
        found.check()
    getattr(found, name).chmod(0o444)
    assert found.check()


@pytest.mark.parametrize(
    ("members", "others", "own"),
    [([], [], True), (["me"], [], True), (["me", "she"], [], False), ([], [5], True), ([], [7], False)],
)
def test_a_group_is_one_s_own_if_nobody_else_is_in_it(monkeypatch, tmp_path, members, others, own):
    """Those whose usual group it is are in it, too, though no list of members has them."""
    me = SimpleNamespace(pw_name="me", pw_uid=os.getuid(), pw_gid=7)
    rest = [SimpleNamespace(pw_name="she", pw_uid=os.getuid() + 1, pw_gid=number) for number in others]
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: me)
    monkeypatch.setattr(pwd, "getpwall", lambda: [me, *rest])
    monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_mem=members))
    for mode, expected in ((0o664, not own), (0o644, False), (0o646, True)):
        status = os.stat_result((0o100000 | mode, 0, 0, 1, os.getuid(), 7, 0, 0, 0, 0))
        assert others_may_write(status) is expected
    assert others_may_write(os.stat_result((0o100600, 0, 0, 1, os.getuid() + 1, 7, 0, 0, 0, 0)))
    assert others_may_write(os.stat_result((0o100660, 0, 0, 1, os.getuid(), 8, 0, 0, 0, 0)))


def test_lines_that_are_not_used_are_told(files, capsys):
    found = files(
        keys=f"frob {LINE}\n{LINE}",
        authorities=f"no-pty {AUTHORITY.public_key.openssh()}\nx",
        principals="frob alice\nalice",
    )
    assert found.check()
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": this line is not used: ")[0].rpartition("/")[2] for line in said] == [
        *("keys:1", "authorities:1", "authorities:2", "principals:1")
    ]
    assert said[0].endswith("option frob is not known")
    assert said[1].endswith("options mean nothing here")


@pytest.mark.parametrize(
    ("contents", "usable"),
    [
        ({"keys": LINE}, True),
        ({"keys": f"frob {LINE}"}, False),
        ({"keys": f"cert-authority {LINE}"}, True),
        ({"authorities": LINE}, True),
        ({"authorities": f"no-pty {LINE}"}, False),
        ({"authorities": LINE, "principals": "# nobody"}, False),
        ({"authorities": LINE, "principals": "alice"}, True),
        ({}, False),
    ],
)
def test_whether_anybody_could_log_in(files, contents, usable):
    assert files(**contents).check() is usable


def test_a_list_of_what_is_revoked_has_to_be_one(files):
    with pytest.raises(Failure, match="revoked keys file"):
        files(keys=LINE, revoked="who knows").check()


# ------------------------------------------------------------------------------------------------------------- the verb


@pytest.fixture
def serve(tmp_path, capsys, monkeypatch):
    """``sshproto serve``, as far as its configuration: what it said when it failed, or the configuration."""
    host_key = tmp_path / "host_key"
    host_key.touch(mode=0o600)
    host_key.write_bytes(HOST_KEY.openssh())
    (tmp_path / "keys").write_text(LINE + "\n")
    (tmp_path / "ca").write_text(AUTHORITY.public_key.openssh() + "\n")
    (tmp_path / "host-cert.pub").write_text(certify(HOST_KEY, CertificateKind.HOST).openssh() + "\n")
    (tmp_path / "other-cert.pub").write_text(certify(OTHER, CertificateKind.HOST).openssh() + "\n")
    (tmp_path / "empty").touch()
    configs = []
    monkeypatch.setitem(serve_verb._FACES, "blocking", lambda where, config, *rest: configs.append(config))
    monkeypatch.chdir(tmp_path)

    def run(*options):
        argv = ["serve", "--listen", "127.0.0.1:0", "--host-key", "host_key", *options]
        if command.main(argv):
            return capsys.readouterr().err
        return configs.pop()

    return run


def test_what_it_is_told(serve):
    config = serve("--authorized-keys", "keys", "--trusted-user-ca", "ca", "--host-certificate", "host-cert.pub")
    assert config.auth_methods == ("publickey",)
    assert [it.key for it in config.host_certificates] == [HOST_KEY.public_key]
    assert (config.security_keys.user_presence, config.security_keys.user_verification) == (False, False)
    assert serve("--trusted-user-ca", "ca", "--touch-required").security_keys.user_presence
    assert serve("--trusted-user-ca", "ca", "--verify-required").security_keys.user_verification


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --authorized-keys, --trusted-user-ca or --password-file"),
        (["--authorized-keys", "keys", "--authorized-principals", "empty"], "goes with --trusted-user-ca"),
        (["--revoked-keys", "empty"], "give --authorized-keys"),
        (["--trusted-user-ca", "empty"], "there is no line in empty that can be used"),
        (["--trusted-user-ca", "ca", "--authorized-principals", "empty"], "no line in ca and empty that can be used"),
        (["--trusted-user-ca", "nothing"], "user CA file"),
        (["--authorized-keys", "keys", "--revoked-keys", "nothing"], "revoked keys file"),
        (["--authorized-keys", "keys", "--host-certificate", "keys"], "host certificate keys: not a certificate"),
        (["--authorized-keys", "keys", "--host-certificate", "other-cert.pub"], "is for none of the host keys"),
    ],
)
def test_what_makes_no_sense(serve, options, said):
    assert said in serve(*options)


def test_a_list_for_nobody(serve, tmp_path):
    (tmp_path / "passwords").touch(mode=0o600)
    (tmp_path / "passwords").write_text("alice:secret\n")
    assert "--revoked-keys goes with" in serve("--password-file", "passwords", "--revoked-keys", "empty")
