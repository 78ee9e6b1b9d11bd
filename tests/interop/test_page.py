"""The page of ``sshproto pcap timeline`` in a browser: filters, runs, details, keys, and a long session."""

from __future__ import annotations

import itertools
import time

import pytest

from sshproto.channels.requests import Exec
from sshproto_cli.main import main
from tests.bench.synthetic import Traffic
from tests.support.browser import browser
from tests.support.tapes import Show, command, shell, tape

ROWS = "[...document.querySelectorAll('.row')].map(row => row.innerText)"
COUNT = "document.getElementById('count').textContent"


def talkative():
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    for _ in range(30):
        show.wait(0.05).type(channel, b"x").print(channel, b"y")
    show.client.rekey()
    return show.run().wait(5).exit(channel).bye()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(chromium, tmp_path):
    """Opens the page of a capture."""

    def open_page(data, *options):
        capture, out = tmp_path / "a.pcapng", tmp_path / "a.html"
        capture.write_bytes(data)
        assert main(["pcap", "timeline", str(capture), "-o", str(out), *options]) == 0
        chromium.requests.clear()
        chromium.problems.clear()
        chromium.open(out)
        return chromium

    yield open_page
    assert chromium.problems == []
    assert len(chromium.requests) == 1  # the page itself


def pick(page, control, value):
    page.run(
        f"(() => {{ const it = document.getElementById('{control}'); it.value = {value!r};"
        " it.dispatchEvent(new Event('change')); })()"
    )


def test_it_shows_what_was_said(page):
    it = page(tape(command()))
    rows = " ".join(it.run(ROWS))
    for word in (
        "Version exchange",
        "Key exchange",
        "KEXINIT",
        "agreed: ",
        "encrypted from here on",
        "SERVICE_REQUEST",
    ):
        assert word in rows
    assert it.run("document.title") == "SSH connection 1, 10.0.0.1:40001 to 10.0.0.2:22"
    assert "SSH-2.0-sshproto" in it.run("document.getElementById('card-server').innerText")


def test_a_run_opens_on_a_click_and_closes(page):
    it = page(tape(talkative()))
    before = it.run(COUNT)
    it.run("document.getElementById('view').scrollTop = 1e6")
    it.wait("document.querySelector('.fold')")
    assert "60 packets" in it.run("document.querySelector('.fold').innerText")
    it.click(".fold")
    assert it.run("document.querySelectorAll('.fold.open').length") == 1
    assert "CHANNEL_DATA" in it.run("document.getElementById('detail').innerText")
    after = it.run(COUNT)
    assert int(after.split()[-2]) - int(before.split()[-2]) == 60
    it.click("#unfold")
    assert it.run(COUNT) == before


def test_filters(page):
    it = page(tape(talkative()))
    everything = it.run(COUNT)
    it.run("document.getElementById('text').value = 'newkeys'")
    it.run("document.getElementById('text').dispatchEvent(new Event('input'))")
    it.wait(f"{COUNT} !== {everything!r}")
    assert it.run(COUNT).startswith("4 shown")
    it.click("#reset")
    assert it.run(COUNT) == everything
    it.click(".chip[data-phase='4']")
    assert "Key re-exchange" not in " ".join(it.run(ROWS))
    it.click("#reset")
    pick(it, "side", "1")
    assert it.run("[...document.querySelectorAll('.row.client')].length") == 0
    assert it.run("[...document.querySelectorAll('.row.server')].length") > 5
    pick(it, "side", "")
    pick(it, "channel", "0")
    assert "KEXINIT" not in " ".join(it.run(ROWS))
    pick(it, "channel", "")
    value = it.run("[...document.getElementById('name').options].find(it => it.text.startsWith('CHANNEL_OPEN ')).value")
    pick(it, "name", value)
    assert it.run(COUNT).startswith("1 shown")


def test_details_of_a_step(page):
    it = page(tape(command()))
    it.run("[...document.querySelectorAll('.row')].find(row => row.innerText.includes('KEXINIT')).click()")
    words = it.run("document.getElementById('detail').innerText")
    for word in ("client to server", "frame", "sequence number", "kex_algorithms", "curve25519-sha256", "0000  14"):
        assert word in words
    it.press("Escape")
    assert it.run("document.getElementById('detail').hidden")


def test_keys(page):
    it = page(tape(talkative()))
    it.press("ArrowDown")
    assert "identification" in it.run("document.querySelector('.chosen').innerText")
    it.press("j")
    it.press("j")
    assert "KEXINIT" in it.run("document.querySelector('.chosen').innerText")
    it.press("k")
    assert "identification" in it.run("document.querySelector('.chosen').innerText")
    it.press("End")
    assert "end of stream" in it.run("document.querySelector('.chosen').innerText")
    it.press("t")
    assert it.run("document.getElementById('time').getAttribute('aria-pressed')") == "true"
    it.press("/")
    assert it.run("document.activeElement.id") == "text"
    it.press("Escape")
    assert it.run("document.activeElement.id") == "view"
    it.run("[...document.querySelectorAll('.row')].find(row => row.querySelector('.fold')).click()")
    it.press("Enter")
    assert it.run("document.querySelectorAll('.fold.open').length") == 1
    it.press("ArrowLeft")
    assert it.run("document.querySelectorAll('.fold.open').length") == 0


def test_time_to_scale_and_zoom(page):
    it = page(tape(shell()), "--scale", "time")
    places = "[...document.querySelectorAll('.row')].map(row => parseFloat(row.style.top))"
    tops = it.run(places)
    assert tops == sorted(tops)
    high = "document.getElementById('space').offsetHeight"
    before = it.run(high)
    it.press("+")
    assert it.run(high) > before
    it.press("-")
    assert it.run(high) == before
    it.click("#even")
    assert it.run(high) < before


def test_rows_touch_and_do_not_overlap(page):
    it = page(tape(talkative()))
    for scale in ("#even", "#time"):
        it.click(scale)
        it.wait("document.querySelector('.row')")
        boxes = it.run(
            "[...document.querySelectorAll('.row')].map(row => [parseFloat(row.style.top),"
            " parseFloat(row.style.top) + parseFloat(row.style.height)]).sort((a, b) => a[0] - b[0])"
        )
        assert len(boxes) > 10
        assert all(before[1] == after[0] for before, after in itertools.pairwise(boxes))


def test_several_connections(page):
    it = page(tape(command(), shell()))
    assert it.run("document.getElementById('connection').options.length") == 2
    pick(it, "connection", "1")
    assert it.run("document.getElementById('title').innerText") == "SSH connection 2"
    it.run("document.getElementById('view').scrollTop = 1e6")
    it.wait(f"{ROWS}.join(' ').includes('pty-req')")


def test_findings_are_marked_and_found(page):
    from sshproto import algorithms
    from sshproto.config import Preferences

    weak = Preferences(kex=(*algorithms.KEX_LEGACY, *algorithms.KEX_DEFAULT))
    it = page(tape(command(preferences=weak)))
    assert it.run("document.querySelectorAll('.row .badge').length") > 0
    it.click("#troubles li button")
    assert it.run("document.querySelector('.chosen .badge') !== null")
    it.click("#found")
    assert it.run("[...document.querySelectorAll('.row:not(.heading)')].every(row => row.querySelector('.badge'))")
    it.press("n")
    assert "Findings" in it.run("document.getElementById('detail').textContent")


def test_hostile_words_are_text(page):
    from sshproto.config import ClientConfig, Preferences

    evil = "<img src=x onerror=document.title=1></script>"
    it = page(tape(Show(client=ClientConfig(user=evil, preferences=Preferences(), debug_raise=True))))
    assert it.run("document.querySelectorAll('img').length") == 0
    it.run("document.getElementById('view').scrollTop = 1e6")
    it.wait(f"{ROWS}.join(' ').includes({evil!r})")


def test_print_shows_all_rows(page):
    it = page(tape(talkative()))
    it.click("#folding")
    some = it.run("document.querySelectorAll('.row').length")
    it.run("window.dispatchEvent(new Event('beforeprint'))")
    assert it.run("document.querySelectorAll('.row').length") > max(some, 90)
    it.run("window.dispatchEvent(new Event('afterprint'))")
    assert it.run("document.querySelectorAll('.row').length") <= some + 5


def test_ten_megabytes_open_without_freezing(page, tmp_path):
    traffic = Traffic.make(keys=10_000, transfer=7_500_000, suites=(("aes128-gcm@openssh.com", "hmac-sha2-256"),))
    keys = tmp_path / "keys"
    keys.write_text(traffic.key_log)
    data = b"".join(traffic.pcap(1000, together=1))
    assert len(data) > 10_000_000
    it = page(data, "--keylog", str(keys))
    assert (
        int(it.run("document.documentElement.dataset.ready")) < 10_000
    )  # milliseconds; far less where nothing else runs
    start = time.monotonic()
    it.click("#folding")
    shown = int(it.run(COUNT).split()[0].replace(",", ""))
    assert shown > 20_000
    for place in (0, 300_000, 600_000):
        it.run(f"document.getElementById('view').scrollTop = {place}")
        it.wait(
            f"[...document.querySelectorAll('.row')].some(row => Math.abs(parseFloat(row.style.top) - {place}) < 200)"
        )
        assert it.run("document.querySelectorAll('.row').length") < 100
    it.click("#time")
    assert time.monotonic() - start < 20
