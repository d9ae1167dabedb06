//! The command lines of labsh and labshd: what they print and what they refuse.

use std::fs::{self, Permissions};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::support::{
    LABSH, LABSH_RSH, LABSHD, Labshd, am_root, enroll, in_shell, labsh_in, program, run, temp_dir,
    text, tools,
};

/// Asserts that a command line was refused for these reasons, with nothing on stdout.
fn assert_refused(output: &Output, status: i32, reasons: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(status), String::new()),
        "{stderr}"
    );
    for reason in reasons {
        assert!(stderr.contains(reason), "{reason:?} is not in {stderr}");
    }
}

/// A directory with a client's files and one key.
fn client() -> (tempfile::TempDir, PathBuf) {
    let dir = temp_dir();
    run(labsh_in(dir.path()).args(["key", "new", "alice"]));
    let key = dir.path().join("config/labsh/keys/alice.key");
    (dir, key)
}

fn labsh(dir: &Path, words: &[&str]) -> Output {
    labsh_in(dir).args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn targets_that_look_like_options_or_hold_control_characters_are_refused() {
    let (dir, _) = client();
    for (target, reason) in [
        ("-oProxyCommand=x", "begin with '-'"),
        ("", "empty"),
        ("lab07\u{7}lab08", "\\u{7}"),
        ("lab\u{1b}[2J", "\\u{1b}"),
        ("root@lab07", "--key"),
        ("lab07:99999", "65535"),
    ] {
        let output = labsh(dir.path(), &["run", "--", target, "true"]);
        assert_refused(&output, 125, &[reason]);
        assert!(!text(&output.stderr).contains('\u{1b}'), "a terminal would obey it");
    }
}

#[test]
fn a_missing_command_or_a_set_gets_an_example_of_the_same_subcommand() {
    let (dir, _) = client();
    for (words, reason) in [
        (&["explain", "lab07"][..], "labsh explain lab07 uname -a"),
        (&["run", "lab07"], "labsh run lab07 uname -a"),
        (&["ping", "@lab-a"], "a set of hosts; name one host here"),
        (&["shell", "lab[01-40]"], "a set of hosts; name one host here"),
        (&["key", "revoke", "--host", "lab01,lab02"], "a set of hosts; name one host here"),
    ] {
        assert_refused(&labsh(dir.path(), words), 125, &[reason]);
    }
}

#[test]
fn without_a_key_the_error_names_labsh_key_new() {
    let dir = temp_dir();
    assert_refused(
        &labsh(dir.path(), &["run", "lab07", "true"]),
        125,
        &["no key", "labsh key new"],
    );
    assert_refused(&labsh(dir.path(), &["ping", "lab07"]), 125, &["labsh key new"]);
    let list = labsh(dir.path(), &["key", "list"]);
    assert!(list.status.success() && text(&list.stderr).contains("labsh key new"));
}

#[test]
fn several_keys_need_a_choice() {
    let labshd = Labshd::start();
    run(labshd.labsh().args(["key", "new", "second"]));
    assert_refused(&labshd.output(&["true"]), 125, &["second, test", "--key"]);
    run(&mut labshd.run_with(&["--key", "test"], &["true"]));
    run(labshd.run(&["true"]).env("LABSH_KEY", "test"));
    let path = labshd.file("config/labsh/keys/test.key");
    run(&mut labshd.run_with(&["--key", &path], &["true"]));
    assert_refused(
        &labshd.output_with(&["--key", "third"], &["true"]),
        125,
        &["third", "labsh key list"],
    );
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
    let (dir, key) = client();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let path = key.display().to_string();
    let remedy = format!("chmod 600 {path}");
    assert_refused(&labsh(dir.path(), &["run", "lab07", "true"]), 125, &[&path, "0640", &remedy]);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    run(labsh_in(dir.path()).args(["key", "show"]));
}

#[test]
fn a_link_to_another_users_key_is_refused() {
    let (dir, key) = client();
    let theirs = dir.path().join("theirs.key");
    fs::rename(&key, &theirs).unwrap();
    symlink(&theirs, &key).unwrap();
    run(labsh_in(dir.path()).args(["key", "show"]));
    let reason = if am_root() {
        run(program("chown").arg("1").arg(&theirs));
        "belongs to user 1"
    } else {
        // Only root can change the owner; without it, take a file of root's that others can read.
        fs::remove_file(&key).unwrap();
        symlink("/etc/passwd", &key).unwrap();
        "open to other users"
    };
    let path = key.display().to_string();
    assert_refused(&labsh(dir.path(), &["run", "lab07", "true"]), 125, &[&path, reason]);
}

#[test]
fn a_damaged_key_file_is_named_with_the_remedy() {
    let (dir, key) = client();
    let good = fs::read_to_string(&key).unwrap();
    // The last digit belongs to the checksum.
    let (rest, last) = good.trim_end().split_at(good.trim_end().len() - 1);
    let mistyped = format!("{rest}{}\n", if last == "0" { "1" } else { "0" });
    let path = key.display().to_string();
    for (bad, reason) in [
        (&good[..good.len() / 2], "is not a key file"),
        (&mistyped, "checksum"),
        ("", "is not a key file"),
        ("-----BEGIN PRIVATE KEY-----\n", "key of another kind"),
        (&"x".repeat(5000), "longer than"),
    ] {
        fs::write(&key, bad).unwrap();
        assert_refused(&labsh(dir.path(), &["run", "lab07", "true"]), 125, &[&path, reason, "; "]);
    }
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert_refused(
        &labsh(dir.path(), &["run", "lab07", "true"]),
        125,
        &[&path, "not a regular file"],
    );
}

#[test]
fn ping_prints_the_time_of_authentication_and_answers() {
    let labshd = Labshd::start();
    let output = run(labshd.labsh().args(["ping", "-c", "3", &labshd.target()]));
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{stdout}");
    assert!(lines[0].contains("key test, host id 127.0.0.1: authenticated in"), "{stdout}");
    assert!(lines[3].contains("answer 3 in ") && lines[3].ends_with(" ms"), "{stdout}");
    let wrong = labshd.labsh().args(["ping", "--host-id", "x", &labshd.target()]).output().unwrap();
    assert_refused(&wrong, 255, &["host x of key test"]);
}

/// A Python program that binds a name server that never answers, and runs a command beside it.
const SILENT_NAMES: &str = "import socket, subprocess, sys
names = socket.socket(type=socket.SOCK_DGRAM)
names.bind(('127.0.0.1', 53))
sys.exit(subprocess.run(sys.argv[1:], timeout=60).returncode)";

#[test]
fn ping_times_out_while_the_name_server_is_silent() {
    let (Some(python), Some(_)) = (tools::python(), tools::need("ip", "apt-get install iproute2"))
    else {
        return;
    };
    let mut elsewhere = program("unshare");
    elsewhere.args(["--net", "--mount", "true"]);
    if !am_root() || !elsewhere.status().is_ok_and(|status| status.success()) {
        return;
    }
    let (dir, _) = client();
    // The resolver itself gives up only after more than two minutes.
    let names = dir.path().join("resolv.conf");
    fs::write(&names, "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n").unwrap();
    let mut ping = labsh_in(dir.path());
    ping.args(["ping", "--connect-timeout", "100ms", "somewhere.example"]);
    let script = format!(
        "unshare --net --mount sh -c 'ip link set lo up && mount --bind \"$0\" /etc/resolv.conf \
         && exec \"$@\"' \
         {} '{}' -c \"{SILENT_NAMES}\" \"$@\"",
        names.display(),
        python.display(),
    );
    let output = in_shell(&script, &ping).output().unwrap();
    assert_refused(&output, 255, &["no answer from somewhere.example:5274 within 100ms"]);
}

#[test]
fn keys_are_listed_shown_enrolled_and_revoked_and_never_printed() {
    let (dir, key) = client();
    let labsh = |words: &[&str]| run(labsh_in(dir.path()).args(words));
    assert!(text(&labsh(&["key", "list"]).stdout).contains("no line made yet"));
    let line = text(&labsh(&["key", "enroll", "--host", "Lab07:5300"]).stdout);
    assert!(line.starts_with("labsh-host-1 alice lab07 "), "{line}");
    assert_eq!(line.lines().count(), 1);
    labsh(&["key", "enroll", "--host", "lab08"]);
    let list = text(&labsh(&["key", "list"]).stdout);
    assert!(list.starts_with("alice ") && list.contains("lab07 lab08"), "{list}");
    let shown = text(&labsh(&["key", "show"]).stdout);
    assert!(shown.contains(&key.display().to_string()) && shown.contains("lab07"), "{shown}");
    let revoke = text(&labsh(&["key", "revoke"]).stdout);
    assert_eq!(revoke.lines().count(), 2);
    for (line, host) in revoke.lines().zip(["lab07", "lab08"]) {
        assert!(
            line.starts_with(&format!("ssh {host} 'sudo labshd key remove alice --host {host}")),
            "{line}"
        );
    }

    let text_of_key = fs::read_to_string(&key).unwrap();
    let secret = text_of_key.split_whitespace().max_by_key(|word| word.len()).unwrap();
    assert_eq!(secret.len(), 64);
    for printed in [&line, &list, &shown, &revoke] {
        assert!(!printed.contains(secret), "the key itself was printed");
    }
    let again = labsh_in(dir.path()).args(["key", "new", "alice"]).output().unwrap();
    assert_refused(&again, 125, &["never overwritten"]);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    labsh(&["key", "revoke", "--delete", "--yes"]);
    assert!(!key.exists());
}

#[test]
fn check_prints_what_labshd_would_do() {
    let labshd = Labshd::with("max_connections = 77");
    let check = || {
        let mut command = program(LABSHD);
        command
            .arg("--config")
            .arg(labshd.path().join("labshd.toml"))
            .arg("check")
            .output()
            .unwrap()
    };
    let good = check();
    assert!(good.status.success(), "{}", text(&good.stderr));
    for part in [
        "77 authenticated connections",
        "plain://127.0.0.1:0",
        "127.0.0.1:0  (TLS)",
        "localhost",
        "test",
    ] {
        assert!(text(&good.stdout).contains(part), "{part} is not in {}", text(&good.stdout));
    }
    assert!(!text(&good.stdout).contains("labsh-host-1"), "a secret was printed");
    labshd.configure("max_connections = 0\nlog_level = 'loud'\npath = 'bin'");
    let file = labshd.file("labshd.toml");
    let [one, two, three] =
        ["1: max_connections", "2: log_level", "3: path"].map(|place| format!("{file}:{place}"));
    assert_refused(&check(), 1, &[&one, &two, &three]);
}

#[test]
fn labshd_does_not_start_with_a_wrong_configuration_or_on_a_port_in_use() {
    let dir = temp_dir();
    let config = dir.path().join("labshd.toml");
    let start = |text: String| {
        fs::write(&config, text).unwrap();
        program(LABSHD).arg("--config").arg(&config).stdin(Stdio::null()).output().unwrap()
    };
    let error = format!("{}:2: backlog", config.display());
    assert_refused(&start("\nbacklog = 'many'\n".into()), 1, &[&error]);
    let public = start("listen = ['plain://0.0.0.0:0']".into());
    assert_refused(&public, 1, &["unprotected", "allow_plain_on_network"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let in_use = start(format!("listen = ['{taken}']"));
    assert_refused(&in_use, 1, &[&taken.to_string(), "in use", "choose another port"]);
    drop(holder);
    let mut wrong = program(LABSHD);
    assert_refused(&wrong.arg("--no-such-option").output().unwrap(), 2, &["--help"]);
}

#[test]
fn completions_and_manuals_are_printed() {
    let dir = temp_dir();
    for (shell, part) in [
        ("bash", "complete -o nospace -F _labsh labsh labsh-rsh labshd"),
        ("zsh", "#compdef labsh labsh-rsh labshd"),
        ("fish", "complete -c labshd -f -a"),
    ] {
        let script = text(&labsh(dir.path(), &["completions", shell]).stdout);
        assert!(script.contains(part), "{shell}: {script}");
    }
    let page = text(&labsh(dir.path(), &["man"]).stdout);
    assert!(page.contains(".TH labsh 1"), "{page}");
    let pages = dir.path().join("pages");
    run(labsh_in(dir.path()).arg("man").arg(&pages));
    let run_page = fs::read_to_string(pages.join("labsh-run.1")).unwrap();
    assert!(run_page.contains("timeout") && run_page.contains("127"), "{run_page}");
    for words in [vec!["--help"], vec!["run", "--help"], vec!["--version"]] {
        let output = labsh(dir.path(), &words);
        assert!(
            output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(),
            "{words:?}"
        );
    }
}

#[test]
fn try_needs_nothing_set_up() {
    let dir = temp_dir();
    let output = labsh(dir.path(), &["try", "echo here; echo there >&2; exit 3"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("here\n".into(), "there\n".into()));
    let exact = labsh(dir.path(), &["try", "printf", "%s", "$HOME"]);
    assert_eq!(text(&exact.stdout), "$HOME");
    assert_refused(
        &labsh(dir.path(), &["try", "--timeout", "100ms", "sleep 300"]),
        124,
        &["its time was up"],
    );
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "it leaves nothing behind");
}

#[test]
fn control_characters_from_a_server_are_escaped() {
    let labshd = Labshd::start();
    // The refusal repeats the name, which would clear the screen and reverse the text direction.
    let name = "A\u{1b}[2J\u{9b}2J\u{202e}B=1";
    for (options, escaped) in [
        (&["--env", name][..], "\\u{1b}[2J\\u{9b}2J\\u{202e}B"),
        (&["--json", "--env", name], "\\u001b[2J\\u009b2J\\u202eB"),
    ] {
        let output = labshd.output_with(options, &["true"]);
        assert_refused(&output, 125, &[escaped]);
        for c in ['\u{1b}', '\u{9b}', '\u{202e}'] {
            assert!(!text(&output.stderr).contains(c), "{c:?} reached the terminal");
        }
    }
    assert!(!labshd.log().text().contains('\u{1b}'), "nor does the log obey it");
}

#[test]
fn ipv6_addresses_and_names_are_targets() {
    let labshd = Labshd::launch("", |labshd| {
        let config = PathBuf::from(labshd.get_args().nth(1).unwrap());
        let more = fs::read_to_string(&config).unwrap().replace("'unix:", "'[::1]:0', 'unix:");
        fs::write(&config, more).unwrap();
        enroll(config.parent().unwrap(), "test", "::1");
    });
    let host_id = |target: &str| {
        let words = ["run", target, "echo $LABSH_HOST_ID"];
        text(&run(labshd.labsh().args(words)).stdout)
    };
    assert_eq!(host_id(&format!("localhost:{}", labshd.tls.port())), "localhost\n");
    assert_eq!(host_id(&format!("LocalHost:{}", labshd.tls.port())), "localhost\n");
    let line = labshd.log().wait_for("listening address=[::1]:");
    let port = line.trim_end().rsplit(':').next().unwrap().to_owned();
    assert_eq!(host_id(&format!("[::1]:{port}")), "::1\n");
    assert_eq!(host_id(&format!("[0:0::1]:{port}")), "::1\n");
    let by_option = run(labshd.labsh().args(["run", "--port", &port, "::1", "echo by option"]));
    assert_eq!(text(&by_option.stdout), "by option\n");
}

#[test]
fn a_port_of_the_other_mode_is_recognised() {
    let labshd = Labshd::start();
    let (tls, plain) = (labshd.target(), labshd.plain.to_string());
    let over = |words: &[&str]| labshd.labsh().args(words).output().unwrap();
    assert_refused(&over(&["run", &plain, "true"]), 255, &["plain mode", "--plain"]);
    assert_refused(&over(&["run", "--plain", &tls, "true"]), 125, &["speaks TLS", "--plain"]);
}

#[test]
fn a_port_of_another_protocol_is_recognised() {
    let labshd = Labshd::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ssh = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    for mode in [vec!["run"], vec!["run", "--plain"]] {
        let output = labshd.labsh().args(&mode).args([&address, "true"]).output().unwrap();
        assert_refused(&output, 255, &["does not speak labsh", "SSH-2.0", "check the port"]);
    }
    ssh.join().unwrap();
}

#[test]
fn a_closed_stdout_ends_labsh_without_a_message() {
    let (dir, _) = client();
    for words in [&["lesson"][..], &["lesson", "phone"], &["key", "list"], &["completions", "bash"]]
    {
        // Not by closing one end of a pipe: a process that another test forks at that time may
        // briefly hold a copy.
        let (reader, writer) = UnixStream::pair().unwrap();
        reader.shutdown(Shutdown::Read).unwrap();
        let output = labsh_in(dir.path())
            .args(words)
            .stdout(OwnedFd::from(writer))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(141), String::new()),
            "{words:?}"
        );
    }
}

#[test]
fn a_usage_error_begins_like_every_other_message() {
    for (program_path, words, prefix, status) in [
        (LABSH, &["run", "--nosuch"][..], "labsh: unexpected argument '--nosuch'", 125),
        (LABSH, &["run", "--timeout", "x", "h", "true"], "labsh: invalid value 'x'", 125),
        (LABSH, &["cp"], "labsh: the following required arguments", 125),
        (LABSH, &["nosuch", "x"], "labsh: unrecognized subcommand 'nosuch'", 125),
        (LABSH, &["rsh", "--nosuch"], "labsh: there is no option --nosuch", 255),
        (LABSH_RSH, &["--nosuch"], "labsh-rsh: there is no option --nosuch", 255),
        (LABSHD, &["--nosuch"], "labshd: unexpected argument '--nosuch'", 2),
        (LABSHD, &["key", "add", "--from", "x"], "labshd: invalid value 'x'", 2),
    ] {
        let output = program(program_path).args(words).output().unwrap();
        let said = text(&output.stderr);
        assert!(said.starts_with(prefix), "{words:?}: {said}");
        assert_eq!(output.status.code(), Some(status), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
