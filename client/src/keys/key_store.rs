//! The store of a user's keys, with the hosts that each key is enrolled for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use etcetera::base_strategy::{BaseStrategy, Xdg};
use labsh_diagnostics::text_file;
use labsh_proto::key::{BadId, HostId, Key, KeyId, Secret};
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use crate::keys::key_file::{self, KeyFileError, cannot_write};

/// The name of a key: its id, or the path of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyName {
    /// A key in the store.
    Id(KeyId),
    /// A file anywhere; its path contains a slash.
    Path(PathBuf),
}

impl FromStr for KeyName {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.contains('/') {
            Ok(Self::Path(text.into()))
        } else {
            KeyId::new(text).map(Self::Id)
        }
    }
}

/// Reads the name of a key in a configuration file, where a path begins with `/` or with `~/`.
///
/// # Errors
///
/// A message that says what is wrong, and how to write the name.
pub(crate) fn key_in_file(text: &str) -> Result<KeyName, String> {
    match text.parse().map_err(|error| format!("{text:?} is not a key: {error}"))? {
        // labsh runs in any directory, so a relative path in a configuration has no meaning.
        KeyName::Path(path) if path.is_relative() => {
            let in_home = std::env::home_dir()
                .zip(text.strip_prefix("~/"))
                .map(|(home, rest)| home.join(rest));
            in_home
                .map(KeyName::Path)
                .ok_or_else(|| format!("{text:?}: write the key's file from / or from ~/"))
        }
        name => Ok(name),
    }
}

/// A file of the store, valid or not.
#[derive(Debug)]
pub struct StoredKey {
    /// The file's name without `.key`; it is the key's id unless there is a problem.
    pub name: String,
    /// The path of the file.
    pub path: PathBuf,
    /// The hosts that the key is enrolled for.
    pub hosts: Vec<HostId>,
    /// Why the key cannot be used.
    pub problem: Option<KeyFileError>,
}

/// The directory with a user's keys: `KEY-ID.key` contains a key, `KEY-ID.hosts` the hosts that it
/// is enrolled for.
#[derive(Debug, Clone)]
pub struct KeyStore {
    directory: PathBuf,
}

impl KeyStore {
    /// Returns the user's store, `$XDG_CONFIG_HOME/labsh/keys`. The directory need not exist.
    pub fn open() -> Result<Self, KeyFileError> {
        let base = Xdg::new().map_err(|_| KeyFileError::NoHome)?;
        Ok(Self::at(base.config_dir().join("labsh").join("keys")))
    }

    /// Returns the store in this directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Returns the path of the key with this id, whether or not it exists.
    pub fn path(&self, id: &KeyId) -> PathBuf {
        self.directory.join(format!("{id}.key"))
    }

    fn hosts_path(&self, id: &KeyId) -> PathBuf {
        self.directory.join(format!("{id}.hosts"))
    }

    /// Creates a key of 32 bytes from the operating system's random number generator. An existing
    /// key is never overwritten.
    pub fn create(&self, id: &KeyId) -> Result<PathBuf, KeyFileError> {
        let path = self.path(id);
        let mut secret = Zeroizing::new([0; 32]);
        SysRng.try_fill_bytes(secret.as_mut_slice()).map_err(KeyFileError::Random)?;
        let line = Zeroizing::new(Key::new(id.clone(), Secret::new(*secret)).to_line());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|cause| cannot_write(&self.directory, cause))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(
                |cause| match cause.kind() {
                    io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.clone() },
                    _ => cannot_write(&path, cause),
                },
            )?;
        let written =
            writeln!(file, "{}", *line).and_then(|()| file.sync_all()).and_then(|()| self.sync());
        written.map_err(|cause| {
            // An incomplete key is useless, and would make the next attempt fail.
            let _ = fs::remove_file(&path);
            cannot_write(&path, cause)
        })?;
        Ok(path)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Returns the file of the named key, or of the only key if none is named.
    pub fn resolve(&self, name: Option<&KeyName>) -> Result<PathBuf, KeyFileError> {
        match name {
            Some(KeyName::Path(path)) => Ok(path.clone()),
            Some(KeyName::Id(id)) => self.existing(id),
            None => self.existing(&self.only()?),
        }
    }

    fn existing(&self, id: &KeyId) -> Result<PathBuf, KeyFileError> {
        let path = self.path(id);
        // A dangling link counts as existing; `load` returns a better error for it.
        match fs::symlink_metadata(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(KeyFileError::Unknown { id: id.clone(), directory: self.directory.clone() })
            }
            _ => Ok(path),
        }
    }

    /// Returns the id of the only key.
    pub fn only(&self) -> Result<KeyId, KeyFileError> {
        let mut names = self.names()?;
        match (names.pop(), names.is_empty()) {
            (None, _) => Err(KeyFileError::NoKey { directory: self.directory.clone() }),
            (Some(name), true) => KeyId::new(&name).map_err(|error| KeyFileError::Name {
                path: self.directory.join(name + ".key"),
                error,
            }),
            (Some(last), false) => {
                names.push(last);
                Err(KeyFileError::SeveralKeys { ids: names })
            }
        }
    }

    /// Reads a key of the store, and checks that its file is named after it.
    pub fn load(&self, id: &KeyId) -> Result<Key, KeyFileError> {
        let path = self.existing(id)?;
        let key = key_file::load(&path)?;
        if key.id() != id {
            return Err(KeyFileError::Renamed { path, found: key.id().clone() });
        }
        Ok(key)
    }

    /// Returns every file of the store that is named like a key, in alphabetical order.
    pub fn list(&self) -> Result<Vec<StoredKey>, KeyFileError> {
        Ok(self.names()?.into_iter().map(|name| self.describe(name)).collect())
    }

    fn describe(&self, name: String) -> StoredKey {
        let path = self.directory.join(format!("{name}.key"));
        let id = match KeyId::new(&name) {
            Ok(id) => id,
            Err(error) => {
                let problem = Some(KeyFileError::Name { path: path.clone(), error });
                return StoredKey { name, path, hosts: Vec::new(), problem };
            }
        };
        let (hosts, unreadable) = match self.hosts(&id) {
            Ok(hosts) => (hosts, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        StoredKey { name, path, hosts, problem: self.load(&id).err().or(unreadable) }
    }

    fn names(&self) -> Result<Vec<String>, KeyFileError> {
        let cannot = |cause| KeyFileError::System {
            action: "read the directory of keys",
            path: self.directory.clone(),
            cause,
            remedy: "check its permissions",
        };
        let mut names = Vec::new();
        match fs::read_dir(&self.directory) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cannot(cause)),
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(cannot)?.file_name();
                    // Hidden files are leftovers of editors and file managers.
                    let name = name.to_string_lossy();
                    names.extend(
                        name.strip_suffix(".key")
                            .filter(|id| !id.starts_with('.'))
                            .map(str::to_owned),
                    );
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// Returns the hosts that this key is enrolled for, in alphabetical order.
    pub fn hosts(&self, id: &KeyId) -> Result<Vec<HostId>, KeyFileError> {
        let path = self.hosts_path(id);
        let text = match text_file::read_text(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => {
                let (action, remedy) =
                    ("read the list of hosts", "check the file and its permissions");
                return Err(KeyFileError::System { action, path, cause, remedy });
            }
            Ok(text) => text,
        };
        let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let mut hosts = numbered
            .map(|(at, line)| {
                HostId::new(line.trim()).map_err(|error| KeyFileError::Host {
                    path: path.clone(),
                    line: at + 1,
                    text: line.to_owned(),
                    error,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    /// Adds hosts to the list of those that this key is enrolled for, so that `revoke` can name
    /// them.
    pub fn remember_hosts<'a>(
        &self,
        id: &KeyId,
        new: impl IntoIterator<Item = &'a HostId>,
    ) -> Result<(), KeyFileError> {
        let cannot = |cause| cannot_write(&self.hosts_path(id), cause);
        // A whole lab may be enrolled in parallel; no process must lose another's line.
        let directory = File::open(&self.directory).map_err(cannot)?;
        directory.lock().map_err(cannot)?;
        let known = self.hosts(id)?;
        let mut hosts = known.clone();
        hosts.extend(new.into_iter().cloned());
        hosts.sort();
        hosts.dedup();
        if hosts == known {
            return Ok(());
        }
        let text: String = hosts.iter().map(|host| format!("{host}\n")).collect();
        let new = self.directory.join(format!("{id}.hosts.new"));
        let write = || -> io::Result<()> {
            // What is in the way may be a pipe, which could not be opened without a reader.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.hosts_path(id))?;
            directory.sync_all()
        };
        write().map_err(cannot)
    }

    /// Deletes a key and the list of its hosts.
    pub fn delete(&self, id: &KeyId) -> Result<(), KeyFileError> {
        let path = self.existing(id)?;
        fs::remove_file(&path).map_err(|cause| cannot_write(&path, cause))?;
        match fs::remove_file(self.hosts_path(id)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(cannot_write(&self.hosts_path(id), cause))
            }
            _ => self.sync().map_err(|cause| cannot_write(&self.directory, cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::new(text).unwrap()
    }

    fn host(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    fn store() -> (TempDir, KeyStore) {
        let directory = TempDir::new().unwrap();
        let store = KeyStore::at(directory.path().join("labsh/keys"));
        (directory, store)
    }

    #[test]
    fn a_new_key_is_private_and_reads_back() {
        let (_directory, store) = store();
        let path = store.create(&id("alice@lab")).unwrap();
        assert!(path.ends_with("labsh/keys/alice@lab.key"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(store.load(&id("alice@lab")).unwrap().id(), &id("alice@lab"));
        store.create(&id("bob")).unwrap();
        assert_ne!(
            store.load(&id("alice@lab")).unwrap().for_host(&host("h")).name(),
            store.load(&id("bob")).unwrap().for_host(&host("h")).name()
        );
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let (_directory, store) = store();
        let path = store.create(&id("alice")).unwrap();
        let before = fs::read(&path).unwrap();
        let error = store.create(&id("alice")).unwrap_err();
        assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn the_only_key_needs_no_name_and_several_are_listed_in_the_error() {
        let (_directory, store) = store();
        let text = store.resolve(None).unwrap_err().to_string();
        assert!(text.contains("labsh key new"), "{text}");
        let path = store.create(&id("bob")).unwrap();
        assert_eq!(store.resolve(None).unwrap(), path);
        store.create(&id("alice")).unwrap();
        let text = store.resolve(None).unwrap_err().to_string();
        assert!(text.contains("(alice, bob)") && text.contains("--key"), "{text}");
        assert_eq!(store.resolve(Some(&"bob".parse().unwrap())).unwrap(), path);
        let text = store.resolve(Some(&"carol".parse().unwrap())).unwrap_err().to_string();
        assert!(text.contains("no key carol") && text.contains("./carol"), "{text}");
        let elsewhere = store.resolve(Some(&"./carol".parse().unwrap())).unwrap();
        assert_eq!(elsewhere, PathBuf::from("./carol"));
    }

    #[test]
    fn concurrent_writers_add_each_host_once() {
        let (_directory, store) = store();
        store.create(&id("alice")).unwrap();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let store = &store;
                scope.spawn(move || {
                    store
                        .remember_hosts(&id("alice"), &[host(&format!("lab{:02}", number % 8))])
                        .unwrap();
                });
            }
        });
        let hosts = store.hosts(&id("alice")).unwrap();
        assert_eq!(
            hosts,
            (0..8).map(|number| host(&format!("lab{number:02}"))).collect::<Vec<_>>()
        );
        assert!(store.hosts(&id("bob")).unwrap().is_empty());
    }

    #[test]
    fn invalid_files_are_listed_with_their_problem() {
        let (_directory, store) = store();
        let alice = store.create(&id("alice")).unwrap();
        let bob = store.create(&id("bob")).unwrap();
        fs::rename(&bob, bob.with_file_name("carol.key")).unwrap();
        fs::write(alice.with_file_name("has blank.key"), "").unwrap();
        fs::write(alice.with_file_name("open.key"), "").unwrap();
        fs::set_permissions(alice.with_file_name("open.key"), Permissions::from_mode(0o644))
            .unwrap();
        fs::write(alice.with_file_name(".hidden.key"), "").unwrap();
        let problems: Vec<_> =
            store.list().unwrap().into_iter().map(|key| (key.name, key.problem)).collect();
        assert!(matches!(
            problems.iter().map(|(name, problem)| (name.as_str(), problem)).collect::<Vec<_>>()[..],
            [
                ("alice", None),
                ("carol", Some(KeyFileError::Renamed { .. })),
                ("has blank", Some(KeyFileError::Name { .. })),
                ("open", Some(KeyFileError::Mode { .. })),
            ]
        ));
    }

    #[test]
    fn an_invalid_list_of_hosts_is_reported_with_its_line() {
        let (_directory, store) = store();
        let path = store.create(&id("alice")).unwrap();
        fs::write(path.with_extension("hosts"), "lab01\n\nlab 02\n").unwrap();
        let text = store.hosts(&id("alice")).unwrap_err().to_string();
        assert!(text.contains("alice.hosts:3: \"lab 02\""), "{text}");
    }

    #[test]
    fn a_key_is_deleted_with_its_list_of_hosts() {
        let (_directory, store) = store();
        let path = store.create(&id("alice")).unwrap();
        store.remember_hosts(&id("alice"), &[host("lab01")]).unwrap();
        store.delete(&id("alice")).unwrap();
        assert!(!path.exists());
        assert!(store.hosts(&id("alice")).unwrap().is_empty());
        assert!(matches!(store.delete(&id("alice")), Err(KeyFileError::Unknown { .. })));
    }
}
