//! Commands whose directory is on a file server that does not respond: their processes cannot be
//! killed, and cost others nothing.

use std::fs;

use labsh_proto::message::{CommandId, Open, Program};

use crate::peer::{self, Peer};
use crate::support::dead_mount::DeadMount;
use crate::support::{Labshd, children, eventually, text};

/// The limit on commands of one key that are being started at the same time.
const MAX_STARTING: usize = 64;

fn spawner(labshd: &Labshd) -> i32 {
    let [spawner] = children(labshd.pid())[..] else { panic!("labshd has one child, its spawner") };
    spawner
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The frames of an `open` for `true` in this directory.
fn open_in(channel: u32, directory: &str) -> Vec<u8> {
    let open = Open {
        directory: Some(directory.into()),
        ..Open::new(CommandId([7; 16]), Program::Argv(vec![b"true".to_vec()]))
    };
    peer::open_frames(channel, &open.encode().unwrap())
}

#[test]
fn commands_that_hang_before_they_start_take_no_descriptor_and_delay_no_other_key() {
    let Some((mount, labshd)) = DeadMount::start("") else { return };
    labshd.add_key("other");
    let spawner = spawner(&labshd);
    let before = descriptors(spawner);
    let mut peer = Peer::authenticated(&labshd);
    (1..=100).for_each(|id| peer.send(&open_in(id, &mount.text())));
    eventually("as many hang as may", || mount.unanswered() == MAX_STARTING);
    (1..=100).for_each(|id| peer.send(&peer::close(id)));
    eventually("their descriptors are closed", || descriptors(spawner) == before);
    assert_eq!(children(spawner).len(), MAX_STARTING, "they cannot be killed");
    let other = labshd.output_with(&["--key", "other"], &["echo", "well"]);
    assert_eq!(text(&other.stdout), "well\n", "{}", text(&other.stderr));
    // Once the file server is gone, they end, and the key can start commands again.
    drop(mount);
    eventually("they are reaped", || children(spawner).is_empty());
    assert!(labshd.output_with(&["--key", "test"], &["true"]).status.success());
}

#[test]
fn commands_that_hang_while_they_run_take_no_descriptor() {
    let Some((mount, labshd)) = DeadMount::start("termination_grace = '10ms'") else { return };
    let spawner = spawner(&labshd);
    let before = descriptors(spawner);
    let mut peer = Peer::authenticated(&labshd);
    for id in 1..=20 {
        peer.send(&peer::open(id, &["ls", &mount.text()]));
    }
    eventually("all hang", || mount.unanswered() == 20);
    (1..=20).for_each(|id| peer.send(&peer::close(id)));
    eventually("their descriptors are closed", || descriptors(spawner) == before);
    assert_eq!(children(spawner).len(), 20, "they cannot be killed");
    labshd.log().wait_for_nth("does not end", 20);
    drop(mount);
    eventually("they are reaped", || children(spawner).is_empty());
    peer::assert_well(&labshd);
}

#[test]
fn a_command_that_does_not_start_ends_at_its_time_limit_or_at_the_hosts() {
    let Some((mount, labshd)) = DeadMount::start("start_timeout = '2s'") else { return };
    let directory = mount.text();
    let in_directory = |options: &[&str]| {
        labshd.output_with(&[&["--cwd", &*directory], options].concat(), &["true"])
    };
    let output = in_directory(&["--timeout", "100ms", "--json"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(stderr.contains("--timeout") && stderr.contains("file server"), "{stderr}");
    assert!(stderr.contains(r#""outcome":"timed-out""#), "{stderr}");

    let output = in_directory(&["--timeout", "1h"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("within 2s (start_timeout)"), "{stderr}");
    let mut explain = labshd.labsh();
    explain.args(["explain", "--cwd", &directory, &labshd.target(), "true"]);
    let output = explain.output().unwrap();
    assert!(text(&output.stdout).contains("start_timeout"), "{output:?}");
}

#[test]
fn a_time_limit_holds_for_a_command_that_cannot_be_killed() {
    let Some((mount, labshd)) = DeadMount::start("termination_grace = '10ms'") else { return };
    let output = labshd.output_with(&["--timeout", "100ms"], &["ls", &mount.text()]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
}
