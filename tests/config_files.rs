//! The files that people write, of the client and of labshd: byte order marks, and what is not a
//! regular file in the place of one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::support::{
    LABSHD, am_root, feed, labsh_in, pipe_through, program, run, temp_dir, text, under,
};

/// A byte order mark, as Windows' editors write it.
const MARK: &str = "\u{feff}";

/// Every file that labsh reads hosts or settings from.
const FILES: [(&str, &str); 13] = [
    (
        "config/labsh/hosts.toml",
        "[sources]\nansible = [\"~/site/hosts\", \"~/site/more.yml\"]\nclustershell = \
         true\nssh_config = true\n[hosts.own]\nport = 7\n",
    ),
    ("config/labsh/config.toml", "[hosts.lab01]\nport = 8\n"),
    ("site/hosts", "[web]\nwww01\n"),
    ("site/more.yml", "web:\n  hosts:\n    www02:\n"),
    ("site/group_vars/web", "ansible_user: www\n"),
    ("site/group_vars/all/a.yml", "room: 5\n"),
    ("site/host_vars/www01.yml", "rack: 7\n"),
    (
        "config/clustershell/groups.conf",
        "[Main]\nconfdir: $CFGDIR/conf.d\nautodir: $CFGDIR/groups.d\n",
    ),
    (
        "config/clustershell/conf.d/flat.conf",
        "[flat]\nmap: sed -n 's/^$GROUP:\\(.*\\)/\\1/p' $CFGDIR/../flat.cfg\n",
    ),
    ("config/clustershell/flat.cfg", "f: lab02\n"),
    ("config/clustershell/groups.d/a.yaml", "racks:\n  r1: lab01\n"),
    (".ssh/config", "Include config.d/*\nHost gate\n  HostName gate.example\n"),
    (".ssh/config.d/one", "Host two\n  User bob\n"),
];

/// A home directory with all of these files, each beginning with `mark`, and a key.
fn home(mark: &str) -> TempDir {
    let home = temp_dir();
    for (name, content) in FILES {
        let file = home.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{mark}{content}")).unwrap();
    }
    run(labsh_in(home.path()).args(["key", "new", "k"]));
    home
}

fn labsh(home: &Path, words: &[&str]) -> Command {
    let mut command = labsh_in(home);
    command.env("HOME", home).args(words);
    command
}

/// The output of a command that must not wait without end.
fn prompt_output(command: &Command) -> Output {
    let mut starter = program("timeout");
    starter.arg("30");
    under(starter, command).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_file_of_the_client_may_begin_with_a_byte_order_mark() {
    let (plain, marked) = (home(""), home(MARK));
    let listed = |home: &TempDir| {
        let shown = text(&run(&mut labsh(home.path(), &["hosts", "--origin"])).stdout);
        shown.replace(home.path().to_str().unwrap(), "HOME")
    };
    assert_eq!(listed(&plain), listed(&marked));
    assert_eq!(listed(&plain).lines().filter(|line| !line.starts_with(' ')).count(), 7);

    // The key, and the list of its hosts.
    let key = marked.path().join("config/labsh/keys/k.key");
    let line = fs::read_to_string(&key).unwrap();
    fs::write(&key, format!("{MARK}{line}")).unwrap();
    fs::write(key.with_extension("hosts"), format!("{MARK}lab01\n")).unwrap();
    let keys = run(&mut labsh(marked.path(), &["key", "list"]));
    assert!(text(&keys.stdout).contains("lab01"), "{keys:?}");
    run(&mut labsh(marked.path(), &["key", "enroll", "--host", "lab02"]));
}

#[test]
fn no_file_of_the_client_is_waited_for() {
    let home = home("");
    let places = [
        "config/labsh/keys/k.key",
        "config/labsh/keys/k.hosts",
        "state/labsh/last.json",
        "site/group_vars",
        "site/group_vars/all/b.yml",
        "site/host_vars/www01",
        "config/clustershell/groups.d/b.yaml",
        ".ssh/config.d/two",
    ];
    for place in FILES.map(|(name, _)| name).into_iter().chain(places) {
        let path = home.path().join(place);
        let aside = home.path().join("aside");
        let existed = path.exists();
        if existed {
            fs::rename(&path, &aside).unwrap();
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let words: &[&str] = match place {
            _ if place.contains("keys/") => &["key", "enroll", "--host", "lab01"],
            _ if place.contains("last") => &["run", "--dry-run", "@last", "true"],
            _ => &["hosts"],
        };
        let assert_refused = |kind: &str| {
            let output = prompt_output(&labsh(home.path(), words));
            assert_eq!(output.status.code(), Some(125), "{place}, {kind}: {output:?}");
            let errors = text(&output.stderr);
            let reason = match place {
                "site/group_vars" => "it is not a directory",
                _ if place.ends_with(".key") => "is not a regular file",
                _ => kind,
            };
            assert!(errors.contains(reason), "{place}, {kind}: {errors}");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(errors.contains(&format!("/{name}")), "{place}: {errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        };
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_refused("it is a named pipe, not a regular file");
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert_refused("it is a socket, not a regular file");
        drop(listener);
        fs::remove_file(&path).unwrap();
        if existed {
            fs::rename(&aside, &path).unwrap();
        }
    }
    run(&mut labsh(home.path(), &["hosts"]));
}

#[test]
fn a_list_that_a_group_names_is_not_waited_for() {
    let home = home("");
    let list = home.path().join("list");
    let group = format!("[groups]\nlisted = \"^{}\"\npiped = \"^-\"\n", list.display());
    fs::write(home.path().join("config/labsh/hosts.toml"), group).unwrap();
    fs::write(&list, "lab01\n").unwrap();
    let words = ["run", "--dry-run", "@listed", "true"];
    let listed = run(&mut labsh(home.path(), &words));
    assert!(text(&listed.stdout).starts_with("lab01 (1)\n"), "{listed:?}");
    fs::remove_file(&list).unwrap();
    mkfifo(&list, Mode::S_IRWXU).unwrap();
    let output = prompt_output(&labsh(home.path(), &words));
    let expected = format!(
        "labsh: cannot read the hosts in {}: it is a named pipe, not a regular file\n",
        list.display()
    );
    assert_eq!(text(&output.stderr), expected);
    // Standard input is the user's: it may be what a command is to read.
    let mut piped = labsh(home.path(), &["run", "--dry-run", "@piped", "true"]);
    let output = pipe_through(&mut piped, b"lab02\n");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}

#[test]
fn a_directory_in_place_of_a_file_is_refused_where_it_is_named() {
    let home = home("");
    for (file, content, error) in [
        (
            "config/labsh/hosts.toml",
            "[sources]\nansible = [\"~/site\"]\n",
            "site: it is a directory; name the inventories in it one by one",
        ),
        (".ssh/config", "Include config.d\n", "config.d: cannot read it: it is a directory"),
    ] {
        let path = home.path().join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let output = prompt_output(&labsh(home.path(), &["hosts"]));
        assert!(text(&output.stderr).contains(error), "{output:?}");
        fs::write(&path, before).unwrap();
    }
    // A pattern matches directories as well, which ssh passes over.
    fs::create_dir(home.path().join(".ssh/config.d/old")).unwrap();
    run(&mut labsh(home.path(), &["hosts"]));
}

/// A directory of labshd's files with an entry for a key.
struct Server(TempDir);

impl Server {
    fn new(mark: &str) -> Self {
        let home = temp_dir();
        run(labsh_in(home.path()).args(["key", "new", "k"]));
        let line = run(labsh_in(home.path()).args(["key", "enroll", "--host", "lab01"])).stdout;
        let server = Self(home);
        let file = server.0.path().join("labshd.toml");
        fs::write(&file, format!("{mark}listen = ['127.0.0.1:0']\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut add = server.labshd(&["key", "add"]);
        if am_root() {
            add.args(["--user", "root"]);
        }
        feed(&mut add, &[mark.as_bytes(), &line].concat());
        server
    }

    fn labshd(&self, words: &[&str]) -> Command {
        let mut command = program(LABSHD);
        command.arg("--config").arg(self.0.path().join("labshd.toml")).args(words);
        command
    }
}

#[test]
fn the_files_of_labshd_may_begin_with_a_byte_order_mark() {
    let server = Server::new(MARK);
    let entry = server.0.path().join("keys.d/k+lab01.toml");
    let content = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, format!("{MARK}{content}")).unwrap();
    let checked = run(&mut server.labshd(&["check"]));
    assert!(text(&checked.stdout).contains("127.0.0.1:0"), "{checked:?}");
    let keys = run(&mut server.labshd(&["key", "list"]));
    assert!(text(&keys.stdout).contains("lab01"), "{keys:?}");
}

#[test]
fn no_file_of_labshd_is_waited_for() {
    for place in ["labshd.toml", "keys.d/k+lab01.toml", "keys.d/another.toml", "keys.d"] {
        let server = Server::new("");
        let path = server.0.path().join(place);
        let _ = fs::rename(&path, server.0.path().join("aside"));
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let output = prompt_output(&server.labshd(&["check"]));
        assert!(!output.status.success(), "{place}: {output:?}");
        let errors = text(&output.stderr) + &text(&output.stdout);
        let reason = if place == "keys.d" { "directory" } else { "it is a named pipe" };
        assert!(errors.contains(reason) && errors.contains(path.to_str().unwrap()), "{errors}");
    }
    // The secret of unknown names is not needed to start.
    let server = Server::new("");
    mkfifo(&server.0.path().join("keys.d/.dummy"), Mode::S_IRWXU).unwrap();
    assert!(prompt_output(&server.labshd(&["check"])).status.code() != Some(124));
    // A mask of the client's configuration is still a file.
    let home = home("");
    let config = home.path().join("config/labsh/config.toml");
    fs::remove_file(&config).unwrap();
    symlink("/dev/null", &config).unwrap();
    run(&mut labsh(home.path(), &["hosts"]));
}
