//! The refusal for a command that could not be started.

use std::io;

use labsh_proto::message::{Refuse, RefuseCode};
use nix::libc;

use crate::copying;
use crate::spawner::SpawnError;
use crate::users::User;

/// Builds the refusal for a command that did not start as this user.
pub(crate) fn of(error: SpawnError, user: &User) -> Refuse {
    let (code, remedy) = match &error {
        SpawnError::NotFound { program } if copying::is_own_program(program) => (
            RefuseCode::NOT_FOUND,
            "this is labshd itself, which copies files, and it was moved or removed: put it back, \
             or restart labshd",
        ),
        SpawnError::NotFound { .. } => {
            (RefuseCode::NOT_FOUND, "check the name, and PATH on that host")
        }
        SpawnError::NotExecutable { .. } => (
            RefuseCode::NOT_EXECUTABLE,
            "check that it is a program, and that its mode permits execution",
        ),
        SpawnError::Directory { source, .. } => (RefuseCode::DIRECTORY, directory_remedy(source)),
        SpawnError::TooLarge => {
            (RefuseCode::BAD_COMMAND, "send long data on standard input, or in a file")
        }
        SpawnError::Resources { .. } => {
            (RefuseCode::RESOURCES, "try again when that host is less busy")
        }
        SpawnError::Identity { .. } | SpawnError::Lost | SpawnError::Other { .. } => {
            (RefuseCode::INTERNAL, "see labshd's log on that host")
        }
    };
    let shell = match &error {
        SpawnError::NotFound { program } | SpawnError::NotExecutable { program, .. } => {
            *program == user.shell.to_string_lossy()
        }
        _ => false,
    };
    let remedy = if shell {
        let name = &user.name;
        format!(
            "this is the login shell of {name} on that host: `chsh -s /bin/sh {name}` gives the \
             account another"
        )
    } else {
        remedy.to_owned()
    };
    Refuse::new(code, error.to_string(), remedy)
}

/// Returns what to do about a working directory that cannot be entered (chdir(2)).
fn directory_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "name a directory that the user of the command may enter (`chmod` and `chown` change \
             that), or use a key whose entry names another user"
        }
        Some(libc::ENOTDIR) => "name a directory; a part of this path is another kind of file",
        Some(libc::ELOOP) => "correct the symbolic link in it that leads back to itself",
        Some(libc::ENAMETOOLONG) => "name a shorter path: 4,095 bytes, 255 for each name in it",
        Some(libc::ENOENT) => "name a directory that exists on that host",
        _ => "name another directory, or see why that host's file system fails",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "bob".to_owned(),
            uid: 1000,
            gid: 1000,
            groups: Vec::new(),
            home: "/home/bob".into(),
            terminal_group: None,
            shell: "/usr/bin/nosh".into(),
        }
    }

    fn missing(program: &str) -> String {
        of(SpawnError::NotFound { program: program.to_owned() }, &user()).remedy
    }

    #[test]
    fn each_reason_not_to_enter_a_directory_has_its_remedy() {
        for (errno, part) in [
            (libc::EACCES, "may enter"),
            (libc::ENOTDIR, "another kind of file"),
            (libc::ENOENT, "that exists"),
            (libc::ELOOP, "symbolic link"),
            (libc::ENAMETOOLONG, "shorter"),
            (libc::EIO, "file system"),
        ] {
            let source = io::Error::from_raw_os_error(errno);
            let refuse = of(SpawnError::Directory { path: "/srv".into(), source }, &user());
            assert_eq!(refuse.code, RefuseCode::DIRECTORY);
            assert!(refuse.remedy.contains(part), "{refuse:?}");
        }
    }

    #[test]
    fn a_missing_login_shell_is_named_as_the_login_shell() {
        let remedy = missing("/usr/bin/nosh");
        assert!(
            remedy.contains("login shell of bob") && remedy.contains("chsh -s /bin/sh bob"),
            "{remedy}"
        );
    }

    #[test]
    fn a_labshd_that_was_removed_while_running_is_named() {
        let own = copying::words().unwrap_or_default().remove(0);
        assert!(missing(&own).contains("labshd itself"), "{}", missing(&own));
        assert!(missing("/bin/other").contains("check the name"));
    }
}
