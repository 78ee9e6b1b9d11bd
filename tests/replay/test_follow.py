"""``sshproto pcap follow`` and ``cast`` on the lab's recordings: what was said there, and when which key was hit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sshproto_cli.main import main
from tests.support import asciicast


@pytest.fixture
def lab(shared: Path) -> Path:
    path = shared / "captures" / "lab"
    if not path.is_dir():
        pytest.skip("no recordings of the lab")
    return path


@pytest.fixture
def pcap(lab, capfdbinary):
    """Runs a verb on a recording; what it writes."""

    def run(verb, name, *words):
        assert main(["pcap", verb, str(lab / f"{name}.dsb.pcapng"), *map(str, words)]) == 0
        out: bytes = capfdbinary.readouterr().out
        return out

    return run


def test_channels_one_beside_another(pcap):
    found = [json.loads(line) for line in pcap("follow", "multichannel_openssh9_2", "--json").splitlines()]
    assert [(each["program"]["command"], each["exit_status"]) for each in found] == [
        (f"echo ch{number}; sleep 0.{number}", 0) for number in range(5)
    ]
    assert all(each["complete"] for each in found)
    for number in range(5):
        said = pcap("follow", "multichannel_openssh9_2", "--channel", number, "--raw")
        assert said == f"ch{number}\n".encode()


def test_forwarded_connections(pcap):
    found = [json.loads(line) for line in pcap("follow", "forward_openssh10_6", "--json").splitlines()]
    assert [each["type"] for each in found] == ["direct-tcpip", "session", "forwarded-tcpip"]
    assert [each["opened_by"] for each in found] == ["client", "client", "server"]
    assert (found[0]["target"]["host"], found[0]["target"]["port"]) == ("10.9.0.9", 7007)
    assert pcap("follow", "forward_openssh10_6", "--channel", 0, "--raw") == b"GET /tunnelled\r\nGET /TUNNELLED\r\n"
    assert pcap("follow", "forward_openssh10_6", "--channel", 2, "--raw", "--client") == b"VIA-REMOTE\n"


def test_standard_error_apart(pcap):
    assert pcap("follow", "client_plink0_85", "--channel", 0, "--raw", "--server") == b"cmd:whoami\n"
    assert pcap("follow", "client_plink0_85", "--channel", 0, "--raw", "--stderr") == b"err\n"
    assert json.loads(pcap("follow", "client_plink0_85", "--json"))["numbers"] == {"client": 256, "server": 0}


@pytest.mark.parametrize("name", ["zlib_openssh", "rekey_chacha", "sftp_openssh9_2"])
def test_as_many_bytes_as_are_listed(pcap, name):
    for line in pcap("follow", name, "--json").splitlines():
        channel = json.loads(line)
        for stream in channel["streams"]:
            option = "--stderr" if stream["stream"] == "stderr" else f"--{stream['from']}"
            data = pcap("follow", name, "--channel", channel["channel"], "--raw", option)
            assert len(data) == stream["bytes"]


def test_a_session_in_a_terminal(pcap):
    head, events = asciicast.read(pcap("cast", "shell_openssh10_6"))
    assert head["term"] == {"cols": 80, "rows": 24, "type": "xterm-256color"}
    assert head["command"] == "bash --noprofile --norc"
    assert head["env"] == {"LANG": "C"}
    assert [data for _, code, data in events if code == "r"] == ["120x40"]
    assert events[-1][1:] == ("x", "0")
    shown = "".join(data for _, code, data in events if code == "o")
    assert shown == pcap("follow", "shell_openssh10_6", "--channel", 0, "--raw", "--server").decode()
    assert 14 < sum(interval for interval, _, _ in events) < 15


@pytest.mark.parametrize("name", ["openssh_pair_plain_keystrokes", "openssh_pair_compress"])
def test_keys_when_they_were_hit(pcap, lab, name):
    head, events = asciicast.read(pcap("cast", name, "--input"))
    typed = [(time, data) for time, code, data in asciicast.at(events) if code == "i" and len(data) == 1]
    truth = json.loads((lab / f"{name}.keystrokes.json").read_text())
    assert "".join(key for _, key in typed) == "".join(key for _, key in truth)
    # The header knows whole seconds only: what is compared is how the keys lie to one another.
    late = [time - true for (time, _), (true, _) in zip(typed, truth, strict=True)]
    assert max(late) - min(late) < 0.02
    assert abs(min(late) + head["timestamp"]) < 1.1
