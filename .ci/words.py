#!/usr/bin/env python3
"""Checks that code and documents use the field's words.

Reads comments, docstrings, help texts, messages, names of files and identifiers, and Markdown.
CONTRIBUTING.md lists what to write instead. `.ci/words.allow` lists the lines that are accepted:
`PATH: the text of the line`, without leading and trailing blanks.
"""

import pathlib
import re
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent

# In any text.
PROSE = [
    r"nobody|somebody|anybody|whoever|whomever|whosoever|whichever of",
    r"over (there|here)",
    r"(is|are|was|were|be|been) told",
    r"told (by|of|to|that|what|why|how)",
    r"(tells|tell|told) (it|of|us|them)",
    r"wish(es|ed|ful)?",
    r"tidings",
    r"let(s|ting)? go",
    r"part(s|ed)? with",
    r"(becomes?|became) of",
    r"heed(s|ed)?",
    r"stands? (in|behind|there|beside|for itself|still|at)",
    r"behind (it|that|them|this)",
    r"for good",
    r"of (its|their) kind",
    r"that which|those which|be it",
    r"a use for",
    r"at hand",
    r"under way",
    r"has come about|came about|comes about",
    r"one that lies",
]

# As a word of a name in code: `wish` is found in `wish_at_least` and in `StopWish`.
NAMES = [
    "wish", "wishes", "tidings", "kept", "mistake", "mistakes", "trouble", "crew", "companion",
    "intake", "breath", "moment", "patience", "told", "heed", "nobody", "somebody",
]

ALLOWED = root / ".ci/words.allow"
CODE = {".rs", ".py", ".lua", ".toml", ".service", ".socket", ".css", ".js"}


def files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        path = root / name
        chinese = name.endswith(".zh-CN.md") or "zh-CN/" in name
        if chinese or name in (".ci/words.py", ".ci/words.allow", "CONTRIBUTING.md"):
            continue
        if path.is_file() and (path.suffix in CODE | {".md"} or name in ("bench/run", ".ci/run")):
            yield name, path


def words_of(identifier):
    """The words of an identifier in snake case or camel case, in lower case."""
    for part in identifier.split("_"):
        yield from (word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part))


def code_of(name, line):
    """A line without its comment and without what is between double quotes."""
    comments = {".rs": "//", ".js": "//", ".lua": "--", ".css": "/*"}
    comment = comments.get(pathlib.Path(name).suffix, "#")
    return re.sub(r'"(?:\\.|[^"\\])*"?', '""', line.split(comment)[0])


def found_in(name, text, names, prose):
    for number, line in enumerate(text.splitlines(), 1):
        for match in prose.finditer(line):
            yield number, line, match.group(0)
        if not name.endswith(".md"):
            for identifier in re.findall(r"\b[A-Za-z_]\w*\b", code_of(name, line)):
                for word in words_of(identifier):
                    if word in names:
                        yield number, line, identifier


def main():
    prose = re.compile(r"\b(" + "|".join(PROSE) + r")\b", re.I)
    allowed = set()
    if ALLOWED.exists():
        allowed = {line.strip() for line in ALLOWED.read_text(encoding="utf-8").splitlines()}
    under = tuple(sys.argv[1:])
    count = 0
    for name, path in files():
        if under and not name.startswith(under):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        seen = set()
        for number, line, word in found_in(name, text, NAMES, prose):
            if f"{name}: {line.strip()}" in allowed or (number, word) in seen:
                continue
            seen.add((number, word))
            count += 1
            print(f"{name}:{number}: {word}: {line.strip()}", file=sys.stderr)
    if count:
        print(f"{count} words of no field; CONTRIBUTING.md has others", file=sys.stderr)
        sys.exit(1)


main()
