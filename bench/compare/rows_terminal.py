"""The row about terminals: how soon a key that is typed shows on the screen."""

import contextlib
import os
import pty
import signal
import time

from measure import Figure, in_turns, percentile
from report import row

KEYS = 200
ROUNDS = 5


@contextlib.contextmanager
def terminal(command, environment):
    """The master of a terminal in which this command runs; its first output is `ready`."""
    pid, master = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    try:
        seen = b""
        while b"ready" not in seen:
            seen += os.read(master, 4096)
        yield master
    finally:
        os.close(master)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def echoes(master):
    """Milliseconds from each key to its echo."""
    times = []
    for _ in range(KEYS):
        start = time.perf_counter()
        os.write(master, b"x")
        # What a shell has printed behind `ready` does not count.
        while b"x" not in os.read(master, 4096):
            pass
        times.append((time.perf_counter() - start) * 1e3)
    return times


def keystrokes(world):
    """A key typed in a terminal until the host's echo of it is on the screen: 200 keys in each of
    five rounds, one session for each program.
    """
    shell = "stty -icanon; echo ready; exec cat >/dev/null"
    clients = {"labsh": [world.labsh("x")[0], "shell", f"127.0.0.1:{world.port}", shell]}
    if world.ssh:
        clients["OpenSSH"] = [*world.ssh[:-1], "-tt", world.ssh[-1], shell]
    if world.dbclient:
        clients["dropbear"] = [*world.dbclient[:-1], "-t", world.dbclient[-1], shell]
    with contextlib.ExitStack() as stack:
        masters = {
            name: stack.enter_context(terminal(command, dict(world.environment, TERM="xterm")))
            for name, command in clients.items()
        }
        rounds = in_turns(
            {name: lambda master=master: echoes(master) for name, master in masters.items()}, ROUNDS
        )
    for share in (50, 99):
        figures = {
            name: Figure((percentile(times, share) for times in results), "ms", 3)
            for name, results in rounds.items()
        }
        ours = figures.pop("labsh")
        yield row(f"p{share} of a keystroke's echo in a terminal", ours, figures, None, None)


ROWS = [keystrokes]
