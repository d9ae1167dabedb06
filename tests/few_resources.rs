//! Too few open files, a clock that is wrong, and hosts that fall silent: errors that say what to
//! do, and no panic.

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use crate::many_hosts::Lab;
use crate::peer::fake_server::{Victim, welcome};
use crate::support::{
    LABSH_RSH, LABSHD, Labshd, Running, in_shell, labsh_in, own_files, program, text, tools,
};

/// The program with at most this many open files.
fn limited(command: &Command, files: u32) -> Command {
    in_shell(&format!("ulimit -n {files} && exec \"$@\""), command)
}

/// Asserts that a program ended by itself, with a status of its own.
fn assert_no_panic(output: &Output, what: &str) {
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    assert!(output.status.code().is_some_and(|code| code != 101), "{what}: {output:?}");
}

#[test]
fn too_few_open_files_are_an_error_and_no_panic() {
    let lab = Lab::of(2);
    let labshd = &lab.labshd;
    let (target, file) = (labshd.target(), labshd.file("file"));
    let (host, port) = target.split_once(':').unwrap();
    fs::write(&file, "content").unwrap();
    let copy = format!("h01:{}", labshd.file("copy"));
    let lines: &[&[&str]] = &[
        &["run", &target, "true"],
        &["run", "-tt", &target, "true"],
        &["run", "h[01-02]", "true"],
        &["shell", "--force-tty", &target, "true"],
        &["rsh", "-p", port, host, "true"],
        &["cp", &file, &copy],
        &["explain", "h[01-02]", "true"],
        &["ping", "-c", "1", &target],
        &["hosts"],
        &["hosts", "check", "h[01-02]"],
        &["last"],
        &["key", "list"],
        &["key", "show"],
        &["agent", "status"],
        &["lesson", "sticky"],
        &["lesson", "concurrency"],
        &["try", "true"],
        &["man"],
    ];
    let mut explained = 0;
    for files in (4..=16).step_by(2) {
        // Lessons take long, and open much alike.
        let is_tried = |words: &&&[&str]| words[0] != "lesson" || files == 8;
        for words in lines.iter().filter(is_tried) {
            let mut labsh = labshd.labsh();
            let output = limited(labsh.args(*words), files).stdin(Stdio::null()).output().unwrap();
            assert_no_panic(&output, &format!("{words:?} with {files} files"));
            explained += u32::from(text(&output.stderr).contains("raise their limit (ulimit -n)"));
        }
        let mut rsh = program(LABSH_RSH);
        own_files(&mut rsh, labshd.path());
        rsh.args(["-p", port, host, "true"]);
        let output = limited(&rsh, files).stdin(Stdio::null()).output().unwrap();
        assert_no_panic(&output, &format!("labsh-rsh with {files} files"));
    }
    assert!(explained > 0, "no error says what to do");
}

#[test]
fn labshd_with_too_few_open_files_says_so() {
    let labshd = Labshd::start();
    let own = labshd.file("own.toml");
    fs::write(&own, "listen = ['127.0.0.1:0']\n").unwrap();
    for files in (4..=24).step_by(2) {
        let mut other = program(LABSHD);
        other.args(["--config", &own]);
        let mut other = Running::start(&mut limited(&other, files));
        // It serves, or it ends with an error.
        let mut log = String::new();
        while let Some(line) = other.next_error_line() {
            log += &format!("{line}\n");
            if line.contains("labshd is ready") {
                other.signal(15);
            }
        }
        assert!(!log.contains("panicked"), "with {files} files: {log}");
    }
}

#[test]
fn a_run_beyond_the_limit_of_open_files_blames_this_machine() {
    let lab = Lab::new();
    let command = lab.command(&["h[01-12]", "sleep", "0.5"]);
    let output = limited(&command, 18).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("this machine's limit of open files is reached"), "{said}");
    assert!(said.contains("--parallel") && !said.contains("check the name"), "{said}");
    assert_eq!(output.status.code(), Some(255), "{said}");
}

/// The source of a library that moves a program's clock to the time before 1970.
const EARLY_CLOCK: &str = "#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, id, time);
    if (id == CLOCK_REALTIME) time->tv_sec -= 4000000000;
    return result;
}
";

#[test]
fn a_clock_before_1970_is_no_panic() {
    let Some(compiler) = tools::need("cc", "apt-get install gcc") else { return };
    let dir = crate::support::temp_dir();
    let (source, library) = (dir.path().join("clock.c"), dir.path().join("clock.so"));
    fs::write(&source, EARLY_CLOCK).unwrap();
    let built =
        program(compiler).args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.unwrap().success());
    let labshd = Labshd::launch("", |command| {
        command.env("LD_PRELOAD", &library);
    });
    let target = labshd.target();
    fs::write(labshd.file("file"), "content").unwrap();
    let copy = format!("{}:{}", target.split_once(':').unwrap().0, labshd.file("copy"));
    let port = labshd.tls.port().to_string();
    for words in [
        &["run", &target, "true"][..],
        &["run", "--max-status", &target, "true"],
        &["cp", "-p", &port, &labshd.file("file"), &copy],
        &["ping", "-c", "1", &target],
        &["hosts", "check", &target],
        &["explain", &target, "true"],
        &["key", "new", "other"],
        &["key", "list"],
        &["try", "true"],
    ] {
        let mut labsh = labshd.labsh();
        labsh.env("LD_PRELOAD", &library).args(words).stdin(Stdio::null());
        let output = labsh.output().unwrap();
        assert_no_panic(&output, &format!("{words:?}"));
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    }
    assert_eq!(labshd.log().count("panicked"), 0, "{}", labshd.log().text());
}

#[test]
fn a_host_that_falls_silent_is_waited_for_no_longer_than_for_a_connection() {
    let victim = Victim::new();
    for words in [&["ping"][..], &["hosts", "check"], &["hosts", "check", "--json"]] {
        let (address, server) = victim.serve(|mut peer, key| {
            welcome(&mut peer, &key, 8);
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let mut labsh = labsh_in(victim.dir.path());
        labsh.args(words).args(["--plain", "--connect-timeout", "300ms", &address.to_string()]);
        let output = labsh.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("gave no answer within 300ms"), "{words:?}: {said}");
        assert!(!said.contains("command"), "{words:?}: {said}");
        assert_eq!(output.status.code(), Some(255), "{words:?}: {said}");
        server.join().unwrap();
    }
}
