//! SIGHUP reads configuration and keys again; with errors in them the old ones stay.

use std::fs;
use std::path::PathBuf;

use crate::support::{
    LABSHD, Labshd, Running, enroll, eventually, is_alive, labsh_in, program, run, sh, text,
};

/// Runs a command with this key, and returns its exit status.
fn attempt(labshd: &Labshd, key: &str) -> Option<i32> {
    labshd.output_with(&["--key", key], &["true"]).status.code()
}

/// Removes a key from the host, which takes effect with the next reload.
fn remove(labshd: &Labshd, key: &str) {
    let mut command = program(LABSHD);
    command.arg("--config").arg(labshd.path().join("labshd.toml"));
    run(command.args(["key", "remove", key, "--host", "127.0.0.1"]));
}

#[test]
fn a_new_key_is_accepted_after_a_reload() {
    let labshd = Labshd::start();
    run(labsh_in(labshd.path()).args(["key", "new", "second"]));
    enroll(labshd.path(), "second", "127.0.0.1");
    assert_eq!(attempt(&labshd, "second"), Some(255));
    labshd.reload();
    assert_eq!((attempt(&labshd, "second"), attempt(&labshd, "test")), (Some(0), Some(0)));
}

#[test]
fn a_reload_without_changes_disturbs_no_session() {
    let labshd = Labshd::start();
    let mut client = Running::start(&mut labshd.run(&sh("echo ready; sleep 0.3; echo done")));
    assert_eq!(client.line(), "ready");
    labshd.reload();
    let output = client.finish();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "done\n".into()));
}

#[test]
fn a_removed_key_loses_its_sessions_and_their_commands() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    run(labsh_in(labshd.path()).args(["key", "new", "second"]));
    enroll(labshd.path(), "second", "127.0.0.1");
    labshd.reload();
    let command = "trap '' HUP; echo $$; sleep 300";
    let mut removed = Running::start(&mut labshd.run_with(&["--key", "second"], &sh(command)));
    let mut other = Running::start(&mut labshd.run_with(&["--key", "test"], &sh(command)));
    let (pid, other_pid) = (removed.pid_line(), other.pid_line());

    remove(&labshd, "second");
    assert!(is_alive(pid), "before the reload nothing changes");
    labshd.reload();
    let output = removed.finish();
    assert_eq!(output.status.code(), Some(255));
    assert!(
        text(&output.stderr).contains("key was removed or changed"),
        "{}",
        text(&output.stderr)
    );
    eventually("the command is gone", || !is_alive(pid));
    assert_eq!(attempt(&labshd, "second"), Some(255));
    assert!(is_alive(other_pid), "another key's commands go on");
    other.signal(9);
}

#[test]
fn a_wrong_configuration_is_logged_and_the_old_one_stays() {
    let labshd = Labshd::with("path = '/usr/bin:/bin'");
    let path = || text(&labshd.output(&sh("echo $PATH")).stdout);
    assert_eq!(path(), "/usr/bin:/bin\n");
    labshd.configure("path = '/bin'\nbacklog = 0\nno_such_setting = 1");
    labshd.reload();
    let file = labshd.file("labshd.toml");
    assert!(labshd.log().wait_for(&format!("{file}:2: backlog")).contains("not reloaded"));
    labshd.log().wait_for(&format!("{file}:3: \"no_such_setting\""));
    assert_eq!(path(), "/usr/bin:/bin\n");

    labshd.configure("path = '/bin:/usr/bin'");
    labshd.reload();
    labshd.log().wait_for("reloaded keys=2");
    assert_eq!(path(), "/bin:/usr/bin\n");
}

#[test]
fn a_wrong_entry_is_logged_and_the_old_keys_stay() {
    let labshd = Labshd::start();
    let entry: PathBuf = fs::read_dir(labshd.path().join("keys.d"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .unwrap();
    let good = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, format!("{good}\nfrom = 'everywhere'\n")).unwrap();
    labshd.reload();
    let line = good.lines().count() + 2;
    labshd.log().wait_for(&format!("{}:{line}: from", entry.display()));
    assert_eq!(attempt(&labshd, "test"), Some(0));
}

#[test]
fn a_missing_configuration_is_logged_and_the_old_one_stays() {
    let labshd = Labshd::start();
    fs::remove_file(labshd.path().join("labshd.toml")).unwrap();
    labshd.reload();
    labshd.log().wait_for("not reloaded");
    assert_eq!(attempt(&labshd, "test"), Some(0));
}

#[test]
fn changed_addresses_need_a_restart_and_are_logged() {
    let labshd = Labshd::start();
    let file = labshd.path().join("labshd.toml");
    let listen = fs::read_to_string(&file).unwrap();
    labshd.reload();
    assert_eq!(labshd.log().count("takes a restart"), 0);
    fs::write(&file, listen.replace("'plain://127.0.0.1:0', ", "")).unwrap();
    labshd.reload();
    labshd.log().wait_for("`listen` has changed: that takes a restart");
    let plain = labshd.plain.to_string();
    run(labshd.labsh().args(["run", "--plain", &plain, "true"]));
}
