//! The keys that may connect, read from the entries in `keys.d`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use labsh_diagnostics::{Diagnostic, Diagnostics};
use labsh_proto::key::{HostKey, Secret};
use labsh_proto::message::Name;
use labsh_transport::random;

use crate::account::{RunsAs, UserExists};
use crate::decoy_identity;
use crate::diagnostics::Problem;
use crate::entry::Entry;
use crate::private_file;

/// The keys that may connect, and the secret of the identities for unknown names.
#[derive(Debug, Clone)]
pub(crate) struct Keyring {
    entries: Vec<Arc<Entry>>,
    by_name: HashMap<Name, Arc<Entry>>,
    decoy_secret: Secret,
}

impl Keyring {
    /// Reads one entry from each `NAME.toml` in a directory that only its owner, root or this user
    /// can change. A missing directory contains no keys. Hidden and other files are ignored, except
    /// the decoy secret, which is created if it does not exist.
    pub(crate) fn load(dir: &Path, runs_as: &RunsAs) -> Result<Self, Diagnostics> {
        // Users are looked up when they connect, as the user database may start after labshd.
        let found = read_directory(dir, runs_as, &|_| Ok(()));
        if !found.diagnostics.is_empty() {
            return Err(Diagnostics(found.diagnostics));
        }
        // Without a directory there are no keys, so there are no known names to hide.
        let decoy_secret = if dir.exists() {
            decoy_identity::load_or_create(dir)
        } else {
            decoy_identity::of_this_process()
        };
        let decoy_secret = decoy_secret.map_err(|error| {
            let reason = format!("cannot create a secret for unknown names: {error}");
            Problem::new(reason, "see why the operating system provides no random bytes")
                .at(dir, None)
        })?;
        let by_name =
            found.entries.iter().map(|entry| (entry.key.name(), Arc::clone(entry))).collect();
        Ok(Self { entries: found.entries, by_name, decoy_secret })
    }

    /// Returns a keyring of one key without rules, for a server inside another program.
    pub(crate) fn of_one(key: HostKey) -> Self {
        let name = key.name();
        let entry = Arc::new(Entry {
            key,
            user: None,
            from: Vec::new(),
            expires: None,
            file: PathBuf::new(),
        });
        let by_name = HashMap::from([(name, Arc::clone(&entry))]);
        Self { entries: vec![entry], by_name, decoy_secret: Secret::new(random::bytes()) }
    }

    /// Returns the entry of a key's name.
    pub(crate) fn find(&self, name: &Name) -> Option<Arc<Entry>> {
        self.by_name.get(name).map(Arc::clone)
    }

    /// Returns all entries, in the order of their files' names.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }

    /// Returns the secret of the identities for unknown names
    /// ([`labsh_proto::key::dummy_tls_seed`], `HostKey::dummy`).
    pub(crate) fn decoy_secret(&self) -> &Secret {
        &self.decoy_secret
    }
}

/// The valid entries of a directory, and the errors in the others.
#[derive(Debug, Default)]
pub(crate) struct DirectoryEntries {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads all entries of a directory, without changing it.
pub(crate) fn read_directory(
    dir: &Path,
    runs_as: &RunsAs,
    user_exists: UserExists<'_>,
) -> DirectoryEntries {
    let mut found = DirectoryEntries::default();
    let files = match list(dir) {
        Ok(files) => files,
        Err(problem) => {
            found.diagnostics.push(problem.at(dir, None));
            return found;
        }
    };
    let mut seen: HashMap<Name, PathBuf> = HashMap::new();
    for file in files {
        match Entry::read(&file, runs_as, user_exists) {
            Err(diagnostics) => found.diagnostics.extend(diagnostics.0),
            Ok(entry) => match seen.insert(entry.key.name(), file.clone()) {
                None => found.entries.push(Arc::new(entry)),
                Some(first) => {
                    let reason = format!("the same key is already in {}", first.display());
                    found
                        .diagnostics
                        .push(Problem::new(reason, "remove one of the two files").at(&file, None));
                }
            },
        }
    }
    found
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable =
        |error: io::Error| Problem::new(format!("it cannot be read: {error}"), "make it readable");
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => {
            private_file::check_directory(dir)?;
            listing.map_err(unreadable)?
        }
    };
    let mut files = Vec::new();
    for item in listing {
        let path = item.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::entry::tests::line;

    fn me() -> RunsAs {
        RunsAs::User("me".to_owned())
    }

    fn keys(files: &[(&str, &str)]) -> TempDir {
        // Private whatever the umask.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        for (name, key) in files {
            private_file::create(&dir.path().join(name), &format!("key = \"{}\"\n", line(key)))
                .unwrap();
        }
        dir
    }

    fn diagnostics(dir: &TempDir) -> String {
        Keyring::load(dir.path(), &me()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_directory_is_said_to_be_none() {
        let dir = keys(&[("a.toml", "alice")]);
        let error = Keyring::load(&dir.path().join("a.toml"), &me()).unwrap_err().to_string();
        assert!(error.ends_with("it is not a directory; replace it with a directory"), "{error}");
    }

    #[test]
    fn every_key_is_found_by_its_name() {
        let dir = keys(&[("a.toml", "alice"), ("b.toml", "bob")]);
        let keyring = Keyring::load(dir.path(), &me()).unwrap();
        assert_eq!(keyring.entries().len(), 2);
        for entry in keyring.entries() {
            assert_eq!(keyring.find(&entry.key.name()).as_ref(), Some(entry));
        }
        assert_eq!(keyring.find(&Name([0; 16])), None);
        let again = Keyring::load(dir.path(), &me()).unwrap();
        assert_eq!(again.decoy_secret(), keyring.decoy_secret());
        assert!(again.entries().eq(keyring.entries()));
    }

    #[test]
    fn no_directory_means_no_keys() {
        let keyring = Keyring::load(Path::new("/nonexistent/keys.d"), &me()).unwrap();
        assert_eq!(keyring.entries().len(), 0);
    }

    #[test]
    fn other_files_are_ignored() {
        let dir = keys(&[("a.toml", "alice")]);
        for name in [".hidden.toml", "a.toml~", "README", "a.toml.bak"] {
            fs::write(dir.path().join(name), "?").unwrap();
        }
        assert_eq!(Keyring::load(dir.path(), &me()).unwrap().entries().len(), 1);
    }

    #[test]
    fn a_key_in_two_files_is_reported_with_both() {
        let dir = keys(&[("a.toml", "alice"), ("b.toml", "alice")]);
        let text = diagnostics(&dir);
        assert!(text.contains("/a.toml") && text.contains("/b.toml"), "{text}");
    }

    #[test]
    fn every_invalid_file_is_reported() {
        let dir = keys(&[("a.toml", "alice"), ("b.toml", "bob"), ("c.toml", "carol")]);
        fs::set_permissions(dir.path().join("a.toml"), fs::Permissions::from_mode(0o644)).unwrap();
        private_file::replace(&dir.path().join("b.toml"), "key = 'x'").unwrap();
        let found = read_directory(dir.path(), &me(), &|_| Ok(()));
        assert_eq!((found.entries.len(), found.diagnostics.len()), (1, 2));
        assert_eq!(diagnostics(&dir).lines().count(), 2);
        assert!(!dir.path().join(".dummy").exists(), "nothing is written if there are errors");
    }

    #[test]
    fn a_directory_that_other_users_can_write_to_is_refused() {
        let dir = keys(&[("a.toml", "alice")]);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(diagnostics(&dir).contains("chmod go-w"));
    }
}
