"""The user's terminal: made raw and restored, measured, its modes told; signals as descriptors."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from sshproto.channels.requests import PtyRequest, WindowChange
from sshproto_cli import terminal
from sshproto_cli.rawmode import RawMode, pty_request, resizes, window_change
from sshproto_cli.terminal import Bell, Interrupted, Interrupts, apply_modes, read_modes, set_size

ROOT = Path(__file__).resolve().parents[3]
IFLAG, OFLAG, CFLAG, LFLAG, ISPEED, OSPEED, CC = range(7)


@pytest.fixture(autouse=True)
def _no_signal_is_ignored():
    """As SIGINT is where the tests run in the background of a shell script, which their programs would inherit."""
    before = [(number, signal.signal(number, signal.SIG_DFL)) for number in Interrupts.NUMBERS]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture
def tty():
    """A terminal; nobody's controlling one."""
    master, slave = pty.openpty()
    yield slave
    os.close(slave)
    os.close(master)


def readable(descriptor):
    return bool(select.select([descriptor], [], [], 0)[0])


# ------------------------------------------------------------------------------------------------------------- raw mode


def test_raw_and_back(tty):
    before = termios.tcgetattr(tty)
    before[CC][termios.VMIN], before[CC][termios.VTIME] = b"\x03", b"\x02"
    termios.tcsetattr(tty, termios.TCSANOW, before)
    assert termios.tcgetattr(tty) == before
    assert before[LFLAG] & termios.ICANON
    assert before[OFLAG] & termios.OPOST
    with RawMode(tty) as raw:
        inside = termios.tcgetattr(tty)
        assert not inside[LFLAG] & (termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        assert not inside[IFLAG] & (termios.ICRNL | termios.IXON | termios.ISTRIP)
        assert not inside[OFLAG] & termios.OPOST
        assert (inside[CC][termios.VMIN], inside[CC][termios.VTIME]) == (1, 0)
        raw.enter()  # once more changes nothing, also of what will be restored
        assert termios.tcgetattr(tty) == inside
    assert termios.tcgetattr(tty) == before
    raw.leave()
    assert termios.tcgetattr(tty) == before


def test_every_byte_passes_as_it_is_typed():
    master, slave = pty.openpty()
    with RawMode(slave):
        typed = bytes(range(256))
        os.write(master, typed)
        assert os.read(slave, 1000) == typed
        os.write(slave, b"a\nb")
        assert os.read(master, 1000) == b"a\nb"  # neither echoed what was typed, nor made CR LF of LF
    os.close(slave)
    os.close(master)


def test_an_exception_restores(tty):
    before = termios.tcgetattr(tty)
    with pytest.raises(ZeroDivisionError), RawMode(tty):
        raise ZeroDivisionError
    assert termios.tcgetattr(tty) == before


def test_a_signal_at_any_moment_restores(tty, monkeypatch):
    """Interrupted is raised wherever the main thread is: behind each call that the change and its way back make."""
    before = termios.tcgetattr(tty)
    real = termios.tcsetattr

    for behind in (True, False):
        for which in (1, 2):
            calls = []

            def interrupted(descriptor, when, state, behind=behind, which=which, calls=calls):
                calls.append(when)
                if len(calls) == which and not behind:
                    raise Interrupted(signal.SIGTERM)
                real(descriptor, when, state)
                if len(calls) == which and behind:
                    raise Interrupted(signal.SIGTERM)

            monkeypatch.setattr(termios, "tcsetattr", interrupted)
            with pytest.raises(Interrupted), RawMode(tty):
                pass
            assert termios.tcgetattr(tty) == before, (behind, which)


def test_an_interrupted_system_call_is_made_again(tty, monkeypatch):
    real, calls = termios.tcsetattr, []

    def interrupted(descriptor, when, state):
        calls.append(when)
        if len(calls) % 2:
            raise termios.error(4, "Interrupted system call")
        real(descriptor, when, state)

    before = termios.tcgetattr(tty)
    monkeypatch.setattr(termios, "tcsetattr", interrupted)
    with RawMode(tty):
        assert not termios.tcgetattr(tty)[LFLAG] & termios.ICANON
    assert termios.tcgetattr(tty) == before
    assert len(calls) == 4


def test_a_terminal_that_has_gone_is_no_error():
    master, slave = pty.openpty()
    with RawMode(slave):
        os.close(slave)
    os.close(master)


def test_no_terminal():
    near, far = os.pipe()
    raw = RawMode(near)
    with pytest.raises(termios.error):
        raw.enter()
    raw.leave()
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        window_change(near)
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        pty_request(near)
    os.close(near)
    os.close(far)


IN_ITS_OWN_TERMINAL = """
import os, signal, sys, time
path, what = sys.argv[1:]
tty = os.open(path, os.O_RDWR)  # of a session without a terminal: now this is its own
from sshproto_cli.rawmode import RawMode
from sshproto_cli.terminal import Interrupted, Interrupts
try:
    with Interrupts().installed() as interrupts, RawMode(tty):
        print("raw", flush=True)
        if what == "deferred":
            import select
            with interrupts.deferred():
                select.select([interrupts.descriptor], [], [])
            interrupts.check()
        time.sleep(60)
except Interrupted as interrupted:
    sys.exit(128 + interrupted.signal)
"""


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters")))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("what", ["immediate", "deferred"])
def test_a_signal_that_ends_the_process_restores(tty, number, what):
    before = termios.tcgetattr(tty)
    argv = [sys.executable, "-c", IN_ITS_OWN_TERMINAL, os.ttyname(tty), what]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(), start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"raw\n"
            assert termios.tcgetattr(tty) != before
            process.send_signal(number)
            assert process.wait(30) == 128 + number
        finally:
            process.kill()
    assert termios.tcgetattr(tty) == before


SHELL = """
import os, signal, subprocess, sys, termios
tty = os.open(sys.argv[1], os.O_RDWR)

def quietly(function, *args):
    # Use the terminal though it may be somebody else's: a job must not inherit that, as it would SIG_IGN.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    result = function(*args)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
    return result


def cooked():
    return bool(termios.tcgetattr(tty)[3] & termios.ICANON)

def wait():
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    return status

from sshproto_cli.terminal import set_size
set_size(tty, 24, 80)
# A job of two processes, as "job | other" is: both have to stop.
job = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[3]], stdin=tty, process_group=0)
null = subprocess.DEVNULL
other = subprocess.Popen(["sleep", "60"], stdout=null, stderr=null, process_group=job.pid)
quietly(os.tcsetpgrp, tty, job.pid)
os.write(1, b"started\\n")
assert os.WIFSTOPPED(wait()), "it did not stop"
_, status = os.waitpid(other.pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), "the rest of the job did not stop"
assert cooked(), "stopped, and the terminal is raw"
quietly(os.tcsetpgrp, tty, os.getpgrp())
changed = termios.tcgetattr(tty)
changed[3] &= ~termios.ECHOCTL  # what somebody changes meanwhile is kept
quietly(termios.tcsetattr, tty, termios.TCSANOW, changed)
quietly(set_size, tty, 50, 132)
if sys.argv[3] == "background":
    os.killpg(job.pid, signal.SIGCONT)  # as "bg" does
    assert os.WSTOPSIG(wait()) == signal.SIGTTOU, "in the background it may not make the terminal raw"
    assert cooked()
quietly(os.tcsetpgrp, tty, job.pid)
os.killpg(job.pid, signal.SIGCONT)
assert os.WIFEXITED(wait()), "it did not end"
other.terminate()
other.wait()
assert termios.tcgetattr(tty) == changed, "not restored"
os.write(1, b"done\\n")
"""

JOB = """
import os, termios, time
from sshproto_cli.rawmode import RawMode
while os.tcgetpgrp(0) != os.getpgrp():  # until it is put into the foreground
    time.sleep(0.01)
with RawMode(0) as raw:
    assert not termios.tcgetattr(0)[3] & termios.ICANON
    size = raw.suspend()
    assert not termios.tcgetattr(0)[3] & termios.ICANON
    assert (size.columns, size.rows) == (132, 50), size
"""


@pytest.mark.parametrize("how", ["foreground", "background"])
def test_suspending(tty, how):
    done = subprocess.run(
        [sys.executable, "-c", SHELL, os.ttyname(tty), JOB, how],
        capture_output=True,
        env=environment(),
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\ndone\n", b"")


BACKGROUND = """
import os, signal, subprocess, sys, termios
tty = os.open(sys.argv[1], os.O_RDWR)

def quietly(function, *args):
    # Use the terminal though it may be somebody else's: a job must not inherit that, as it would SIG_IGN.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    result = function(*args)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
    return result

job = subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdin=tty, stdout=subprocess.PIPE, process_group=0)
quietly(os.tcsetpgrp, tty, job.pid)
assert job.stdout.readline() == b"raw\\n"
quietly(os.tcsetpgrp, tty, os.getpgrp())  # as a shell does when its job was stopped by somebody else
ours = termios.tcgetattr(tty)
ours[3] |= termios.ICANON
ours[3] &= ~termios.ECHOCTL
quietly(termios.tcsetattr, tty, termios.TCSANOW, ours)
ours = termios.tcgetattr(tty)
job.terminate()
assert job.wait(30) == 128 + signal.SIGTERM
assert termios.tcgetattr(tty) == ours
"""

BACKGROUND_JOB = """
import os, sys, time
from sshproto_cli.rawmode import RawMode
from sshproto_cli.terminal import Interrupted, Interrupts
while os.tcgetpgrp(0) != os.getpgrp():
    time.sleep(0.01)
try:
    with Interrupts().installed(), RawMode(0):
        print("raw", flush=True)
        time.sleep(60)
except Interrupted as interrupted:
    sys.exit(128 + interrupted.signal)
"""


def test_in_the_background_the_terminal_is_somebody_elses(tty):
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND, os.ttyname(tty), BACKGROUND_JOB],
        capture_output=True,
        env=environment(),
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


# ------------------------------------------------------------------------------------------------------- size and modes


def test_the_size(tty):
    set_size(tty, 50, 132, 1320, 1000)
    assert window_change(tty) == WindowChange(132, 50, 1320, 1000)
    set_size(tty, 0, 0)
    assert window_change(tty) == WindowChange(0, 0, 0, 0)


def test_what_to_ask_of_a_server(tty, monkeypatch):
    monkeypatch.setenv("TERM", "vt220")
    set_size(tty, 50, 132, 1320, 1000)
    assert pty_request(tty) == PtyRequest("vt220", 132, 50, 1320, 1000, read_modes(tty))
    assert pty_request(tty, "dumb").term == "dumb"
    monkeypatch.delenv("TERM")
    request = pty_request(tty)
    assert request.term == ""


# RFC 4254 section 8, and RFC 8160, by hand.
OPCODES = {
    "characters": {1: "VINTR", 2: "VQUIT", 3: "VERASE", 4: "VKILL", 5: "VEOF", 8: "VSTART", 9: "VSTOP", 10: "VSUSP"},
    IFLAG: {30: "IGNPAR", 33: "ISTRIP", 34: "INLCR", 35: "IGNCR", 36: "ICRNL", 38: "IXON", 39: "IXANY", 40: "IXOFF"},
    LFLAG: {50: "ISIG", 51: "ICANON", 53: "ECHO", 54: "ECHOE", 55: "ECHOK", 57: "NOFLSH", 58: "TOSTOP", 59: "IEXTEN"},
    OFLAG: {70: "OPOST", 72: "ONLCR", 73: "OCRNL", 75: "ONLRET"},
    CFLAG: {91: "CS8", 92: "PARENB", 93: "PARODD"},
}


def test_modes_are_told_as_they_are(tty):
    state = termios.tcgetattr(tty)
    state[CC][termios.VINTR] = b"\x07"
    state[CC][termios.VSUSP] = b"\0"
    state[CC][termios.VERASE] = b"\xfe"
    state[LFLAG] &= ~termios.ECHO
    state[IFLAG] |= termios.IXANY | 0o40000
    state[ISPEED] = state[OSPEED] = termios.B9600
    termios.tcsetattr(tty, termios.TCSANOW, state)
    modes = dict(read_modes(tty))
    assert len(modes) == len(read_modes(tty))
    assert (modes[1], modes[3], modes[10]) == (7, 254, 255)
    assert (modes[53], modes[51], modes[39], modes[42]) == (0, 1, 1, 1)
    assert (modes[90], modes[91]) == (0, 1)
    assert (modes[128], modes[129]) == (9600, 9600)
    for field in (IFLAG, LFLAG, OFLAG):
        for opcode, name in OPCODES[field].items():
            assert modes[opcode] == int(bool(state[field] & getattr(termios, name))), name
    for opcode, name in OPCODES["characters"].items():
        assert modes[opcode] in (state[CC][getattr(termios, name)][0], 255), name


def everything_on(state, index):
    """A state in which every ``index``-th of the modes that travel is not what it is by default."""
    names = [(field, name) for field in (IFLAG, LFLAG, OFLAG) for name in OPCODES[field].values()]
    for number, (field, name) in enumerate(names):
        if number % index == 0:
            state[field] ^= getattr(termios, name)
    for number, name in enumerate(OPCODES["characters"].values()):
        if number % index == 0:
            state[CC][getattr(termios, name)] = bytes([100 + number])
    state[CFLAG] ^= termios.PARENB
    state[ISPEED] = state[OSPEED] = termios.B115200
    return state


@pytest.mark.parametrize("index", [1, 2, 3, 5])
def test_one_terminal_becomes_like_the_other(tty, index):
    termios.tcsetattr(tty, termios.TCSANOW, everything_on(termios.tcgetattr(tty), index))
    wanted = termios.tcgetattr(tty)
    master, other = pty.openpty()
    assert termios.tcgetattr(other) != wanted
    apply_modes(other, read_modes(tty))
    assert read_modes(other) == read_modes(tty)
    assert termios.tcgetattr(other) == wanted
    os.close(master)
    os.close(other)


def test_speeds_that_have_no_number_are_left_out(tty, monkeypatch):
    assert termios.B0 not in terminal._BAUD  # which would hang up
    monkeypatch.setattr(terminal, "_BAUD", {})
    assert not {128, 129} & dict(read_modes(tty)).keys()


# -------------------------------------------------------------------------------------------------------------- signals


def test_a_bell():
    bell = Bell()
    assert not readable(bell.descriptor)
    assert not bell.clear()
    for _ in range(100_000):  # more than a pipe takes
        bell.ring()
    assert readable(bell.descriptor)
    assert bell.clear()
    assert not readable(bell.descriptor)
    assert not os.get_inheritable(bell.descriptor)
    bell.close()
    assert bell.descriptor == -1


def test_resizes():
    before = signal.getsignal(signal.SIGWINCH)
    with resizes() as bell:
        assert not readable(bell.descriptor)
        os.kill(os.getpid(), signal.SIGWINCH)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert readable(bell.descriptor)
        assert bell.clear()
        assert not bell.clear()
    assert signal.getsignal(signal.SIGWINCH) is before
    assert bell.descriptor == -1


def test_a_change_of_size_ends_a_wait():
    with resizes() as bell:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGWINCH))
        timer.start()
        assert select.select([bell.descriptor], [], [], 30)[0]
        timer.join()


def test_interrupts_have_a_descriptor():
    interrupts = Interrupts()
    assert interrupts.descriptor == -1
    with interrupts.installed(), interrupts.deferred():
        descriptor = interrupts.descriptor
        assert not readable(descriptor)
        interrupts.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert readable(descriptor)
        for _ in range(2):  # until the process ends
            with pytest.raises(Interrupted, match="SIGTERM"):
                interrupts.check()
            assert readable(descriptor)
    assert interrupts.descriptor == -1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_interrupts_wake_and_raise_as_before():
    woken = []
    with Interrupts().installed() as interrupts:
        with interrupts.deferred(lambda: woken.append(1)):
            os.kill(os.getpid(), signal.SIGHUP)
            assert woken == [1]
            with pytest.raises(Interrupted), interrupts.immediate():
                pytest.fail("what came before is raised at once")
        with pytest.raises(Interrupted) as raised:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
    assert raised.value.signal == signal.SIGINT
    assert woken == [1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().installed() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not readable(interrupts.descriptor)
            interrupts.check()
    finally:
        signal.signal(signal.SIGHUP, before)
