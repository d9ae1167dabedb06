//! The user that commands run as: with labshd as root the one that the key's entry names, otherwise
//! labshd's own.

use std::fs;
use std::process::{Output, Stdio};

use labsh_proto::frame::Kind;
use labsh_proto::message::{Body, Refuse, RefuseCode};
use nix::libc;

use crate::peer::{Peer, open};
use crate::support::{
    LABSHD, Labshd, am_root, feed, in_shell, labsh_in, pipe_through, program, run, stdout_of, text,
    tools,
};

/// A line of passwd(5).
struct Account {
    name: String,
    uid: String,
    gid: String,
    home: String,
}

/// The first account but root's whose shell and password field satisfy this; only root can read
/// passwords.
fn account(fits: impl Fn(&str, &str) -> bool) -> Option<Account> {
    fs::read_to_string("/etc/passwd").unwrap().lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let shadow = program("getent").args(["shadow", name]).output().unwrap();
        let password = text(&shadow.stdout).split(':').nth(1).unwrap_or_default().to_owned();
        (uid != "0" && fits(shell, &password)).then(|| Account {
            name: name.to_owned(),
            uid: uid.to_owned(),
            gid: gid.to_owned(),
            home: home.to_owned(),
        })
    })
}

fn is_no_shell(shell: &str) -> bool {
    shell.ends_with("/nologin") || shell.ends_with("/false")
}

/// Starts a labshd that runs the commands of a second key as this user, and runs one.
fn run_as(user: &str, words: &[&str]) -> (Labshd, Output) {
    let labshd = Labshd::start();
    let output = run_on(&labshd, user, words);
    (labshd, output)
}

/// Runs a command as this user on a running labshd, with a second key.
fn run_on(labshd: &Labshd, user: &str, words: &[&str]) -> Output {
    run(labsh_in(labshd.path()).args(["key", "new", "other"]));
    let line =
        run(labsh_in(labshd.path()).args(["key", "enroll", "other", "--host", "127.0.0.1"])).stdout;
    let mut add = program(LABSHD);
    add.arg("--config").arg(labshd.path().join("labshd.toml")).args(["key", "add", "--user", user]);
    feed(&mut add, &line);
    labshd.reload();
    labshd.run_with(&["--key", "other"], words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn commands_run_as_the_user_of_labshd_or_of_the_entry() {
    let labshd = Labshd::start();
    let output = run(&mut labshd.run(&["id"]));
    // If labshd is root, the test key's entry names root, whose groups come from the user database.
    assert_eq!(text(&output.stdout).trim_end(), stdout_of("id", &[&stdout_of("id", &["-un"])]));
    if !am_root() {
        other_users_are_not_added();
    }
}

/// Without root, an entry for another user is not added.
fn other_users_are_not_added() {
    let labshd = Labshd::start();
    assert_not_added(&labshd, "root", "cannot run commands as");
}

fn assert_not_added(labshd: &Labshd, user: &str, reason: &str) {
    let line = run(labshd.labsh().args(["key", "enroll", "test", "--host", "other"])).stdout;
    let mut add = program(LABSHD);
    add.arg("--config").arg(labshd.path().join("labshd.toml")).args(["key", "add", "--user", user]);
    let output = pipe_through(&mut add, &line);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(reason), "{}", text(&output.stderr));
}

#[test]
fn a_users_command_cannot_regain_root() {
    if !am_root() {
        return other_users_are_not_added();
    }
    // Every Debian has such an account: `sync`, whose shell does not refuse logins. Exact words
    // need no shell.
    let usable = |shell: &str, password: &str| !is_no_shell(shell) && !password.starts_with('!');
    let user = account(usable).expect("an account that may run commands");
    let script = "cat /proc/self/status; id -G; pwd; echo $HOME $USER $LOGNAME; \
                  setpriv --reuid=0 true && echo regained; cat /etc/shadow && echo readable";
    let (_labshd, output) = run_as(&user.name, &["sh", "-c", script]);
    let stdout = text(&output.stdout);
    let field = |name: &str| {
        let line = stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    // Real, effective, saved and file system ids.
    assert_eq!(field("Uid:"), vec![user.uid.clone(); 4]);
    assert_eq!(field("Gid:"), vec![user.gid.clone(); 4]);
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set)[0], 16), Ok(0), "{set}");
    }
    let tail: Vec<&str> = stdout.lines().rev().take(3).collect();
    let name = &user.name;
    assert_eq!(tail[0], format!("{} {name} {name}", user.home));
    let home =
        fs::canonicalize(&user.home).map_or("/".to_owned(), |home| home.display().to_string());
    assert!([home.as_str(), user.home.as_str()].contains(&tail[1]), "started in {}", tail[1]);
    assert_eq!(tail[2], stdout_of("id", &["-G", name]), "root's groups are not handed on");
    assert!(text(&output.stderr).contains("setpriv:"), "{}", text(&output.stderr));
}

/// Starts labshd like a systemd service: in a session keyring of its own, with a key in it.
fn in_a_keyring(key: &str) -> Option<Labshd> {
    let python = tools::python()?;
    let program = format!(
        "import ctypes, os, sys; call = ctypes.CDLL(None).syscall; call({}, 1, 0); \
         call({}, b'user', b'{key}', b'x', 1, -3); os.execv(sys.argv[1], sys.argv[1:])",
        libc::SYS_keyctl,
        libc::SYS_add_key
    );
    let script = r#"exec "$PYTHON" -c "$PROGRAM" "$@""#;
    Some(Labshd::launch("", |labshd| {
        *labshd = in_shell(script, labshd);
        labshd.env("PYTHON", python).env("PROGRAM", program);
        labshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    }))
}

#[test]
fn the_session_keyring_is_not_shared_between_users() {
    if !am_root() {
        return other_users_are_not_added();
    }
    let key = format!("labsh-test-{}", std::process::id());
    let Some(labshd) = in_a_keyring(&key) else { return };
    let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
    if !keys.contains(&key) {
        // Not every kernel has keyrings, and not every container permits them.
        return;
    }
    let usable = |shell: &str, password: &str| !is_no_shell(shell) && !password.starts_with('!');
    let user = account(usable).expect("an account that may run commands");
    let output = run_on(&labshd, &user.name, &["cat", "/proc/keys"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The file lists only the keys that the reader may see.
    let seen = text(&output.stdout);
    assert!(seen.contains("_ses") && !seen.contains(&key), "{seen}");
}

/// `!` before a password locks it; `!` alone means that none was ever set.
fn is_locked(password: &str) -> bool {
    password.starts_with('!') && !password.trim_start_matches('!').is_empty()
}

#[test]
fn accounts_that_may_not_log_in_are_refused_with_the_reason() {
    if !am_root() {
        return other_users_are_not_added();
    }
    let service = account(|shell, _| is_no_shell(shell)).expect("a service account");
    let (labshd, output) = run_as(&service.name, &["true", "x"]);
    assert_eq!(output.status.code(), Some(125));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("no login shell") && stderr.contains("administrator"), "{stderr}");
    labshd.log().wait_for("no login shell");
    assert_eq!(labshd.log().count("command started"), 0);

    // Not every machine has a locked account.
    if let Some(locked) = account(|shell, password| !is_no_shell(shell) && is_locked(password)) {
        let (_labshd, output) = run_as(&locked.name, &["true", "x"]);
        assert_eq!(output.status.code(), Some(125));
        assert!(text(&output.stderr).contains("is locked"), "{}", text(&output.stderr));
    }
}

#[test]
fn an_entry_for_an_unknown_user_is_not_added() {
    assert_not_added(&Labshd::start(), "no-such-user-here", "no-such-user-here");
}

#[test]
fn a_command_runs_as_the_requested_user_or_not_at_all() {
    let labshd = Labshd::start();
    let own = stdout_of("id", &["-un"]);
    assert_eq!(labshd.output_with(&["--user", &own], &["true"]).status.code(), Some(0));
    for target in ["", "localhost,"] {
        // A second target makes it a run on several hosts.
        let targets = format!("{target}127.0.0.1");
        let mut command = labshd.labsh();
        let port = labshd.tls.port().to_string();
        command.args([
            "run",
            "--user",
            "another-user",
            "--port",
            &port,
            &targets,
            "--",
            "echo",
            "ran",
        ]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_ne!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains("another-user"), "{}", text(&output.stderr));
    }
}

/// A labshd in a mount namespace with user files of its own, in `etc` of its directory.
fn labshd_with_own_accounts() -> Labshd {
    Labshd::launch("", |command| {
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let etc = std::path::Path::new(&arguments[1]).with_file_name("etc");
        fs::create_dir(&etc).unwrap();
        for file in ["passwd", "group", "shadow"] {
            fs::copy(format!("/etc/{file}"), etc.join(file)).unwrap();
        }
        let mut shell = program("unshare");
        shell.args(["--mount", "sh", "-c"]).arg(
            "for file in passwd group shadow; do mount --bind \"$0/$file\" /etc/$file || exit; \
             done; exec \"$@\"",
        );
        shell.arg(etc).arg(LABSHD).args(arguments);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = shell;
    })
}

/// Replaces the lines of the accounts that this test adds, in the files that are mounted.
fn set_account(labshd: &Labshd, passwd: &str, shadow: &str) {
    for (file, line) in [("passwd", passwd), ("shadow", shadow)] {
        let path = labshd.path().join("etc").join(file);
        let text = fs::read_to_string(&path).unwrap();
        let others: Vec<&str> = text.lines().filter(|line| !line.contains("labsh-ada")).collect();
        fs::write(&path, format!("{}\n{line}\n", others.join("\n"))).unwrap();
    }
}

#[test]
fn an_open_session_follows_changes_of_its_account() {
    let private_mounts = program("unshare").args(["--mount", "true"]).output();
    if !am_root() || !private_mounts.is_ok_and(|output| output.status.success()) {
        return;
    }
    let labshd = labshd_with_own_accounts();
    let (passwd, shadow) = ("labsh-ada:x:4242:4242::/:/bin/sh", "labsh-ada:*:19000::::::");
    set_account(&labshd, passwd, shadow);
    let key = labshd.another_key("ada");
    let entry =
        fs::read_dir(labshd.path().join("keys.d")).unwrap().map(|file| file.unwrap().path());
    let entry = entry.into_iter().find(|path| path.to_string_lossy().contains("ada")).unwrap();
    let text = fs::read_to_string(&entry).unwrap().replace("\"root\"", "\"labsh-ada\"");
    fs::write(&entry, text).unwrap();
    labshd.reload();
    let mut peer = Peer::authenticated_with(&labshd, &key);
    let mut id = 0;
    let mut user_id = || {
        id += 1;
        peer.send(&open(id, &["id", "-u"]));
        let first = peer.next_of(id);
        if first.kind == Kind::Refuse {
            return Err(Refuse::from_frame(&first).unwrap());
        }
        Ok(crate::support::text(&peer.finish(id).stdout).trim_end().to_owned())
    };
    let mut refused = |passwd: &str, shadow: &str, reason: &str| {
        set_account(&labshd, passwd, shadow);
        let refuse = user_id().unwrap_err();
        assert_eq!(refuse.code, RefuseCode::NOT_PERMITTED, "{refuse:?}");
        assert!(refuse.reason.contains(reason), "{refuse:?}");
    };
    refused(&passwd.replace("/bin/sh", "/usr/sbin/nologin"), shadow, "no login shell");
    refused(passwd, "labsh-ada:*:19000:::::1:", "has expired");
    refused(passwd, "labsh-ada:!$y$x:19000::::::", "is locked");
    // Another user has its number now.
    let other = "labsh-ada-2:x:4242:4242::/:/bin/sh";
    refused(other, "labsh-ada-2:*:19000::::::", "there is no user");
    set_account(&labshd, passwd, shadow);
    assert_eq!(user_id().as_deref(), Ok("4242"));
    set_account(&labshd, &passwd.replacen("4242", "4243", 1), shadow);
    assert_eq!(user_id().as_deref(), Ok("4243"));
}
