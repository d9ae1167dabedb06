//! labsh-rsh, which takes ssh's command line: what tools that run ssh rely on.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};

use crate::support::{
    Background, HOST, LABSH_RSH, Labshd, OWN_SHELL, Running, enroll, eventually, in_shell,
    is_alive, labsh_in, own_account, own_files, pipe_through, program, run, temp_dir, text, tools,
    under,
};

/// `labsh-rsh -p PORT WORDS…`, with the enrolled key.
fn rsh(labshd: &Labshd, words: &[&str]) -> Command {
    let mut command = program(LABSH_RSH);
    own_files(&mut command, labshd.path());
    command.arg("-p").arg(labshd.tls.port().to_string()).args(words);
    command
}

/// Runs the same to its end, with empty stdin.
fn output(labshd: &Labshd, words: &[&str]) -> Output {
    rsh(labshd, words).stdin(Stdio::null()).output().unwrap()
}

/// A line that has any login shell run this script with sh(1); the script contains no `'`.
fn in_sh(script: &str) -> String {
    format!("exec sh -c '{script}'")
}

/// The stdout of a command, which must succeed without any stderr.
fn stdout(labshd: &Labshd, words: &[&str]) -> String {
    let output = output(labshd, words);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{words:?}");
    text(&output.stdout)
}

/// Asserts that labsh-rsh failed with these reasons, and that nothing ran.
fn assert_fails(output: &Output, reasons: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(255), String::new()),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for reason in reasons {
        assert!(stderr.contains(reason), "{reason:?} is not in {stderr}");
    }
}

/// Runs `labsh rsh WORDS…` where there is no labshd.
fn without_server(words: &[&str]) -> Output {
    let dir = temp_dir();
    run(labsh_in(dir.path()).args(["key", "new", "alice"]));
    labsh_in(dir.path()).arg("rsh").args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn words_are_joined_with_spaces_for_the_remote_shell() {
    let labshd = Labshd::start();
    for (words, expected) in [
        (vec![HOST, "echo", "a  b"], "a b\n"),
        (vec![HOST, "echo", "'a  b'"], "a  b\n"),
        (vec![HOST, "echo 'a  b'"], "a  b\n"),
        (vec![HOST, "echo", "x", "|", "tr", "x", "y"], "y\n"),
        (vec![HOST, "printf", "%s-", "", "\"\""], "-"),
        (vec![HOST, "echo", "-n", "-p", "x"], "-p x"),
        (vec![HOST, "--", "echo", "x"], "x\n"),
        (vec!["--", HOST, "echo", "x"], "x\n"),
        (vec!["-xaT", "-2", HOST, "-n", "-oBatchMode=yes", "echo", "x"], "x\n"),
        (vec!["-oRemoteCommand=echo  'a  b'", HOST], "a  b\n"),
        (vec!["-oRemoteCommand=none", HOST, "echo", "x"], "x\n"),
    ] {
        assert_eq!(stdout(&labshd, &words), expected, "{words:?}");
    }
}

#[test]
fn the_program_and_the_subcommand_are_the_same() {
    let labshd = Labshd::start();
    let port = labshd.tls.port().to_string();
    let by_subcommand = run(labshd.labsh().args(["rsh", HOST, "-p", &port, "echo", "x"]));
    assert_eq!(
        (text(&by_subcommand.stdout), stdout(&labshd, &[HOST, "echo x"])),
        ("x\n".into(), "x\n".into())
    );
    let by_uri = run(labshd.labsh().args(["rsh", &format!("ssh://{HOST}:{port}"), "echo", "x"]));
    assert_eq!(text(&by_uri.stdout), "x\n");
}

#[test]
fn the_status_is_the_commands_own() {
    let labshd = Labshd::start();
    for code in [0, 1, 7, 124, 125, 254, 255] {
        let output = output(&labshd, &[HOST, &format!("exit {code}")]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(code), String::new()));
    }
    let unknown = output(&labshd, &[HOST, "no-such-program-anywhere"]);
    assert_eq!(
        unknown.status.code(),
        Some(127),
        "the shell there says so: {}",
        text(&unknown.stderr)
    );
    let killed = output(&labshd, &[HOST, &in_sh("kill -9 $$")]);
    assert_eq!((killed.status.code(), text(&killed.stderr)), (Some(137), String::new()));
    let output = output(&labshd, &["-v", HOST, &in_sh("kill -9 $$")]);
    assert!(output.status.code() == Some(137) && text(&output.stderr).contains("SIGKILL"));
}

#[test]
fn every_failure_of_labsh_rsh_is_255() {
    let mut labshd = Labshd::start();
    assert_fails(&output(&labshd, &["--host-id", "elsewhere", HOST, "true"]), &["elsewhere"]);
    assert_fails(&output(&labshd, &["-i", "nokey", HOST, "true"]), &["no key nokey"]);
    assert_fails(&output(&labshd, &["-oPort=1", "-p", "x", HOST, "true"]), &["-p", "65535"]);
    assert_fails(&output(&labshd, &["-s", HOST, "no-such-subsystem"]), &["no-such-subsystem"]);
    assert_fails(&output(&labshd, &["-s", HOST]), &["name of a subsystem"]);
    assert_fails(&output(&labshd, &["-oRemoteCommand=x", HOST, "y"]), &["RemoteCommand"]);
    let mut running = Running::start(&mut rsh(&labshd, &[HOST, "echo ready; sleep 300"]));
    assert_eq!(running.line(), "ready");
    labshd.child.kill().unwrap();
    labshd.wait();
    let lost = running.finish();
    assert_eq!(lost.status.code(), Some(255));
    assert!(text(&lost.stderr).contains("the connection was lost"), "{}", text(&lost.stderr));
    assert_fails(&output(&labshd, &[HOST, "true"]), &["cannot connect"]);
}

#[test]
fn megabytes_of_stdout_and_stderr_pass_unchanged() {
    let labshd = Labshd::start();
    let data: Vec<u8> = (0..3_000_000u32)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_le_bytes())
        .collect();
    let output = pipe_through(&mut rsh(&labshd, &[HOST, "tee", "/dev/stderr"]), &data);
    assert_eq!(output.status.code(), Some(0));
    let expected = Sha256::digest(&data);
    for got in [&output.stdout, &output.stderr] {
        assert!(
            Sha256::digest(got) == expected,
            "{} of {} bytes, or others",
            got.len(),
            data.len()
        );
    }
}

#[test]
fn without_a_command_a_login_shell_reads_stdin() {
    let labshd = Labshd::start();
    let lines = format!("{OWN_SHELL}\nexit 5\necho not this\n");
    let output = pipe_through(&mut rsh(&labshd, &[HOST]), lines.as_bytes());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(5), String::new()));
    let shell = own_account(6);
    let name = shell.rsplit('/').next().unwrap();
    // A profile may have printed something before.
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().last(), Some(&*format!("[-{name}]")), "{stdout}");
    // One empty word is no command, as with ssh; two are a blank, which does nothing.
    let empty = pipe_through(&mut rsh(&labshd, &[HOST, ""]), lines.as_bytes());
    assert_eq!((empty.status.code(), text(&empty.stdout)), (Some(5), stdout));
    let blank = pipe_through(&mut rsh(&labshd, &[HOST, "", ""]), lines.as_bytes());
    assert_eq!((blank.status.code(), text(&blank.stdout)), (Some(0), String::new()));
    let nothing = pipe_through(&mut rsh(&labshd, &["-n", HOST]), b"echo not read\n");
    let profile = pipe_through(&mut rsh(&labshd, &[HOST]), b"");
    assert_eq!((nothing.status.code(), text(&nothing.stdout)), (Some(0), text(&profile.stdout)));
}

#[test]
fn option_n_leaves_stdin_to_other_readers() {
    let labshd = Labshd::start();
    let script = r#"printf '1\n2\n3\n' | while read -r line; do "$@"; echo "$line"; done"#;
    for option in ["-n", "-oStdinNull=yes"] {
        let output = in_shell(script, &rsh(&labshd, &[option, HOST, "cat"])).output().unwrap();
        assert_eq!(text(&output.stdout), "1\n2\n3\n", "{option}: {}", text(&output.stderr));
    }
}

#[test]
fn only_errors_are_printed_and_can_be_silenced_or_redirected() {
    let labshd = Labshd::start();
    let left_behind = in_sh("sleep 300 2>&1 & echo $!; exec >&- 2>&-; exit 3");
    let mut client = Running::start(&mut rsh(&labshd, &[HOST, &left_behind]));
    let background = Background(client.pid_line());
    labshd.log().wait_for("command ended");
    drop(background);
    let output = client.finish();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(3), String::new()));

    for silent in [&["-q"][..], &["-oLogLevel=QUIET"], &["-o", "loglevel quiet"]] {
        let failed =
            self::output(&labshd, &[silent, &["-oPort=1", "--host-id=x", HOST, "true"]].concat());
        assert_eq!((failed.status.code(), text(&failed.stderr)), (Some(255), String::new()));
    }
    let file = labshd.file("diagnostics");
    for words in [
        ["-v", "-E", &file, HOST, "echo out; echo err >&2"],
        ["-E", &file, "--host-id=x", HOST, "true"],
    ] {
        let output = self::output(&labshd, &words);
        assert!(!text(&output.stderr).contains("labsh:"), "{}", text(&output.stderr));
    }
    let printed = fs::read_to_string(&file).unwrap();
    assert!(
        printed.contains("connected to") && printed.contains("host x of key test"),
        "{printed}"
    );
    assert_fails(
        &self::output(&labshd, &["-E", "/nonexistent/file", HOST, "true"]),
        &["/nonexistent/file"],
    );
}

#[test]
fn a_background_process_is_waited_for_silently() {
    let labshd = Labshd::start();
    let wait = labshd.file("wait");
    run(program("mkfifo").arg(&wait));
    let script = in_sh(&format!("(read -r line <{wait}; echo late) & echo early"));
    let mut client = Running::start(&mut rsh(&labshd, &["-v", HOST, &script]));
    assert_eq!(client.line(), "early");
    assert!(client.error_line().contains("connected to"));
    assert!(client.error_line().contains("left behind"), "with -v it is reported");
    fs::write(&wait, "go\n").unwrap();
    let output = client.finish();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "late\n".into()));

    let mut quiet = Running::start(&mut rsh(&labshd, &[HOST, &script]));
    assert_eq!(quiet.line(), "early");
    fs::write(&wait, "go\n").unwrap();
    let output = quiet.finish();
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("late\n".into(), String::new()));
}

#[test]
fn variables_are_set_and_sent_where_the_host_accepts_them() {
    let accepting = || Labshd::with("accept_env = ['LAB_*']");
    let labshd = accepting();
    let show = r#"echo "$LAB_ONE/$LAB_TWO/$OTHER""#;
    let with = |words: &[&str]| {
        let mut command = rsh(&labshd, &[words, &[HOST, show]].concat());
        command.env("LAB_ONE", "mine").env("OTHER", "mine").stdin(Stdio::null()).output().unwrap()
    };
    for (words, expected) in [
        (&["-o", "SendEnv=LAB_*"][..], "mine//\n"),
        (&["-o", "SendEnv NOT_SET LAB_ON?"], "mine//\n"),
        (&["-o", "SendEnv=LAB_ONE", "-o", "SendEnv=-LAB_*"], "//\n"),
        (&["-o", "SetEnv=LAB_ONE=\"a b\" LAB_TWO=2", "-o", "SendEnv=LAB_ONE"], "a b/2/\n"),
        // A variable that the host does not accept is left out, as with sshd.
        (&["-o", "SendEnv=OTHER"], "//\n"),
        (&["-o", "SetEnv=LAB_TWO=2", "-o", "SendEnv=OTHER LAB_ONE"], "mine/2/\n"),
    ] {
        let output = with(words);
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            (expected.into(), String::new()),
            "{words:?}"
        );
    }
    // An explicit SetEnv is refused instead.
    assert_fails(&with(&["-o", "SetEnv=OTHER=x"]), &["OTHER"]);
    assert_fails(&with(&["-o", "SetEnv=OTHER"]), &["NAME=VALUE"]);
    // One answer names all that the host does not accept, and those that no host accepts are not
    // even sent.
    for (pattern, prefix, refusals) in [("*", "OTHER_", 1), ("LD_* LAB_ONE", "LD_LAB_", 0)] {
        let labshd = accepting();
        let mut command = rsh(&labshd, &["-o", &format!("SendEnv={pattern}"), HOST, show]);
        command.env("LAB_ONE", "mine").env("OTHER", "mine").stdin(Stdio::null());
        command.envs((0..60).map(|number| (format!("{prefix}{number}"), "x")));
        let output = command.output().unwrap();
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("mine//\n".into(), String::new()),
            "{pattern}"
        );
        labshd.log().wait_for("command ended");
        assert_eq!(labshd.log().count("command refused"), refusals, "{pattern}");
    }
    // The second attempt, without the variable, still gets all of stdin.
    let mut both = rsh(&labshd, &["-oSendEnv=OTHER", HOST, "cat"]);
    assert_eq!(text(&pipe_through(both.env("OTHER", "x"), b"whole").stdout), "whole");
}

#[test]
fn another_user_than_the_keys_is_refused() {
    let labshd = Labshd::start();
    let own = own_account(0);
    let at = format!("{own}@{HOST}");
    for words in [
        vec!["-l", &own, HOST],
        vec![&at],
        vec![&at, "-l", "other"],
        vec!["-oUser=\"x\"", "-l", &own, HOST],
    ] {
        let expects_own = !words.contains(&"-oUser=\"x\"");
        let output = output(&labshd, &[&words[..], &["id", "-un"]].concat());
        match expects_own {
            true => {
                assert_eq!(
                    text(&output.stdout),
                    format!("{own}\n"),
                    "{words:?} {}",
                    text(&output.stderr)
                )
            }
            false => assert_fails(&output, &["not as x"]),
        }
    }
    assert_fails(&output(&labshd, &["-lno-such-user", HOST, "true"]), &["not as no-such-user"]);
}

#[test]
fn a_table_for_a_user_at_a_host_chooses_the_key() {
    let labshd = Labshd::start();
    run(labsh_in(labshd.path()).args(["key", "new", "second"]));
    enroll(labshd.path(), "second", HOST);
    labshd.reload();
    let own = own_account(0);
    let tables =
        format!("[hosts.'{HOST}']\nkey = 'test'\n[hosts.'{own}@{HOST}']\nkey = 'second'\n");
    fs::write(labshd.path().join("config/labsh/config.toml"), tables).unwrap();
    let key = "echo $LABSH_KEY_ID";
    assert_eq!(stdout(&labshd, &[HOST, key]), "test\n");
    assert_eq!(stdout(&labshd, &["-l", &own, HOST, key]), "second\n");
    let second = labshd.file("config/labsh/keys/second.key");
    assert_eq!(stdout(&labshd, &[HOST, "-i", &second, key]), "second\n");
    assert_eq!(stdout(&labshd, &[HOST, &format!("-oIdentityFile=\"{second}\""), key]), "second\n");
    assert_eq!(
        stdout(&labshd, &["-oIdentityFile=none", "-i", "second", "-i", "test", HOST, key]),
        "second\n"
    );
    // -F reads only the named configuration. With none, two keys are left to choose from.
    assert_fails(&output(&labshd, &["-Fnone", HOST, key]), &["several keys"]);
    let other = labshd.file("other.toml");
    fs::write(&other, "[defaults]\nkey = 'second'\n").unwrap();
    assert_eq!(stdout(&labshd, &["-F", &other, HOST, key]), "second\n");
    fs::write(&other, "Host *\n  Port 22\n").unwrap();
    assert_fails(&output(&labshd, &["-F", &other, HOST, key]), &["not ssh's", "other.toml:1"]);
    assert_fails(
        &output(&labshd, &["-F", "/nonexistent", HOST, key]),
        &["/nonexistent: No such file"],
    );
}

#[test]
fn a_private_key_of_ssh_is_recognised() {
    let labshd = Labshd::start();
    let path = labshd.file("id_ed25519");
    fs::write(
        &path,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n",
    )
    .unwrap();
    run(program("chmod").args(["600", &path]));
    let output = output(&labshd, &["-i", &path, HOST, "true"]);
    assert_fails(&output, &["id_ed25519", "labsh key new"]);
    assert!(!text(&output.stderr).contains("c2VjcmV0"));
}

#[test]
fn settings_are_printed_even_without_a_key() {
    let dir = temp_dir();
    let printed = |words: &[&str]| {
        let output = run(labsh_in(dir.path()).args(["rsh", "-G"]).args(words));
        assert_eq!(text(&output.stderr), "");
        text(&output.stdout)
    };
    let has = |words: &[&str], lines: &[&str]| {
        let printed = printed(words);
        for line in lines {
            assert!(
                printed.lines().any(|printed| printed == *line),
                "{words:?}: no {line:?} in\n{printed}"
            );
        }
    };
    has(
        &["Lab07"],
        &["host lab07", "hostname lab07", "port 5274", "requesttty auto", "connecttimeout 10"],
    );
    assert!(!printed(&["lab07"]).contains("user "), "the key's entry on the host decides");
    has(
        &["-o", "SendEnv=GIT_PROTOCOL", "-p", "99", "bob@lab07"],
        &["user bob", "port 99", "sendenv GIT_PROTOCOL"],
    );
    has(&["lab07", "-p", "99", "-p", "98", "-l", "bob", "-lx", "cmd"], &["user bob", "port 99"]);
    has(&["-p", "1", "ssh://a@lab07:2/", "-l", "b"], &["user a", "port 1", "host lab07"]);
    has(&["ssh://[::1]:2", "-oPort=3"], &["hostname ::1", "port 2"]);
    has(&["-6", "-4", "h"], &["addressfamily inet6"]);
    has(
        &["-oHostName=%h.example", "-oHostKeyAlias=Other", "h"],
        &["hostname h.example", "hostkeyalias other"],
    );
    has(&["h", "-tt", "-T", "-oRequestTTY=force"], &["requesttty false"]);
    has(&["h", "-ttt", "-e", "^b"], &["requesttty force", "escapechar ^B"]);
    has(
        &["-oConnectTimeout=1m5s", "-oSetEnv A=1 B=\"x y\"", "h"],
        &["connecttimeout 65", "setenv A=1", "setenv B=x y"],
    );
    has(
        &["-q", "-s", "-n", "h", "sftp"],
        &["loglevel QUIET", "sessiontype subsystem", "stdinnull yes"],
    );
    has(&["unix:/run/labshd.sock"], &["hostname unix:/run/labshd.sock", "hostkeyalias localhost"]);
    fs::create_dir_all(dir.path().join("config/labsh")).unwrap();
    fs::write(
        dir.path().join("config/labsh/config.toml"),
        "[hosts.lab07]\naddress = '10.0.0.7:77'\n",
    )
    .unwrap();
    has(&["bob@lab07"], &["host lab07", "hostname 10.0.0.7", "port 77", "hostkeyalias lab07"]);
}

#[test]
fn hosts_and_users_that_look_like_options_are_refused_before_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for (words, reason) in [
        (["--", "-oProxyCommand=x", "true"], "begin with '-'"),
        (["-l", "-oProxyCommand=x", HOST], "-oProxyCommand=x"),
        (["-oUser=-x", HOST, "true"], "\"-x\" is no user"),
        (["-n", "-x@127.0.0.1", "true"], "no option"),
        (["--", "-x@127.0.0.1", "true"], "\"-x\" is no user"),
        (["--", "x@-127.0.0.1", "true"], "begin with '-'"),
        (["--", "@127.0.0.1", "true"], "is no user"),
        (["--", "", "true"], "empty"),
        (["-n", "127.0.0.1\u{1b}[2J", "true"], "\\u{1b}"),
    ] {
        assert_fails(&without_server(&[&["-p", &port][..], &words].concat()), &[reason]);
    }
    listener.set_nonblocking(true).unwrap();
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "a connection was made"
    );
}

#[test]
fn unsupported_options_are_refused_if_they_matter_and_ignored_otherwise() {
    for (words, option) in [
        (&["-L", "1:a:2"][..], "-L"),
        (&["-R1:a:2"], "-R"),
        (&["-D", "1"], "-D"),
        (&["-W", "a:1"], "-W"),
        (&["-w", "0"], "-w"),
        (&["-J", "between"], "-J"),
        (&["-N"], "-N"),
        (&["-xf"], "-f"),
        (&["-b", "127.0.0.1"], "-b"),
        (&["-O", "check"], "-O"),
        (&["-oProxyCommand=nc %h %p"], "-o proxycommand"),
        (&["-o", "ProxyJump between"], "-o proxyjump"),
        (&["-oLocalForward=1 a:2"], "-o localforward"),
        (&["-oPermitLocalCommand=yes"], "-o permitlocalcommand"),
    ] {
        let output = without_server(&[words, &[HOST, "true"]].concat());
        assert_fails(&output, &[&format!("{option} cannot be honoured: ")]);
    }
    assert_fails(&without_server(&["-oSessionType=none", HOST]), &["sessiontype"]);
    let labshd = Labshd::start();
    // Options that scp, sftp, sshfs, pdsh and Ansible pass.
    let passed = "-x -a -2 -C -M -S/x/y -c aes128-gcm@openssh.com -oForwardX11=no \
        -oForwardAgent=no -oPermitLocalCommand=no \
                  -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no \
                  -oControlMaster=auto -oControlPersist=60s \
                  -oControlPath=\"/x/%h\" -oKbdInteractiveAuthentication=no \
                  -oPasswordAuthentication=no -oProxyCommand=none \
                  -oPreferredAuthentications=publickey -oStrictHostKeyChecking=no \
                  -oUserKnownHostsFile=/dev/null \
                  -oServerAliveInterval=5 -oIdentitiesOnly=yes -oNoSuchKeyword=x -oBatchMode=yes \
                  -oCompression=yes";
    let mut words: Vec<&str> = passed.split_whitespace().collect();
    words.extend([HOST, "echo", "x"]);
    assert_eq!(stdout(&labshd, &words), "x\n");
    let output = output(&labshd, &["-v", "-C", "-oNoSuchKeyword=x", HOST, "true"]);
    assert!(
        text(&output.stderr).contains("-C is passed over")
            && text(&output.stderr).contains("nosuchkeyword")
    );
}

#[test]
fn missing_forwarding_is_reported_once() {
    let labshd = Labshd::start();
    for (words, expected) in [
        (&["-X"][..], &["-X: the command runs without a display"][..]),
        (&["-Y", "-oForwardX11=yes"], &["-Y: the command runs without a display"]),
        (
            &["-oForwardAgent=yes", "-AX"],
            &["-o forwardagent: the command runs without your", "-X: "],
        ),
        (&["-qAX"], &[]),
        (&["-xa", "-oForwardAgent=no", "-oForwardX11=no"], &[]),
    ] {
        let output = output(&labshd, &[words, &[HOST, "echo x"]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), "x\n".into()),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), expected.len(), "{stderr}");
        for (line, expected) in stderr.lines().zip(expected) {
            assert!(line.starts_with(&format!("labsh-rsh: {expected}")), "{line}");
        }
    }
}

#[test]
fn a_host_that_does_not_answer_times_out() {
    // The kernel accepts connections, which no program reads from.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    for timeout in ["-oConnectTimeout=1", "--connect-timeout=1s"] {
        assert_fails(
            &without_server(&[timeout, "-p", &port, HOST, "true"]),
            &["no answer", "within 1s"],
        );
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    assert_fails(
        &without_server(&["-p", &gone, HOST, "true"]),
        &["cannot connect", "check the name, the port"],
    );
    // A timeout that overflows means no timeout.
    let patient =
        without_server(&["-oConnectTimeout=18446744073709551615", "-p", &gone, HOST, "true"]);
    assert_fails(&patient, &["cannot connect"]);
}

#[test]
fn the_address_family_can_be_chosen() {
    let labshd = Labshd::start();
    assert_eq!(stdout(&labshd, &["-4", HOST, "echo x"]), "x\n");
    assert_eq!(stdout(&labshd, &["-4", "localhost", "echo x"]), "x\n");
    assert_fails(&output(&labshd, &["-6", HOST, "true"]), &["no IPv6 address"]);
    assert_fails(&without_server(&["-oAddressFamily=inet", "::1", "true"]), &["no IPv4 address"]);
}

#[test]
fn rsh_without_a_local_terminal_has_no_remote_one_unless_forced() {
    let labshd = Labshd::start();
    for words in [&["-T", HOST, "tty"][..], &[HOST, "tty"]] {
        let output = output(&labshd, words);
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("not a tty\n".into(), String::new())
        );
    }
    let asked = output(&labshd, &["-t", HOST, "tty"]);
    assert_eq!(text(&asked.stdout), "not a tty\n");
    assert!(text(&asked.stderr).contains("-tt"), "{}", text(&asked.stderr));
}

#[test]
fn a_forced_terminal_works_and_the_status_is_the_commands_own() {
    let labshd = Labshd::start();
    let forced = output(&labshd, &["-tt", HOST, "tty; cat; exit 4"]);
    assert_eq!((forced.status.code(), text(&forced.stderr)), (Some(4), String::new()));
    assert!(text(&forced.stdout).starts_with("/dev/pts/"), "{}", text(&forced.stdout));
    let by_setting = output(&labshd, &["-oRequestTTY=force", "-oSetEnv=TERM=vt100", HOST, "tty"]);
    assert!(text(&by_setting.stdout).starts_with("/dev/pts/"), "{}", text(&by_setting.stderr));
    assert_fails(
        &output(&labshd, &["-tt", "-l", "no-such-user", HOST, "tty"]),
        &["not as no-such-user"],
    );
}

/// A Python program that runs a command in a terminal, types its first argument there (at once, or
/// after the first output), and prints whether the command has a terminal, and its exit status.
const IN_A_TERMINAL: &str = r#"
import os, pty, signal, subprocess, sys
signal.alarm(60)
main, terminal = pty.openpty()
typed, at_once = sys.argv[1].encode(), sys.argv[2] == "at once"
client = subprocess.Popen(sys.argv[3:], stdin=terminal, stdout=terminal, stderr=terminal)
seen = b""
while b"here:/dev/" not in seen and b"here:not" not in seen:
    if typed and (at_once or seen):
        os.write(main, typed)
        typed = b""
    seen += os.read(main, 1000)
print("terminal" if b"here:/dev/pts/" in seen else "none", client.wait())
"#;

#[test]
fn with_a_local_terminal_a_login_shell_or_option_t_gets_a_remote_one() {
    let Some(path) = tools::python() else { return };
    let labshd = Labshd::start();
    let command = "echo here:$(tty); exit 6";
    let typed = format!("{command}\n");
    for (words, typed, when, expected) in [
        (&[HOST][..], &*typed, "later", "terminal 6\n"),
        // With an end of the input: some shells read all of it before they run anything.
        (&["-T", HOST], &format!("{typed}\x04"), "at once", "none 6\n"),
        (&[HOST, command], "", "later", "none 6\n"),
        (&["-t", HOST, command], "", "later", "terminal 6\n"),
        (&["-n", "-t", HOST, command], "", "later", "none 6\n"),
        (&["-oRemoteCommand=echo here:$(tty); exit 6", HOST], "", "later", "none 6\n"),
    ] {
        let client = rsh(&labshd, words);
        let mut python = program(&path);
        python.args(["-c", IN_A_TERMINAL, typed, when]);
        let output = under(python, &client).output().unwrap();
        assert_eq!(text(&output.stdout), expected, "{words:?}: {}", text(&output.stderr));
    }
}

#[test]
fn sigterm_ends_labsh_rsh_without_waiting_for_the_command() {
    let labshd = Labshd::start();
    // It handles the signal and goes on.
    let stubborn = in_sh("trap \"echo caught\" TERM; echo $$; while :; do sleep 0.1; done");
    let mut client = Running::start(&mut rsh(&labshd, &[HOST, &stubborn]));
    let pid = client.pid_line();
    client.signal(15);
    // Tools end labsh-rsh so as a matter of course: only -v says more.
    let output = client.finish();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(255), String::new()));
    eventually("the host has ended it", || !is_alive(pid));
    let mut client = Running::start(&mut rsh(&labshd, &["-v", HOST, &stubborn]));
    let pid = client.pid_line();
    client.signal(15);
    let output = client.finish();
    assert!(text(&output.stderr).contains("the host ends the command"), "{}", text(&output.stderr));
    eventually("the host has ended it", || !is_alive(pid));
}

#[test]
fn help_and_version_are_where_tools_look_for_them() {
    let help = without_server(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    for part in ["-o <KEY=VALUE>", "--host-id", "Exit status", "[USER@]HOST"] {
        assert!(text(&help.stdout).contains(part), "{part} is not in {}", text(&help.stdout));
    }
    let version = without_server(&["-V"]);
    let expected = format!("labsh_{}", env!("CARGO_PKG_VERSION"));
    assert!(version.status.success() && version.stdout.is_empty());
    assert!(text(&version.stderr).starts_with(&expected), "{}", text(&version.stderr));
    assert_fails(&without_server(&[]), &["no host", "--help"]);
    assert_fails(&without_server(&["-o", "ControlPersist"]), &["needs a value"]);
    assert_fails(&without_server(&["-Z", HOST]), &["no option -Z"]);
}
