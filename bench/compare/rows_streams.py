"""Rows about output: how fast it comes, what it costs, and what it does to others."""

from measure import GIB, MIB, Figure, busy_seconds, in_turns, seconds
from report import row
from world import on_port


def bulk(world):
    """2 GiB of zeros (256 MiB from dropbear), five times in turns; and the processor time of the
    whole machine for it.
    """
    commands = {
        "labsh": lambda size: world.labsh("head", "-c", str(size), "/dev/zero"),
        "OpenSSH": world.ssh and (lambda size: [*world.ssh, f"head -c {size} /dev/zero"]),
        "dropbear": world.dbclient
        and (lambda size: [*world.dbclient, f"head -c {size} /dev/zero"]),
    }
    socat = world.socat(f"head -c {2 * GIB} /dev/zero")
    commands["socat"] = socat and (lambda size: socat)

    def measured(name):
        size = GIB // 4 if name == "dropbear" else 2 * GIB

        def measure():
            before = busy_seconds()
            took = seconds(commands[name](size), stdout=nowhere, env=world.environment)
            return size / took / MIB, (busy_seconds() - before) * GIB / size

        return measure

    with open("/dev/null", "wb") as nowhere:
        results = in_turns(
            {name: measured(name) for name, command in commands.items() if command}, 5
        )
    rates = {
        name: Figure((rate for rate, _ in pairs), "MiB/s", 0) for name, pairs in results.items()
    }
    costs = {name: Figure((cost for _, cost in pairs), "s", 2) for name, pairs in results.items()}
    rate, cost = rates.pop("labsh"), costs.pop("labsh")
    met = all(
        rate.middle >= factor * rates[name].middle
        for name, factor in (("OpenSSH", 2), ("socat", 1))
        if name in rates
    )
    yield row(
        "stdout bulk, encrypted", rate, rates, "2 × OpenSSH, not slower than plain socat", met
    )
    yield row(
        "processor time for each GiB, whole machine", cost, costs, "1.4 s", cost.middle <= 1.4
    )


def long_link(world):
    """A proxy that adds 100 ms to each round trip: 1 GiB from labsh and of raw TCP, 64 MiB from
    OpenSSH, 1 MiB from dropbear, three times in turns.
    """
    socat = world.socat(f"head -c {GIB} /dev/zero")

    def measured(command, size):
        return lambda: size / seconds(command, stdout=nowhere, env=world.environment) / MIB

    measures = {
        "labsh": (world.labsh("head", "-c", str(GIB), "/dev/zero", port=world.proxy(100)), GIB)
    }
    if world.ssh:
        ssh = on_port(world.ssh, world.proxy(100, world.ssh_port))
        measures["OpenSSH"] = ([*ssh, f"head -c {64 * MIB} /dev/zero"], 64 * MIB)
    if world.dbclient:
        dbclient = on_port(world.dbclient, world.proxy(100, world.dropbear_port))
        measures["dropbear"] = ([*dbclient, f"head -c {MIB} /dev/zero"], MIB)
    if socat:
        listening = socat[-2].rsplit(":", 1)[1]
        measures["raw TCP"] = (
            [*socat[:-2], f"TCP:127.0.0.1:{world.proxy(100, listening)}", "-"],
            GIB,
        )
    with open("/dev/null", "wb") as nowhere:
        results = in_turns({name: measured(*what) for name, what in measures.items()}, 3)
    rates = {
        name: Figure(values, "MiB/s", 1 if name == "dropbear" else 0)
        for name, values in results.items()
    }
    rate = rates.pop("labsh")
    yield row("stdout bulk at 100 ms round trip", rate, rates, "300 MiB/s", rate.middle >= 300)


def flooded(world):
    """`true` on a quiet connection and on one beside a flood; labsh with its library, OpenSSH by a
    process on a multiplexed connection. Five rounds.
    """
    results = in_turns({"labsh": lambda: world.tool("flooded", 100)}, 5)["labsh"]
    quiet, busy = (
        Figure((float(result[name]) for result in results), "ms", 2)
        for name in ("quiet_ms", "flooded_ms")
    )
    peers = {"labsh, quiet": quiet}
    if world.ssh:
        with world.ssh_master() as ssh:

            def measure():
                return seconds([*ssh, "true"], env=world.environment) * 1e3

            peers["OpenSSH, quiet"] = Figure((measure() for _ in range(20)), "ms")
            flood = world.process([*ssh, "yes"])
            peers["OpenSSH"] = Figure((measure() for _ in range(20)), "ms")
            flood.terminate()
            flood.wait()
    met = busy.middle <= min(2 * quiet.middle, 5)
    yield row("`true` while another channel floods", busy, peers, "2 × quiet, at most 5 ms", met)


ROWS = [bulk, long_link, flooded]
