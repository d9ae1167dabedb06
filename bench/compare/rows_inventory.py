"""Rows about inventories: 100,000 hosts in each kind of file that labsh reads."""

import contextlib
import pathlib
import subprocess
import tempfile

from measure import Figure, seconds
from report import row
from world import LABSH, program

HOSTS, ROUNDS = 100_000, 3
NAMES = [f"n{number:06}" for number in range(1, HOSTS + 1)]
ALL = f"n[000001-{HOSTS:06}]"

# The files of each kind, below $HOME, whose XDG_CONFIG_HOME is .config. Each host has an address.
HOSTS_TOML = ".config/labsh/hosts.toml"
KINDS = {
    "hosts.toml, a table for each host": {
        HOSTS_TOML: "".join(f"[hosts.{name}]\naddress = '10.0.0.1'\n" for name in NAMES)
    },
    "hosts.toml, one table for all": {
        HOSTS_TOML: f"[groups]\nall = '{ALL}'\n[hosts.'{ALL}']\naddress = '{{host}}.example'\n"
        "port = 5300\nuser = 'student'\ngroups = ['lab']\nvariables = { floor = 2, room = 5 }\n"
    },
    "config.toml, a table for each host": {
        ".config/labsh/config.toml": "".join(
            f"[hosts.{name}]\naddress = '10.0.0.1'\n" for name in NAMES
        )
    },
    "Ansible, INI": {
        HOSTS_TOML: "[sources]\nansible = ['~/hosts']\n",
        "hosts": "[web]\n"
        + "".join(f"{name} ansible_host=10.0.0.1\n" for name in NAMES)
        + "[web:vars]\nansible_user=www\nrack=7\n",
    },
    "Ansible, YAML": {
        HOSTS_TOML: "[sources]\nansible = ['~/hosts.yml']\n",
        "hosts.yml": "web:\n  vars: {ansible_user: www}\n  hosts:\n"
        + "".join(f"    {name}: {{ansible_host: 10.0.0.1}}\n" for name in NAMES),
    },
    "ClusterShell, YAML": {
        HOSTS_TOML: "[sources]\nclustershell = '~/groups.yaml'\n",
        "groups.yaml": "racks:\n  all:\n" + "".join(f"    - {name}\n" for name in NAMES),
    },
    "ClusterShell, flat file": {
        HOSTS_TOML: "[sources]\nclustershell = '~/groups.cfg'\n",
        "groups.cfg": "".join(f"all: {name}\n" for name in NAMES),
    },
    "ssh_config": {
        HOSTS_TOML: "[sources]\nssh_config = '~/config'\n",
        "config": "".join(f"Host {name}\n  HostName 10.0.0.1\n" for name in NAMES),
    },
}


@contextlib.contextmanager
def home(world, files):
    """A home directory with these files and a key; gives it, and its environment."""
    with tempfile.TemporaryDirectory(dir=world.scratch) as place:
        directory = pathlib.Path(place)
        environment = {
            name: value for name, value in world.environment.items() if name[:6] != "LABSH_"
        }
        environment |= {
            "HOME": place,
            "XDG_CONFIG_HOME": f"{place}/.config",
            "XDG_STATE_HOME": f"{place}/.state",
            "LABSH_KEEP": "off",
        }
        subprocess.run(
            [LABSH, "key", "new", "bench"], env=environment, check=True, capture_output=True
        )
        for name, text in files.items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        yield directory, environment


def times(command, environment):
    """How long a command takes, three times."""
    runs = [
        seconds(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(ROUNDS)
    ]
    return Figure(runs, "s", 2)


def below_a_second(what, ours, peers):
    return row(what, ours, peers, "1 s", ours.middle < 1)


def inventories(world):
    """100,000 hosts, each with an address, in every kind of file: all of them listed by `labsh
    hosts`, and one of them resolved by `labsh run --dry-run`; OpenSSH resolves one host of its
    own file (`ssh -G`), and nodeset expands the groups of its own. Three rounds.
    """
    for kind, files in KINDS.items():
        with home(world, files) as (directory, environment):
            peers, one_peers = {}, {}
            if kind == "ssh_config" and program("ssh"):
                command = [program("ssh"), "-G", "-F", str(directory / "config"), NAMES[-1]]
                one_peers["ssh -G"] = times(command, environment)
            if kind.startswith("ClusterShell") and program("nodeset"):
                command = nodeset_command(directory)
                peers["nodeset"] = times(command, environment) if command else None
            listed = times([LABSH, "hosts"], environment)
            yield below_a_second(f"listing 100,000 hosts, {kind}", listed, peers)
            one = times([LABSH, "run", "--dry-run", NAMES[-1], "true"], environment)
            yield below_a_second(f"resolving one of 100,000 hosts, {kind}", one, one_peers)


def nodeset_command(directory):
    """nodeset on the same groups."""
    sources = list(directory.glob("groups.*"))
    if sources[0].suffix == ".yaml":
        (directory / "groups.d").mkdir()
        (directory / "groups.d" / "groups.yaml").write_text(sources[0].read_text())
        configuration = f"[Main]\ndefault: racks\nautodir: {directory}/groups.d\n"
    else:
        configuration = (
            "[Main]\ndefault: local\n[local]\n"
            f"map: sed -n 's/^$GROUP:\\(.*\\)/\\1/p' {sources[0]}\n"
        )
    (directory / "groups.conf").write_text(configuration)
    return [program("nodeset"), "--groupsconf", str(directory / "groups.conf"), "-f", "@all"]


def host_lists(world):
    """Sets of 100,000 hosts on the command line, by `labsh run --dry-run`, `labsh hosts` and
    `nodeset -f`: a list in a file, 100,000 names as words, half of them excluded by ranges or one
    by one, and an intersection. Three rounds.
    """
    half = f"n[000001-{HOSTS:06}/2]"
    odd = NAMES[::2]
    with home(world, {"list": "\n".join(NAMES) + "\n"}) as (directory, environment):
        file = str(directory / "list")
        nodeset = program("nodeset")
        # The arguments of a process are limited to 2 MiB, and one word to 128 KiB.
        words, excluded = NAMES[: HOSTS // 2], odd[:25_000]
        some = f"{ALL}" + "".join(f"!{name}" for name in odd[:14_000])
        for what, ours, theirs in [
            ("a list (`^file`)", ["hosts", f"^{file}"], ["sh", "-c", f"nodeset -f < {file}"]),
            ("50,000 names as words", ["hosts", *words], ["nodeset", "-f", *words]),
            (
                "half of them excluded",
                ["hosts", "-x", half, ALL],
                ["nodeset", "-f", ALL, "-x", half],
            ),
            (
                "25,000 excluded one by one",
                ["hosts", *(word for name in excluded for word in ("-x", name)), ALL],
                ["nodeset", "-f", ALL, *(word for name in excluded for word in ("-x", name))],
            ),
            ("14,000 differences", ["hosts", some], ["nodeset", "-f", some]),
            ("an intersection", ["hosts", f"{ALL}&{half}"], ["nodeset", "-f", f"{ALL}&{half}"]),
        ]:
            peers = {"nodeset": times(theirs, environment) if nodeset else None}
            yield below_a_second(
                f"100,000 hosts, {what}", times([LABSH, *ours], environment), peers
            )


ROWS = [inventories, host_lists]
