"""Rows about connections: a short command on a new one and on one that is kept."""

import statistics
import subprocess
import sys
import time

from measure import process_times, seconds
from report import row
from world import LABSH


def new_connection(world):
    """One short command, connection and client process included."""
    times = process_times({
        "labsh": world.labsh("true", "x"),
        "OpenSSH": world.ssh and [*world.ssh, "true"],
        "dropbear": world.dbclient and [*world.dbclient, "true"],
        "socat EXEC": world.socat("/bin/true"),
    }, world.environment)
    ours = times.pop("labsh")
    limit = times.get("socat EXEC")
    yield row("`true` on a new connection", ours, times, "not slower than socat", limit and ours.middle <= limit.middle)


def round_trips(world):
    """Counted through a proxy whose delay is far above everything else."""
    delay = 400
    port = world.proxy(delay)
    near = statistics.median(seconds(world.labsh("true", "x"), env=world.environment) for _ in range(3))
    far = seconds(world.labsh("--", "true", "x", port=port), env=world.environment)
    # The proxy itself answers TCP's own handshake, so that round trip is added.
    trips = 1 + (far - near) * 1e3 / delay
    yield row("round trips to the end of `true`, TCP's included", f"{trips:.2f}", {}, "3", round(trips) <= 3)


ROWS = [new_connection, round_trips]
