#!/usr/bin/env python3
"""Checks the Markdown files without a build, and prints how much it has checked.

Links resolve, down to the heading that they name. Functions that a table names beside a link to
their file exist in it. The READMEs have their two commands. A paragraph of a Chinese file is one
line: a line break would show as a blank.
"""

import pathlib
import re
import subprocess
import sys
import unicodedata

READMES = ["README.md", "README.zh-CN.md"]
README_COMMANDS = [
    "cargo run --release --bin labsh -- try 'uname -a; seq 1 1000000 | tail -1'",
    "cargo test --workspace",
]

root = pathlib.Path(__file__).resolve().parent.parent


def markdown_files():
    """All Markdown files of the repository that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).exists()]


def outside_blocks(text):
    """The lines of the text, with those in code blocks blanked out."""
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
            lines.append(line)
    return lines


def anchors(path):
    """The anchors of a file: its headings, turned into identifiers as is common."""
    found = set()
    for line in outside_blocks(path.read_text(encoding="utf-8")):
        heading = re.match(r"#+\s+(.*)", line)
        if heading:
            letters = [
                c
                for c in heading.group(1).strip().lower()
                if c in " -_" or unicodedata.category(c)[0] in "LNM"
            ]
            found.add("".join(letters).replace(" ", "-"))
    return found


class Checker:
    """The problems that were found, and how much was checked."""

    def __init__(self):
        self.problems = []
        self.counts = {"links": 0, "commands": 0, "functions": 0, "Chinese paragraphs": 0}

    def link(self, path, place, target):
        if re.match(r"[a-z]+:", target):
            return
        self.counts["links"] += 1
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists():
            self.problems.append(f"{place}: {target} does not exist")
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            self.problems.append(f"{place}: {linked.name} has no heading for #{anchor}")

    def functions(self, path, place, row):
        """Checks a row of a table: a link to a file of Rust, then its functions in code spans."""
        link = re.match(r"\|[^|]*\| \[[^\]]*\]\(([^)]+\.rs)\)(.*)", row)
        if not link:
            return
        folder = (path.parent / link.group(1)).parent
        code = "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.rs")))
        for name in re.findall(r"`(?:\w+::)?(\w+)`", link.group(2)):
            self.counts["functions"] += 1
            if not re.search(rf"\bfn {name}\b", code):
                self.problems.append(f"{place}: {link.group(1)} has no function {name}")

    def chinese(self, name, lines):
        """Checks that no paragraph goes on in the next line."""
        blocks = re.compile(r"\s*([-*>|#]|\d+\.|!\[|<!--|$)")
        above = ""
        for number, line in enumerate(lines, 1):
            if line.strip() and not blocks.match(line):
                self.counts["Chinese paragraphs"] += 1
                if above.strip() and not re.match(r"\s*[|#<]", above):
                    self.problems.append(f"{name}:{number}: the paragraph is broken")
            above = line

    def readme(self, name):
        text = (root / name).read_text(encoding="utf-8")
        for command in README_COMMANDS:
            self.counts["commands"] += 1
            if f"\n{command}\n" not in text:
                self.problems.append(f"{name}: no line is this command: {command}")

    def file(self, path):
        name = path.relative_to(root)
        lines = outside_blocks(path.read_text(encoding="utf-8"))
        for number, line in enumerate(lines, 1):
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                self.link(path, f"{name}:{number}", target)
            self.functions(path, f"{name}:{number}", line)
        if "zh-CN" in str(name):
            self.chinese(name, lines)


def main():
    checker = Checker()
    files = markdown_files()
    for path in files:
        checker.file(path)
    for name in READMES:
        checker.readme(name)
    counts = ", ".join(f"{count} {what}" for what, count in checker.counts.items())
    print("\n".join(checker.problems) or f"{len(files)} Markdown files: {counts}")
    sys.exit(bool(checker.problems))


main()
