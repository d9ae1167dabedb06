//! How a command starts, what it inherits, and why it does not start.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use labsh_proto::message::Status;
use labsh_server::spawner::{SpawnError, SpawnRequest};
use nix::libc::{SIGSEGV, SIGTERM};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::*;

pub(crate) fn exit_codes_are_reported(world: &World) {
    for code in [0, 1, 127, 255] {
        let output = world.output(sh(&format!("echo out; echo err >&2; exit {code}")));
        assert_eq!(output.ended.status, Status::Exited(code));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    }
}

pub(crate) fn signals_are_reported_with_the_core_flag(world: &World) {
    let directory = tempfile::tempdir().unwrap();
    let script = "ulimit -c unlimited; kill -SEGV $$";
    // Whether a core is written depends on the machine, so a shell is the reference.
    let reference = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory.path())
        .status()
        .unwrap()
        .core_dumped();
    let request = SpawnRequest { cwd: directory.path().to_str().unwrap().into(), ..sh(script) };
    let status = world.output(request).ended.status;
    assert_eq!(status, Status::Signaled { signal: SIGSEGV as u8, core_dumped: reference });

    let status = world.output(sh("ulimit -c 0; kill -SEGV $$")).ended.status;
    assert_eq!(status, Status::Signaled { signal: SIGSEGV as u8, core_dumped: false });
    let status = world.output(sh("kill -TERM $$")).ended.status;
    assert_eq!(status, Status::Signaled { signal: SIGTERM as u8, core_dumped: false });
}

pub(crate) fn stdin_reaches_the_command_and_ends(world: &World) {
    world.run(async {
        let spawned = world.spawner.spawn(words(&["cat"])).await.unwrap();
        let [stdin, stdout, _stderr] = pipes(spawned.streams);
        let mut stdin = pipe::Sender::from_owned_fd(stdin).unwrap();
        let text = "line\n".repeat(100_000);
        let write = async {
            stdin.write_all(text.as_bytes()).await.unwrap();
            drop(stdin);
        };
        let ((), echoed) = tokio::join!(write, read(stdout));
        assert!(echoed == text);
    });
}

pub(crate) fn a_missing_program_is_not_found(world: &World) {
    for name in ["no-such-program", "/no/such/program", "/etc/passwd/program", ""] {
        let error = world.refusal(words(&[name]));
        assert!(
            matches!(&error, SpawnError::NotFound { program } if program == name),
            "{name}: {error}"
        );
    }
}

pub(crate) fn a_file_that_is_not_executable_is_reported(world: &World) {
    let (_a, plain) = script("echo hello", 0o644);
    let (_b, orphan) = script("#!/no/such/interpreter\n", 0o755);
    for name in ["/etc", &plain, &orphan] {
        let error = world.refusal(words(&[name]));
        assert!(matches!(&error, SpawnError::NotExecutable { .. }), "{name}: {error}");
    }
    assert!(world.refusal(words(&[&orphan])).to_string().contains("interpreter"));
}

pub(crate) fn a_missing_directory_is_an_error_or_replaced_by_the_root(world: &World) {
    let request = SpawnRequest { cwd: b"/no/such/dir".to_vec(), ..words(&["pwd"]) };
    let error = world.refusal(request.clone());
    assert!(error.to_string().contains("/no/such/dir"), "{error}");
    assert!(matches!(error, SpawnError::Directory { .. }));
    let output = world.output(SpawnRequest { cwd_fallback_root: true, ..request });
    assert_eq!(output.stdout, "/\n");
    let output = world.output(SpawnRequest { cwd: b"/usr".to_vec(), ..words(&["pwd"]) });
    assert_eq!(output.stdout, "/usr\n");
}

pub(crate) fn arguments_up_to_the_kernels_limit_are_accepted(world: &World) {
    let word = "x".repeat(100 << 10);
    assert_eq!(world.output(words(&["sh", "-c", "echo ${#1}", "sh", &word])).stdout, "102400\n");
    let many = [vec!["sh", "-c", "echo $#", "sh"], vec![word.as_str(); 10]].concat();
    assert_eq!(world.output(words(&many)).stdout, "10\n");
    let long = "x".repeat(128 << 10);
    for words in [words(&["true", &long]), words(&[&["true"], &[word.as_str(); 70][..]].concat())] {
        let error = world.refusal(words);
        assert!(matches!(error, SpawnError::TooLarge), "{error}");
    }
}

pub(crate) fn invalid_arguments_are_refused(world: &World) {
    let variable = SpawnRequest { env: vec![(b"A=B".to_vec(), vec![])], ..words(&["true"]) };
    for request in [words(&[]), words(&["echo", "a\0b"]), variable] {
        let error = world.refusal(request);
        assert!(matches!(error, SpawnError::Other { .. }), "{error}");
    }
}

pub(crate) fn the_commands_own_path_is_searched(world: &World) {
    let (directory, _path) = script("#!/bin/sh\necho found\n", 0o755);
    let directory = directory.path().to_str().unwrap();
    let with = |path: String| SpawnRequest {
        env: vec![(b"PATH".to_vec(), path.into())],
        ..words(&["script"])
    };
    assert_eq!(world.output(with(format!("/no/such:/etc/passwd:{directory}"))).stdout, "found\n");
    // An empty element means the working directory.
    let request = SpawnRequest { cwd: directory.into(), ..with("/no/such:".to_owned()) };
    assert_eq!(world.output(request).stdout, "found\n");
    // Without PATH the default is searched.
    assert_eq!(world.output(SpawnRequest { env: vec![], ..words(&["echo", "x"]) }).stdout, "x\n");
    // A file that is not executable does not hide a later one, but is the error if there is none.
    let (forbidden, _path) = script("", 0o644);
    let forbidden = forbidden.path().to_str().unwrap();
    assert_eq!(world.output(with(format!("{forbidden}:{directory}"))).stdout, "found\n");
    let error = world.refusal(with(format!("{forbidden}:/no/such")));
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
}

pub(crate) fn a_script_without_an_interpreter_line_runs(world: &World) {
    let (_directory, path) = script("echo \"plain $1\"\n", 0o755);
    assert_eq!(world.output(words(&[&path, "a b"])).stdout, "plain a b\n");
}

pub(crate) fn program_and_first_word_may_differ(world: &World) {
    let request =
        SpawnRequest { program: Some(b"/bin/sh".to_vec()), ..words(&["-sh", "-c", "echo $0"]) };
    assert_eq!(world.output(request).stdout, "-sh\n");
    // `program` is a path and not searched.
    let request =
        SpawnRequest { program: Some(b"sh".to_vec()), cwd: b"/etc".to_vec(), ..words(&["sh"]) };
    assert!(matches!(world.refusal(request), SpawnError::NotFound { program } if program == "sh"));
}

pub(crate) fn the_environment_is_exactly_the_requested_one(world: &World) {
    let env = [("B", "2"), ("A", ""), ("C", "x=y\nz")].map(|(n, v)| (n.into(), v.into())).to_vec();
    let output = world.output(SpawnRequest { env, ..words(&["/usr/bin/env"]) });
    assert_eq!(output.stdout, "B=2\nA=\nC=x=y\nz\n");
    assert_eq!(world.output(SpawnRequest { env: vec![], ..words(&["/usr/bin/env"]) }).stdout, "");
}

pub(crate) fn only_three_descriptors_are_open(world: &World) {
    // Other commands run meanwhile. The fourth descriptor is the directory that ls reads.
    let _others: Vec<_> = (0..5).map(|_| world.spawn(words(&["sleep", "1000"])).unwrap()).collect();
    assert_eq!(world.output(words(&["ls", "/proc/self/fd"])).stdout, "0\n1\n2\n3\n");
}

pub(crate) fn the_command_leads_its_own_session(world: &World) {
    let mut spawned = world.spawn(words(&["cat"])).unwrap();
    let fields = stat(spawned.pid).unwrap();
    let pid = spawned.pid.to_string();
    // Parent, group, session and terminal.
    assert_eq!(fields[1..5], [world.spawner.pid().to_string(), pid.clone(), pid, "0".to_owned()]);
    drop(pipes(spawned.streams));
    world.run(spawned.process.ended()).unwrap();
}

pub(crate) fn no_signal_is_ignored_or_blocked(world: &World) {
    let status = world.output(words(&["cat", "/proc/self/status"])).stdout;
    let sets: HashMap<&str, &str> =
        status.lines().filter_map(|line| line.split_once(":\t")).collect();
    for set in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(sets[set].trim_matches('0'), "", "{set}");
    }
}

pub(crate) fn limits_and_umask_are_those_at_launch(world: &World) {
    let expected =
        Command::new("sh").args(["-c", "ulimit -n; ulimit -Hn; umask"]).output().unwrap();
    assert_eq!(world.stdout_of("ulimit -n; ulimit -Hn; umask").as_bytes(), expected.stdout);
}

pub(crate) fn two_hundred_commands_run_at_once(world: &World) {
    world.run(async {
        let mut commands = JoinSet::new();
        for number in 0..200_u8 {
            let spawner = world.spawner.clone();
            commands.spawn(async move {
                let output = output(&spawner, sh(&format!("echo {number}; exit {number}"))).await;
                assert_eq!(
                    (output.ended.status, output.stdout),
                    (Status::Exited(number), format!("{number}\n"))
                );
            });
        }
        assert_eq!(commands.join_all().await.len(), 200);
    });
    eventually("all are reaped", || children(world.spawner.pid()).is_empty());
}
