"""Times, memory and what is computed from them."""

import concurrent.futures
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import tempfile
import time

MIB, GIB = 1 << 20, 1 << 30


class Figure:
    """What was measured several times: its median, and between what its middle half lies."""

    def __init__(self, samples, unit="", digits=1):
        self.samples, self.unit, self.digits = list(samples), unit, digits

    @property
    def middle(self):
        return statistics.median(self.samples)

    def __str__(self):
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.middle:,.{self.digits}f}{unit}"
        if len(self.samples) < 2:
            return text
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return f"{text} ({low:,.{self.digits}f}–{high:,.{self.digits}f})"


def ratio(ours, theirs):
    """Ours for one of theirs: the median over pairs that were measured in the same round, where
    there are such.
    """
    if len(ours.samples) == len(theirs.samples):
        return statistics.median(a / b for a, b in zip(ours.samples, theirs.samples))
    return ours.middle / theirs.middle


def percentile(samples, share):
    """The value below which this share (0 to 100) of the samples lies."""
    return sorted(samples)[min(len(samples) * share // 100, len(samples) - 1)]


def seconds(command, **keywords):
    """Wall-clock time of one command."""
    keywords.setdefault("stderr", subprocess.DEVNULL)
    start = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **keywords)
    return time.monotonic() - start


def in_turns(measures, rounds):
    """Calls each of these functions once in every round; what each returned, by name. `measures`
    may hold None.
    """
    measures = {name: measure for name, measure in measures.items() if measure}
    results = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            results[name].append(measure())
    return results


def process_times(commands, environment, rounds=6, runs=10):
    """Milliseconds of each of these commands, by hyperfine without a shell: all in turns, `runs`
    of each in a round.
    """
    commands = {name: command for name, command in commands.items() if command}
    times = {name: [] for name in commands}
    for _ in range(rounds):
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            subprocess.run(
                [
                    "hyperfine",
                    "-N",
                    "--style",
                    "none",
                    "--warmup",
                    "2",
                    "--runs",
                    str(runs),
                    "--export-json",
                    report.name,
                    *(shlex.join(command) for command in commands.values()),
                ],
                check=True,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, result in zip(commands, json.load(open(report.name))["results"]):
                times[name] += [took * 1e3 for took in result["times"]]
    return {name: Figure(values, "ms") for name, values in times.items()}


def a_second(command, count, at_once=4, **keywords):
    """How many of these processes end in a second, so many of them at once."""
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda _: seconds(command, **keywords), range(count)))
    return count / (time.monotonic() - start)


def busy_seconds():
    """Processor seconds that the whole machine has spent so far (proc_stat(5): all but idle and
    iowait).
    """
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def memory(server, program):
    """Kilobytes of a server: its process and those below it that run the same program, commands
    excluded. Shared pages count in shares (Pss of proc_pid_smaps(5)), so that a server of many
    processes is not counted too high.
    """
    parents, total = {}, 0
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                )
            except (FileNotFoundError, ProcessLookupError):
                pass
    family, more = {server}, True
    while more:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
    for pid in family:
        try:
            if os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(program):
                rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(rollup.split("\nPss:")[1].split()[0])
        except (FileNotFoundError, ProcessLookupError, IndexError):
            pass
    return total
