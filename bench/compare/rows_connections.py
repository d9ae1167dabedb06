"""Rows about connections: a short command on a new one and on one that the agent keeps."""

import contextlib
import shutil
import subprocess
import time

from measure import Figure, process_times
from report import row
from world import LABSH, on_port


def new_connection(world):
    """One short command, connection and client process included. Plain mode, on the same server,
    shows what TLS costs.
    """
    times = process_times(
        {
            "labsh": world.labsh("true", "x"),
            "labsh, plain mode": [
                LABSH,
                "run",
                "--plain",
                f"127.0.0.1:{world.plain_port}",
                "true",
                "x",
            ],
            "OpenSSH": world.ssh and [*world.ssh, "true"],
            "dropbear": world.dbclient and [*world.dbclient, "true"],
            "socat EXEC": world.socat("/bin/true"),
        },
        world.environment,
    )
    ours = times.pop("labsh")
    limit = times.get("socat EXEC")
    yield row(
        "`true` on a new connection",
        ours,
        times,
        "not slower than socat",
        limit and ours.middle <= limit.middle,
    )


@contextlib.contextmanager
def agent(world):
    """Variables with which labsh keeps connections open; the agent ends with this context."""
    runtime = world.scratch / "runtime"
    runtime.mkdir(mode=0o700)
    agent_environment = {"LABSH_KEEP": "5m", "XDG_RUNTIME_DIR": str(runtime)}
    try:
        yield agent_environment
    finally:
        subprocess.run(
            [LABSH, "agent", "stop"],
            env=dict(world.environment, **agent_environment),
            check=False,
            capture_output=True,
        )
        shutil.rmtree(runtime, ignore_errors=True)


def agent_connection(world):
    """A short command on a connection that the agent has open already, client process included."""
    command = world.labsh("true", "x")
    with agent(world) as agent_environment:
        environment = dict(world.environment, **agent_environment)
        subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        listing = [LABSH, "agent", "list"]
        while (
            "idle for"
            not in subprocess.run(listing, env=environment, capture_output=True, text=True).stdout
        ):
            if time.monotonic() > deadline:
                raise RuntimeError("the agent keeps no connection")
            time.sleep(0.02)
        variables = [f"{name}={value}" for name, value in agent_environment.items()]
        times = process_times(
            {"labsh": ["env", *variables, *command], "labsh, new connection": ["env", *command]},
            world.environment,
        )
    if world.ssh:
        with world.ssh_master() as ssh:
            times |= process_times(
                {"OpenSSH, multiplexed": [*ssh, "true"]}, world.environment, rounds=3
            )
    ours = times.pop("labsh")
    yield row(
        "`true` on a connection that the agent keeps (with `env` before it)",
        ours,
        times,
        "less than a new connection",
        ours.middle < times["labsh, new connection"].middle,
    )


def flights(world, port, command, times=1, environment=None):
    """Round trips and bytes of the last of so many runs of a command, through the proxy in virtual
    time. The least of three proxies: a pause of an end in the middle of what it says counts too
    many, and nothing counts too few.
    """

    def measure():
        result = world.tool("flights", f"127.0.0.1:{port}", times, *command, **(environment or {}))
        return [float(result[f"{times}_{what}"]) for what in ("first_output", "end", "bytes")]

    return [min(values) for values in zip(*(measure() for _ in range(3)))]


def round_trips(world):
    """`echo x` through a proxy in virtual time: it holds what each end sends until both are quiet,
    lets all of it arrive, and counts that as half a round trip. With TCP's own handshake on a
    new connection. Bytes are those of both directions, without the headers of TCP and IP.
    """
    master = world.scratch / "counted"
    counted = {"labsh": flights(world, world.port, [LABSH, "run", "127.0.0.1:{port}", "echo", "x"])}
    multiplexed = {}
    if world.ssh:
        ssh = [*on_port(world.ssh, "{port}"), "echo x"]
        counted["OpenSSH"] = flights(world, world.ssh_port, ssh)
        sharing = [
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=60",
            "-o",
            f"ControlPath={master}-%p",
        ]
        multiplexed["OpenSSH, multiplexed"] = flights(
            world, world.ssh_port, [ssh[0], *sharing, *ssh[1:]], times=2
        )
    if world.dbclient:
        dbclient = [*on_port(world.dbclient, "{port}"), "echo x"]
        counted["dropbear"] = flights(world, world.dropbear_port, dbclient)
    columns = ("to its first output, TCP's included", "to its end, TCP's included")
    for number, what in enumerate(columns):
        numbers = {name: values[number] for name, values in counted.items()}
        ours = numbers.pop("labsh")
        yield row(
            f"round trips of `echo x` {what}",
            Figure([ours], "", 1),
            {name: Figure([value], "", 1) for name, value in numbers.items()},
            "3",
            ours <= 3,
        )
    with agent(world) as environment:
        # The first run has the agent open the connection, the others find it.
        by_agent = flights(
            world, world.port, [LABSH, "run", "127.0.0.1:{port}", "echo", "x"], 3, environment
        )
    for what, number in (("first output", 0), ("end", 1)):
        yield row(
            f"round trips of `echo x` on an open connection, to its {what}",
            Figure([by_agent[number]], "", 1),
            {name: Figure([values[number]], "", 1) for name, values in multiplexed.items()},
            "1",
            by_agent[number] <= 1,
        )
    sizes = {name: Figure([values[2]], "bytes", 0) for name, values in counted.items()}
    ours = sizes.pop("labsh")
    yield row(
        "bytes on the wire for `echo x` on a new connection",
        ours,
        sizes,
        "fewer than any peer",
        all(ours.middle < size.middle for size in sizes.values()),
    )


ROWS = [new_connection, agent_connection, round_trips]
