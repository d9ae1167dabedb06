//! Descriptors that labsh shares with other processes: their flags are never changed, and every
//! failure is reported.

use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use crate::support::{Labshd, Running, in_shell, program, sh, text, tools, under};

const NON_BLOCKING: u32 = 0o4000;

/// The flags of an open file that this process shares with labsh.
fn flags(descriptor: &impl AsRawFd) -> u32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).unwrap();
    let line = info.lines().find(|line| line.starts_with("flags:")).unwrap();
    u32::from_str_radix(line.split_whitespace().nth(1).unwrap(), 8).unwrap()
}

#[test]
fn flags_of_shared_pipes_stay_unchanged() {
    let labshd = Labshd::start();
    let (stdin, mut to) = pipe().unwrap();
    let (mut from, stdout) = pipe().unwrap();
    let (errors, stderr) = pipe().unwrap();
    let before = [flags(&stdin), flags(&stdout), flags(&stderr)];
    assert!(before.iter().all(|flags| flags & NON_BLOCKING == 0));
    let mut command = labshd.run(&sh("cat; echo err >&2; echo end"));
    command.stdin(stdin.try_clone().unwrap()).stdout(stdout.try_clone().unwrap());
    let mut client = command.stderr(stderr.try_clone().unwrap()).spawn().unwrap();
    drop(command);

    to.write_all(b"here").unwrap();
    let mut echoed = [0; 4];
    from.read_exact(&mut echoed).unwrap();
    assert_eq!([flags(&stdin), flags(&stdout), flags(&stderr)], before, "while it runs");
    drop(to);
    assert!(client.wait().unwrap().success());
    assert_eq!([flags(&stdin), flags(&stdout), flags(&stderr)], before, "when it has ended");
    drop((stdout, stderr));
    for (mut from, expected) in [(from, "end\n"), (errors, "err\n")] {
        let mut rest = String::new();
        from.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, expected);
    }
}

#[test]
fn flags_of_a_shared_terminal_stay_unchanged() {
    let Some(python) = tools::python() else { return };
    let labshd = Labshd::start();
    let script = r#"
import fcntl, os, pty, subprocess, sys
main, terminal = pty.openpty()
flags = lambda: fcntl.fcntl(terminal, fcntl.F_GETFL) & os.O_NONBLOCK
labsh = subprocess.Popen(sys.argv[1:], stdin=terminal, stdout=terminal, stderr=terminal)
seen = b""
while b"ready" not in seen:
    seen += os.read(main, 1000)
during = flags()
os.write(main, b"word\n")
status = labsh.wait()
print(status, during, flags())
"#;
    let mut command = program(python);
    command.arg("-c").arg(script);
    let run = labshd.run(&sh("echo ready; read word; exit ${#word}"));
    let output = under(command, &run).output().unwrap();
    assert_eq!(text(&output.stdout), "4 0 0\n", "{}", text(&output.stderr));
}

#[test]
fn non_blocking_descriptors_still_carry_everything() {
    let Some(python) = tools::python() else { return };
    let labshd = Labshd::start();
    // Any process that shares the open file may set O_NONBLOCK at any time; Python sets it on both
    // ends here.
    let script = r#"
import fcntl, os, subprocess, sys, time
ends = [os.pipe(), os.pipe()]
for end in ends[0] + ends[1]:
    fcntl.fcntl(end, fcntl.F_SETFL, os.O_NONBLOCK)
labsh = subprocess.Popen(sys.argv[1:], stdin=ends[0][0], stdout=ends[1][1])
os.close(ends[0][0]); os.close(ends[1][1])
os.set_blocking(ends[1][0], True)
os.write(ends[0][1], b"x")
time.sleep(0.2)
os.close(ends[0][1])
total = 0
while True:
    piece = os.read(ends[1][0], 1 << 16)
    if not piece: break
    total += len(piece)
print(labsh.wait(), total)
"#;
    let run = labshd.run(&sh("cat; head -c 2000000 /dev/zero"));
    let mut command = program(python);
    command.arg("-c").arg(script);
    let output = under(command, &run).output().unwrap();
    assert_eq!(text(&output.stdout), "0 2000001\n", "{}", text(&output.stderr));
}

#[test]
fn a_closed_stdout_ends_the_command_without_a_message() {
    let labshd = Labshd::start();
    let (from, to) = pipe().unwrap();
    drop(from);
    let output = labshd
        .run(&["yes"])
        .stdin(Stdio::null())
        .stdout(to)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()));
}

#[test]
fn a_full_disk_is_reported_and_is_255() {
    let labshd = Labshd::start();
    let full = || OwnedFd::from(File::options().write(true).open("/dev/full").unwrap());
    let client = labshd
        .run(&sh("echo lost; exit 0"))
        .stdin(Stdio::null())
        .stdout(full())
        .stderr(Stdio::piped())
        .spawn();
    let output = client.unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("standard output") && stderr.contains("No space left"), "{stderr}");

    let client =
        labshd.run(&sh("echo kept; echo lost >&2")).stdin(Stdio::null()).stderr(full()).output();
    let output = client.unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(255), "kept\n".into()));
    // It also ends a command that would write without end.
    let endless =
        labshd.run(&["yes"]).stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped()).spawn();
    assert_eq!(endless.unwrap().wait_with_output().unwrap().status.code(), Some(255));
}

#[test]
fn closed_descriptors_are_like_dev_null() {
    let labshd = Labshd::start();
    let through =
        |script: &str, line: &str| in_shell(script, &labshd.run(&sh(line))).output().unwrap();
    let stdin = through("\"$@\" <&-", "cat; exit 5");
    assert_eq!((stdin.status.code(), text(&stdin.stderr)), (Some(5), String::new()));
    let stdout = through("\"$@\" >&-", "echo out; echo err >&2; exit 6");
    assert_eq!((stdout.status.code(), text(&stdout.stderr)), (Some(6), "err\n".into()));
    let stderr = through("\"$@\" 2>&-", "echo out; echo err >&2; exit 7");
    assert_eq!((stderr.status.code(), text(&stderr.stdout)), (Some(7), "out\n".into()));
    let all = through("\"$@\" <&- >&- 2>&-", "cat; echo out; kill -9 $$");
    assert_eq!(all.status.code(), Some(137));
}

#[test]
fn stdout_and_stderr_may_share_one_file() {
    let labshd = Labshd::start();
    let file = labshd.file("both");
    let script = format!("\"$@\" >{file} 2>&1; echo $?");
    let output =
        in_shell(&script, &labshd.run(&sh("echo out; echo err >&2; echo out"))).output().unwrap();
    assert_eq!(text(&output.stdout), "0\n");
    let mut lines: Vec<String> =
        fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out", "out"]);
}

#[test]
fn the_command_gets_pipes_and_none_of_labshs_descriptors() {
    let labshd = Labshd::launch("", |_| {});
    let mut client = Running::start(&mut labshd.run(&sh("echo $$; exec sleep 300")));
    let pid = client.pid_line();
    for number in 0..3 {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        assert!(link.to_string_lossy().starts_with("pipe:"), "{number} is {}", link.display());
    }
    client.signal(15);
}
