"""Pictures of real connections: every message is in them, nothing overlaps, and attacks are marked where they are."""

from __future__ import annotations

import json

import pytest

from sshproto.replay.picture import svg as picture
from sshproto.replay.picture.steps import Kind, Run, Step, folded
from tests.replay.test_lab import NAMES
from tests.support.boxes import overlaps
from tests.support.charts import charts


@pytest.fixture
def capture(shared):
    def find(name):
        path = shared / "captures" / name
        if not path.is_file():
            pytest.skip(f"there is no {name}")
        return path

    return find


def messages(chart, side):
    """The numbers of all messages of a side, in order."""
    return [item.number for item in chart.items if item.side is side and item.kind is Kind.PACKET]


@pytest.mark.parametrize("name", NAMES)
def test_every_message_of_the_lab_is_there(capture, name):
    truth = json.loads(capture(f"lab/{name}.truth.json").read_text())
    found = charts(capture(f"lab/{name}.dsb.pcapng").read_bytes())
    assert len(found) == len(truth)
    for chart, told in zip(found, truth, strict=True):
        assert messages(chart, chart.client) == told["client"]["messages"]
        assert messages(chart, chart.client.other) == told["server"]["messages"]
        for items in (chart.items, folded(chart.items)):
            assert sum(item.packets if isinstance(item, Run) else item.kind is Kind.PACKET for item in items) == (
                chart.packets
            )
    for scale in ("even", "time"):
        assert overlaps(picture.draw(found, scale=scale)) == []


@pytest.mark.parametrize(
    ("name", "number", "code", "marked"),
    [
        ("ext_downgrade_chacha20-poly1305", 0, "terrapin", {"IGNORE"}),
        ("ext_downgrade_cbc_ping", 1, "terrapin", {"PING"}),
        ("rogue_extension_negotiation_attack", 0, "rogue-extension", {"EXT_INFO"}),
        ("rogue_session_attack", 1, "rogue-session", {"USERAUTH_REQUEST"}),
    ],
)
def test_attacks_are_marked_at_the_message(capture, name, number, code, marked):
    chart = charts(capture(f"public/terrapin/{name}.pcapng").read_bytes())[number]
    (mark,) = [place for place, finding in enumerate(chart.findings) if finding.code == code]
    steps = [item for item in chart.items if isinstance(item, Step) and mark in item.marks]
    assert {step.name for step in steps} == marked
    assert all(not step.encrypted for step in steps)
    svg = picture.draw([chart])
    assert overlaps(svg) == []
    assert "critical" in svg


def test_roles_are_those_of_the_key_exchange(capture):
    (chart,) = charts(capture("public/zeek/reverse-ssh.pcap").read_bytes())
    assert "AsyncSSH" in chart.versions[chart.client]
    assert chart.addresses[chart.client].endswith(":22") or chart.sure
    assert picture.draw([chart]).index("AsyncSSH") < picture.draw([chart]).index("dropbear")
