"""``sshproto pcap timeline``: which form, where to, what is in it; and what is not."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sshproto.channels.requests import Exec
from sshproto.config import ClientConfig, Preferences
from sshproto_cli.main import main
from tests.support.charts import WHISPERED, whispered
from tests.support.tapes import Show, command, shell, tape


@pytest.fixture
def capture(tmp_path):
    """Writes a capture; its name."""

    def write(data, name="a.pcapng"):
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def draw(capfdbinary):
    """Runs the verb: status, standard output, the lines of standard error."""

    def run(*words):
        status = main(["pcap", "timeline", *map(str, words)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode().splitlines()

    return run


class Page(HTMLParser):
    """The elements of a page, and the text of those with an identifier."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.styles, self.tags, self.metas, self.links = [], [], [], {}, []
        self._to = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "action"}]
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        if tag == "meta" and "http-equiv" in found:
            self.metas[found["http-equiv"]] = found["content"]
        if tag in {"script", "style"}:
            self._to = self.scripts if tag == "script" else self.styles
            self._to.append([found, ""])

    def handle_data(self, data):
        if self._to is not None:
            self._to[-1][1] += data

    def handle_endtag(self, tag):
        self._to = None if tag in {"script", "style"} else self._to

    def data(self, name):
        (found,) = [text for attrs, text in self.scripts if attrs.get("id") == name]
        return json.loads(found)


def test_svg_is_the_usual_form(draw, capture):
    status, out, err = draw(capture(tape(command())))
    assert (status, err) == (0, [])
    assert ET.fromstring(out).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("name", "options", "start"),
    [
        ("a.svg", (), "<svg"),
        ("a.html", (), "<!doctype html>"),
        ("a.HTM", (), "<!doctype html>"),
        ("a", ("--format", "html"), "<!doctype html>"),
        ("a.html", ("--format", "svg"), "<svg"),
        ("a.png", (), "<svg"),
    ],
)
def test_a_file_says_which_form(draw, capture, tmp_path, name, options, start):
    out = tmp_path / name
    assert draw(capture(tape(command())), "-o", out, *options) == (0, "", [])
    assert out.read_text().startswith(start)


def test_a_terminal_gets_none(draw, capture, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    status, out, err = draw(capture(tape(command())))
    assert (status, out) == (1, "")
    assert err == ["sshproto: a picture is no text for a terminal: name a file with -o"]


def test_a_key_log_opens(draw, capture, tmp_path):
    show = command()
    log = tmp_path / "keys"
    log.write_bytes(show.key_log)
    name = capture(tape(show, key_log=False))
    assert "USERAUTH_SUCCESS" not in draw(name)[1]
    assert "USERAUTH_SUCCESS" in draw(name, "--keylog", log)[1]


def test_one_connection(draw, capture):
    name = capture(tape(command(), shell()))
    assert "2 SSH connections" in draw(name)[1]
    status, out, _ = draw(name, "-n", 2)
    assert status == 0
    assert '<title id="title">SSH connection 2: 10.0.0.1:40002' in out


def test_scale(draw, capture):
    name = capture(tape(shell()))
    assert "evenly spaced" in draw(name)[1]
    assert "in proportion to time" in draw(name, "--scale", "time")[1]


def test_folding(draw, capture):
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    for _ in range(20):
        show.type(channel, b"x")
    name = capture(tape(show.bye()))
    assert draw(name)[1].count(">CHANNEL_DATA<") == 0
    assert draw(name, "--fold", 0)[1].count(">CHANNEL_DATA<") == 20
    assert draw(name, "--fold", 100)[1].count(">CHANNEL_DATA<") == 20


def test_json(draw, capture, tmp_path):
    name = capture(tape(shell()))
    status, out, err = draw(name, "--json")
    assert (status, err) == (0, [])
    steps = [json.loads(line) for line in out.splitlines()]
    assert [step["message"] for step in steps[:2]] == ["identification"] * 2
    assert {step["kind"] for step in steps} == {"line", "packet", "note", "run", "end"}
    (run,) = [step for step in steps if step["kind"] == "run"]
    assert {count["message"] for count in run["counts"]} == {"CHANNEL_DATA", "CHANNEL_REQUEST"}
    assert all(step["time"] <= after["time"] for step, after in itertools.pairwise(steps))
    assert draw(name, "-o", tmp_path / "a.jsonl") == (0, "", [])
    assert (tmp_path / "a.jsonl").read_text() == out


def test_limit(draw, capture):
    show = Show()
    channel = show.open()
    for _ in range(600):
        show.type(channel, b"x")
    name = capture(tape(show))
    assert "are only counted, in runs: 10 are kept" in draw(name, "--limit", 10)[1]
    page = Page(draw(name, "--limit", 10, "--format", "html")[1]).data("connection-0")
    assert page["dropped"] > 0
    assert sum(run["packets"] for run in page["runs"].values()) == page["dropped"]


def test_too_many_connections_are_said(draw, capture):
    show = command()
    status, out, err = draw(capture(tape(*[show] * 12)))
    assert (status, err) == (0, ["sshproto: 2 more connections are left out; -n chooses others"])
    assert "10 SSH connections" in out


def test_secrets_stay_out(draw, capture):
    show = Show(client=ClientConfig(user="alice", preferences=Preferences(), debug_raise=True))
    channel = show.open()
    show.ask(channel, Exec(b"cat")).type(channel, b"hunter2").print(channel, b"hunter2").bye()
    name = capture(tape(show))
    for form in ("svg", "html"):
        out = draw(name, "--format", form)[1]
        assert "hunter2" not in out
        assert b"hunter2".hex() not in out
        assert "hunter2" in draw(name, "--format", form, "--show-data")[1]


@pytest.mark.parametrize("form", ["svg", "html", "json"])
def test_passwords_are_never_in_it(draw, capture, form):
    out = draw(capture(tape(whispered())), "--format", form, "--show-data")[1]
    assert "USERAUTH_INFO_RESPONSE" in out
    assert WHISPERED not in out
    assert WHISPERED.encode().hex() not in out


# ------------------------------------------------------------------------------------------------------------- failures


def test_no_ssh(draw, capture, tmp_path):
    out = tmp_path / "out.svg"
    status, _, err = draw(capture(tape()), "-o", out)
    assert (status, err) == (1, ["sshproto: no SSH connection is in it"])
    assert not out.exists()


def test_no_file(draw, tmp_path):
    status, out, err = draw(tmp_path / "absent")
    assert (status, out, len(err)) == (1, "", 1)
    assert "absent" in err[0]


def test_what_could_be_read_is_drawn(draw, capture):
    data = tape(command())
    status, out, err = draw(capture(data[:-20]))
    assert status == 1
    assert len(err) == 1
    assert "USERAUTH_SUCCESS" in "".join(ET.fromstring(out).itertext())


def test_the_capture_is_not_overwritten(draw, capture):
    name = capture(tape(command()))
    status, _, err = draw(name, "-o", name)
    assert status == 1
    assert "it is what is read" in err[0]


@pytest.mark.parametrize("words", [("--fold", "x"), ("--fold", "-1"), ("--scale", "log"), ("--limit", "1e9")])
def test_options_that_make_no_sense(draw, capture, words):
    status, out, err = draw(capture(tape(command())), *words)
    assert (status, out, len(err)) == (2, "", 1)


# ------------------------------------------------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "a.pcapng").write_bytes(tape(command(), shell()))
    assert main(["pcap", "timeline", str(folder / "a.pcapng"), "-o", str(folder / "a.html")]) == 0
    return (folder / "a.html").read_text()


def test_nothing_else_is_needed(text):
    page = Page(text)
    assert page.links == []
    assert {"iframe", "img", "link", "object", "base", "form"}.isdisjoint(page.tags)
    assert re.findall(r"https?://\S+", text) == ['http://www.w3.org/2000/svg",'] * 2  # the name of a language


def test_the_policy_allows_the_script_and_the_style_and_nothing_else(text):
    page = Page(text)
    policy = dict(part.split(" ", 1) for part in page.metas["Content-Security-Policy"].split("; "))
    (script,) = [text for attrs, text in page.scripts if "type" not in attrs]
    ((_, style),) = page.styles
    for name, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(name) == f"'sha256-{digest}'"
    assert policy == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}


def test_the_page_has_every_step(text):
    page = Page(text)
    assert len(page.data("meta")["connections"]) == 2
    data = page.data("connection-0")
    columns = [name for name, value in data.items() if isinstance(value, list) and name not in {
        "names", "words", "findings", "opened", "kinds"
    }]  # fmt: skip
    assert {len(data[name]) for name in columns} == {len(data["kind"])}
    names = [data["names"][place] for place in data["name"]]
    assert {"KEXINIT", "NEWKEYS", "USERAUTH_SUCCESS", "CHANNEL_DATA", "identification"} <= set(names)
    assert data["time"] == sorted(data["time"])
    assert data["client"]["dialled"] is True
    first = data["more"][str(names.index("KEXINIT"))]
    assert first["hex"].startswith("14")
    assert first["length"] * 2 >= len(first["hex"])
    assert "kex_algorithms" in first["fields"]


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--<script>", "\u2028\u2029\"'&"])
def test_hostile_words_stay_data(draw, capture, name):
    show = Show(client=ClientConfig(user=name, preferences=Preferences(), debug_raise=True))
    text = draw(capture(tape(show)), "--format", "html")[1]
    page = Page(text)
    assert len(page.scripts) == 3
    assert any(name[:5] in word for word in page.data("connection-0")["words"]) or "\u2028" in name
    assert "alert(1)</script>" not in text
    assert "<!--" not in text


def test_the_same_every_time(draw, capture):
    name = capture(tape(shell()))
    for form in ("svg", "html"):
        assert draw(name, "--format", form) == draw(name, "--format", form)


# ------------------------------------------------------------------------------------------------------------- the docs


def test_the_commands_of_the_guide_work(draw, checkout, tmp_path, monkeypatch):
    show = command()
    (tmp_path / "capture.pcapng").write_bytes(tape(show, key_log=False))
    (tmp_path / "session.keylog").write_bytes(show.key_log)
    monkeypatch.chdir(tmp_path)
    text = (checkout / "docs" / "how-to" / "timeline.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        *start, rest = line.split(" ", 3)
        assert start == ["sshproto", "pcap", "timeline"]
        status, out, err = draw(*rest.split())
        assert (status, err) == (0, []), line
        made = Path(rest.split()[-1])
        assert out or made.read_text(encoding="utf-8").endswith(("</svg>\n", "</html>\n"))
        made.unlink(missing_ok=True)


def test_the_code_of_the_guide_works(checkout, tmp_path, monkeypatch):
    (tmp_path / "capture.pcapng").write_bytes(tape(command(), shell()))
    monkeypatch.chdir(tmp_path)
    text = (checkout / "docs" / "how-to" / "timeline.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "timeline.md", "exec"), {"__name__": "guide"})
    pictures = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in pictures] == ["connection-1.svg", "connection-2.svg"]
    assert all("USERAUTH_SUCCESS" in path.read_text(encoding="utf-8") for path in pictures)


def test_the_reference_has_every_option(checkout, capsys):
    text = (checkout / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    section = (
        text.partition("## `sshproto pcap timeline`")[2].partition("\n## ")[0]
        + text.partition("## `sshproto pcap info`")[0]
    )
    with pytest.raises(SystemExit):
        argparse_help()
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert len(options) > 8
    assert {option for option in options if f"`{option}" not in section} == set()


def argparse_help():
    raise SystemExit(main(["pcap", "timeline", "--help"]))


def test_the_picture_in_the_guide_is_a_picture(checkout):
    folder = checkout / "docs" / "images"
    picture = (folder / "timeline.svg").read_bytes()
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    page = (folder / "timeline-page.png").read_bytes()
    assert page.startswith(b"\x89PNG")
    assert max(len(picture), len(page)) < 200_000
