//! What the user database said a moment ago: of many connections of one user, the first asks it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::users::{self, User, UserError};

/// For how long an answer counts: a directory service does not tell when it has changed its mind.
const MOMENT: Duration = Duration::from_secs(1);

/// What this machine itself knows of users, and of who is kept out (nsswitch.conf(5), nologin(5)).
/// A change here counts at once.
const FILES: [&str; 6] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/nsswitch.conf",
    users::NOLOGIN[0],
    users::NOLOGIN[1],
];

/// Answers by name, as many as keys name; under none, the user who labshd runs as. Refusals are not
/// kept.
#[derive(Debug, Default)]
pub(crate) struct RecentUsers(Mutex<HashMap<Option<String>, Answer>>);

#[derive(Debug)]
struct Answer {
    user: User,
    files: Vec<Option<Version>>,
    given: Instant,
}

/// Tells one state of a file from any other.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl RecentUsers {
    /// The answer of a moment ago, if it still counts.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<User> {
        self.find_at(name, &FILES, Instant::now())
    }

    /// Asks the user database, as [`users::lookup`] and [`users::current`], and blocks as they do.
    pub(crate) fn ask(&self, name: Option<String>) -> Result<User, UserError> {
        // Before it is asked: what changes meanwhile makes its answer old.
        let (files, given) = (versions(&FILES), Instant::now());
        let user = match &name {
            Some(name) => users::lookup(name),
            None => users::current(),
        }?;
        self.keep(name, Answer { user: user.clone(), files, given });
        Ok(user)
    }

    fn find_at(&self, name: Option<&str>, files: &[&str], now: Instant) -> Option<User> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(&name.map(str::to_owned))?;
        let counts = now.duration_since(answer.given) < MOMENT && versions(files) == answer.files;
        counts.then(|| answer.user.clone())
    }

    fn keep(&self, name: Option<String>, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, answer);
    }
}

fn versions(files: &[&str]) -> Vec<Option<Version>> {
    let version = |file: &&str| {
        let known = fs::metadata(file).ok()?;
        let changed = (known.ctime(), known.ctime_nsec());
        Some(Version { place: (known.dev(), known.ino()), size: known.size(), changed })
    };
    files.iter().map(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_a_moment_and_until_a_file_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let [passwd, nologin] = ["passwd", "nologin"].map(|name| directory.path().join(name));
        let files = [passwd.to_str().unwrap(), nologin.to_str().unwrap()];
        fs::write(&passwd, "ada").unwrap();
        let (recent, user, given) =
            (RecentUsers::default(), users::current().unwrap(), Instant::now());
        let keep = || {
            let answer = Answer { user: user.clone(), files: versions(&files), given };
            recent.keep(Some("ada".into()), answer);
        };
        let found = |name, after| recent.find_at(name, &files, given + after);

        keep();
        assert_eq!(found(Some("ada"), MOMENT / 2), Some(user.clone()));
        assert_eq!(found(Some("ada"), MOMENT), None);
        assert_eq!(found(Some("bob"), MOMENT / 2), None);
        assert_eq!(found(None, MOMENT / 2), None);

        // As usermod(8) changes it: a new file takes its place.
        fs::write(directory.path().join("new"), "ada").unwrap();
        fs::rename(directory.path().join("new"), &passwd).unwrap();
        assert_eq!(found(Some("ada"), MOMENT / 2), None);
        keep();
        fs::write(&nologin, "").unwrap();
        assert_eq!(found(Some("ada"), MOMENT / 2), None);
        keep();
        fs::remove_file(&nologin).unwrap();
        assert_eq!(found(Some("ada"), MOMENT / 2), None);
    }
}
