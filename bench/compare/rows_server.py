"""Rows about the server: what it holds, how much it does in a second, what its refusals tell."""

import contextlib
import os
import resource
import subprocess
import time

from measure import MIB, Figure, a_second, in_turns, memory, process_times
from report import row
from world import LABSH, LABSHD, TOOL, program


def idle_memory(world):
    """How much the server's memory (Pss, all of its processes, commands excluded) grows for each
    authenticated session that does nothing: 500 and 10,000 sessions of labsh, 20 of the peers,
    which hold one by `-N`.
    """
    peers = {}
    for name, server, client in (
        ("OpenSSH", world.sshd, world.ssh),
        ("dropbear", world.dropbear, world.dbclient),
    ):
        if client:
            peers[name] = peer_session(world, server, [*client[:-1], "-N", client[-1]])
    # labshd has two descriptors for each session; a system may allow fewer than 10,000 of them.
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500) // 2
    for count in (500, min(10_000, most)):
        before = memory(world.labshd.pid, LABSHD)
        with held_sessions(world, count):
            ours = Figure([(memory(world.labshd.pid, LABSHD) - before) / count], "kB", 0)
        yield row(
            f"server memory for each of {count:,} idle sessions",
            ours,
            peers,
            "40 kB",
            ours.middle <= 40,
        )


def peer_session(world, server, command, count=20):
    """Kilobytes of a peer's server for each session, once it has a process for each of them and
    these do not grow.
    """
    path = os.path.realpath(f"/proc/{server.pid}/exe")
    before = memory(server.pid, path)
    clients = [world.process(command) for _ in range(count)]
    deadline, last = time.monotonic() + 60, -1
    while time.monotonic() < deadline:
        time.sleep(1)
        now = memory(server.pid, path)
        if now == last:
            break
        last = now
    for client in clients:
        client.terminate()
        client.wait()
    return Figure([(now - before) / count], "kB", 0)


@contextlib.contextmanager
def held_sessions(world, count):
    """So many authenticated sessions, open as long as this context."""
    holder = world.process(
        [TOOL, "idle", str(count)],
        env=world.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
    )
    if not holder.stdout.readline().startswith("open"):
        raise RuntimeError(f"no {count} sessions")
    yield
    holder.communicate("\n")


def connections(world):
    """Connections opened and authenticated by the library, eight at once, 2,000 in each of three
    rounds; then whole clients running `true`, four at once.
    """
    rate = Figure((float(world.tool("connections", 2000)["per_second"]) for _ in range(3)), "", 0)
    yield row("connections authenticated a second, library", rate, {}, None, None)
    clients = {"labsh": (world.labsh("true", "x"), 300)}
    if world.ssh:
        clients["OpenSSH"] = ([*world.ssh, "true"], 12)
    if world.dbclient:
        clients["dropbear"] = ([*world.dbclient, "true"], 60)

    def measured(command, count):
        return lambda: a_second(command, count, env=world.environment)

    results = in_turns({name: measured(*what) for name, what in clients.items()}, 3)
    rates = {name: Figure(values, "", 0) for name, values in results.items()}
    ours = rates.pop("labsh")
    yield row(
        "clients running `true` a second, new connections, 4 at once",
        ours,
        rates,
        "more than any peer",
        all(ours.middle > other.middle for other in rates.values()),
    )


def half_open(world):
    """1,000 times connecting and authenticating, alone and beside 10,000 connections of another
    address that say nothing and come back when they are put out; labshd has places for 10,000.
    """
    result = world.tool("half-open", 9_900)
    quiet, crowded = (
        f"{result[f'{name}_p99_ms']} ms (p50 {result[f'{name}_p50_ms']})"
        for name in ("quiet", "crowded")
    )
    yield row(
        f"p99 of connecting beside {int(result['silent']):,} half-open connections",
        crowded,
        {"labsh, alone": quiet},
        None,
        None,
    )


def channels(world):
    """1, 10, 100 and 1,000 channels on one connection of the library: how soon a `cat` answers a
    byte, and what all together carry of 1 GiB (processes started included).
    """
    answers, rates = [], []
    for count in (1, 10, 100, 1_000):
        tool = world.process(
            [TOOL, "channels", str(count), "1024"],
            env=world.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            text=True,
        )
        if not tool.stdout.readline().startswith("open"):
            raise RuntimeError(f"no {count} channels")
        result = dict(line.split(" ", 1) for line in tool.communicate("\n")[0].splitlines())
        answers.append(result["answer_ms"])
        rates.append(result["mib_per_second"])
    for what, values, unit in (("a byte's answer", answers, "ms"), ("throughput", rates, "MiB/s")):
        yield row(
            f"with 1, 10, 100, 1,000 channels: {what}",
            f"{', '.join(values)} {unit}",
            {},
            None,
            None,
        )


def programs(world):
    """Sizes of the files, shared libraries left out, and how long `--version` (`-V`) takes: what
    starting costs.
    """
    peers = {
        "labsh": LABSH,
        "labshd": LABSHD,
        "ssh": program("ssh"),
        "sshd": program("sshd"),
        "dbclient": program("dbclient"),
        "dropbear": program("dropbear"),
    }
    sizes = {
        name: Figure([os.path.getsize(path) / MIB], "MiB") for name, path in peers.items() if path
    }
    times = process_times(
        {
            "labsh": [LABSH, "--version"],
            "labshd": [LABSHD, "--version"],
            "ssh": peers["ssh"] and ["ssh", "-V"],
            "dbclient": peers["dbclient"] and ["dbclient", "-V"],
        },
        world.environment,
        rounds=3,
    )
    for name, others in (("labsh", ("ssh", "dbclient")), ("labshd", ("sshd", "dropbear"))):
        for what, figures in (("size", sizes), ("start-up", times)):
            yield row(
                f"{what} of {name}",
                figures[name],
                {other: figures.get(other) for other in others},
                None,
                None,
            )


def commands(world):
    """`true` by the library, one connection, four at once; OpenSSH likewise on a multiplexed
    connection, dropbear on new ones. Three rounds.
    """
    measures = {
        "labsh": lambda: float(world.tool("commands", 3000)["per_second"]),
        "local `sh -c true`": lambda: a_second(["sh", "-c", "true"], 500),
        "dropbear, new connections": world.dbclient
        and (lambda: a_second([*world.dbclient, "true"], 60)),
    }
    if world.ssh:
        with world.ssh_master() as ssh:
            measures["OpenSSH, multiplexed"] = lambda: a_second([*ssh, "true"], 100)
            results = in_turns(measures, 3)
    else:
        results = in_turns(measures, 3)
    rates = {name: Figure(values, "", 0) for name, values in results.items()}
    rate = rates.pop("labsh")
    yield row(
        "commands a second, one connection, 4 at once", rate, rates, "900", rate.middle >= 900
    )


def refusals(world):
    """The time of a refusal must not reveal whether a key is known. Not judged: look at
    both.
    """
    result = world.tool("refusals", 400, LABSH_BENCH_ADDRESS=f"127.0.0.1:{world.plain_port}")
    yield row(
        "refusal of a wrong proof (1 ms of it is delay)",
        result["wrong_proof_ms"],
        {},
        "as the next row",
        None,
    )
    yield row("refusal of an unknown name", result["unknown_name_ms"], {}, "as the row above", None)


ROWS = [idle_memory, connections, half_open, channels, programs, commands, refusals]
