//! ClusterShell over labsh-rsh: eight hosts at once, and a tree with real gateways.

use std::fs;
use std::path::PathBuf;

use crate::recipes::{has_openssh, recipe};
use crate::support::fleet::{Fleet, sorted_lines};
use crate::support::{feed, program, run, text, tools};

fn clush() -> Option<PathBuf> {
    tools::need("clush", "apt-get install clustershell")
}

/// A fleet whose user has ClusterShell's configuration from `integrations/`.
fn fleet() -> Fleet {
    let fleet = Fleet::start();
    let configuration = fleet.path().join(".config/clustershell");
    fs::create_dir_all(&configuration).unwrap();
    fs::copy(
        fleet.path().join("integrations/clustershell/clush.conf"),
        configuration.join("clush.conf"),
    )
    .unwrap();
    fleet
}

#[test]
fn clush_runs_the_recipe() {
    let Some(clush) = clush() else { return };
    let fleet = Fleet::start();
    let output = run(&mut fleet.shell(&clush, &recipe("clustershell")));
    let stdout = text(&output.stdout);
    // Equal answers are printed once.
    assert!(stdout.contains("lab[01-08] (8)\n---------------\nLinux\n"), "{stdout}");
}

#[test]
fn clush_gets_each_hosts_output_and_exit_status() {
    let Some(clush) = clush() else { return };
    let fleet = fleet();
    let script = "clush -S -w lab[01-08] 'echo out $LABSH_HOST_ID; echo err $LABSH_HOST_ID >&2; \
                  test $LABSH_HOST_ID != lab05 || exit 3'";
    let output = fleet.output(&clush, script);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let hosts = 1..=8;
    let expected: Vec<String> =
        hosts.clone().map(|host| format!("lab{host:02}: out lab{host:02}")).collect();
    assert_eq!(sorted_lines(&output.stdout), expected);
    let mut expected: Vec<String> =
        hosts.map(|host| format!("lab{host:02}: err lab{host:02}")).collect();
    expected.insert(0, "clush: lab05: exited with exit code 3".into());
    assert_eq!(sorted_lines(&output.stderr), expected);
}

#[test]
fn clush_reports_a_dead_host_and_runs_on_the_others() {
    let Some(clush) = clush() else { return };
    let output = fleet().output(&clush, "clush -S -w lab[08-09] 'echo here'");
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "lab08: here\n");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("clush: lab09: exited with exit code 255"), "{stderr}");
    assert!(stderr.contains("lab09: labsh-rsh: "), "{stderr}");
}

#[test]
fn clush_sends_stdin_to_every_host_and_gathers_large_output() {
    let Some(clush) = clush() else { return };
    let fleet = fleet();
    let output = feed(
        &mut fleet.shell(&clush, "clush -S -b -w lab[01-08] 'wc -c; seq 100000 | cksum'"),
        &[b'x'; 300_000],
    );
    let sum = run(program("sh").args(["-c", "seq 100000 | cksum"]));
    let expected = format!("lab[01-08] (8)\n---------------\n300000\n{}", text(&sum.stdout));
    assert!(text(&output.stdout).contains(&expected), "{}", text(&output.stdout));
    let output = run(&mut fleet.shell(
        &clush,
        "clush -S -N -w lab[01-08] seq 100000 | sort -n | \
        uniq -c | awk '$1 != 8' | wc -l; clush -S -N -w lab[01-08] seq 100000 | wc -l",
    ));
    assert_eq!(text(&output.stdout), "0\n800000\n");
}

#[test]
fn clush_copies_to_every_host_and_back() {
    let Some(clush) = clush() else { return };
    if !has_openssh("scp") {
        return;
    }
    let fleet = fleet();
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at ^ (at >> 8)) as u8).collect();
    fs::create_dir_all(fleet.path().join("folder")).unwrap();
    fs::write(fleet.path().join("folder/a file"), &bytes).unwrap();
    let there = fleet.path().join("there").display().to_string();
    run(&mut fleet.shell(
        &clush,
        &format!(
            "mkdir there back; clush -S -w lab01 --copy folder --dest {there}; \
             clush -S -w lab[01-08] --rcopy {there}/folder --dest back"
        ),
    ));
    for host in 1..=8 {
        let copy = fleet.path().join(format!("back/folder.lab{host:02}/a file"));
        assert_eq!(fs::read(copy).unwrap(), bytes);
    }
}

#[test]
fn clush_goes_through_gateways_in_a_tree() {
    let Some(clush) = clush() else { return };
    let fleet = fleet();
    let output = run(&mut fleet.shell(&clush, &recipe("clustershell-tree")));
    let lines = sorted_lines(&output.stdout);
    let expected: Vec<String> = (3..=8).map(|host| format!("lab{host:02}: lab{host:02}")).collect();
    assert_eq!(lines, expected, "{}", text(&output.stderr));
    // Two gateways, and one command on each leaf: no leaf was reached around the gateways.
    let log = fleet.labshd.log();
    log.wait_for_nth("command started", 8);
    assert_eq!(log.count("command started"), 8, "{}", log.text());

    let failing = "clush -S --topology topology.conf -w lab[03-08] \
                   'echo err >&2; test $LABSH_HOST_ID != lab07 || exit 4'";
    let output = fleet.output(&clush, failing);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("lab07"), "{}", text(&output.stderr));
}
