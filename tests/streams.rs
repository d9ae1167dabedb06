//! What a command gets (exact words, a clean environment, three streams), and that its output
//! arrives byte for byte.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Stdio};

use crate::support::{
    self, LABSHD, Labshd, Running, eventually, in_shell, own_account, pipe_through, program, sh,
    text, tools,
};

fn all_bytes() -> Vec<u8> {
    (0..=255).cycle().take(100_000).collect()
}

#[test]
fn every_byte_value_passes_both_outputs_unchanged() {
    let labshd = Labshd::start();
    let output = pipe_through(&mut labshd.run(&["tee", "/dev/fd/2"]), &all_bytes());
    assert!(output.status.success());
    assert!(output.stdout == all_bytes(), "stdout has changed: {} bytes", output.stdout.len());
    assert!(output.stderr == all_bytes(), "stderr has changed: {} bytes", output.stderr.len());
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let labshd = Labshd::start();
    let output = labshd.output(&sh("for i in 1 2 3; do echo out $i; echo err $i >&2; done"));
    assert_eq!(text(&output.stdout), "out 1\nout 2\nout 3\n");
    assert_eq!(text(&output.stderr), "err 1\nerr 2\nerr 3\n");
}

#[test]
fn stdout_carries_the_commands_data_and_nothing_else() {
    let labshd = Labshd::start();
    let output = labshd.output_with(&["--verbose", "--json"], &sh("printf data; kill -9 $$"));
    assert_eq!(text(&output.stdout), "data");
    assert!(text(&output.stderr).contains("connected to"));
}

#[test]
fn stderr_goes_on_after_the_end_of_stdout() {
    let labshd = Labshd::start();
    let output = labshd
        .output(&sh("echo early; exec >&-; head -c 300000 /dev/zero >&2; echo late >&2; exit 4"));
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stdout), "early\n");
    assert_eq!(output.stderr.len(), 300_005);
    assert!(output.stderr.ends_with(b"late\n"));
}

#[test]
fn several_words_arrive_exactly_as_they_are() {
    let labshd = Labshd::start();
    let words: Vec<OsString> =
        ["a b", "'", "\"", "\\", "new\nline", "*", "", "$HOME", "`id`", "--", "-n", "ä语"]
            .into_iter()
            .map(OsString::from)
            .chain([OsString::from_vec(b"\xff\xfe\x80".to_vec())])
            .collect();
    let mut command = labshd.run(&["printf", "%s\\0"]);
    let output = support::run(command.args(&words));
    let expected: Vec<u8> =
        words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    assert_eq!(output.stdout, expected, "{}", text(&output.stdout));
}

#[test]
fn a_word_as_long_as_linux_takes_arrives_and_a_longer_one_is_refused() {
    let labshd = Labshd::start();
    let long = "x".repeat(131_071);
    let output = labshd.output(&["printf", "%s", &long]);
    assert!(output.stdout == long.as_bytes(), "{}", text(&output.stderr));
    // A local word cannot be longer either, but two can be joined.
    let output = labshd.output_with(&["--shell"], &["echo", &long]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("standard input"), "{}", text(&output.stderr));
}

#[test]
fn one_word_is_the_shells_unless_argv_says_otherwise() {
    let labshd = Labshd::start();
    // A line that every login shell understands.
    let shell = labshd.output(&["echo a  b | tr b c"]);
    assert_eq!(text(&shell.stdout), "a c\n");
    let joined = labshd.output_with(&["--shell"], &["echo", "a", ";", "echo", "'b  c'"]);
    assert_eq!(text(&joined.stdout), "a\nb  c\n");
    let exact = labshd.output_with(&["--argv"], &["echo $((1 + 1))"]);
    assert_eq!(exact.status.code(), Some(127));
    assert_eq!(text(&labshd.output(&["--", "echo", "x"]).stdout), "x\n");
    assert_eq!(text(&labshd.output(&["echo", "--", "--timeout"]).stdout), "-- --timeout\n");
}

fn environment(command: &mut Command) -> BTreeMap<String, String> {
    let output = support::run(command);
    text(&output.stdout)
        .split_terminator('\0')
        .map(|variable| variable.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_environment_is_clean_and_exact() {
    let labshd = Labshd::launch("", |labshd| {
        labshd.env("SECRET_OF_THE_SERVER", "1").env("NOTIFY_SOCKET", "/nowhere");
    });
    let client = |command: &mut Command| environment(command.env("SECRET_OF_THE_CLIENT", "1"));
    let mut found = client(&mut labshd.run(&["env", "-0"]));
    let connection = found.remove("LABSH_CONNECTION").unwrap();
    assert_eq!(found.remove("SSH_CONNECTION").as_ref(), Some(&connection));
    assert!(connection.starts_with("127.0.0.1 "), "{connection}");
    assert!(connection.ends_with(&format!("127.0.0.1 {}", labshd.tls.port())), "{connection}");
    assert_eq!(found.remove("LABSH_COMMAND_ID").unwrap().len(), 32);
    assert!(found.remove("PATH").unwrap().split(':').any(|part| part == "/usr/bin"));
    let expected = [
        ("HOME", own_account(5)),
        ("LABSH_HOST_ID", "127.0.0.1".to_owned()),
        ("LABSH_KEY_ID", "test".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("LOGNAME", own_account(0)),
        ("SHELL", own_account(6)),
        ("USER", own_account(0)),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into());

    let mut over_socket = labshd.labsh();
    over_socket.arg("run").arg(format!("unix:{}", labshd.file("socket"))).args(["env", "-0"]);
    let over_socket = client(&mut over_socket);
    assert!(!over_socket.contains_key("LABSH_CONNECTION"));
    assert!(!over_socket.contains_key("SSH_CONNECTION"));
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_shown_as_one() {
    if std::net::TcpListener::bind("[::]:0").is_err() {
        return tools::skip("this machine has no IPv6");
    }
    let labshd = Labshd::start();
    let config = labshd.path().join("ipv6.toml");
    fs::write(&config, "listen = ['[::]:0']\nset_ssh_client = true\n").unwrap();
    let mut second = program(LABSHD);
    let mut second = Running::adopt(second.arg("--config").arg(&config).stdin(Stdio::null()));
    let mut lines = std::iter::repeat_with(|| second.error_line());
    let address = lines.find(|line| line.contains("listening")).unwrap();
    let port = address.rsplit(':').next().unwrap().trim();
    assert!(lines.any(|line| line.contains("labshd is ready")));
    let mut run = labshd.labsh();
    run.args(["run", &format!("127.0.0.1:{port}"), "env", "-0"]);
    let found = environment(run.stdin(Stdio::null()));
    let connection = &found["SSH_CONNECTION"];
    assert!(connection.starts_with("127.0.0.1 "), "{connection}");
    assert!(connection.ends_with(&format!(" 127.0.0.1 {port}")), "{connection}");
    let client = &found["SSH_CLIENT"];
    assert!(client.starts_with("127.0.0.1 ") && client.ends_with(&format!(" {port}")), "{client}");
}

#[test]
fn variables_can_be_sent_along() {
    let labshd = Labshd::with("path = '/usr/bin:/bin'");
    let options = ["--env", "A=1 = 2", "--env", "EMPTY=", "--env", "OWN", "--env", "A=3"];
    let found = environment(labshd.run_with(&options, &["env", "-0"]).env("OWN", "mine"));
    for (name, value) in [("A", "3"), ("EMPTY", ""), ("OWN", "mine"), ("PATH", "/usr/bin:/bin")] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    let unset = labshd.run_with(&["--env", "NOT_SET_HERE"], &["true"]).output().unwrap();
    assert_eq!(unset.status.code(), Some(125));
    assert!(text(&unset.stderr).contains("NAME=VALUE"), "{}", text(&unset.stderr));
}

#[test]
fn commands_start_in_the_home_directory_or_the_requested_one() {
    let labshd = Labshd::start();
    // Where the home directory is missing, commands start in the root directory.
    let home = fs::canonicalize(own_account(5));
    let exists = home.is_ok();
    let home = home.unwrap_or("/".into()).display().to_string();
    let pwd = |options: &[&str]| {
        text(&labshd.output_with(options, &["pwd", "-P"]).stdout).trim_end().to_owned()
    };
    assert_eq!(pwd(&[]), home);
    assert_eq!(pwd(&["--cwd", "/usr/bin/.."]), "/usr");
    let up = "../".repeat(home.matches('/').count());
    if exists {
        assert_eq!(
            pwd(&["--cwd", &format!("{up}usr")]),
            "/usr",
            "a relative directory starts from home"
        );
    }
}

#[test]
fn a_command_inherits_nothing_from_labshd() {
    // The process that starts labshd may ignore signals, have a umask and leave descriptors open.
    let labshd = Labshd::launch("", |labshd| {
        let script = "trap '' PIPE INT HUP USR1; umask 027; exec \"$@\" 8</etc/passwd 9<&0";
        let mut shell = in_shell(script, labshd);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *labshd = shell;
    });
    let client = Running::start(&mut labshd.run(&["sleep", "300"]));
    let pid = labshd.command_pid(1);
    // The dynamic loader has files open while the command starts.
    eventually("it holds three descriptors and no other", || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut descriptors: Vec<OsString> =
            entries.map(|entry| entry.unwrap().file_name()).collect();
        descriptors.sort();
        descriptors == ["0", "1", "2"].map(OsStr::new)
    });

    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let (group, session, terminal) = (fields[2], fields[3], fields[4]);
    assert_eq!(
        (group, session, terminal),
        (pid.to_string().as_str(), pid.to_string().as_str(), "0")
    );

    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("Umask:"), "0027", "the umask is the one that labshd was started with");
    client.signal(15);
    assert_eq!(client.finish().status.code(), Some(143));
}
