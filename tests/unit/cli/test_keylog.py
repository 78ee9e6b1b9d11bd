"""``sshproto keylog``: what is said of key logs, what they are converted to, and captures with them inside."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import subprocess

import pytest

from sshproto.config import Preferences
from sshproto.replay.capture.reader import CaptureReader
from sshproto.replay.events import Side
from sshproto_cli.main import main
from tests.support import captures
from tests.support.tapes import command, shell, tape

COOKIE = "00112233445566778899aabbccddeeff"
CURVE = Preferences(kex=("curve25519-sha256",))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes files that only their owner may read, in the folder where the test is."""
    monkeypatch.chdir(tmp_path)

    def write(**contents):
        for name, content in contents.items():
            path = tmp_path / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(0o600)

    return write


@pytest.fixture
def keylog(capfdbinary):
    """Runs a verb: status, standard output, the lines of standard error."""

    def run(*words):
        status = main(["keylog", *map(str, words)])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode().splitlines()

    return run


def private(show, side=Side.DIALLER):
    """A line with a private value, in two fields."""
    [cookie], [value] = (show.recording.drawn_for(side, label) for label in ("cookie", "kex"))
    return f"{cookie.hex()} {value.hex()}\n"


# ---------------------------------------------------------------------------------------------------------------- check


def test_check(keylog, files):
    files(good=f"# mine\n{COOKIE} SHARED_SECRET 0102\n{'ff' * 16} 03\n")
    status, out, err = keylog("check", "good")
    assert out.decode().splitlines() == [
        "     1 shared secrets (SHARED_SECRET)",
        "     1 private values (PRIVATE_KEY)",
        "     1 comments",
        "     1 of them with two fields, as Wireshark 4.0 has them",
    ]
    assert (status, err) == (0, [])


def test_check_says_what_is_wrong(keylog, files):
    files(bad=f"{COOKIE} SHARED_SECRET 0102\n{COOKIE} SHARED_SECRET 0102\n{COOKIE} SHARED_SECRET 0901\nx\x1b[2J y z\n")
    status, out, _ = keylog("check", "bad")
    assert out.decode().splitlines()[2:] == [
        "line 4 is of the kind 'y', expected SHARED_SECRET or PRIVATE_KEY",
        "line 3 contradicts line 1: the same cookie, another value",
        "line 2 says again what line 1 says",
    ]
    assert status == 1
    assert b"0901" not in out, "secrets are not shown"


def test_check_with_captures(keylog, files):
    one, two = command(), shell(preferences=CURVE)
    lines = one.key_log.decode() + f"{COOKIE} SHARED_SECRET 0102\n"
    files(log=lines, both=tape(one, two, key_log=False), one=tape(one, key_log=False))
    status, out, _ = keylog("check", "log", "--capture", "one")
    assert out.decode().splitlines()[2:] == [
        "connection 1, 10.0.0.1:40001 to 10.0.0.2:22: opened (1 key exchange)",
        "line 2 is of no connection in the captures",
    ]
    assert status == 0
    status, out, _ = keylog("check", "log", "--capture", "one", "--capture", "both")
    assert out.decode().splitlines()[2:5] == [
        "one, connection 1, 10.0.0.1:40001 to 10.0.0.2:22: opened (1 key exchange)",
        "both, connection 1, 10.0.0.1:40001 to 10.0.0.2:22: opened (1 key exchange)",
        "both, connection 2, 10.0.0.1:40002 to 10.0.0.2:22: not opened",
    ]
    assert status == 1
    files(log=one.key_log.decode() + two.key_log.decode()[:-3] + "00\n")
    status, out, _ = keylog("check", "log", "--capture", "both", "--json")
    found = json.loads(out)
    assert [each["whole"] for each in found["connections"]] == [True, False]
    assert status == 1


def test_check_reads_other_forms(keylog, files):
    show = command()
    files(capture=tape(show), keys=json.dumps([{"key": "00", "cipher_name": "aes128-ctr"}]), empty="")
    assert b"     1 shared secrets" in keylog("check", "capture")[1]
    assert keylog("check", "keys")[2] == [
        "sshproto: keys: these are derived keys, no key log; the verbs of pcap take --session-keys"
    ]
    assert keylog("check", "empty")[0] == 0
    assert keylog("check", "absent") == (2, b"", ["sshproto: key log absent: No such file or directory"])


def test_check_warns_of_readers(keylog, files, tmp_path):
    files(log=f"{COOKIE} SHARED_SECRET 0102\n")
    (tmp_path / "log").chmod(0o644)
    assert keylog("check", "log")[2] == ["sshproto: log: others than its owner may read it; chmod 600 would help"]


# -------------------------------------------------------------------------------------------------------------- convert


def test_two_fields_become_three_and_two_again(keylog, files):
    files(old=f"# mine\n{COOKIE} 0102\n")
    status, out, err = keylog("convert", "old")
    assert (status, out, err) == (0, f"# mine\n{COOKIE} PRIVATE_KEY 0102\n".encode(), [])
    files(new=out)
    assert keylog("convert", "new", "--to", "two") == (0, f"# mine\n{COOKIE} 0102\n".encode(), [])


def test_no_line_is_lost_silently(keylog, files):
    files(log=f"{COOKIE} SHARED_SECRET 01\n{COOKIE} PRIVATE_KEY 02\nnonsense\n")
    status, out, err = keylog("convert", "log", "--to", "two")
    assert (status, out) == (1, f"{COOKIE} 02\n".encode())
    assert err == [
        "sshproto: log, line 1 is a shared secret, for which there is no line of two fields",
        "sshproto: log, line 3 has 1 fields, expected a cookie, a kind and a value",
        "sshproto: 2 left out",
    ]


@pytest.mark.parametrize("side", list(Side))
def test_private_values_become_shared_secrets(keylog, files, side):
    show = shell(preferences=CURVE)
    files(old=private(show, side), capture=tape(show, key_log=False))
    status, out, err = keylog("convert", "old", "--to", "shared", "--capture", "capture")
    assert (status, err) == (0, [])
    cookie, kind, secret = out.decode().split()
    # The cookie is that of the side whose value it was; of an mpint, the first byte may be 0.
    assert cookie == private(show, side).split()[0]
    assert (kind, int(secret, 16)) == ("SHARED_SECRET", int(show.key_log.split()[2], 16))


def test_private_values_that_can_not_be_converted(keylog, files):
    show, other = shell(preferences=CURVE), command(preferences=Preferences(kex=("curve25519-sha256@libssh.org",)))
    wrong = private(show)[:-3] + "00\n"
    files(old=f"{wrong}{COOKIE} 0102\n", capture=tape(other, key_log=False), mine=tape(show, key_log=False))
    status, out, err = keylog("convert", "old", "--to", "shared", "--capture", "mine", "--capture", "capture")
    assert (status, out) == (1, b"")
    assert err[0].startswith("sshproto: old, line 1 is a private value that does not open the key exchange")
    assert err[1:] == [
        "sshproto: old, line 2 is a private value of no connection in the captures",
        "sshproto: 2 left out",
    ]
    status, _, err = keylog("convert", "old", "--to", "shared")
    assert status == 2
    assert "--capture" in err[0]


def test_session_keys(keylog, files):
    entry = {"client_cookie": COOKIE, "K_encoded": "000000020102", "key_cs": "aa", "key_sc": "bb", "cipher_cs": "x"}
    files(keys=json.dumps([entry, {"key": "cc", "cipher_name": "aes128-ctr"}]))
    status, out, err = keylog("convert", "keys")
    assert (status, out) == (1, f"{COOKIE} SHARED_SECRET 0102\n".encode())
    assert "a key (aes128-ctr) was derived from a shared secret" in err[0]
    assert err[1] == "sshproto: 1 left out"
    files(keys="[1]")
    assert keylog("convert", "keys")[0] == 2


def test_out_of_a_capture_and_each_line_once(keylog, files):
    show, other = command(), shell()
    files(a=tape(show), log=show.key_log + other.key_log, packed=gzip.compress(tape(other)))
    assert keylog("convert", "a", "log", "packed")[1] == show.key_log + other.key_log


def test_only_the_owner_may_read_what_is_written(keylog, files, tmp_path):
    files(old=f"{COOKIE} 0102\n")
    target = tmp_path / "new"
    before = os.umask(0)
    try:
        assert keylog("convert", "old", "-o", "new") == (0, b"", [])
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert keylog("convert", "old", "-o", "old")[0] == 2
    assert (tmp_path / "old").read_text() == f"{COOKIE} 0102\n"


def test_from_standard_input(keylog, files, monkeypatch, tmp_path):
    files(old=f"{COOKIE} 0102\n")
    with (tmp_path / "old").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert keylog("convert", "-")[1] == f"{COOKIE} PRIVATE_KEY 0102\n".encode()


# --------------------------------------------------------------------------------------------------------------- inject


def read(data):
    reader = CaptureReader()
    packets = [
        (time, bytes(raw[start:stop])) for batch in reader.read([data]) for _, time, _, raw, start, stop, _ in batch
    ]
    return packets, b"".join(reader.secrets)


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_inject(keylog, files, tmp_path, form, capfdbinary):
    show = command()
    data = tape(show, key_log=False, form=form)
    files(capture=data, log=b"# mine\n" + show.key_log * 2)
    assert keylog("inject", "capture", "log", "-o", "out") == (0, b"", [])
    out = (tmp_path / "out").read_bytes()
    assert read(out) == (read(data)[0], show.key_log)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    assert main(["pcap", "follow", "out", "--channel", "0", "--raw", "--stderr"]) == 0
    assert capfdbinary.readouterr().out == b"oops\n"
    assert keylog("inject", "out", "--remove", "-o", "plain") == (0, b"", [])
    assert read((tmp_path / "plain").read_bytes()) == (read(data)[0], b"")


def test_inject_in_place_of_what_is_there(keylog, files, tmp_path):
    files(capture=tape(command()), log=f"{COOKIE} 0102\n")
    assert keylog("inject", "capture", "log", "--remove", "-o", "out") == (0, b"", [])
    assert read((tmp_path / "out").read_bytes())[1] == f"{COOKIE} 0102\n".encode()


def test_inject_from_and_to_the_standard_streams(keylog, files, tmp_path, monkeypatch):
    show = command()
    files(capture=tape(show, form="pcap"), log=show.key_log)
    with (tmp_path / "capture").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        status, out, _ = keylog("inject", "-", "log", "-o", "-")
    assert status == 0
    assert read(out)[1] == show.key_log


def test_inject_refuses(keylog, files, tmp_path):
    show = command()
    files(capture=tape(show), log=show.key_log, bad="nonsense\n", empty="# nothing\n", none=b"no capture at all")
    assert "there is nothing to do" in keylog("inject", "capture", "-o", "out")[2][0]
    assert "bad, line 1 has 1 fields" in keylog("inject", "capture", "bad", "-o", "out")[2][0]
    assert "there is no line in it" in keylog("inject", "capture", "empty", "-o", "out")[2][0]
    assert "it is what is read" in keylog("inject", "capture", "log", "-o", "capture")[2][0]
    assert "it is what is read" in keylog("inject", "capture", "log", "-o", "log")[2][0]
    status, _, err = keylog("inject", "none", "log", "-o", "out")
    assert status == 2
    assert err[0].startswith("sshproto: none: ")
    assert keylog("inject", "absent", "log", "-o", "out")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "capture", "empty", "log", "none"]


def test_inject_into_a_capture_that_is_cut_short(keylog, files, tmp_path):
    show = command()
    data = tape(show, form="pcap")[:-7]
    files(capture=data, log=show.key_log)
    status, _, err = keylog("inject", "capture", "log", "-o", "out")
    assert status == 1
    assert err[0].startswith("sshproto: capture: ")
    assert read((tmp_path / "out").read_bytes())[0] == read(data)[0]


def test_nothing_to_remove(keylog, files):
    files(capture=tape(command(), key_log=False))
    assert keylog("inject", "capture", "--remove", "-o", "out")[2] == ["sshproto: capture: there was no key log in it"]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="there is no tshark")
@pytest.mark.parametrize("nano", [True, False])
@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_tshark_reads_it(keylog, files, tmp_path, form, nano):
    preferences = Preferences(kex=("curve25519-sha256",), cipher=("aes128-ctr",), mac=("hmac-sha2-256",))
    show = command(preferences=preferences)
    records = show.segments()
    data = captures.pcap(records, nano=nano) if form == "pcap" else captures.pcapng(records)
    files(capture=data, log=private(show))
    assert keylog("inject", "capture", "log", "-o", "out")[0] == 0

    def fields(name, *options):
        command = ["tshark", "-r", str(tmp_path / name), "-T", "fields", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    stamps = ("-e", "frame.time_epoch")
    assert fields("out", *stamps) == fields("capture", *stamps)
    assert len(fields("out", *stamps)) == len(records)
    # All versions open this by the private value: what is encrypted without it is seen with it.
    seen = fields("out", "-Y", "ssh.userauth_user_name", "-e", "ssh.userauth_user_name")
    assert seen[:1] == ["alice"]
    assert fields("capture", "-Y", "ssh.userauth_user_name", "-e", "ssh.userauth_user_name") == []
