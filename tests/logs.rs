//! labshd without a reader of its log: it goes on serving, and ends on SIGTERM.

use std::fs::OpenOptions;
use std::io::{PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use crate::support::{LABSHD, Labshd, eventually, program, text};

const TERM: i32 = 15;

/// Ends labshd, and starts it again with this as its stderr.
fn with_stderr(stderr: impl Into<Stdio>) -> Labshd {
    let mut labshd = Labshd::start();
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
    let mut again = program(LABSHD);
    again.arg("--config").arg(labshd.path().join("labshd.toml"));
    labshd.child = again.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    eventually("it listens again", || labshd.unix_path().exists());
    labshd
}

fn serves_and_ends(mut labshd: Labshd) {
    let target = format!("unix:{}", labshd.unix_path().display());
    let run = || labshd.labsh().args(["run", "-n", &target, "echo here"]).output().unwrap();
    // The socket's file exists shortly before labshd listens.
    eventually("it answers", || text(&run().stdout) == "here\n");
    for _ in 0..5 {
        let output = run();
        assert_eq!(text(&output.stdout), "here\n", "{}", text(&output.stderr));
    }
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn a_full_disk_under_the_log_disturbs_no_command() {
    serves_and_ends(with_stderr(OpenOptions::new().write(true).open("/dev/full").unwrap()));
}

#[test]
fn a_closed_log_pipe_disturbs_no_command() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    serves_and_ends(with_stderr(writer));
}

/// Like a terminal stopped by Ctrl-S, or `labshd 2>&1 | less`.
#[test]
fn an_unread_log_pipe_delays_no_command() {
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    serves_and_ends(with_stderr(writer));
    drop(reader);
}

#[test]
fn the_last_lines_of_the_log_are_written_before_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    serves_and_ends(with_stderr(writer));
    let log = std::io::read_to_string(reader).unwrap();
    assert!(log.trim_end().ends_with("stopped"), "{log}");
}

/// Fills a pipe, through a separate open file description, so that only that one is non-blocking.
fn fill(pipe: &PipeWriter) {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut filler = OpenOptions::new();
    let mut filler = filler.write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).unwrap();
    while filler.write(b"x").is_ok() {}
}
