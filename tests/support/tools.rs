//! Programs that tests run: the environment that all of them find, where those from outside are,
//! and what happens where they are not installed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `.ci/run` installs programs from PyPI, seen from the workspace and from a crate in
/// crates/; searched before PATH.
const VENV: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/target/ansible-venv/bin"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ansible-venv/bin"),
];

/// The variables of the tests' own environment that programs need to start at all, or to measure
/// coverage. No others are passed on.
const PASSED_ON: [&str; 5] =
    ["LD_LIBRARY_PATH", "LLVM_PROFILE_FILE", "NIX_LD", "NIX_LD_LIBRARY_PATH", "PYENV_ROOT"];

/// A home directory in which no program finds a configuration or writes a file, not even as root.
/// Tests of files in a home directory set another.
const NO_HOME: &str = "/dev/null/home";

/// A command that runs this program in the environment of the tests, which is the same for every
/// user on every machine.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.env("PATH", search_path()).env("TMPDIR", temp_root());
    command.env("HOME", NO_HOME).env("SHELL", "/bin/sh");
    command.env("LANG", "C.UTF-8").env("TERM", "xterm-256color");
    command
}

/// PATH without folders that execvp(3) cannot search, for which it reports "Permission denied"
/// instead of "not found", and without relative ones.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let can_be_searched = |folder: &PathBuf| {
        folder.is_absolute()
            && !folder
                .join("no-such-program")
                .metadata()
                .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    env::join_paths(env::split_paths(&path).filter(can_be_searched)).unwrap()
}

/// The same with these folders in front.
pub fn search_path_after(folders: &[&Path]) -> OsString {
    let path = search_path();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    env::join_paths(folders.chain(env::split_paths(&path))).unwrap()
}

/// How many bytes the path of a directory may have in which tests make their sockets, whose paths
/// have at most 107 (unix(7)).
const MAX_TEMP_ROOT_LENGTH: usize = 50;

/// Where tests make their directories: in TMPDIR, or in /tmp if paths there would be too long for a
/// socket, or would have to be quoted in the shell scripts and commands in which tests use them.
pub fn temp_root() -> PathBuf {
    let directory = env::temp_dir();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let path = directory.as_os_str().as_encoded_bytes();
    let usable = path.starts_with(b"/") && path.iter().all(plain);
    if usable && path.len() <= MAX_TEMP_ROOT_LENGTH { directory } else { "/tmp".into() }
}

/// The path of a program that a test drives, given by its name, or by its path if it must be there.
/// None if it is not installed: the test then has to return. `remedy` tells how to install it
/// (`apt-get install pdsh`).
///
/// Users who try labsh need not have all of these tools: a missing one is reported on stderr, also
/// for a test that passes. If `CI` is `true` or `LABSH_TOOLS` is `required`, it is a failure;
/// `LABSH_TOOLS=optional` overrides `CI`.
pub fn need(program: &str, remedy: &str) -> Option<PathBuf> {
    let path = search_path();
    let mut places = env::split_paths(&path);
    let found = VENV
        .iter()
        .map(PathBuf::from)
        .chain(&mut places)
        .map(|place| place.join(program))
        .find(|file| is_executable(file));
    if found.is_none() {
        let missing = format!("{program} is not installed; to have it: {remedy}");
        let required =
            are_required(env::var("LABSH_TOOLS").ok().as_deref(), env::var("CI").ok().as_deref());
        assert!(!required, "{missing} (or set LABSH_TOOLS=optional to leave such tests out)");
        skip(&missing);
    }
    found
}

/// Python 3, with its standard library and nothing else.
pub fn python() -> Option<PathBuf> {
    need("python3", "apt-get install python3").map(|python| python_of(&python))
}

/// The folder with `sitecustomize.py`, seen from the workspace and from a crate.
const INTERPRETER: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/interpreter"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/interpreter"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/interpreter"),
];

/// The Python that runs this tool and has its libraries. The interpreter itself reports that as it
/// starts: a tool's first line may hold a path, `env`, or a shell for a script that starts Python
/// (pip writes one where the path is long, pyenv always).
pub fn python_of(tool: &Path) -> PathBuf {
    let directory = INTERPRETER.iter().find(|place| Path::new(place).exists()).unwrap();
    let output = program(tool)
        .env("PYTHONPATH", directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let python = String::from_utf8_lossy(&output.stdout);
    assert!(python.starts_with('/'), "{} does not start Python: {output:?}", tool.display());
    python.trim_end().into()
}

/// Whether this user can open a device; reports it if not.
pub fn usable(device: &str, remark: &str) -> bool {
    let opened = std::fs::File::options().read(true).write(true).open(device);
    if let Err(error) = &opened {
        skip(&format!("{device}: {error}: {remark}"));
    }
    opened.is_ok()
}

/// Reports that a test is skipped, and why. Not with eprintln, whose text the test harness shows
/// only for failing tests.
pub fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Whether missing tools are a failure, from the values of the two variables.
fn are_required(labsh_tools: Option<&str>, ci: Option<&str>) -> bool {
    match labsh_tools {
        Some("required") => true,
        Some("optional") => false,
        Some(other) => panic!("LABSH_TOOLS is `required` or `optional`, not {other:?}"),
        None => ci == Some("true"),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[test]
fn missing_tools_are_an_error_in_ci_only() {
    assert!(need("sh", "every Linux has one").is_some_and(|sh| is_executable(&sh)));
    assert!(!are_required(None, None));
    assert!(are_required(None, Some("true")));
    assert!(are_required(Some("required"), None));
    assert!(!are_required(Some("optional"), Some("true")));
}
