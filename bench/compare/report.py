"""The table of all rows, and docs/BENCHMARKS.md around it."""

import os
import platform
import textwrap
import time

from measure import Figure, ratio

BY_HAND = "<!-- From here on written by hand: bench/run leaves it as it is. -->"


def row(what, ours, peers, target, met):
    """One line of the table. `ours` and each peer's value are a Figure or text; `met` is None
    where nothing is judged.
    """
    peers = {name: value for name, value in peers.items() if value is not None}
    return {"what": what, "ours": ours, "peers": peers, "target": target, "met": met}


def cells(entry):
    peers = ", ".join(f"{name} {value}" for name, value in entry["peers"].items()) or "–"
    quotients = {
        name: ratio(entry["ours"], value)
        for name, value in entry["peers"].items()
        if isinstance(entry["ours"], Figure) and isinstance(value, Figure)
    }
    ratios = (
        ", ".join(
            f"{name} {number:,.0f}" if number >= 10 else f"{name} {number:.2g}"
            for name, number in quotients.items()
        )
        or "–"
    )
    met = "" if entry["met"] is None else "yes" if entry["met"] else "**no**"
    return [entry["what"], str(entry["ours"]), peers, ratios, entry["target"] or "–", met]


def table(rows):
    lines = [
        "| what | labsh | peers | labsh ÷ peer | target | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(lines + [f"| {' | '.join(cells(entry))} |" for entry in rows])


def machine():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    processor = models[0] if models else platform.machine()
    cores = f"{os.cpu_count()} cores ({processor})"
    return f"{cores}, {memory:.0f} GiB of memory, Linux {platform.release()}"


def wrapped(text, **indents):
    """The text in lines of at most 100 columns, as .ci/width.py wants them."""
    return textwrap.fill(
        " ".join(text.split()), 100, break_on_hyphens=False, break_long_words=False, **indents
    )


def document(rows, functions, peers, load, old):
    """The whole document; what stands by hand in the old one is kept."""
    method = "\n".join(
        wrapped(f"- `{function.__name__}`: {function.__doc__}", subsequent_indent="  ")
        for function in functions
    )
    made = wrapped(
        f"""Made by `bench/run` on {time.strftime('%Y-%m-%d')}, which measures labsh and its peers
        in one run, on loopback of one machine: {machine()}. Its load was {load[0]:.1f} when the run
        began (of the last minute; {os.cpu_count()} would be all cores busy). Peers:
        {', '.join(peers)}."""
    )
    by_hand = old.split(BY_HAND, 1)[1] if BY_HAND in old else "\n\n## What was tried\n"
    return f"""# Benchmarks

{made}

Figures are medians, in brackets the middle half of what was measured. *labsh ÷ peer* is the median
of the quotients of neighbours in time. What is not met is where work remains.

{table(rows)}

## Method

Everything runs on loopback with throw-away keys; commands run as an unprivileged user whose shell
is `/bin/sh`. Ours and the peers take turns in rounds, so that what else the machine does meets all
of them. Connections are measured as new (`LABSH_KEEP=off`) but where a row says otherwise. Our
programs are copies of what was built, as an installation makes them.

{method}

{BY_HAND}{by_hand}"""
