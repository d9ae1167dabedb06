//! Hosts from the files of other tools that hosts.toml names: Ansible, ClusterShell and ssh.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{labsh_in, run, temp_dir, text};

/// A home directory with these files and a key.
fn home(files: &[(&str, &str)]) -> TempDir {
    let home = temp_dir();
    for (name, content) in files {
        let file = home.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    run(labsh_in(home.path()).args(["key", "new", "k"]));
    home
}

fn labsh(home: &Path, words: &[&str]) -> Output {
    labsh_in(home).env("HOME", home).args(words).output().unwrap()
}

fn stdout(home: &Path, words: &[&str]) -> String {
    let output = labsh(home, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    text(&output.stdout)
}

/// The settings of a host, as `labsh hosts --json` prints them.
fn settings(home: &Path, host: &str) -> Value {
    serde_json::from_str(&stdout(home, &["hosts", "--json", host])).unwrap()
}

const INI: &str = "[web]
www[01:03] ansible_host=10.0.0.1 ansible_port=22

[web:vars]
ansible_user=www
ansible_labsh_port=7000

[site:children]
web

[site:vars]
rack=7
";

#[test]
fn inventories_of_ansible_are_read() {
    let home = home(&[
        (
            "config/labsh/hosts.toml",
            "[sources]\nansible = [\"~/site/hosts\", \"more.yml\"]\n[hosts.www02]\nport = 5300\n",
        ),
        ("site/hosts", INI),
        (
            "site/host_vars/www03.yml",
            "ansible_labsh_target: \"{{ inventory_hostname }}.example\"\n",
        ),
        (
            "config/labsh/more.yml",
            "all:\n  children:\n    db: {hosts: {\"db[a:c]\": }}\n    web: {hosts: {extra: }}\n",
        ),
    ]);
    let path = home.path();
    let groups = stdout(path, &["hosts", "--groups"]);
    let named = |name: &str| {
        let line = groups.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(2)).map(str::to_owned)
    };
    assert_eq!(named("web").as_deref(), Some("extra,www[01-03]"), "{groups}");
    assert_eq!(named("site").as_deref(), Some("extra,www[01-03]"), "{groups}");
    assert_eq!(named("all").as_deref(), Some("dba,dbb,dbc,extra,www[01-03]"), "{groups}");
    let one = settings(path, "www01");
    assert_eq!(
        (&one["address"], &one["port"], &one["user"]),
        (&"10.0.0.1".into(), &7000.into(), &"www".into())
    );
    assert_eq!(one["variables"]["rack"], "7", "{one}");
    assert_eq!(settings(path, "www02")["port"], 5300, "labsh's own file counts first");
    assert_eq!(settings(path, "www03")["address"], "www03.example");
    let origin = stdout(path, &["hosts", "--origin", "www03"]);
    assert!(
        origin.contains(&format!("{}:1", path.join("site/host_vars/www03.yml").display())),
        "{origin}"
    );
    let stdout = stdout(path, &["run", "--dry-run", "@ansible:web!extra", "true"]);
    assert!(stdout.contains("10.0.0.1:7000"), "{stdout}");
}

#[test]
fn groups_of_clustershell_are_read_and_its_programs_not_run() {
    let home = home(&[
        (
            "config/labsh/hosts.toml",
            "[groups]\nmine = \"@r2!lab01\"\n[sources]\nclustershell = true\n",
        ),
        (
            "config/clustershell/groups.conf",
            "[Main]\ndefault: racks\nautodir: $CFGDIR/groups.d\n[slurm]\nmap: touch \
             $CFGDIR/trace\n",
        ),
        (
            "config/clustershell/groups.d/a.yaml",
            "roles:\n  login: gate\n  r1: never\nracks:\n  r1: \"lab[01-03]\"\n  r2: \
             \"@r1,@roles:login\"\n",
        ),
    ]);
    let path = home.path();
    let hosts = |set: &str| -> Vec<String> {
        let listed = stdout(path, &["hosts", "--json", set]);
        listed
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["host"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(hosts("@r2"), ["gate", "lab01", "lab02", "lab03"]);
    assert_eq!(hosts("@mine"), ["gate", "lab02", "lab03"]);
    assert_eq!(hosts("@roles:*"), ["gate", "never"]);
    assert_eq!(hosts("@*!@racks:r1"), ["gate", "never"]);
    let output = labsh(path, &["hosts", "@slurm:long"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("groups.conf:4: a program prints the groups of slurm"), "{stderr}");
    assert!(!path.join("config/clustershell/trace").exists());
}

#[test]
fn hosts_of_sshs_configuration_are_read() {
    let home = home(&[
        ("config/labsh/hosts.toml", "[sources]\nssh_config = true\n"),
        (
            ".ssh/config",
            "Include rooms/*\nHost gate\n  Port 2222\nHost lab* !lab03\n  HostName %h.example\n",
        ),
        (".ssh/rooms/a", "Host lab01 lab02 lab03\n  User student\n"),
    ]);
    let path = home.path();
    let listed = stdout(path, &["hosts"]);
    let names: Vec<&str> =
        listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["gate", "lab01", "lab02", "lab03"]);
    let one = settings(path, "lab01");
    assert_eq!((&one["address"], &one["user"]), (&"lab01.example".into(), &"student".into()));
    assert_eq!(settings(path, "lab03")["address"], "lab03");
    // The port of sshd is not that of labshd.
    assert_eq!(settings(path, "gate")["port"], 5274);
    assert_eq!(stdout(path, &["hosts", "@ssh:*"]), listed);
}

#[test]
fn a_host_with_a_template_is_listed_and_affects_no_other() {
    let home = home(&[
        (
            "config/labsh/hosts.toml",
            "[sources]\nansible = [\"hosts.ini\"]\n[hosts.own]\naddress = \"::1\"\n",
        ),
        (
            "config/labsh/hosts.ini",
            "[web]\nok ansible_host=10.0.0.1\nfe80::1%eth0\nown ansible_host={{a}}\nodd \
             ansible_host={{b}}\n",
        ),
    ]);
    let path = home.path();
    let why = format!(
        "{}:5: odd: ansible_host is a template, which only Ansible can fill in; set \
         ansible_labsh_target to a plain value",
        path.join("config/labsh/hosts.ini").display()
    );
    let listed = labsh(path, &["hosts"]);
    assert_eq!((listed.status.code(), text(&listed.stderr)), (Some(0), format!("labsh: {why}\n")));
    let lines: Vec<String> = text(&listed.stdout)
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "HOST ADDRESS",
            "fe80::1%eth0 [fe80::1%eth0]:5274",
            "odd ?",
            "ok 10.0.0.1:5274",
            "own [::1]:5274"
        ]
    );
    let odd = settings(path, "odd");
    assert_eq!(odd["groups"][0], Value::from("all"));
    let error = &odd["error"];
    assert_eq!(
        format!("{}:{}: {}; {}", error["file"], error["line"], error["reason"], error["remedy"])
            .replace('"', ""),
        why
    );
    assert!(
        stdout(path, &["hosts", "--origin", "odd"])
            .contains("\n  unusable  odd: ansible_host is a template")
    );
    assert!(stdout(path, &["run", "--dry-run", "ok,own", "true"]).starts_with("ok,own (2)\n"));
    for words in
        [&["run", "odd", "true"][..], &["run", "ok,odd", "true"], &["explain", "odd", "true"]]
    {
        let refused = labsh(path, words);
        assert_eq!(refused.status.code(), Some(125), "{words:?}: {refused:?}");
        assert!(text(&refused.stderr).contains(&why), "{words:?}: {refused:?}");
    }
}

#[test]
fn errors_in_another_tools_file_are_reported_with_that_file() {
    let home = home(&[
        ("config/labsh/hosts.toml", "[sources]\nansible = [\"hosts.ini\"]\n"),
        ("config/labsh/hosts.ini", "[web]\nwww[01:1000000000]\n"),
    ]);
    let path = home.path();
    let refused = |part: &str| {
        let output = labsh(path, &["hosts"]);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{stderr}");
    };
    refused("hosts.ini:2: [01:1000000000]: the first and the last number have different widths");
    fs::remove_file(path.join("config/labsh/hosts.ini")).unwrap();
    refused("hosts.ini: there is no such file");
    for (text, stderr) in [
        ("[sources]\nansible = true\n", "hosts.toml:2: "),
        ("[sources]\nclustershell = 3\n", "hosts.toml:2: write true, false or a path in quotes"),
        ("[sources]\npuppet = true\n", "hosts.toml:2: unknown field"),
    ] {
        fs::write(path.join("config/labsh/hosts.toml"), text).unwrap();
        refused(stderr);
    }
}
