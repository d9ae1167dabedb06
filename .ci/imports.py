#!/usr/bin/env python3
"""Checks that no imports go in a circle.

Files: no cycle of more than two files in a crate. Folders: no cycle at all. Imports come from `use`
and from paths in the code (`crate::`, `super::`, `self::`). An import between a module and its own
child does not count, and neither do unit tests. `--list` prints every import.
"""

import pathlib
import re
import subprocess
import sys
from collections import defaultdict

root = pathlib.Path(__file__).resolve().parent.parent

# Where each crate's module tree begins.
CRATE_ROOTS = [
    "proto/src/lib.rs",
    "crates/transport/src/lib.rs",
    "crates/nodeset/src/lib.rs",
    "crates/inventory/src/lib.rs",
    "crates/copy/src/lib.rs",
    "client/src/lib.rs",
    "server/src/lib.rs",
    "lessons/src/lib.rs",
    "cli/lib.rs",
    "tests/main.rs",
]


def code_of(path):
    """The text of a file without comments, strings and its unit tests."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text, flags=re.S)
    return re.split(r"#\[cfg\(test\)\]\s*mod\s", text)[0]


def modules_of(crate_root):
    """The files of a crate by their module paths, `()` being the crate itself."""
    top = crate_root.parent
    found = {(): crate_root}
    for path in sorted(top.rglob("*.rs")):
        parts = path.relative_to(top).with_suffix("").parts
        if path == crate_root or parts[0] == "bin" or parts[-1] == "main":
            continue
        found[parts[:-1] if parts[-1] == "mod" else parts] = path
    return found


def expand(tree):
    """Every path that a `use` tree names: `a::{b, c::d}` gives `a::b` and `a::c::d`."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        return [re.split(r"\s+as\s+", tree)[0].strip()]
    head, inner = tree[:brace], tree[brace + 1 : tree.rfind("}")]
    parts, depth, start = [], 0, 0
    for at, character in enumerate(inner):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(inner[start:at])
            start = at + 1
    parts.append(inner[start:])
    return [head + path for part in parts if part.strip() for path in expand(part)]


def named_paths(code):
    """The paths that the code names, as lists of segments."""
    for tree in re.findall(r"\buse\s+([^;]+);", code):
        for path in expand(tree):
            yield [segment.strip() for segment in path.split("::")]
    for path in re.findall(r"\b(?:crate|super|self)(?:::\w+)+", code):
        yield path.split("::")


def resolve(segments, module, modules):
    """The module that a path leads to, or None where it leaves the crate."""
    if segments[0] == "crate":
        base, rest = (), segments[1:]
    elif segments[0] in ("super", "self"):
        base, rest = module, segments
        while rest and rest[0] in ("super", "self"):
            base = base[:-1] if rest[0] == "super" else base
            rest = rest[1:]
    elif module + (segments[0],) in modules:
        base, rest = module, segments
    else:
        return None
    for segment in rest:
        if base + (segment,) not in modules:
            break
        base += (segment,)
    return base if base in modules else None


def is_ancestor(one, other):
    """Whether one module is inside the other, at any depth."""
    return other[: len(one)] == one or one[: len(other)] == other


def cycles(edges):
    """The strongly connected components of more than one node (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def check(crate_root):
    """The complaints about one crate."""
    modules = modules_of(crate_root)
    files, folders = defaultdict(set), defaultdict(set)
    for module, path in modules.items():
        for segments in named_paths(code_of(path)):
            target = resolve(segments, module, modules)
            if target is None or is_ancestor(module, target):
                continue
            here, there = str(path.relative_to(root)), str(modules[target].relative_to(root))
            files[here].add(there)
            one, other = modules[module].parent, modules[target].parent
            if one != other and one not in other.parents and other not in one.parents:
                folders[str(one.relative_to(root))].add(str(other.relative_to(root)))
    if "--list" in sys.argv:
        for here in sorted(files):
            print(here, "->", ", ".join(sorted(files[here])))
    for cycle in cycles(files):
        if len(cycle) > 2:
            yield "import cycle of files: " + ", ".join(cycle)
    for cycle in cycles(folders):
        yield "import cycle of folders: " + ", ".join(cycle)


sys.setrecursionlimit(10_000)
crate_roots = [root / name for name in CRATE_ROOTS if (root / name).exists()]
complaints = [complaint for crate_root in crate_roots for complaint in check(crate_root)]
if complaints:
    print(*complaints, sep="\n", file=sys.stderr)
    sys.exit(1)
