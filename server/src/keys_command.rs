//! `labshd key`: adds, lists and removes entries in `keys.d`.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use ipnet::IpNet;
use labsh_diagnostics::{Diagnostic, text_file};
use labsh_proto::key::{HostId, HostKey, KeyId};
use toml::Value;
use toml::value::Datetime;
use zeroize::Zeroizing;

use crate::account::{RunsAs, UserExists};
use crate::entry;
use crate::entry::Entry;
use crate::key_table;
use crate::keyring;
use crate::logs::Escaped;
use crate::private_file;

/// Limit on the standard input of `labshd key add`, in bytes.
const MAX_STDIN: u64 = 4096;

/// The entry that `labshd key add` creates.
#[derive(Debug, Default)]
pub struct Add {
    /// The account that runs the key's commands; required if labshd runs as root.
    pub user: Option<String>,
    /// The networks that the key is accepted from; empty for all.
    pub from: Vec<IpNet>,
    /// The end of the key's validity.
    pub expires: Option<Expiry>,
    /// A note that is stored in the entry.
    pub comment: Option<String>,
    /// The name of the entry's file, without `.toml`; by default it is made from the names of the
    /// key and the host.
    pub name: Option<KeyId>,
    /// Whether an existing entry is replaced.
    pub replace: bool,
}

/// The entries that `labshd key remove` removes.
#[derive(Debug)]
pub struct Remove {
    /// The key of the entries.
    pub key: KeyId,
    /// The only host name whose entry is removed; `None` for all.
    pub host: Option<HostId>,
}

/// The result of a command.
#[derive(Debug)]
pub struct Outcome {
    /// The text for standard output.
    pub report: String,
    /// The errors in the entries of the directory, which keep labshd from reloading them.
    pub diagnostics: Vec<Diagnostic>,
}

/// The end of a key's validity, as a person wrote it.
#[derive(Debug, Clone, Copy)]
pub struct Expiry(Datetime);

impl Expiry {
    /// Parses a date or a date-time, which must not be before `now`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and how to write it.
    pub fn parse(text: &str, now: SystemTime) -> Result<Self, String> {
        let date: Datetime = text
            .parse()
            .map_err(|_| "write it like 2031-12-31 or 2031-12-31T18:00:00Z".to_owned())?;
        match entry::end_of(date) {
            Ok(end) if end < now => {
                Err("it is in the past, so the key could never be used; name a later day \
                 or time (in UTC, unless it has a time zone), or leave --expires out"
                    .to_owned())
            }
            Ok(_) => Ok(Self(date)),
            Err(problem) => Err(problem.to_string()),
        }
    }
}

/// Parses a network, or an address as a network of one address.
///
/// # Errors
///
/// Says what is wrong and how to write it.
pub fn network(text: &str) -> Result<IpNet, String> {
    entry::network(text).map_err(|problem| problem.to_string())
}

/// Parses the name of an entry's file, with or without `.toml`.
///
/// # Errors
///
/// When it is not a valid [`KeyId`], which excludes hidden files and other directories.
pub fn file_name(text: &str) -> Result<KeyId, String> {
    KeyId::new(text.strip_suffix(".toml").unwrap_or(text)).map_err(|error| error.to_string())
}

/// Reads the only line of standard input, or the first line of a terminal.
pub fn read_line(mut input: impl BufRead, terminal: bool) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_STDIN as usize + 1));
    let mut bounded = (&mut input).take(MAX_STDIN);
    let read =
        if terminal { bounded.read_line(&mut text) } else { bounded.read_to_string(&mut text) };
    read.context("cannot read the enrolment line from standard input")?;
    text_file::remove_bom(&mut text);
    match text.lines().filter(|line| !line.trim().is_empty()).count() {
        0 => bail!("there is no enrolment line on standard input; `labsh key enroll` prints one"),
        1 => Ok(text),
        count => bail!("there are {count} lines on standard input; add one key at a time"),
    }
}

/// Creates the entry of an enrolment line.
///
/// # Errors
///
/// When the line or an argument is invalid, the key has an entry already, or the file cannot be
/// written.
pub fn add(
    request: &Add,
    line: &str,
    dir: &Path,
    runs_as: &RunsAs,
    user_exists: UserExists<'_>,
) -> anyhow::Result<Outcome> {
    let key = entry::enrolment(line)?;
    if *runs_as == RunsAs::Root && request.user.is_none() {
        bail!("labshd runs as root, so the key needs a user for its commands: add --user NAME");
    }
    let existing = match dir.exists() {
        true => {
            private_file::check_directory(dir).with_context(|| dir.display().to_string())?;
            keyring::read_directory(dir, runs_as, &|_| Ok(()))
        }
        false => keyring::DirectoryEntries::default(),
    };
    let same = existing.entries.iter().find(|entry| entry.key.name() == key.name());
    let file = choose_file(request, &key, dir, same)?;

    let text = entry_text(request, &key);
    let entry = Entry::parse(&file, &text, runs_as, user_exists).map_err(|diagnostics| {
        let problems = diagnostics.0.into_iter().map(|diagnostic| diagnostic.reason);
        anyhow::anyhow!(problems.collect::<Vec<_>>().join("; "))
    })?;
    private_file::create_directory(dir)
        .with_context(|| format!("cannot create {}", Escaped(dir.display())))?;
    let written = match request.replace {
        true => private_file::replace(&file, &text),
        false => private_file::create(&file, &text),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let shown = Escaped(file.display());
            bail!("{shown} exists already; --replace replaces it, --name NAME keeps both")
        }
        result => result.with_context(|| format!("cannot write {}", Escaped(file.display())))?,
    }

    let user = entry.user.as_deref().map(|user| format!(" as {user}")).unwrap_or_default();
    let name = name(&entry.key);
    let report =
        format!("{name} may run commands{user}: {}\n{}", Escaped(file.display()), reload(runs_as));
    // Errors in a replaced file no longer exist.
    let diagnostics = existing
        .diagnostics
        .into_iter()
        .filter(|diagnostic| *diagnostic.origin.path != *file)
        .collect();
    Ok(Outcome { report, diagnostics })
}

/// Chooses the file of a new entry. `same` is an existing entry of the same key.
fn choose_file(
    request: &Add,
    key: &HostKey,
    dir: &Path,
    same: Option<&Arc<Entry>>,
) -> anyhow::Result<PathBuf> {
    let named = request.name.as_ref().map(|name| dir.join(format!("{name}.toml")));
    match (same, named) {
        (Some(same), Some(file)) if same.file != file => {
            bail!(
                "this key is already in {}; leave out --name, or remove that entry first",
                Escaped(same.file.display())
            )
        }
        (Some(same), _) if !request.replace => {
            bail!("this key is already in {}; --replace replaces it", Escaped(same.file.display()))
        }
        (Some(same), _) => Ok(same.file.clone()),
        (None, Some(file)) => Ok(file),
        (None, None) => Ok(dir.join(default_name(key))),
    }
}

/// Returns `KEY+HOST.toml`. Characters of the host name that are special to shells or paths become
/// `_`, and neither part contains a `+`.
fn default_name(key: &HostKey) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    // A key's name has at most 64 bytes, so the file's name stays below 255 bytes.
    let host: String = key.host_id().as_str().chars().map(plain).take(180).collect();
    format!("{}+{host}.toml", key.key_id())
}

/// Formats the text of an entry.
fn entry_text(request: &Add, key: &HostKey) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    let mut put = |name: &str, value: Value| {
        text.push_str(&format!("{name} = {value}\n"));
    };
    put("key", Value::String(key.to_line()));
    if let Some(user) = &request.user {
        put("user", Value::String(user.clone()));
    }
    if !request.from.is_empty() {
        let networks = request.from.iter().map(|network| Value::String(network.to_string()));
        put("from", Value::Array(networks.collect()));
    }
    if let Some(Expiry(expires)) = request.expires {
        put("expires", Value::Datetime(expires));
    }
    if let Some(comment) = &request.comment {
        put("comment", Value::String(comment.clone()));
    }
    text
}

/// An entry of a listing, without its secret.
#[derive(Debug)]
pub struct ListedEntry {
    /// The key.
    pub key: KeyId,
    /// The host name that it was enrolled for.
    pub host_id: HostId,
    /// The account that runs its commands; none unless labshd runs as root.
    pub user: Option<String>,
    /// The networks that it is accepted from; empty for all.
    pub from: Vec<IpNet>,
    /// The end of its validity.
    pub expires: Option<SystemTime>,
    /// The file of the entry.
    pub file: PathBuf,
}

/// Returns all valid entries, and the errors in the others.
pub fn entries(dir: &Path, runs_as: &RunsAs) -> (Vec<ListedEntry>, Vec<Diagnostic>) {
    let found = keyring::read_directory(dir, runs_as, &|_| Ok(()));
    let listed = |entry: &Arc<Entry>| ListedEntry {
        key: entry.key.key_id().clone(),
        host_id: entry.key.host_id().clone(),
        user: entry.user.clone(),
        from: entry.from.clone(),
        expires: entry.expires,
        file: entry.file.clone(),
    };
    (found.entries.iter().map(listed).collect(), found.diagnostics)
}

/// Lists all entries.
pub fn list(dir: &Path, runs_as: &RunsAs) -> Outcome {
    let found = keyring::read_directory(dir, runs_as, &|_| Ok(()));
    let report = match (found.entries.is_empty(), found.diagnostics.is_empty()) {
        (true, true) => {
            format!(
                "no keys in {}, so no client can connect; `labshd key add` adds one",
                Escaped(dir.display())
            )
        }
        (true, false) => format!("no valid keys in {}", Escaped(dir.display())),
        (false, _) => key_table::table(&found.entries, SystemTime::now()),
    };
    Outcome { report, diagnostics: found.diagnostics }
}

/// Removes the entries of a key.
///
/// # Errors
///
/// When there is no such entry, or it cannot be removed.
pub fn remove(request: &Remove, dir: &Path, runs_as: &RunsAs) -> anyhow::Result<Outcome> {
    let found = keyring::read_directory(dir, runs_as, &|_| Ok(()));
    let matches = |key: &HostKey| {
        *key.key_id() == request.key
            && request.host.as_ref().is_none_or(|host| host == key.host_id())
    };
    let mut report = String::new();
    for entry in found.entries.iter().filter(|entry| matches(&entry.key)) {
        fs::remove_file(&entry.file)
            .with_context(|| format!("cannot remove {}", Escaped(entry.file.display())))?;
        // Writing to a String cannot fail.
        let _ = writeln!(report, "removed {}: {}", name(&entry.key), Escaped(entry.file.display()));
    }
    if report.is_empty() {
        let host = request
            .host
            .as_ref()
            .map(|host| format!(" for host {}", Escaped(host)))
            .unwrap_or_default();
        let mut problem = format!(
            "there is no entry for key {}{host} in {}; `labshd key list` shows all",
            request.key,
            Escaped(dir.display())
        );
        for diagnostic in &found.diagnostics {
            let _ = write!(problem, "\n{diagnostic}");
        }
        bail!(problem);
    }
    report.push_str("A running labshd accepts it until it reloads, and then ends its sessions.\n");
    report.push_str(&reload(runs_as));
    Ok(Outcome { report, diagnostics: found.diagnostics })
}

/// Names a key in messages: `key alice for host lab07`.
fn name(key: &HostKey) -> String {
    format!("key {} for host {}", key.key_id(), Escaped(key.host_id()))
}

/// Returns the commands that make a running labshd reload.
fn reload(runs_as: &RunsAs) -> String {
    let (flag, user) = match runs_as {
        RunsAs::Root => ("", "root"),
        RunsAs::User(name) => ("--user ", name.as_str()),
    };
    // The oldest process of that name: those of `labshd copy-serve` have it too.
    format!(
        "To apply this to a running labshd:  systemctl {flag}reload labshd\n\
         or, if systemd does not manage it:  kill -HUP \"$(pgrep -o -x -u {user} labshd)\""
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::entry::tests::{line, line_for};

    struct Keys(tempfile::TempDir);

    impl Keys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join("keys.d")
        }

        fn add(&self, request: &Add, line: &str) -> anyhow::Result<Outcome> {
            add(request, line, &self.dir(), &RunsAs::Root, &|name| match name {
                "bob" => Ok(()),
                name => Err(format!("there is no user {name:?}")),
            })
        }

        fn remove(&self, key: &str, host: Option<&str>) -> anyhow::Result<Outcome> {
            let host = host.map(|host| HostId::new(host).unwrap());
            remove(&Remove { key: KeyId::new(key).unwrap(), host }, &self.dir(), &RunsAs::Root)
        }

        fn names(&self) -> Vec<String> {
            let found = keyring::read_directory(&self.dir(), &RunsAs::Root, &|_| Ok(()));
            assert_eq!(found.diagnostics, []);
            found
                .entries
                .iter()
                .map(|entry| entry.file.file_name().unwrap().display().to_string())
                .collect()
        }
    }

    fn bob() -> Add {
        Add { user: Some("bob".to_owned()), ..Add::default() }
    }

    #[test]
    fn an_enrolment_line_becomes_an_entry_that_only_its_owner_can_read() {
        let keys = Keys::new();
        let request = Add {
            from: vec!["10.0.0.0/8".parse().unwrap()],
            expires: Some(Expiry::parse("2031-12-31", SystemTime::UNIX_EPOCH).unwrap()),
            comment: Some("Bob's \"lab\" key\n".to_owned()),
            ..bob()
        };
        let outcome = keys.add(&request, &(line("alice") + "\n")).unwrap();
        assert!(
            outcome.report.contains("key alice for host lab07 may run commands as bob"),
            "{}",
            outcome.report
        );
        assert!(outcome.report.contains("systemctl reload labshd"));
        let file = keys.dir().join("alice+lab07.toml");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(keys.dir()).unwrap().mode() & 0o777, 0o700);
        let entry = Entry::read(&file, &RunsAs::Root, &|_| Ok(())).unwrap();
        assert_eq!(entry.key, entry::enrolment(&line("alice")).unwrap());
        assert_eq!((entry.from, entry.user.as_deref()), (request.from, Some("bob")));
        let listed = list(&keys.dir(), &RunsAs::Root).report;
        assert!(
            listed.contains("2031-12-31T23:59:59Z") && listed.contains("10.0.0.0/8"),
            "{listed}"
        );
        assert!(!listed.contains(line("alice").split(' ').nth(3).unwrap()), "no secrets");
    }

    #[test]
    fn as_root_a_missing_user_is_an_error() {
        let keys = Keys::new();
        let error = keys.add(&Add::default(), &line("alice")).unwrap_err().to_string();
        assert!(error.contains("--user"), "{error}");
        let request = Add { user: Some("no-such-user".to_owned()), ..Add::default() };
        let error = keys.add(&request, &line("alice")).unwrap_err().to_string();
        assert!(error.contains("no user \"no-such-user\""), "{error}");
        assert!(!keys.dir().exists(), "nothing is created");
    }

    #[test]
    fn an_entry_is_replaced_only_when_asked() {
        let keys = Keys::new();
        keys.add(&bob(), &line("alice")).unwrap();
        let again = |replace| Add { replace, from: vec!["::1/128".parse().unwrap()], ..bob() };
        assert!(
            keys.add(&again(false), &line("alice")).unwrap_err().to_string().contains("--replace")
        );
        keys.add(&again(true), &line("alice")).unwrap();
        assert_eq!(keys.names(), ["alice+lab07.toml"]);
        let renamed = Add { name: Some(KeyId::new("other").unwrap()), ..again(true) };
        assert!(keys.add(&renamed, &line("alice")).unwrap_err().to_string().contains("already in"));
    }

    #[test]
    fn an_old_and_a_new_key_may_coexist_while_one_is_replaced() {
        let keys = Keys::new();
        keys.add(&bob(), &line_for("alice", "lab07", 1)).unwrap();
        let new = line_for("alice", "lab07", 2);
        assert!(keys.add(&bob(), &new).unwrap_err().to_string().contains("--name"));
        keys.add(&Add { name: Some(KeyId::new("alice-new").unwrap()), ..bob() }, &new).unwrap();
        assert_eq!(keys.names(), ["alice+lab07.toml", "alice-new.toml"]);
    }

    #[test]
    fn a_key_is_removed_for_all_hosts_or_for_one() {
        let keys = Keys::new();
        for host in ["lab07", "lab07.example", "a/b"] {
            keys.add(&bob(), &line_for("alice", host, 7)).unwrap();
        }
        keys.add(&bob(), &line("carol")).unwrap();
        assert!(
            keys.remove("dave", None).unwrap_err().to_string().contains("no entry for key dave")
        );
        assert!(keys.remove("alice", Some("lab08")).is_err());
        keys.remove("alice", Some("a/b")).unwrap();
        assert_eq!(
            keys.names(),
            ["alice+lab07.example.toml", "alice+lab07.toml", "carol+lab07.toml"]
        );
        let report = keys.remove("alice", None).unwrap().report;
        assert!(report.contains("until it reloads"), "{report}");
        assert_eq!(keys.names(), ["carol+lab07.toml"]);
    }

    #[test]
    fn errors_in_other_entries_are_reported() {
        let keys = Keys::new();
        keys.add(&bob(), &line("alice")).unwrap();
        private_file::create(&keys.dir().join("bad.toml"), "key = 1").unwrap();
        assert!(!keys.add(&bob(), &line("carol")).unwrap().diagnostics.is_empty());
        assert!(!keys.remove("carol", None).unwrap().diagnostics.is_empty());
        let repaired = Add { name: Some(KeyId::new("bad").unwrap()), replace: true, ..bob() };
        assert_eq!(keys.add(&repaired, &line("carol")).unwrap().diagnostics, []);
    }

    #[test]
    fn exactly_one_line_is_read() {
        assert_eq!(*read_line(&b"\none\n"[..], false).unwrap(), "\none\n");
        assert_eq!(*read_line("\u{feff}one\r\n".as_bytes(), false).unwrap(), "one\r\n");
        assert_eq!(*read_line(&b"one\ntwo\n"[..], true).unwrap(), "one\n");
        assert!(
            read_line(&b"one\ntwo\n"[..], false)
                .unwrap_err()
                .to_string()
                .contains("one key at a time")
        );
        assert!(read_line(&b"\n"[..], false).unwrap_err().to_string().contains("labsh key enroll"));
    }

    #[test]
    fn a_file_name_cannot_leave_the_directory() {
        for bad in ["../x", "a/b", ".hidden", "", "-x"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
        assert_eq!(file_name("a.toml").unwrap().as_str(), "a");
    }

    #[test]
    fn an_expiry_in_the_past_is_refused() {
        let last_second = entry::end_of("2031-02-28".parse().unwrap()).unwrap();
        let at = |text| Expiry::parse(text, last_second);
        assert!(at("2031-02-30").is_err() && at("soon").is_err() && at("2031-02-28").is_ok());
        assert!(at("2031-02-28T23:59:59Z").is_ok() && at("2031-03-01T00:59:59+01:00").is_ok());
        for over in ["2031-02-27", "2031-02-28T23:59:58Z", "2031-02-28T23:59:59+00:01"] {
            let problem = at(over).unwrap_err();
            assert!(
                problem.contains("in the past") && problem.contains("leave --expires out"),
                "{problem}"
            );
        }
    }
}
