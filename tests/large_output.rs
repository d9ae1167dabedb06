//! Output far larger than every buffer on the way arrives complete and in order.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::support::{HOST, LABSH, Labshd, own_files, program, sh, text, under};

const GIB: u64 = 1 << 30;
const QUARTER: u64 = 256 << 20;

/// A script that prints different lines, cut to a length: lost, repeated or swapped bytes change
/// the digest.
fn numbers(bytes: u64) -> String {
    format!("seq 1 999999999 | head -c {bytes}")
}

/// Reads to the end; returns the digest and the length.
fn digest(mut from: impl Read) -> (String, u64) {
    let (mut sha, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut buffer).unwrap();
        if count == 0 {
            let mut hex = String::new();
            sha.finalize().iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
            return (hex, length);
        }
        sha.update(&buffer[..count]);
        length += count as u64;
    }
}

fn of_numbers(bytes: u64) -> (String, u64) {
    let mut command =
        program("sh").arg("-c").arg(numbers(bytes)).stdout(Stdio::piped()).spawn().unwrap();
    let digest = digest(command.stdout.take().unwrap());
    command.wait().unwrap();
    digest
}

static ONE_GIB: LazyLock<(String, u64)> = LazyLock::new(|| of_numbers(GIB));
static QUARTER_GIB: LazyLock<(String, u64)> = LazyLock::new(|| of_numbers(QUARTER));

/// Returns the digests and lengths of stdout and stderr, after comparing them with the totals in
/// the status file.
fn digests(mut command: Command, status: &str) -> [(String, u64); 2] {
    let mut client =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (client.stdout.take().unwrap(), client.stderr.take().unwrap());
    let errors = std::thread::spawn(move || digest(stderr));
    let found = [digest(stdout), errors.join().unwrap()];
    assert!(client.wait().unwrap().success());
    let status = std::fs::read_to_string(status).unwrap();
    for (name, (_, bytes)) in ["stdout_bytes", "stderr_bytes"].iter().zip(&found) {
        assert!(status.contains(&format!("\"{name}\":{bytes},")), "{bytes} {name}: {status}");
    }
    found
}

/// `labsh run` of a script with its status, totals included, written to a file; over TLS or in
/// plain mode.
fn counted(labshd: &Labshd, plain: bool, line: &str) -> (Command, String) {
    let status = labshd.file("status");
    let mut command = program("bash");
    command.args([
        "-c",
        &format!("exec \"$@\" 7>{status}"),
        "bash",
        LABSH,
        "run",
        "--status-fd",
        "7",
    ]);
    own_files(&mut command, labshd.path());
    match plain {
        true => command.arg("--plain").arg(labshd.plain.to_string()),
        false => command.arg(labshd.target()),
    };
    command.args(sh(line));
    (command, status)
}

fn a_gibibyte_arrives(plain: bool) {
    let labshd = Labshd::start();
    let (command, status) = counted(&labshd, plain, &numbers(GIB));
    let [stdout, stderr] = digests(command, &status);
    assert_eq!(stdout, *ONE_GIB);
    assert_eq!(stderr.1, 0);
}

#[test]
fn a_gibibyte_arrives_over_tls() {
    a_gibibyte_arrives(false);
}

#[test]
fn a_gibibyte_arrives_in_plain_mode() {
    a_gibibyte_arrives(true);
}

fn both_outputs_arrive(plain: bool) {
    let labshd = Labshd::start();
    let line = format!("({}) >&2 & {}; wait", numbers(QUARTER), numbers(QUARTER));
    let (command, status) = counted(&labshd, plain, &line);
    let [stdout, stderr] = digests(command, &status);
    assert_eq!((&stdout, &stderr), (&*QUARTER_GIB, &*QUARTER_GIB));
}

#[test]
fn both_outputs_at_once_arrive_over_tls() {
    both_outputs_arrive(false);
}

#[test]
fn both_outputs_at_once_arrive_in_plain_mode() {
    both_outputs_arrive(true);
}

/// 96 hosts send 384 MiB, each with up to a MiB in flight, to a client that may use 96 MiB in all.
#[test]
fn gathering_from_many_hosts_takes_little_memory() {
    let labshd = Labshd::start();
    let host =
        format!("address = \"{HOST}\"\nport = {}\nhost_id = \"{HOST}\"\n", labshd.tls.port());
    let hosts = format!("[hosts.\"m[01-96]\"]\n{host}");
    fs::write(labshd.file("config/labsh/hosts.toml"), hosts).unwrap();
    let mut run = labshd.labsh();
    run.args(["run", "--gather", "m[01-96]", "head -c 4194304 /dev/zero | tr '\\0' x"]);
    // Limits private writable memory (RLIMIT_DATA in getrlimit(2)).
    let mut limited = program("prlimit");
    limited.arg(format!("--data={}", 96 << 20));
    let output = under(limited, &run).stdin(Stdio::null()).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.contains("96 of 96 succeeded"), "{stderr}");
    let heading = output.stdout.iter().position(|byte| *byte == b'\n').unwrap();
    assert_eq!(&output.stdout[..heading], b"---- m[01-96] (96 hosts) ----");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'x').count(), 4 << 20);
}

#[test]
fn many_tiny_writes_arrive_in_order() {
    let labshd = Labshd::start();
    let output = labshd.output(&sh("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i + 1)); done"));
    let expected: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    assert!(text(&output.stdout) == expected, "{} bytes arrived", output.stdout.len());
}
