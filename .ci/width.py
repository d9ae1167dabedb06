#!/usr/bin/env python3
"""Checks that no line of code, and no comment, is wider than 100 columns.

rustfmt wraps code but leaves comments and strings alone. Tables and links of Markdown cannot be
wrapped, and Chinese text is not wrapped at all: a line break would show as a blank.
"""

import pathlib
import re
import subprocess
import sys

WIDTH = 100
CODE = [".rs", ".py", ".lua", ".css", ".js"]

root = pathlib.Path(__file__).resolve().parent.parent
listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
    cwd=root, stdout=subprocess.PIPE, text=True, check=True,
).stdout


def is_prose(line):
    """Whether a line of Markdown could be wrapped."""
    return not re.match(r"\s*\|", line) and "](" not in line and "://" not in line


def wide_lines(path):
    """The numbers of the lines that are too wide."""
    fence = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if path.suffix == ".md":
            if line.lstrip().startswith("```"):
                fence = not fence
            if fence or not is_prose(line):
                continue
        if len(line) > WIDTH:
            yield number


complaints = []
for name in filter(None, listed.split("\0")):
    path = root / name
    code = path.suffix in CODE or name in [".ci/run", "bench/run"]
    prose = path.suffix == ".md" and not (name.endswith(".zh-CN.md") or "zh-CN/" in name)
    if (code or prose) and path.exists():
        wide = wide_lines(path)
        complaints += [f"{name}:{number}: wider than {WIDTH} columns" for number in wide]

if complaints:
    print(*complaints, sep="\n", file=sys.stderr)
    sys.exit(1)
