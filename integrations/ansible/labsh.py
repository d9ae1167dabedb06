"""Ansible's connection plugin `labsh`: runs tasks, and carries files, through `labsh run`."""

from __future__ import annotations

DOCUMENTATION = """
name: labsh
short_description: run tasks through labsh
description:
  - Runs every command of a task with C(labsh run), and sends and fetches files the same way.
  - A host that cannot be reached, or refuses, is unreachable to Ansible. A command's exit status
    is never mistaken for that, 255 included.
  - There are no terminals. A C(become) method that needs one is refused.
author: the labsh project
requirements:
  - C(labsh) on the controller, and C(labshd) on the hosts
  - a POSIX shell with C(cat), C(wc) and C(mv) on the hosts
extends_documentation_fragment:
  - connection_pipelining
options:
  remote_addr:
    description:
      - The target as C(labsh run) takes it, without a port. A name, an address or C(unix:/path).
    default: inventory_hostname
    type: str
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_labsh_target
  port:
    description: The port of labshd. Where it is not set, labsh's configuration decides.
    type: int
    keyword:
      - name: port
    vars:
      - name: ansible_port
      - name: ansible_labsh_port
  remote_user:
    description:
      - The user as whom commands are expected to run. The host decides that by the key; it refuses
        where the two differ.
      - Where it is not set, whatever the host decides is right.
    type: str
    cli:
      - name: user
        option: --user
    env:
      - name: ANSIBLE_REMOTE_USER
    ini:
      - section: defaults
        key: remote_user
    keyword:
      - name: remote_user
    vars:
      - name: ansible_user
      - name: ansible_labsh_user
  key:
    description:
      - The key, by its name or by the path of its file. Where it is not set, labsh decides.
    type: str
    env:
      - name: LABSH_KEY
    ini:
      - section: labsh_connection
        key: key
    vars:
      - name: ansible_labsh_key
  host_id:
    description:
      - The name under which the key was enrolled on the host. The default is the target's name.
    type: str
    vars:
      - name: ansible_labsh_host_id
  plain:
    description: Go without TLS. Everything can then be read and changed on the way.
    type: bool
    default: false
    vars:
      - name: ansible_labsh_plain
  executable:
    description: The program labsh, by its name in PATH or by its path.
    type: str
    default: labsh
    env:
      - name: ANSIBLE_LABSH_EXECUTABLE
    ini:
      - section: labsh_connection
        key: executable
    vars:
      - name: ansible_labsh_executable
  timeout:
    description:
      - Seconds that connecting may take, and that C(become) may take to ask for its password and to
        accept it.
    type: int
    default: 10
    cli:
      - name: timeout
    env:
      - name: ANSIBLE_TIMEOUT
      - name: ANSIBLE_LABSH_TIMEOUT
    ini:
      - section: defaults
        key: timeout
      - section: labsh_connection
        key: timeout
    vars:
      - name: ansible_timeout
      - name: ansible_labsh_timeout
"""

import json
import os
import selectors
import subprocess
import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_native
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

display = Display()

# How a command may have ended of which everything is known; all the rest is a matter of the
# connection.
ENDED = ("ok", "exited", "signaled", "timed-out")

# Takes a file from stdin. It appears under its name only when all of its bytes are there, so that
# no module runs half of one. The shell's noclobber makes sure that no other process has created
# the new file.
RECEIVE = r"""
if [ -d "$1" ]; then echo "$1 is a directory" >&2; exit 1; fi
part=$1.labsh-$$
trap 'rm -f -- "$part"' EXIT
(umask 077; set -C; cat > "$part") || exit
size=$(wc -c < "$part") || exit
if [ "$size" -ne "$2" ]; then echo "$size bytes arrived instead of $2" >&2; exit 1; fi
mv -f -- "$part" "$1"
"""

SEND = 'exec cat < "$1"'


class Connection(ConnectionBase):
    """A host behind labshd. Each command is a connection of its own: no state to keep or reset."""

    transport = "labsh"
    has_pipelining = True
    has_tty = False

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def close(self) -> None:
        self._connected = False

    def reset(self) -> None:
        self.close()

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Runs a line in the user's shell there: its exit status, stdout and stderr."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        display.vvv(f"EXEC {cmd}", host=self.get_option("remote_addr"))
        line = to_bytes(cmd, errors="surrogate_or_strict")
        become = self.become if sudoable and self.become and self.become.expect_prompt() else None
        if become and to_bytes(become.success) not in line:
            become = None
        stdin = subprocess.DEVNULL if in_data is None and become is None else subprocess.PIPE
        status, stdout, stderr = self._run(
            ["--shell"], [line], stdin=stdin, input=in_data, become=become
        )
        return status["exit_status"], stdout, stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Sends a file; what arrives is all of it or nothing."""
        super().put_file(in_path, out_path)
        display.vvv(f"PUT {in_path} TO {out_path}", host=self.get_option("remote_addr"))
        try:
            source = open(to_bytes(in_path, errors="surrogate_or_strict"), "rb")
        except FileNotFoundError as error:
            raise AnsibleFileNotFound(f"there is no file {in_path} to send") from error
        except OSError as error:
            raise AnsibleError(f"cannot read {in_path}: {error.strerror}") from error
        with source:
            words = [
                "/bin/sh",
                "-c",
                RECEIVE,
                "sh",
                out_path,
                str(os.fstat(source.fileno()).st_size),
            ]
            status, _, stderr = self._run(["--argv"], words, stdin=source)
        if status["exit_status"] != 0:
            raise AnsibleError(f"cannot send {in_path} to {out_path}: {to_native(stderr).strip()}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Fetches a file; the local one appears, or changes, only when all of it is there."""
        super().fetch_file(in_path, out_path)
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self.get_option("remote_addr"))
        out_path = to_bytes(out_path, errors="surrogate_or_strict")
        part = b"%s.labsh-%d" % (out_path, os.getpid())
        try:
            with open(part, "xb") as destination:
                words = ["/bin/sh", "-c", SEND, "sh", in_path]
                status, _, stderr = self._run(
                    ["--argv"], words, stdin=subprocess.DEVNULL, stdout=destination
                )
                arrived = os.fstat(destination.fileno()).st_size
            if status["exit_status"] != 0:
                raise AnsibleError(f"cannot fetch {in_path}: {to_native(stderr).strip()}")
            if arrived != status["stdout_bytes"]:
                raise AnsibleError(
                    f"cannot fetch {in_path}: {arrived} bytes arrived instead of "
                    f"{status['stdout_bytes']}"
                )
            os.replace(part, out_path)
        except OSError as error:
            raise AnsibleError(f"cannot write {to_native(out_path)}: {error.strerror}") from error
        finally:
            if os.path.exists(part):
                os.unlink(part)

    def _command_line(self, form: list, words: list, status_fd: int) -> list[bytes]:
        """`labsh run …`, word for word."""
        target, user = self.get_option("remote_addr"), self.get_option("remote_user")
        host_id, key, port = (self.get_option(name) for name in ("host_id", "key", "port"))
        if target.count(":") > 1 and not target.startswith(("[", "unix:")):
            target = f"[{target}]"
        line = [self.get_option("executable"), "run", f"--status-fd={status_fd}", *form]
        line.append(f"--connect-timeout={max(1, self.get_option('timeout'))}s")
        for option, value in (("user", user), ("host-id", host_id), ("key", key), ("port", port)):
            if value:
                line.append(f"--{option}={value}")
        if self.get_option("plain"):
            line.append("--plain")
        return [
            to_bytes(word, errors="surrogate_or_strict") for word in (*line, target, "--", *words)
        ]

    def _run(
        self, form, words, stdin, stdout=subprocess.PIPE, input=None, become=None
    ) -> tuple[dict, bytes, bytes]:
        """Runs a command to its end: what labsh says about that end, stdout and stderr."""
        status_reader, status_writer = os.pipe()
        line = self._command_line(form, words, status_writer)
        try:
            # Unbuffered: what the wait for a password has not read must be left for what comes
            # after it.
            labsh = subprocess.Popen(
                line,
                bufsize=0,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                pass_fds=[status_writer],
            )
        except OSError as error:
            os.close(status_reader)
            raise AnsibleError(
                f"cannot start {to_native(line[0])}: {error.strerror}; install labsh, or set "
                "ansible_labsh_executable"
            ) from error
        finally:
            os.close(status_writer)
        with os.fdopen(status_reader, "rb") as status_file:
            try:
                early_output, early_errors = self._satisfy(become, labsh) if become else (b"", b"")
                output, errors = labsh.communicate(input)
            finally:
                # Also when Ansible's own time limit for a task is up: the host ends a command whose
                # client has gone.
                if labsh.poll() is None:
                    labsh.kill()
                    labsh.wait()
            errors = early_errors + errors
            status = status_file.read()
        status = json.loads(status) if status else {}
        if status.get("outcome") not in ENDED:
            # Without a status, labsh has not even tried: a missing key, say. Its last words are the
            # reason.
            error = status.get("error", {})
            reason = "; ".join(filter(None, (error.get("reason"), error.get("remedy"))))
            reason = reason or to_native(errors).strip().removeprefix("labsh: ")
            raise AnsibleConnectionFailure(reason or f"labsh ended with status {labsh.returncode}")
        return status, early_output + (output or b""), errors

    def _satisfy(self, become, labsh: subprocess.Popen) -> tuple[bytes, bytes]:
        """Gives `become` its password if it asks; waits until it has let us in or has ended.

        Returns what came on stdout and on stderr meanwhile, without the question.
        """
        seen = {labsh.stdout: b"", labsh.stderr: b""}
        asked = False
        timeout = max(1, self.get_option("timeout"))
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for stream in seen:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() and not become.check_success(seen[labsh.stdout]):
                events = selector.select(max(0, deadline - time.monotonic()))
                if not events:
                    raise AnsibleConnectionFailure(
                        f"{become.name} has not let us in within {timeout} seconds"
                    )
                for key, _ in events:
                    piece = os.read(key.fd, 65536)
                    seen[key.fileobj] += piece
                    if not piece:
                        selector.unregister(key.fileobj)
                both = seen[labsh.stdout] + b"\n" + seen[labsh.stderr]
                if become.check_incorrect_password(both):
                    raise AnsibleError(f"Incorrect {become.name} password")
                if become.check_missing_password(both):
                    raise AnsibleError(f"Missing {become.name} password")
                if not asked and become.check_password_prompt(both):
                    asked = True
                    try:
                        labsh.stdin.write(to_bytes(become.get_option("become_pass")) + b"\n")
                    except BrokenPipeError:
                        # It has ended; the reason is on its way on stderr.
                        pass
        errors = seen[labsh.stderr]
        if asked and isinstance(become.prompt, str):
            errors = errors.rpartition(to_bytes(become.prompt))[2]
        return seen[labsh.stdout], errors
