"""From events to steps: phases, words, channels, runs, limits, findings; and no secrets."""

from __future__ import annotations

from sshproto import algorithms
from sshproto.channels.requests import Exec
from sshproto.config import ClientConfig, Preferences
from sshproto.replay.events import Side
from sshproto.replay.picture.steps import PIECES, Kind, Phase, Run, Step, folded
from sshproto.replay.picture.timeline import Budget
from sshproto.wire.table import Role
from tests.support.charts import WHISPERED, chart_of, whispered
from tests.support.tapes import Show, command, shell, tape


def names(items):
    return [item.name if isinstance(item, Step) else f"run of {item.packets}" for item in items]


def steps(chart, kind=Kind.PACKET):
    return [item for item in chart.items if isinstance(item, Step) and item.kind is kind]


def test_phases_in_the_order_of_the_standards():
    chart = chart_of(tape(command()))
    order = []
    for item in chart.items:
        if not order or order[-1] is not item.phase:
            order.append(item.phase)
    assert order == [Phase.VERSIONS, Phase.EXCHANGE, Phase.AUTHENTICATION, Phase.CONNECTION]


def test_every_packet_is_there_with_its_place():
    chart = chart_of(tape(command()))
    packets = steps(chart)
    assert names(packets)[:4] == ["KEXINIT", "KEXINIT", "KEX_ECDH_INIT", "KEX_ECDH_REPLY"]
    assert names(packets)[-1] == "DISCONNECT"
    for side in Side:
        numbers = [step.sequence_number for step in packets if step.side is side and step.epoch]
        assert numbers == list(range(len(numbers)))
    assert all(step.frames and step.size and step.time is not None for step in packets)
    assert [step.encrypted for step in packets if step.name == "NEWKEYS"] == [False, False]
    assert all(step.encrypted for step in packets if step.number >= 50)
    assert chart.packets == len(packets)


def test_who_is_who():
    chart = chart_of(tape(command()))
    assert (chart.client, chart.sure) == (Side.DIALLER, True)
    assert chart.role(Side.DIALLED) is Role.SERVER
    assert chart.addresses[Side.DIALLER] == "10.0.0.1:40001"
    assert all("SSH-2.0-sshproto" in line for line in chart.versions.values())
    assert chart.opened == ("shared secret, the server's signature proves it",)


def test_notes_on_what_changed():
    chart = chart_of(tape(command()))
    notes = steps(chart, Kind.NOTE)
    assert [note.summary.partition(":")[0] for note in notes] == ["agreed", *["encrypted from here on"] * 2]
    assert [note.side is None for note in notes] == [True, False, False]
    assert notes[0].fields["strict_kex"] is True
    place = chart.items.index(notes[0])
    assert chart.items[place - 1].name == "KEXINIT"


def test_rekeys():
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    show.client.rekey()
    show.run().type(channel, b"after").bye()
    chart = chart_of(tape(show))
    rekey = [item for item in chart.items if item.phase is Phase.REKEY]
    assert names(rekey) == [
        "KEXINIT", "KEXINIT", "KEX_ECDH_INIT", "KEX_ECDH_REPLY", *["NEWKEYS", "note"] * 2
    ]  # fmt: skip
    assert [item.summary for item in rekey if item.kind is Kind.NOTE] == ["new keys, the same algorithms"] * 2
    assert all(item.phase is Phase.CONNECTION for item in chart.items[chart.items.index(rekey[-1]) + 1 :])


def test_channels():
    show = Show()
    first, second = show.open(), show.open()
    show.ask(second, Exec(b"cat")).type(second, b"x").exit(1).bye()
    chart = chart_of(tape(show))
    assert chart.channels == {0: "session", 1: "session"}
    of_one = {step.name for step in steps(chart) if step.channel == 1}
    assert {"CHANNEL_OPEN", "CHANNEL_OPEN_CONFIRMATION", "CHANNEL_REQUEST", "CHANNEL_DATA", "CHANNEL_CLOSE"} <= of_one
    assert {step.name for step in steps(chart) if step.channel == 0} == {"CHANNEL_OPEN", "CHANNEL_OPEN_CONFIRMATION"}
    assert first == 0


def test_no_secrets():
    show = Show(client=ClientConfig(user="alice", preferences=Preferences(), debug_raise=True))
    channel = show.open()
    show.ask(channel, Exec(b"cat")).type(channel, b"hunter2").print(channel, b"hunter2").bye()
    chart = chart_of(tape(show))
    everything = repr(chart) + repr([*map(repr, chart.items)])
    assert "USERAUTH_REQUEST" in everything
    assert "hunter2" not in everything
    assert not any(step.public for step in steps(chart) if step.number >= 50)
    data = [step for step in steps(chart) if step.name == "CHANNEL_DATA"]
    assert [step.summary for step in data] == ["7 bytes", "7 bytes"]


def test_no_passwords():
    chart = chart_of(tape(whispered()), contents=True)
    names = [step.name for step in steps(chart)]
    for name in ("USERAUTH_PASSWD_CHANGEREQ", "USERAUTH_INFO_RESPONSE", "USERAUTH_SUCCESS"):
        assert name in names
    everything = repr(chart) + repr([*map(repr, chart.items)])
    assert WHISPERED not in everything
    assert WHISPERED.encode().hex() not in everything


def test_contents_only_if_they_are_asked_for():
    chart = chart_of(tape(command()), contents=True)
    said = [step.summary for step in steps(chart) if step.name.endswith("_DATA")]
    assert '5 bytes "input"' in said


def test_what_all_may_know_is_there_as_it_was_sent():
    chart = chart_of(tape(command()))
    assert [bool(step.public) for step in steps(chart)[:5]] == [True] * 5
    assert steps(chart)[0].public[0] == 20


def test_without_keys():
    chart = chart_of(tape(command(), key_log=False))
    sealed = steps(chart, Kind.SEALED)
    assert sealed and all(step.encrypted and step.bulk for step in sealed)
    assert {step.phase for step in sealed} <= {Phase.EXCHANGE, Phase.SEALED}
    assert sealed[-1].phase is Phase.SEALED
    notes = [dict(note.details) for note in steps(chart, Kind.NOTE) if note.side is not None]
    assert all("no key is known" in note["not opened"] for note in notes)
    assert chart.opened == ()


def test_keys_that_come_late_give_the_same_chart():
    early, late = chart_of(tape(shell())), chart_of(tape(shell(), late=True))
    assert names(late.items) == names(early.items)
    assert [item.time for item in late.items] == [item.time for item in early.items]
    assert all("not opened" not in dict(note.details) for note in steps(late, Kind.NOTE))
    assert late.dropped == 0


def test_late_keys_and_a_full_budget():
    show = Show()
    channel = show.open()
    for _ in range(600):
        show.type(channel, b"x")
    data = tape(show, late=True)
    budget = Budget(600)
    chart = chart_of(data, budget=budget)
    whole = chart_of(tape(show))
    assert chart.packets == whole.packets
    assert chart.size == whole.size


def test_missing_bytes():
    chart = chart_of(tape(command(), lost={12}))
    gaps = steps(chart, Kind.GAP)
    assert len(gaps) == 1
    assert gaps[0].size > 0
    assert "missing" in gaps[0].summary


def test_the_end_is_shown():
    assert len(steps(chart_of(tape(command())), Kind.END)) == len(Side)


def talkative(count):
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    for place in range(count):
        show.wait(0.001).type(channel, b"x" * place)
    return show.exit(channel).bye()


def test_runs_are_folded_and_count_all():
    chart = chart_of(tape(talkative(40)))
    items = folded(chart.items)
    (run,) = [item for item in items if isinstance(item, Run)]
    assert run.packets == len(run.steps)
    assert run.uncounted == 0
    assert run.totals(Side.DIALLER) == (39, sum(step.size for step in run.steps if step.side is Side.DIALLER))
    assert (run.time, run.until) == (run.steps[0].time, run.steps[-1].time)
    unfolded = [each for item in items for each in (item.steps if isinstance(item, Run) else [item])]
    assert unfolded == list(chart.items)


def test_short_runs_are_not_folded():
    chart = chart_of(tape(talkative(40)))
    count = next(item.packets for item in folded(chart.items) if isinstance(item, Run))
    assert not any(isinstance(item, Run) for item in folded(chart.items, shortest=count + 1))
    assert any(isinstance(item, Run) for item in folded(chart.items, shortest=count))
    assert folded(chart.items, shortest=0) == list(chart.items)


def test_what_is_over_the_limit_is_counted():
    show = talkative(700)
    whole, cut = chart_of(tape(show)), chart_of(tape(show), budget=Budget(100))
    kept = [item for item in cut.items if isinstance(item, Step)]
    assert len(kept) == 500  # every connection may have that many
    assert cut.dropped == sum(item.packets for item in cut.items if isinstance(item, Run))
    assert (cut.packets, cut.size) == (whole.packets, whole.size)
    assert len(cut.items) < 510


def test_a_budget_is_shared():
    budget = Budget(1000)
    data = tape(talkative(700))
    assert chart_of(data, budget=budget).dropped == 0
    assert budget.left < 300
    assert chart_of(data, budget=budget).dropped > 0


def test_kinds_in_a_run_are_bounded():
    run = Run(phase=Phase.CONNECTION, time=0, until=0, frames=(), encrypted=True)
    for channel in range(1000):
        run.count((Side.DIALLER, "CHANNEL_DATA", channel), 1, 10)
    assert len(run.counts) <= 257
    assert run.totals(Side.DIALLER) == (1000, 10_000)


def test_findings_mark_the_steps_that_show_them():
    weak = Preferences(kex=(*algorithms.KEX_LEGACY, *algorithms.KEX_DEFAULT))
    chart = chart_of(tape(command(preferences=weak)))
    assert chart.findings
    marked = {mark: step for step in steps(chart) for mark in step.marks}
    assert set(marked) == set(range(len(chart.findings)))
    for mark, step in marked.items():
        assert set(step.frames) & set(chart.findings[mark].frames)
        assert step.name == ("KEXINIT" if chart.findings[mark].code == "weak-offer" else step.name)


def test_what_packets_can_not_be_told_apart_is_not_counted_as_packets():
    chart = chart_of(tape(command(), key_log=False))
    pieces = [step for step in steps(chart, Kind.SEALED) if step.name == PIECES]
    (run,) = [item for item in folded(chart.items) if isinstance(item, Run)]
    assert run.exact is not bool(pieces)
    assert chart.packets == len(steps(chart)) + len(steps(chart, Kind.SEALED)) - len(pieces)
