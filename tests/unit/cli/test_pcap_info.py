"""``sshproto pcap info``: what it says of connections, in which order, and where it writes."""

from __future__ import annotations

import json

import pytest

from sshproto.config import Preferences
from sshproto.replay.events import Side
from sshproto.replay.rows import CONNECTION_COLUMNS
from sshproto_cli.pcap import views
from tests.support import captures
from tests.support.tapes import Show, command, shell, tape
from tests.support.verbs import capture, runner

KEYS = """
    client_version server_version kex host_key_alg host_key_sha256 cipher_c2s cipher_s2c mac_c2s mac_s2c compression_c2s
    compression_s2c strict_kex hassh hassh_server session_id kex_epochs auth_success complete decrypted
""".split()


@pytest.fixture
def info(capfd, tmp_path):
    return runner("info", capfd, tmp_path)


def rows(lines):
    """The lines of a paragraph, by their labels."""
    return {line[2:17].rstrip(): line[19:] for line in lines if line.startswith("  ")}


# ----------------------------------------------------------------------------------------------------------------- JSON


def test_every_key_is_there(info):
    ran = info("--json", tape(command()))
    assert (ran.status, ran.err) == (0, [])
    (it,) = ran.objects
    assert set(KEYS) <= set(it)
    assert set(it) == {column.name for column in CONNECTION_COLUMNS}
    assert it["client_version"].startswith("SSH-2.0-")
    assert (it["connection"], it["complete"], it["auth_success"], it["strict_kex"], it["kex_epochs"]) == (
        1,
        True,
        True,
        True,
        1,
    )
    assert it["capture"].endswith("1.pcap")
    for role, first in (("client", [20, 30, 21]), ("server", [20, 31, 21])):
        it_sent = it["decrypted"][role]
        assert it_sent["messages"][:3] == first
        assert len(it_sent["messages"]) == it[f"messages_{role}"] > 8
        assert it_sent["payload_sha256"] == it[f"payload_sha256_{role}"]
    assert len(it["session_id"]) == 64


def test_without_a_key(info):
    (it,) = info("--json", tape(command(), form="pcap")).objects
    assert (it["decrypted"], it["session_id"], it["auth_success"]) == (None, None, None)
    assert it["host_key_sha256"].startswith("SHA256:")
    assert it["complete"] is True


def test_with_a_key_log_in_a_file(info, tmp_path):
    show = command()
    log = tmp_path / "log"
    log.write_bytes(show.key_log)
    (it,) = info("--json", "--keylog", log, tape(show, form="pcap")).objects
    assert it["decrypted"]["client"]["messages"]


def test_connections_in_their_order(info):
    """The first is the last to end."""
    first, second, third = (show.segments(number) for number, show in enumerate((shell(), command(), command()), 1))
    data = captures.pcap([*first[:-3], *second, *third[:-3], *first[-3:], *third[-3:]])
    assert [it["connection"] for it in info("--json", data).objects] == [1, 2, 3]
    assert [line.split()[1] for line in info(data).out if line.startswith("connection")] == ["1,", "2,", "3,"]


def test_only_one(info):
    data = tape(command(), shell(), command())
    assert [it["connection"] for it in info("--json", "-n", 2, data).objects] == [2]
    assert [it["connection"] for it in info("--json", "-n", 3, "-n", 1, data).objects] == [1, 3]
    ran = info("--json", "-n", 1, "-n", 7, "-n", 5, data)
    assert [it["connection"] for it in ran.objects] == [1]
    assert ran.status == 1
    assert ran.err == ["sshproto: no SSH connection has the number 5, 7: SSH is spoken in 1, 2, 3"]


# ----------------------------------------------------------------------------------------------------------------- text


def test_for_people(info):
    ran = info(tape(shell(), command()))
    assert ran.status == 0
    first, second = "\n".join(ran.out).strip().split("\n\n")
    assert first.startswith("connection 1, 10.0.0.1:40001 to 10.0.0.2:22, in ")
    assert second.startswith("connection 2, 10.0.0.1:40002 to 10.0.0.2:22, in ")
    shown = rows(first.splitlines())
    assert shown["key exchange"].endswith(", strict")
    assert "SHA256:" in shown["host key"]
    assert shown["login"] == "succeeded"
    assert shown["complete"] == "yes"
    assert shown["opened"] == "yes, with the shared secret"
    assert shown["time"] == "2023-11-14 22:13:20.000000 UTC, for 17.500 s"
    assert shown["MAC"] == "by the cipher"
    assert "frames from the client" in shown["bytes"]


def test_what_is_not_there_is_said(info):
    show = command(preferences=Preferences(cipher=("aes128-ctr",), mac=("hmac-sha2-256",)))
    lost = len(show.recording.wire) - 3
    shown = rows(info(tape(show, form="pcap", lost=(lost,))).out)
    assert shown["opened"] == "no: no key is known: this can't be read, nor would a key exchange in it show"
    assert shown["complete"].startswith("no: ")
    assert "missing" in shown["complete"]
    assert (shown["login"], shown["MAC"], shown["cipher"]) == ("not known", "hmac-sha2-256", "aes128-ctr")


def test_a_wrong_key(info, tmp_path):
    show = command()
    path = tmp_path / "keys"
    path.write_bytes(show.key_log.split()[0] + b" SHARED_SECRET " + b"11" * 32)
    shown = rows(info("--keylog", path, tape(show, form="pcap")).out)
    assert shown["opened"] == "no: the shared secret that is known for this key exchange does not fit it"


def test_some_keys(info):
    show = Show()
    show.client.rekey()
    show.run()
    show.recording.key_log.pop()
    assert rows(info(tape(show.bye())).out)["opened"].startswith("in part, with the shared secret; ")


def test_no_ssh(info):
    ran = info(capture([]))
    assert (ran.status, ran.out, ran.err) == (0, [], ["sshproto: there is no SSH connection in it"])


def test_a_peers_words_do_no_harm(info):
    wire = [(Side.DIALLER, b"SSH-2.0-\x1b[2Jevil \xff\r\n"), (Side.DIALLED, b"SSH-2.0-x\r\n")]
    for options in ((), ("--json",)):
        ran = info(*options, capture(wire))
        assert "\x1b" not in "\n".join(ran.out)
        assert "evil" in "\n".join(ran.out)


# ---------------------------------------------------------------------------------------------------- many, and tables


def test_several_at_once(info, tmp_path):
    data = tape(command()), tape(shell(), command())
    apart = info("--json", "--jobs", 2, *data)
    assert [it["connection"] for it in apart.objects] == [1, 1, 2]
    assert [it["capture"][-6:] for it in apart.objects] == ["3.pcap", "4.pcap", "4.pcap"]
    alone = info("--json", "--jobs", 1, *data)
    assert alone.out == apart.out
    assert info("--jobs", 2, *data).out == info("--jobs", 1, *data).out
    assert apart.objects[0]["decrypted"]["server"]["messages"]


def test_several_of_which_one_is_bad(info):
    ran = info("--json", "--jobs", 2, b"nothing", tape(command()), "/no/such/file")
    assert len(ran.out) == 1
    assert ran.status == 1
    assert ran.err[0].endswith("not pcap, nor pcapng, nor one of them in gzip or zstd")
    assert ran.err[1] == "sshproto: /no/such/file: No such file or directory"


def test_into_a_file(info, tmp_path):
    target = tmp_path / "out.jsonl"
    data = tape(command())
    ran = info("--format", "jsonl", "-o", target, data)
    assert (ran.status, ran.out, ran.err) == (0, [], [])
    assert json.loads(target.read_text())["connection"] == 1
    ran = info("--format", "jsonl", "-o", target, data[:-2000])
    assert ran.status == 1
    assert json.loads(target.read_text())["complete"] is False


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_table(info, tmp_path, form):
    pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    target = tmp_path / "table"
    assert info("--format", form, "-o", target, tape(command(), shell())).status == 0
    table = parquet.read_table(target) if form == "parquet" else feather.read_table(target)
    assert table.column("connection").to_pylist() == [1, 2]
    assert table.column("decrypted").to_pylist() == [True, True]
    assert table.column_names == [column.name for column in CONNECTION_COLUMNS]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "parquet"], "--format parquet takes a file: -o says which"),
        (["--jobs", "2", "-n", "1"], "-n does not go with --jobs, with which each file has its own numbers"),
        (["--jobs", "-1"], "not a number of processes up to 1024: '-1'"),
        (["--jobs", "many"], "not a number of processes up to 1024: 'many'"),
        (["-n", "0"], "not the number of a connection: '0'"),
        (["--port", "99999"], "not a port number: '99999'"),
    ],
)
def test_options_that_make_no_sense(info, options, words):
    ran = info(*options, "x.pcap")
    assert (ran.status, ran.out) == (2, [])
    assert len(ran.err) == 1
    assert words in ran.err[0]


# -------------------------------------------------------------------------------------------------------------- details


def test_both_ways_are_shown_if_they_differ():
    known = {"cipher_c2s": "aes128-ctr", "cipher_s2c": "aes256-ctr"}
    assert views._ways(known, "cipher") == "aes128-ctr out, aes256-ctr back"


def test_any_time():
    """A capture may have whatever it wants."""
    assert views.moment(1_700_000_000_123_456_789) == "2023-11-14 22:13:20.123456 UTC"
    assert views.moment(-1_000_000_000) == "1969-12-31 23:59:59.000000 UTC"
    assert views.moment(1 << 68) == "295147905179.352844 s after 1970"


def test_who_dialled_may_be_the_server(info):
    wire = [(Side.DIALLED if side is Side.DIALLER else Side.DIALLER, data) for side, data in command().recording.wire]
    ran = info(capture(wire))
    assert ran.out[0].startswith("connection 1, 10.0.0.1:40001 to 10.0.0.2:22 (the client), in ")
    (it,) = info("--json", capture(wire)).objects
    assert (it["client"], it["client_sure"]) == ("dialled", True)
