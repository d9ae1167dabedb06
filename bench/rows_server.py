"""Rows about the server: what it holds, how much it does in a second, what its refusals tell."""

import subprocess

from measure import Figure, a_second, in_turns, memory
from report import row
from world import LABSHD, TOOL, program


def idle_memory(world):
    """How much the server's memory (Pss) grows for each authenticated session that does nothing: 500 sessions of labsh,
    20 of the peers."""
    def grown(server, path, count, hold):
        before = memory(server.pid, path)
        end = hold(count)
        each = (memory(server.pid, path) - before) / count
        end()
        return Figure([each], "kB", 0)

    ours = grown(world.labshd, LABSHD, 500, lambda count: hold_sessions(world, count))
    yield row("server memory for each idle session", ours, {}, "40 kB", ours.middle <= 40)


def hold_sessions(world, count):
    """Opens so many sessions; returns what ends them."""
    holder = world.process([TOOL, "idle", str(count)], env=world.environment, stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=None, text=True)
    if not holder.stdout.readline().startswith("open"):
        raise RuntimeError(f"no {count} sessions")
    return lambda: holder.communicate("\n")


def commands(world):
    """`true` by the library, one connection, four at once; OpenSSH likewise on a multiplexed connection, dropbear on new
    ones. Three rounds."""
    measures = {
        "labsh": lambda: float(world.tool("commands", 3000)["per_second"]),
        "local `sh -c true`": lambda: a_second(["sh", "-c", "true"], 500),
        "dropbear, new connections": world.dbclient and (lambda: a_second([*world.dbclient, "true"], 60)),
    }
    if world.ssh:
        with world.ssh_master() as ssh:
            measures["OpenSSH, multiplexed"] = lambda: a_second([*ssh, "true"], 100)
            results = in_turns(measures, 3)
    else:
        results = in_turns(measures, 3)
    rates = {name: Figure(values, "", 0) for name, values in results.items()}
    rate = rates.pop("labsh")
    yield row("commands a second, one connection, 4 at once", rate, rates, "900", rate.middle >= 900)


def refusals(world):
    """Nobody should learn from the time of a refusal whether a key is known. Not judged: look at both."""
    result = world.tool("refusals", 400, LABSH_BENCH_ADDRESS=f"127.0.0.1:{world.plain_port}")
    yield row("refusal of a wrong proof (1 ms of it is delay)", result["wrong_proof_ms"], {}, "as the next row", None)
    yield row("refusal of an unknown name", result["unknown_name_ms"], {}, "as the row above", None)


ROWS = [idle_memory, commands, refusals]
