//! Caches users for a second: of many simultaneous connections of one user, only the first queries
//! the user database.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::users::{self, User, UserError};

/// Limit on the age of a cached user. A directory service does not announce its changes.
const MAX_USER_AGE: Duration = Duration::from_secs(1);

/// The files that decide about users on this machine (nsswitch.conf(5), nologin(5)). A change of
/// one of them invalidates the cache at once.
const USER_FILES: [&str; 6] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/nsswitch.conf",
    users::NOLOGIN[0],
    users::NOLOGIN[1],
];

/// Users by name; under `None`, the user that labshd runs as. The keys bound its size, as they name
/// the users. Errors are not cached.
#[derive(Debug, Default)]
pub(crate) struct UserCache(Mutex<HashMap<Option<String>, CachedUser>>);

#[derive(Debug)]
struct CachedUser {
    user: User,
    files: Vec<Option<FileVersion>>,
    queried: Instant,
}

/// The metadata by which a change of a file is recognized.
#[derive(Debug, PartialEq, Eq)]
struct FileVersion {
    device_and_inode: (u64, u64),
    size: u64,
    ctime: (i64, i64),
}

impl UserCache {
    /// Returns the cached user, if it is still valid.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<User> {
        self.find_at(name, &USER_FILES, Instant::now())
    }

    /// Queries the user database with [`users::lookup`] or [`users::current`], and blocks like
    /// them.
    pub(crate) fn look_up(&self, name: Option<String>) -> Result<User, UserError> {
        // Read before the query, so that a change during it invalidates the result.
        let (files, queried) = (versions(&USER_FILES), Instant::now());
        let user = match &name {
            Some(name) => users::lookup(name),
            None => users::current(),
        }?;
        self.insert(name, CachedUser { user: user.clone(), files, queried });
        Ok(user)
    }

    fn find_at(&self, name: Option<&str>, files: &[&str], now: Instant) -> Option<User> {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = users.get(&name.map(str::to_owned))?;
        let recent = now.duration_since(cached.queried) < MAX_USER_AGE;
        (recent && versions(files) == cached.files).then(|| cached.user.clone())
    }

    fn insert(&self, name: Option<String>, user: CachedUser) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, user);
    }
}

fn versions(files: &[&str]) -> Vec<Option<FileVersion>> {
    let version = |file: &&str| {
        let metadata = fs::metadata(file).ok()?;
        Some(FileVersion {
            device_and_inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    files.iter().map(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_cached_for_a_second_or_until_a_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let [passwd, nologin] = ["passwd", "nologin"].map(|name| directory.path().join(name));
        let files = [passwd.to_str().unwrap(), nologin.to_str().unwrap()];
        fs::write(&passwd, "ada").unwrap();
        let (cache, user, queried) =
            (UserCache::default(), users::current().unwrap(), Instant::now());
        let insert = || {
            let cached = CachedUser { user: user.clone(), files: versions(&files), queried };
            cache.insert(Some("ada".into()), cached);
        };
        let found = |name, after| cache.find_at(name, &files, queried + after);

        insert();
        assert_eq!(found(Some("ada"), MAX_USER_AGE / 2), Some(user.clone()));
        assert_eq!(found(Some("ada"), MAX_USER_AGE), None);
        assert_eq!(found(Some("bob"), MAX_USER_AGE / 2), None);
        assert_eq!(found(None, MAX_USER_AGE / 2), None);

        // As usermod(8) changes it: a new file replaces it.
        fs::write(directory.path().join("new"), "ada").unwrap();
        fs::rename(directory.path().join("new"), &passwd).unwrap();
        assert_eq!(found(Some("ada"), MAX_USER_AGE / 2), None);
        insert();
        fs::write(&nologin, "").unwrap();
        assert_eq!(found(Some("ada"), MAX_USER_AGE / 2), None);
        insert();
        fs::remove_file(&nologin).unwrap();
        assert_eq!(found(Some("ada"), MAX_USER_AGE / 2), None);
    }
}
