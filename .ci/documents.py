#!/usr/bin/env python3
"""Checks the Markdown files without a build: links resolve, and the README has its two commands."""

import pathlib
import re
import subprocess
import sys
import unicodedata

root = pathlib.Path(__file__).resolve().parent.parent
listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"],
    cwd=root,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
).stdout
files = [root / name for name in listed.split("\0") if name and (root / name).exists()]
problems = []
links = commands = 0


def outside_code(text):
    """The text with code blocks and code spans blanked out, line by line."""
    lines, fence = [], None
    for line in text.splitlines():
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            if mark and mark.group(1).startswith(fence):
                fence = None
            lines.append("")
        elif mark:
            fence = mark.group(1)
            lines.append("")
        else:
            lines.append(re.sub(r"`[^`]*`", "", line))
    return lines


def anchors(path):
    """The anchors of a file: its headings, turned into identifiers as is common."""
    found = set()
    for line in outside_code(path.read_text(encoding="utf-8")):
        heading = re.match(r"#+\s+(.*)", line)
        if heading:
            kept = [
                c
                for c in heading.group(1).strip().lower()
                if c in " -_" or unicodedata.category(c)[0] in "LNM"
            ]
            found.add("".join(kept).replace(" ", "-"))
    return found


for path in files:
    name = path.relative_to(root)
    for number, line in enumerate(outside_code(path.read_text(encoding="utf-8")), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"[a-z]+:", target):
                continue
            links += 1
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            if not there.exists():
                problems.append(f"{name}:{number}: {target} does not exist")
            elif anchor and there.suffix == ".md" and anchor not in anchors(there):
                problems.append(f"{name}:{number}: {there.name} has no heading for #{anchor}")

for readme in ["README.md", "README.zh-CN.md"]:
    text = (root / readme).read_text(encoding="utf-8")
    for command in [
        "cargo run --release --bin labsh -- try 'uname -a; seq 1 1000000 | tail -1'",
        "cargo test --workspace",
    ]:
        commands += 1
        if f"\n{command}\n" not in text:
            problems.append(f"{readme}: the command is missing on a line of its own: {command}")

print("\n".join(problems) or f"{len(files)} Markdown files: {links} links, {commands} commands")
sys.exit(bool(problems))
