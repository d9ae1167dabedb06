#!/usr/bin/env python3
"""Counts the instructions of single pieces of work, which no other load on the machine changes.

    bench/compare/instructions.py                   every piece of work
    bench/compare/instructions.py decode-small …    only these

callgrind (Debian package valgrind) counts `labsh-bench-work WORK N` and `… 2N`: the difference
is N times the work alone, without the start of the program. What the kernel does is not
counted. valgrind has no instructions for SHA-256, so hashes cost what they cost on a processor
that lacks them; and a copy by `rep movsb` counts one instruction for each byte.
"""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target" / "release" / "labsh-bench-work"

# Work, what it is called in the table, and how often it is done: often where it is short, so that
# what is paid once (a first buffer, a symbol that is looked up) does not show.
WORK = [
    ("write-small", "write a frame of 64 bytes", 2000),
    ("write-large", "write a frame of 64 KiB", 2000),
    ("decode-small", "decode a frame of 64 bytes", 2000),
    ("decode-small-byte-by-byte", "decode a frame of 64 bytes that arrives byte by byte", 500),
    ("decode-large", "decode a frame of 64 KiB, one copy included", 500),
    ("key-schedule", "derive a host's key, its name and its TLS seed", 100),
    ("handshake-plain", "challenge, response and welcome, both ends", 100),
    ("handshake-tls", "the same behind a TLS handshake, both ends", 20),
    ("set-parse", "parse a set of 1,000 hosts", 20),
    ("set-fold", "fold a set of 1,000 hosts", 20),
    ("set-union", "join two sets of 500 hosts, copies of both included", 20),
]


def counted(work, times):
    """Instructions of the whole program."""
    run = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            str(PROGRAM),
            work,
            str(times),
        ],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not found:
        sys.exit(f"{work}: {run.stderr}")
    return int(found[1])


def instructions(world=None, wanted=()):
    """Instructions of codec, handshake, key schedule and sets, counted by callgrind: the load of
    the machine changes none.

    One row for each piece of work; nothing where valgrind is not installed. `world`, what other
    rows measure in, is not needed. The program must be built: `cargo build --release -p labsh
    -p labsh-bench`.
    """
    if not shutil.which("valgrind"):
        return
    for work, what, times in WORK:
        if not wanted or work in wanted:
            each = (counted(work, 2 * times) - counted(work, times)) / times
            yield {
                "what": f"instructions: {what}",
                "ours": f"{each:,.0f}",
                "peers": {},
                "target": "–",
                "met": None,
            }


def main():
    wanted = sys.argv[1:]
    unknown = [work for work in wanted if work not in [known for known, *_ in WORK]]
    if unknown:
        sys.exit(f"no work {unknown[0]}; there are: {' '.join(work for work, *_ in WORK)}")
    if not shutil.which("valgrind"):
        sys.exit("valgrind is missing: apt-get install valgrind")
    # Both packages, as bench/run does: with one alone other features are chosen, and everything is
    # compiled twice.
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "-p", "labsh", "-p", "labsh-bench"],
        cwd=ROOT,
        check=True,
    )
    for row in instructions(wanted=wanted):
        print(f"{row['ours']:>12}  {row['what'].removeprefix('instructions: ')}", flush=True)


if __name__ == "__main__":
    main()
