//! Whom commands run as: as root, the user that the key's entry names, for good; otherwise labshd's own user.

use std::fs;
use std::path::Path;

use crate::support::{Labshd, am_root, run, text};

/// An entry of the user database: name, uid, gid, home, shell.
fn user(name: &str) -> Option<(u32, u32, String, String)> {
    let database = fs::read_to_string("/etc/passwd").unwrap();
    let line = database.lines().find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap(), fields[5].into(), fields[6].into()))
}

/// Gives the key's entry another user.
fn run_as(labshd: &Labshd, name: &str) {
    for entry in fs::read_dir(labshd.path().join("keys.d")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replace("user = \"root\"", &format!("user = \"{name}\""));
            fs::write(&path, text).unwrap();
        }
    }
    labshd.reload();
}

#[test]
fn a_command_runs_as_the_user_of_its_entry_and_cannot_go_back() {
    let labshd = Labshd::start();
    if !am_root() {
        let own = text(&run(std::process::Command::new("id").arg("-u")).stdout);
        assert_eq!(text(&labshd.output(&["id -u"]).stdout), own);
        return;
    }
    // `sync` has a program for a shell that is none of those refused, on every Debian; exact words need no shell.
    let Some((uid, gid, home, shell)) = user("sync") else {
        panic!("a system user with a shell that is allowed")
    };
    run_as(&labshd, "sync");
    let status = labshd.output(&["cat", "/proc/self/status"]);
    let status = text(&status.stdout);
    let ids =
        |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().skip(1);
    assert!(ids("Uid:").all(|id| id == uid.to_string()), "{status}");
    assert!(ids("Gid:").all(|id| id == gid.to_string()), "{status}");
    assert!(ids("Groups:").all(|id| id == gid.to_string()), "{status}");
    assert!(
        ids("CapEff:").chain(ids("CapPrm:")).all(|set| set.bytes().all(|digit| digit == b'0')),
        "{status}"
    );
    let environment = text(&labshd.output(&["env", "-u", "NOTHING"]).stdout);
    for line in [format!("HOME={home}"), "USER=sync".into(), "LOGNAME=sync".into(), format!("SHELL={shell}")]
    {
        assert!(environment.lines().any(|found| found == line), "{line} in {environment}");
    }
    let directory = text(&labshd.output(&["pwd", "-P"]).stdout);
    let expected = fs::canonicalize(&home).unwrap_or_else(|_| "/".into());
    assert_eq!(Path::new(directory.trim()), expected);
    let denied = labshd.output(&["cat", "/etc/shadow"]);
    assert_ne!(denied.status.code(), Some(0));
}

#[test]
fn a_user_without_a_shell_is_refused_with_a_remedy() {
    let labshd = Labshd::start();
    if !am_root() {
        assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
        return;
    }
    run_as(&labshd, "nobody");
    let output = labshd.output(&["id"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("nologin"), "{}", text(&output.stderr));
    assert_eq!(labshd.log().count("command started"), 0);
}

#[test]
fn a_user_that_does_not_exist_is_refused_with_its_name() {
    let labshd = Labshd::start();
    if !am_root() {
        assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
        return;
    }
    run_as(&labshd, "nobody-by-this-name");
    let output = labshd.output(&["id"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("nobody-by-this-name"), "{}", text(&output.stderr));
}
