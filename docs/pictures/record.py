#!/usr/bin/env python3
"""Records labsh in a terminal and writes the recording as an animated SVG.

Usage: record.py LABSH SVG. labshd has to be beside LABSH, and tmux in PATH.

One labshd on loopback serves forty host names. A shell in tmux is sent the keys of each command,
and the screen is read back whenever it may have changed, so output and timing are real.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from xml.sax.saxutils import escape

COMMANDS = [
    "labsh run lab07 'uname -sr; seq 1 1000000 | tail -1'",
    "labsh run lab07 'echo out; echo err >&2; exit 4'; echo $?",
    "labsh run lab07 nosuch now",
    "labsh run --gather @lab-a 'sleep $((RANDOM % 4)); uname -sr'",
    "labsh cp notes.txt data lab07:inbox",
    "labsh hosts check 'lab[01-03]'",
]
HOSTS = "lab[01-40]"
COLUMNS, ROWS = 100, 30
PROMPT = "$ "
KEY_SECONDS = 0.045
READING_SECONDS = 1.2
LAST_SECONDS = 6.0

FONT_SIZE, CELL_WIDTH, LINE_HEIGHT, MARGIN = 14, 8.4, 19, 16
COLOURS = {"1": "#ff7b72", "2": "#7ee787", "3": "#e3b341", "4": "#79c0ff", "5": "#d2a8ff",
           "6": "#76e3ea", "7": "#e6edf3", "8": "#8b949e"}


class Lab:
    """A labshd for forty host names, and the environment of a user who is enrolled on all."""

    def __init__(self, labsh, home):
        self.home, self.labsh = home, labsh
        self.environment = {
            "PATH": f"{labsh.parent}:{os.environ['PATH']}", "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"), "XDG_STATE_HOME": str(home / "state"),
            "LABSH_KEEP": "off", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color",
        }
        (home / "labshd.toml").write_text('listen = ["0.0.0.0:0"]\n')
        self.run("key", "new", "alice@desk")
        (home / "config/labsh/hosts.toml").write_text(f'[groups]\nlab-a = "{HOSTS}"\n')
        self.run("key", "enroll", "--host", HOSTS, "--out", str(home / "enrolment"))
        account = ["--user", "alice" if has_user("alice") else "root"] if os.getuid() == 0 else []
        for line in sorted((home / "enrolment").iterdir()):
            self.labshd(["key", "add", *account], stdin=line.read_bytes())
        self.log = open(home / "labshd.log", "wb+")
        self.server = subprocess.Popen(self.labshd_words(), stderr=self.log)
        port = self.wait_for_port()
        with open(home / "config/labsh/hosts.toml", "a") as file:
            file.write(f'[hosts."@lab-a"]\nport = {port}\n')
            for number in range(1, 41):
                file.write(f'[hosts.lab{number:02}]\naddress = "127.0.1.{number}"\n')
        (home / "notes.txt").write_text("notes\n")
        (home / "data").mkdir()
        for number in range(11):
            (home / f"data/{number}.bin").write_bytes(os.urandom(100_000))

    def run(self, *words):
        subprocess.run([self.labsh, *words], env=self.environment, check=True, capture_output=True)

    def labshd_words(self):
        return [self.labsh.parent / "labshd", "--config", self.home / "labshd.toml"]

    def labshd(self, words, stdin):
        subprocess.run([*self.labshd_words(), *words], input=stdin, check=True, capture_output=True)

    def wait_for_port(self):
        for _ in range(200):
            log = (self.home / "labshd.log").read_text()
            found = re.search(r"listening address=0\.0\.0\.0:(\d+)", log)
            if found and "labshd is ready" in log:
                return found.group(1)
            time.sleep(0.05)
        raise SystemExit(f"labshd did not start: {log}")


def has_user(name):
    return subprocess.run(["getent", "passwd", name], stdout=subprocess.DEVNULL).returncode == 0


class Terminal:
    """A shell in a tmux of its own, and the screens that it has shown, with their times."""

    def __init__(self, lab):
        self.socket = lab.home / "tmux"
        (lab.home / "tmux.conf").write_text("set -g status off\nset -s escape-time 0\n")
        (lab.home / "bashrc").write_text(
            f"PS1='\\[\\e[32m\\]{PROMPT}\\[\\e[0m\\]'; HISTFILE=; cd\n")
        self.environment = lab.environment
        self.tmux("-f", str(lab.home / "tmux.conf"), "new-session", "-d", "-x", str(COLUMNS),
                  "-y", str(ROWS), "bash", "--rcfile", str(lab.home / "bashrc"))
        self.start, self.screens = time.monotonic(), []
        self.wait_for_prompt(1)

    def tmux(self, *words):
        return subprocess.run(["tmux", "-u", "-S", self.socket, *words], env=self.environment,
                              check=True, capture_output=True, text=True).stdout

    def look(self):
        screen = self.tmux("capture-pane", "-p", "-e").split("\n")[:ROWS]
        if not self.screens or self.screens[-1][1] != screen:
            self.screens.append((time.monotonic() - self.start, screen))
        return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in screen]

    def wait_for_prompt(self, number):
        """Waits until the screen ends with an empty prompt, the prompt of this number."""
        while True:
            lines = [line for line in self.look() if line.strip()]
            prompts = sum(line.startswith(PROMPT.strip()) for line in lines)
            if prompts == number and lines[-1].strip() == PROMPT.strip():
                return
            time.sleep(0.03)

    def type(self, command):
        for key in command:
            # tmux takes a bare semicolon for the end of its own command.
            self.tmux("send-keys", "-l", "--", "\\;" if key == ";" else key)
            time.sleep(KEY_SECONDS)
            self.look()
        self.tmux("send-keys", "Enter")


def spans(line):
    """The parts of a captured line: column, text, and attributes for the SVG."""
    column, style, found = 0, {}, []
    for part in re.split(r"(\x1b\[[\d;]*m)", line.rstrip()):
        sgr = re.fullmatch(r"\x1b\[([\d;]*)m", part)
        if sgr:
            for code in sgr.group(1).split(";"):
                if code in ("", "0"):
                    style = {}
                elif code == "1":
                    style["font-weight"] = "bold"
                elif code in ("22", "39"):
                    style.pop("font-weight" if code == "22" else "fill", None)
                elif code[:-1] in ("3", "9") and code[-1] in COLOURS:
                    style["fill"] = COLOURS[code[-1]]
        elif part:
            rules = ";".join(f"{name}:{value}" for name, value in style.items())
            found.append((column, part, f' style="{rules}"' if rules else ""))
            column += len(part)
    return found


def pieces(screens):
    """What has to be drawn: row, column, text, attributes, when it appears and disappears."""
    shown = [[] for _ in range(ROWS)]
    texts = [[] for _ in range(ROWS)]
    done = []
    for when, screen in screens:
        for row, line in enumerate(screen):
            new = spans(line)
            if new == texts[row]:
                continue
            added = appended(texts[row], new)
            if added is None:
                for piece in shown[row]:
                    done.append((*piece, when))
                shown[row], added = [], new
            shown[row] += [(row, column, text, style, when) for column, text, style in added]
            texts[row] = new
    done += [(*piece, None) for row in shown for piece in row]
    return [piece for piece in done if piece[2].strip()]


def appended(old, new):
    """The spans by which a line has grown, or None if it has changed in another way."""
    if not old:
        return new
    (column, text, style), count = old[-1], len(old)
    if new[:count - 1] != old[:-1] or len(new) < count or new[count - 1][2] != style:
        return None
    if not new[count - 1][1].startswith(text):
        return None
    rest = new[count - 1][1][len(text):]
    return ([(column + len(text), rest, style)] if rest else []) + new[count:]


def svg(screens, seconds):
    used = max(row for row, *_ in pieces(screens)) + 1
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, used * LINE_HEIGHT + 2 * MARGIN
    names, rules, body = {}, [], []
    for row, column, text, style, start, end in pieces(screens):
        name = names.get((start, end))
        if name is None:
            name = names[start, end] = f"a{len(names)}"
            stop = f"{end / seconds:.2%}{{opacity:0}}" if end else ""
            hidden = "opacity:0;" if end else ""
            rules.append(f".{name}{{{hidden}animation-name:{name}}}@keyframes {name}"
                         f"{{0%{{opacity:0}}{start / seconds:.2%}{{opacity:1}}{stop}}}")
        lead = len(text) - len(text.lstrip())
        text = text.strip()
        x = MARGIN + (column + lead) * CELL_WIDTH
        y = MARGIN + row * LINE_HEIGHT + FONT_SIZE
        body.append(f'<text class="{name}" x="{x:.1f}" y="{y}" '
                    f'textLength="{len(text) * CELL_WIDTH:.1f}"{style}>{escape(text)}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}">',
        "<!-- Recorded by docs/pictures/record.py. -->",
        f"<style>text{{font:{FONT_SIZE}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        f"white-space:pre;fill:#e6edf3;animation:{seconds:.1f}s steps(1,end) infinite}}",
        *rules,
        "@media (prefers-reduced-motion:reduce){text{animation:none!important}}</style>",
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#0d1117"/>',
        *body, "</svg>", "",
    ])


def main():
    labsh, target = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="labsh-demo-") as home:
        os.chmod(home, 0o755)
        lab = Lab(labsh, pathlib.Path(home))
        try:
            terminal = Terminal(lab)
            for number, command in enumerate(COMMANDS, 2):
                time.sleep(READING_SECONDS)
                terminal.type(command)
                terminal.wait_for_prompt(number)
            terminal.tmux("kill-server")
        finally:
            lab.server.terminate()
            lab.server.wait()
    seconds = terminal.screens[-1][0] + LAST_SECONDS
    target.write_text(svg(terminal.screens, seconds), encoding="utf-8")


main()
