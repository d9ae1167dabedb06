"""Rows about many hosts: one labshd on many loopback addresses, each a host to labsh."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

from measure import Figure, process_times
from report import row
from world import LABSH, LABSHD, free_port, program

HOSTS, FAULTS = 1000, 20


@contextlib.contextmanager
def room(world):
    """Hosts n0001 and on; of each of dead, mute and stranger twenty more, that refuse connections,
    say nothing, or know nothing of the key. Gives the environment of a labsh that knows them.
    """
    home, port = pathlib.Path(tempfile.mkdtemp(dir=world.scratch)), free_port()
    (home / "labsh").mkdir()
    addresses = [f"127.31.{index // 250}.{index % 250 + 1}" for index in range(HOSTS)]
    environment = dict(world.environment, XDG_CONFIG_HOME=str(home), XDG_STATE_HOME=str(home))
    config = home / "labshd.toml"
    config.write_text(
        "listen = ["
        + ", ".join(f"'{address}:{port}'" for address in addresses)
        + "]\nlog_level = 'error'\nmax_connections = 20000\nmax_unauthenticated = 10000\n"
        + "max_connections_per_key = 20000\n"
    )
    with socket.socket() as mute, socket.socket() as dead:
        mute.bind(("0.0.0.0", 0))
        mute.listen(HOSTS)
        # Bound, so that no other process gets the port, and never listening.
        dead.bind(("0.0.0.0", 0))
        hosts = [
            (f"n{number:04}", address, port, "room") for number, address in enumerate(addresses, 1)
        ]
        for number in range(1, FAULTS + 1):
            hosts += [
                (f"dead{number:02}", f"127.32.0.{number}", dead.getsockname()[1], "room"),
                (f"mute{number:02}", f"127.32.1.{number}", mute.getsockname()[1], "room"),
                (f"stranger{number:02}", addresses[number], port, "elsewhere"),
            ]
        (home / "labsh" / "config.toml").write_text(
            "[defaults]\nkey = 'room'\n"
            + "".join(
                f"[hosts.{name}]\naddress = '{address}'\nport = {where}\nhost_id = '{host_id}'\n"
                for name, address, where, host_id in hosts
            )
        )
        subprocess.run(
            [LABSH, "key", "new", "room"], env=environment, check=True, capture_output=True
        )
        line = subprocess.run(
            [LABSH, "key", "enroll", "room", "--host", "room"],
            env=environment,
            check=True,
            capture_output=True,
        ).stdout
        user = ["--user", world.user] if os.geteuid() == 0 else []
        subprocess.run(
            [LABSHD, "--config", config, "key", "add", *user],
            input=line,
            check=True,
            capture_output=True,
        )
        server = subprocess.Popen(
            [LABSHD, "--config", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until_listening(addresses[-1], port, server)
            yield environment
        finally:
            server.terminate()
            server.wait()


def until_listening(address, port, process):
    """Addresses are bound in their order, so that the last one stands for all."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.001)
    raise RuntimeError(f"nothing listens on {address}:{port}")


def taken(words, environment):
    """Seconds, peak memory in MiB (wait4(2)) and exit status of one labsh, and its stdout's end."""
    start = time.monotonic()
    with subprocess.Popen(
        [LABSH, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        printed = b""
        while piece := process.stdout.read(1 << 20):
            printed = (printed + piece)[-1_000_000:]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return time.monotonic() - start, usage.ru_maxrss / 1024, process.returncode, printed


def many_hosts(world):
    """`labsh run` on 1,000 hosts; then with 20 more that refuse, 20 that say nothing and 20 that
    know nothing of the key, where the time is that of the slowest healthy one; and 1 MiB from
    each of 1,000, gathered. Three rounds.
    """
    with room(world) as environment:
        plain = [taken(["run", f"n[0001-{HOSTS}]", "true"], environment) for _ in range(3)]
        times, memory = (
            Figure([run[index] for run in plain], unit) for index, unit in ((0, "s"), (1, "MiB"))
        )
        right = all(run[2] == 0 for run in plain)
        yield row("`true` on 1,000 hosts", times, {}, "5 s", right and times.middle <= 5)
        yield row(
            "the same, the client's peak memory",
            memory,
            {},
            "200 MiB",
            right and memory.middle <= 200,
        )

        sets = f"n[0001-{HOSTS}],dead[01-{FAULTS}],mute[01-{FAULTS}],stranger[01-{FAULTS}]"
        printed = taken(
            ["run", "--json=summary", "--connect-timeout", "10s", sets, "true"], environment
        )[3]
        summary = json.loads(printed)
        counts = {kind: outcome["count"] for kind, outcome in summary["outcomes"].items()}
        exact = counts == {"ok": HOSTS, "refused": FAULTS, "unreachable": 2 * FAULTS}
        slowest = Figure(
            [
                max(host["duration_ms"] for host in summary["hosts"].values()
                    if host["outcome"] == "ok") / 1000
            ],
            "s",
        )
        yield row(
            "the slowest of 1,000 hosts beside 60 faulty ones",
            slowest,
            {},
            "5 s, all counted rightly",
            exact and slowest.middle <= 5,
        )

        gathered = taken(
            ["run", "--gather", f"n[0001-{HOSTS}]", "head -c 1048576 /dev/zero"], environment
        )
        memory = Figure([gathered[1]], "MiB", 0)
        yield row(
            "peak memory, gathering 1 MiB from each of 1,000 hosts",
            memory,
            {},
            "200 MiB",
            gathered[2] == 0 and memory.middle <= 200,
        )


def sixteen_hosts(world):
    """`true` on 16 hosts in turns, whole programs: labsh, and pdsh and clush over OpenSSH to as
    many addresses. Five rounds.
    """
    peers = {}
    if world.ssh:
        # sshd listens on 16 addresses at most; its first is in its command.
        addresses, port = "127.0.0.1,127.33.0.[1-15]", free_port()
        listen = [
            word for number in range(1, 16) for word in ("-o", f"ListenAddress=127.33.0.{number}")
        ]
        server = world.spawn(
            [*world.sshd_command, str(port), *listen, "-o", "MaxStartups=100"], port
        )
        options = [word if word != str(world.ssh_port) else str(port) for word in world.ssh[1:-1]]
        if program("pdsh"):
            peers["pdsh, OpenSSH"] = [
                program("pdsh"),
                "-R",
                "exec",
                "-w",
                addresses,
                "ssh",
                *options,
                "%h",
                "true",
            ]
        if program("clush"):
            peers["clush, OpenSSH"] = [
                program("clush"),
                "-w",
                addresses,
                "-o",
                " ".join(options),
                "true",
            ]
    with room(world) as environment:
        commands = {"labsh": [LABSH, "run", "n[0001-0016]", "true", "x"], **peers}
        times = process_times(commands, environment, rounds=5, runs=2)
        ours = times.pop("labsh")
        yield row(
            "`true` on 16 hosts",
            ours,
            times,
            "faster than any peer",
            all(ours.middle < other.middle for other in times.values()) if times else None,
        )
    if peers:
        server.terminate()
        server.wait()


def copying(world):
    """`labsh cp` of 10 MiB from each of 100 hosts to here, each into a directory of its own: they
    are one machine, and the other way round they would be one file. Three rounds.
    """
    with room(world) as environment, tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        file = pathlib.Path(place) / "random"
        file.write_bytes(os.urandom(10 << 20))
        runs = [
            taken(["cp", f"n[0001-0100]:{file}", f"{place}/{number}"], environment)
            for number in range(3)
        ]
        whole = all(
            len(list(pathlib.Path(place).glob(f"{number}/*/random"))) == 100 for number in range(3)
        )
        times = Figure([run[0] for run in runs], "s")
        yield row(
            "10 MiB from each of 100 hosts",
            times,
            {},
            "all whole",
            whole and all(run[2] == 0 for run in runs),
        )


ROWS = [many_hosts, sixteen_hosts, copying]
