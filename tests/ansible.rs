//! Ansible over labsh: a playbook of twenty modules, with labsh's connection plugin and with the
//! stock one for ssh.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use crate::recipes::{has_openssh, recipe};
use crate::support::fleet::Fleet;
use crate::support::{am_root, program, run, text, tools};

const PLUGIN: &str = "ansible_connection=labsh ansible_pipelining=true";
const SSH: &str =
    "ansible_connection=ssh ansible_ssh_executable=labsh-rsh ansible_ssh_transfer_method=piped";

/// A fleet whose user has Ansible's plugin and an inventory.
struct Control {
    fleet: Fleet,
    tool: PathBuf,
}

impl Control {
    /// With these hosts in the group `lab`, and these variables for all of them.
    fn new(hosts: &str, variables: &str) -> Option<Self> {
        let tool = tools::need(
            "ansible-playbook",
            "python3 -m venv target/ansible-venv && target/ansible-venv/bin/pip install \
             ansible-core",
        )?;
        let fleet = Fleet::start();
        let variables = variables.replace(' ', "\n");
        let inventory = format!("[lab]\n{hosts}\n[all:vars]\n{variables}\n");
        fs::write(fleet.path().join("hosts.ini"), inventory).unwrap();
        Some(Self { fleet, tool })
    }

    fn command(&self, script: &str) -> Command {
        let mut command = self.fleet.shell(&self.tool, script);
        command.env("ANSIBLE_HOME", self.fleet.path().join(".ansible")).env("ANSIBLE_NOCOLOR", "1");
        // Modules on the hosts write nothing into the real home directory.
        command
            .env("ANSIBLE_REMOTE_TMP", self.path("remote-tmp"))
            .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3");
        let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/integrations/ansible");
        command.env("ANSIBLE_CONNECTION_PLUGINS", plugins).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn output(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fleet.path().join(name)
    }
}

/// The counts in the recap of ansible-playbook's output, by host.
fn recap(output: &Output) -> BTreeMap<String, String> {
    let stdout = text(&output.stdout);
    let recap = stdout
        .split("PLAY RECAP")
        .nth(1)
        .unwrap_or_else(|| panic!("{stdout}{}", text(&output.stderr)));
    let lines = recap.lines().filter_map(|line| line.split_once(" : "));
    let counts = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.map(|(host, line)| (host.trim().to_owned(), counts(line))).collect()
}

/// The path of a file of the repository, quoted for a shell.
fn repository(file: &str) -> String {
    format!("'{}'", Path::new(env!("CARGO_MANIFEST_DIR")).join(file).display())
}

/// Runs the whole playbook on two hosts, with commands that exit with these statuses.
fn a_playbook_runs(variables: &str, statuses: &str) {
    let Some(control) = Control::new("lab0[1:2]", variables) else { return };
    let every_byte: Vec<u8> = (0..1 << 20).map(|at: u32| (at ^ (at >> 8)) as u8).collect();
    let scratch = control.path("scratch");
    fs::create_dir_all(scratch.join("fetched")).unwrap();
    fs::write(scratch.join("every-byte.bin"), &every_byte).unwrap();
    fs::write(scratch.join("motd.j2"), "This is {{ inventory_hostname }}.\n").unwrap();
    fs::write(scratch.join("script.sh"), "#!/bin/sh\necho \"$1\"\n").unwrap();
    fs::write(scratch.join("page"), "page one").unwrap();
    run(program("tar").current_dir(&scratch).args(["-cf", "pages.tar", "page"]));
    let digest = Sha256::digest(&every_byte).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let script = format!(
        "ansible-playbook -i hosts.ini -e scratch={} -e every_byte_sha256={digest} \
         -e '{{\"statuses\": {statuses}}}' {}",
        scratch.display(),
        repository("tests/ansible/playbook.yml")
    );
    let output = control.output(&script);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let counts = recap(&output);
    assert_eq!(counts.len(), 2);
    for (host, counts) in counts {
        let expected = "ok=20 changed=7 unreachable=0 failed=0 skipped=0 rescued=0 ignored=0";
        assert_eq!(counts, expected, "{host}: {}", text(&output.stdout));
        assert_eq!(fs::read(scratch.join(format!("fetched/{host}.bin"))).unwrap(), every_byte);
    }
}

#[test]
fn a_playbook_runs_with_the_plugin() {
    a_playbook_runs(PLUGIN, "[0, 3, 127, 255]");
}

#[test]
fn a_playbook_runs_with_the_stock_ssh_plugin() {
    // That plugin takes 255 for a lost connection, even if it is the command's own status.
    a_playbook_runs(SSH, "[0, 3, 127]");
}

#[test]
fn the_stock_ssh_plugin_copies_files_by_sftp_and_scp() {
    for way in ["sftp", "scp"] {
        if !has_openssh(way) {
            return;
        }
        let Some(control) = Control::new("lab01", &SSH.replace("piped", way)) else { return };
        fs::write(control.path("a file"), "carried").unwrap();
        let there = control.path("there");
        let script = format!(
            "ansible -i hosts.ini -e \"ansible_{way}_extra_args='-S labsh-rsh'\" \
             lab -m copy -a \"src='$PWD/a file' dest={}\"",
            there.display()
        );
        let output = control.output(&script);
        assert!(output.status.success(), "{way}: {}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(fs::read(there).unwrap(), b"carried");
    }
}

#[test]
fn an_unreachable_host_differs_from_a_failed_task() {
    let Some(control) = Control::new("lab01\nlab02\nlab09", PLUGIN) else { return };
    let playbook = repository("tests/ansible/trouble.yml");
    let output = control.output(&format!("ansible-playbook -i hosts.ini {playbook}"));
    let counts = recap(&output);
    let stdout = text(&output.stdout);
    assert_eq!(
        counts["lab01"], "ok=1 changed=1 unreachable=0 failed=1 skipped=0 rescued=0 ignored=0",
        "{stdout}"
    );
    assert_eq!(
        counts["lab02"], "ok=2 changed=2 unreachable=0 failed=0 skipped=1 rescued=0 ignored=0",
        "{stdout}"
    );
    assert_eq!(
        counts["lab09"], "ok=0 changed=0 unreachable=1 failed=0 skipped=0 rescued=0 ignored=0",
        "{stdout}"
    );
    assert!(stdout.contains("\"rc\": 255"), "{stdout}");
}

#[test]
fn a_refusal_makes_the_host_unreachable_with_the_reason() {
    let variables = format!("{PLUGIN} ansible_user=another-user");
    let Some(control) = Control::new("lab01", &variables) else { return };
    let output = control.output("ansible -i hosts.ini lab -m ping");
    let stdout = text(&output.stdout);
    assert!(stdout.contains("UNREACHABLE!") && stdout.contains("another-user"), "{stdout}");

    let output =
        control.output("ansible -i hosts.ini lab -m ping -e ansible_labsh_key=no-such-key");
    let stdout = text(&output.stdout);
    assert!(stdout.contains("UNREACHABLE!") && stdout.contains("no-such-key"), "{stdout}");
    let output = control
        .output("ansible -i hosts.ini lab -m ping -e ansible_labsh_executable=no-such-labsh");
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert!(printed.contains("ansible_labsh_executable"), "{printed}");
}

#[test]
fn become_runs_tasks_as_another_user_with_sudo() {
    if !am_root() {
        return;
    }
    if tools::need("sudo", "apt-get install sudo").is_none() {
        return;
    }
    let Some(control) = Control::new("lab01", PLUGIN) else { return };
    let output = control
        .output("ansible -i hosts.ini lab --become --become-user daemon -m command -a whoami");
    assert_eq!(
        text(&output.stdout),
        "lab01 | CHANGED | rc=0 >>\ndaemon\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn become_sends_the_password_at_its_prompt_and_then_the_module() {
    let Some(control) = Control::new("lab01", PLUGIN) else { return };
    // Prompts on stderr like sudo, and leaves the rest of stdin to the command.
    let asks = r#"#!/bin/bash
while [[ $1 == -* ]]; do case $1 in -p) prompt=$2; shift 2;; -u) shift 2;; *) shift;; esac; done
printf %s "$prompt" >&2
IFS= read -r password
[[ $password == secret ]] || { echo 'Sorry, try again.' >&2; exit 1; }
exec "$@"
"#;
    let sudo = control.path("bin/sudo-that-asks");
    fs::write(&sudo, asks).unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
    let output = |password: &str| {
        control.output(&format!(
            "ansible -i hosts.ini lab --become --become-user daemon -m command -a 'echo let in' \
             -e ansible_become_exe={} -e ansible_become_password={password}",
            sudo.display()
        ))
    };
    let right = output("secret");
    assert_eq!(
        text(&right.stdout),
        "lab01 | CHANGED | rc=0 >>\nlet in\n",
        "{}",
        text(&right.stderr)
    );
    let wrong = output("guessed");
    assert!(text(&wrong.stdout).contains("Incorrect sudo password"), "{}", text(&wrong.stdout));
}

#[test]
fn ansible_runs_the_recipes() {
    let Some(control) = Control::new("", "") else { return };
    for name in ["ansible", "ansible-ssh"] {
        let output = run(control.command(&recipe(name)).env_remove("ANSIBLE_CONNECTION_PLUGINS"));
        let stdout = text(&output.stdout);
        assert_eq!(stdout.matches("\"ping\": \"pong\"").count(), 3, "{name}: {stdout}");
    }
}
