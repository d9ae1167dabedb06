//! Programs from outside that some tests drive: where they are, and what happens where they are not
//! installed.

use std::env;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where `.ci/run` installs what comes from PyPI, seen from the workspace and from a crate in
/// crates/; looked through before PATH.
const VENV: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/target/ansible-venv/bin"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ansible-venv/bin"),
];

/// The path of a program that a test drives (a name, or a path where it has to be in that place),
/// or nothing where the test has to be left out: it then returns at once. `remedy` says how to
/// install it (`apt-get install pdsh`).
///
/// A machine on which somebody tries labsh need not have the world's tools: what is missing is said
/// on stderr, also for a test that passes. Where `CI` is `true` or `LABSH_TOOLS` is `required`, a
/// missing program is a failure; `LABSH_TOOLS=optional` is the opposite in any place.
pub fn need(program: &str, remedy: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
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
        // Not with eprintln, whose text the test harness keeps back when the test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}");
    }
    found
}

/// Python 3, with its standard library and nothing else.
pub fn python() -> Option<PathBuf> {
    need("python3", "apt-get install python3")
}

/// Whether a device can be opened by this user, which no package helps with; says so where it
/// cannot.
pub fn usable(device: &str, remark: &str) -> bool {
    let opened = std::fs::File::options().read(true).write(true).open(device);
    if let Err(error) = &opened {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {device}: {error}: {remark}");
    }
    opened.is_ok()
}

/// What the two variables come to.
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
fn outside_programs_may_be_missing_only_where_nothing_checks_a_change() {
    assert!(need("sh", "every Linux has one").is_some_and(|sh| is_executable(&sh)));
    assert!(!are_required(None, None));
    assert!(are_required(None, Some("true")));
    assert!(are_required(Some("required"), None));
    assert!(!are_required(Some("optional"), Some("true")));
}
