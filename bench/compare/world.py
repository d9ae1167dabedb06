"""What runs while measuring: labshd and its peers on loopback, their keys, and the user whom
commands run as.
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RELEASE = ROOT / "target" / "release"
INSTALLED = ROOT / "target" / "bench"
LABSH, LABSHD, TOOL = (str(INSTALLED / name) for name in ("labsh", "labshd", "labsh-bench"))
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "dropbear": "dropbear-bin",
    "socat": "socat",
    "hyperfine": "hyperfine",
    "valgrind": "valgrind",
    "pdsh": "pdsh",
    "clush": "clustershell",
}
USER_PREFIX = "labsh-bench-"


def program(name):
    """Where a program is; none if it is not installed."""
    return shutil.which(name, path=f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}")


def install_peers():
    """Root installs what is missing, others hear what is. Only hyperfine must be there."""
    missing = sorted({package for name, package in PACKAGES.items() if not program(name)})
    if missing and os.geteuid() == 0 and program("apt-get"):
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        for command in (
            ["update", "-qq"],
            ["install", "-y", "-qq", "--no-install-recommends", *missing],
        ):
            subprocess.run(
                ["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, check=False
            )
        missing = sorted({package for name, package in PACKAGES.items() if not program(name)})
    if missing:
        print(f"not installed, so not measured: {' '.join(missing)}", file=sys.stderr)
    if not program("hyperfine"):
        sys.exit("hyperfine is needed: apt-get install hyperfine")


def install():
    """Copies our programs, as an installation does and as those of the peers were: what a linker
    has just written lies in the page cache in single pages, and each start takes half a
    millisecond more to map them.
    """
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for path in (LABSH, LABSHD, TOOL):
        # A new file each time: one that is still running cannot be written to.
        pathlib.Path(path).unlink(missing_ok=True)
        shutil.copy2(RELEASE / pathlib.Path(path).name, path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_listening(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.0005)
    sys.exit(f"nothing listens on port {port}: {process.args}")


@contextlib.contextmanager
def throw_away_user(home):
    """The name whom commands run as: for root a system user that is removed at the end, for others
    themselves.
    """
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid()).pw_name
        return
    for entry in pwd.getpwall():
        owner = entry.pw_name.removeprefix(USER_PREFIX)
        if owner != entry.pw_name and owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            subprocess.run(["userdel", entry.pw_name], check=False, capture_output=True)
    name = f"{USER_PREFIX}{os.getpid()}"
    # An impossible password, rather than a locked account, which sshd without PAM refuses.
    subprocess.run(
        [
            "useradd",
            "--system",
            "--no-create-home",
            "--home-dir",
            home,
            "--shell",
            "/bin/sh",
            "--password",
            "*",
            name,
        ],
        check=True,
    )
    try:
        os.mkdir(home, mode=0o755)
        shutil.chown(home, name)
        yield name
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)


class World:
    """labshd and its peers, running on loopback; a context that ends what it started."""

    def __init__(self):
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with self.stack:
            self.scratch = pathlib.Path(
                self.stack.enter_context(tempfile.TemporaryDirectory(prefix="labsh-bench-"))
            )
            # sshd reads a user's authorized keys as that user.
            self.scratch.chmod(0o711)
            self.home = self.scratch / "home"
            self.user = self.stack.enter_context(throw_away_user(self.home))
            self.environment = dict(os.environ, XDG_CONFIG_HOME=str(self.scratch), LABSH_KEEP="off")
            self.start_labshd()
            self.sshd, self.ssh = (
                self.start_sshd() if program("sshd") and program("ssh") else (None, None)
            )
            self.dropbear, self.dbclient = (
                self.start_dropbear() if program("dropbear") else (None, None)
            )
            # From here on the stack belongs to this context.
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *failure):
        self.stack.close()

    def process(self, command, **keywords):
        """A process that does not outlive this world."""
        for stream in ("stdin", "stdout", "stderr"):
            keywords.setdefault(stream, subprocess.DEVNULL)
        process = subprocess.Popen(command, **keywords)

        def end():
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self.stack.callback(end)
        return process

    def spawn(self, command, port, **keywords):
        """A process that has begun to listen on this port when this returns."""
        process = self.process(command, **keywords)
        until_listening(port, process)
        return process

    def start_labshd(self):
        self.port, self.plain_port = free_port(), free_port()
        config = self.scratch / "labshd.toml"
        config.write_text(
            f"listen = ['127.0.0.1:{self.port}', 'plain://127.0.0.1:{self.plain_port}']\n"
            "failed_authentication_delay = '1ms'\nlog_level = 'error'\nmax_channels = 1100\n"
            "max_connections = 20000\nmax_unauthenticated = 10000\nauthentication_deadline = '5m'\n"
            "max_connections_per_key = 20000\n"
        )
        subprocess.run(
            [LABSH, "key", "new", "bench"], env=self.environment, check=True, capture_output=True
        )
        line = subprocess.run(
            [LABSH, "key", "enroll", "bench", "--host", "127.0.0.1"],
            env=self.environment,
            check=True,
            capture_output=True,
        ).stdout
        user = ["--user", self.user] if os.geteuid() == 0 else []
        subprocess.run(
            [LABSHD, "--config", config, "key", "add", *user],
            input=line,
            check=True,
            capture_output=True,
        )
        self.environment["LABSH_BENCH_KEY"] = line.decode().strip()
        self.environment["LABSH_BENCH_ADDRESS"] = f"127.0.0.1:{self.port}"
        self.labshd = self.spawn([LABSHD, "--config", config], self.port)

    def labsh(self, *words, port=None):
        """The words of `labsh run`, with more than one word: without a shell."""
        return [LABSH, "run", f"127.0.0.1:{port or self.port}", *words]

    def tool(self, *words, **environment):
        """What labsh-bench prints, by name."""
        run = subprocess.run(
            [TOOL, *map(str, words)],
            env=dict(self.environment, **environment),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return dict(line.split(" ", 1) for line in run.stdout.splitlines())

    def start_sshd(self):
        self.ssh_port, key, host_key = free_port(), self.scratch / "ssh", self.scratch / "ssh_host"
        for file in (key, host_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        authorized = self.scratch / "authorized"
        authorized.write_text((self.scratch / "ssh.pub").read_text())
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        options = [
            "ListenAddress=127.0.0.1",
            f"HostKey={host_key}",
            f"AuthorizedKeysFile={authorized}",
            "StrictModes=no",
            "UsePAM=no",
            "PrintMotd=no",
            "PrintLastLog=no",
            "MaxStartups=100",
            "MaxSessions=100",
            f"PidFile={self.scratch}/pid",
        ]
        self.sshd_command = [
            program("sshd"),
            "-D",
            "-f",
            "/dev/null",
            *(word for option in options for word in ("-o", option)),
            "-p",
        ]
        server = self.spawn([*self.sshd_command, str(self.ssh_port)], self.ssh_port)
        return server, [
            "ssh",
            "-F",
            "none",
            "-p",
            str(self.ssh_port),
            "-l",
            self.user,
            "-i",
            str(key),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-c",
            "aes128-gcm@openssh.com",
            "127.0.0.1",
        ]

    def start_dropbear(self):
        """dropbear reads `~/.ssh/authorized_keys`; with a home that is not thrown away there is
        none to be measured.
        """
        if os.geteuid() != 0:
            return None, None
        self.dropbear_port, host_key, client_key = (
            free_port(),
            self.scratch / "dropbear_host",
            self.scratch / "dropbear",
        )
        for file in (host_key, client_key):
            subprocess.run(
                ["dropbearkey", "-t", "ed25519", "-f", file], check=True, capture_output=True
            )
        public = subprocess.run(
            ["dropbearkey", "-y", "-f", client_key], check=True, capture_output=True, text=True
        )
        keys = self.home / ".ssh"
        keys.mkdir(mode=0o700)
        authorized = keys / "authorized_keys"
        authorized.write_text(
            next(line for line in public.stdout.splitlines() if line.startswith("ssh-")) + "\n"
        )
        authorized.chmod(0o600)
        for file in (keys, authorized):
            shutil.chown(file, self.user)
        self.dropbear_command = [
            program("dropbear"),
            "-F",
            "-E",
            "-r",
            str(host_key),
            "-P",
            str(self.scratch / "dropbear.pid"),
            "-p",
        ]
        server = self.spawn(
            [*self.dropbear_command, f"127.0.0.1:{self.dropbear_port}"], self.dropbear_port
        )
        return server, [
            "dbclient",
            "-y",
            "-y",
            "-i",
            str(client_key),
            "-p",
            str(self.dropbear_port),
            "-l",
            self.user,
            "127.0.0.1",
        ]

    def socat(self, command):
        """A client of a port on which each connection gets a command's output: no authentication,
        no encryption.
        """
        if not program("socat"):
            return None
        port = free_port()
        self.spawn(
            ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"EXEC:{command}"], port
        )
        return ["socat", "-b", "262144", "-u", f"TCP:127.0.0.1:{port}", "-"]

    def proxy(self, milliseconds, target=None):
        """The port of a proxy to a port (labshd's) that adds so much to each round trip."""
        port = free_port()
        self.spawn(
            [
                TOOL,
                "proxy",
                f"127.0.0.1:{port}",
                f"127.0.0.1:{target or self.port}",
                str(milliseconds),
            ],
            port,
        )
        return port

    @contextlib.contextmanager
    def ssh_master(self):
        """The words of an ssh whose commands share one connection, which is open already."""
        path = self.scratch / "master"
        through = [*self.ssh[:-1], "-o", f"ControlPath={path}"]
        master = [
            *through,
            "-o",
            "ControlMaster=yes",
            "-o",
            "ControlPersist=yes",
            "-N",
            "-f",
            self.ssh[-1],
        ]
        subprocess.run(
            master,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield [*through, self.ssh[-1]]
        finally:
            subprocess.run([*through, "-O", "exit", self.ssh[-1]], check=False, capture_output=True)


def peer_versions():
    """The peers that are there, with their versions, as they name themselves."""
    commands = {"ssh": ["-V"], "dbclient": ["-V"], "socat": ["-V"], "hyperfine": ["--version"]}
    versions = []
    for name, words in commands.items():
        if program(name):
            run = subprocess.run([name, *words], capture_output=True, text=True)
            line = next(
                (
                    line
                    for line in (run.stdout + run.stderr).splitlines()
                    if any(map(str.isdigit, line))
                ),
                name,
            )
            versions.append(" ".join(line.split()[:3]).rstrip(","))
    return versions


def on_port(command, port):
    """A client's command with another port."""
    command = list(command)
    command[command.index("-p") + 1] = str(port)
    return command
