//! Looks up users in the user database, and checks that their accounts may run commands.
//!
//! labshd does not use PAM. It reads the same files to refuse what login would: an expired or
//! locked account, a shell that permits no login, and nologin(5). It does not check the age of the
//! password, as none is used, nor limits.conf(5) and time.conf(5), which belong to PAM modules.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io, ptr};

use labsh_diagnostics::text_file;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{self, Group, geteuid, getgrouplist};

/// The paths of nologin(5).
pub(crate) const NOLOGIN: [&str; 2] = ["/etc/nologin", "/run/nologin"];

/// A user of the user database (nsswitch.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, including the primary one.
    pub(crate) groups: Vec<u32>,
    /// Home directory, which may be missing.
    pub(crate) home: PathBuf,
    /// The group of terminals, for programs like write(1): `tty`, if it exists.
    pub(crate) terminal_group: Option<u32>,
    /// Login shell; `/bin/sh` if the database names none (passwd(5)).
    pub(crate) shell: PathBuf,
}

/// Why a user cannot run commands, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("there is no user {name:?} on this machine")]
    Unknown {
        /// The name, or the user id of this process if it has no name.
        name: String,
    },
    /// The password field begins with `!` and continues.
    #[error(
        "the account of {name} is locked; `usermod -p '*' {name}` unlocks it without a password, \
         `usermod -U {name}` with its old password"
    )]
    Locked { name: String },
    /// The account has expired (shadow(5)).
    #[error("the account of {name} has expired; `chage -E -1 {name}` removes the expiry date")]
    Expired { name: String },
    /// The login shell permits no login.
    #[error(
        "{name} has no login shell ({}); name another user, or give it one with `chsh -s /bin/sh \
         {name}`",
        shell.display()
    )]
    NoShell { name: String, shell: PathBuf },
    /// nologin(5) refuses all users but root.
    #[error("this machine refuses logins at present: {reason} (remove {file} to allow them)")]
    NoLogins {
        file: &'static str,
        /// The first line of the file.
        reason: String,
    },
    /// No descriptor was free to read the user database.
    #[error("labshd has no descriptors left to look up the user {name:?}")]
    NoDescriptors { name: String },
    /// The user database failed.
    #[error("cannot look up the user {name:?}: {source}")]
    Lookup { name: String, source: io::Error },
}

/// Looks up a user to run commands as. Blocks while the user database responds, which may be on the
/// network.
///
/// Checks the account as well, as root. Other users can neither read shadow(5) nor change users.
pub(crate) fn lookup(name: &str) -> Result<User, UserError> {
    with_descriptors(name, || find(name))
}

fn find(name: &str) -> Result<User, UserError> {
    let user = unistd::User::from_name(name).map_err(|errno| lookup_failed(name, errno))?;
    let user = complete(user.ok_or_else(|| UserError::Unknown { name: name.to_owned() })?)?;
    if user.uid != 0
        && let Some((file, reason)) =
            NOLOGIN.iter().find_map(|file| Some((file, nologin_reason(Path::new(file))?)))
    {
        return Err(UserError::NoLogins { file, reason });
    }
    if geteuid().is_root() {
        check_account(&user, shadow(name)?.as_ref(), today())?;
    }
    Ok(user)
}

/// Looks up the user that this process runs as, and who has logged in already: the account is not
/// checked. Blocks like [`lookup`].
pub(crate) fn current() -> Result<User, UserError> {
    let uid = geteuid();
    let name = uid.to_string();
    with_descriptors(&name, || {
        let user = unistd::User::from_uid(uid).map_err(|errno| lookup_failed(&name, errno))?;
        complete(user.ok_or_else(|| UserError::Unknown { name: name.clone() })?)
    })
}

/// Queries the user database, and fails if no descriptor is free before or after the query. Without
/// a descriptor a source of the database cannot open its files, and the next source answers in its
/// place (nsswitch.conf(5)), possibly with other data: for systemd's, root's account is locked.
fn with_descriptors(
    name: &str,
    query: impl FnOnce() -> Result<User, UserError>,
) -> Result<User, UserError> {
    let check = || match fs::File::open("/dev/null") {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            Err(UserError::NoDescriptors { name: name.to_owned() })
        }
        _ => Ok(()),
    };
    check()?;
    let result = query();
    check()?;
    result
}

fn lookup_failed(name: &str, errno: Errno) -> UserError {
    UserError::Lookup { name: name.to_owned(), source: errno.into() }
}

fn complete(user: unistd::User) -> Result<User, UserError> {
    // The name comes from a C string, so it contains no NUL.
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    let groups = getgrouplist(&name, user.gid).map_err(|errno| lookup_failed(&user.name, errno))?;
    let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
    Ok(User {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        home: user.dir,
        terminal_group: Group::from_name("tty").ok().flatten().map(|group| group.gid.as_raw()),
        shell,
    })
}

/// The fields of shadow(5) that are checked.
#[derive(Debug, PartialEq, Eq)]
struct Shadow {
    locked: bool,
    /// The first day on which the account is no longer valid, counted from 1970-01-01.
    expires: Option<i64>,
}

impl Shadow {
    /// `!` before a password locks the account (`passwd -l`, `usermod -L`). `!` or `!!` alone does
    /// not: useradd writes it for an account that never had a password, as lab accounts are often
    /// created. To lock such an account, set an expiry date, as usermod(8) advises.
    fn new(password: &[u8], expires: i64) -> Shadow {
        let locked = password.starts_with(b"!") && password.iter().any(|&byte| byte != b'!');
        Shadow { locked, expires: (expires >= 0).then_some(expires) }
    }
}

/// Checks that an account may run commands.
fn check_account(user: &User, shadow: Option<&Shadow>, today: i64) -> Result<(), UserError> {
    let name = user.name.clone();
    if let Some(shadow) = shadow {
        if shadow.expires.is_some_and(|day| day <= today) {
            return Err(UserError::Expired { name });
        }
        if shadow.locked {
            return Err(UserError::Locked { name });
        }
    }
    match user.shell.file_name().map(OsStrExt::as_bytes) {
        Some(b"nologin" | b"false") => Err(UserError::NoShell { name, shell: user.shell.clone() }),
        _ => Ok(()),
    }
}

fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / 86_400).unwrap_or(i64::MAX)
}

/// Returns the reason in a nologin(5) file, if it exists. An unreadable file refuses logins too.
fn nologin_reason(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    // A pipe would hold every login up.
    let read = text_file::open_regular(path).and_then(|mut file| file.read_to_end(&mut text));
    match read {
        Ok(_) => {
            let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(first).trim().to_owned();
            Some(if line.is_empty() { "no reason is given".to_owned() } else { line })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    }
}

/// Reads the shadow entry; `None` if there is none, as with a directory service.
fn shadow(name: &str) -> Result<Option<Shadow>, UserError> {
    let Ok(c_name) = CString::new(name) else { return Ok(None) };
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::spwd>::uninit();
        let mut found: *mut libc::spwd = ptr::null_mut();
        // SAFETY: every pointer is valid for the call, and the buffer has the given length. The
        // reentrant variant has no global state.
        #[allow(unsafe_code)]
        let code = unsafe {
            libc::getspnam_r(
                c_name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        match code {
            0 | libc::ENOENT if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: after success with a result, `found` points to `entry`, which is filled
                // in and whose strings are in `buffer`. Both outlive this use.
                #[allow(unsafe_code)]
                let (password, expires) =
                    unsafe { (CStr::from_ptr((*found).sp_pwdp), (*found).sp_expire) };
                return Ok(Some(Shadow::new(password.to_bytes(), expires)));
            }
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            errno => return Err(lookup_failed(name, Errno::from_raw(errno))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: i64 = 20_000;

    fn user(shell: &str) -> User {
        let (home, shell) = (PathBuf::from("/home/ada"), PathBuf::from(shell));
        User {
            name: "ada".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![1000],
            home,
            terminal_group: Some(5),
            shell,
        }
    }

    fn check(password: &str, expires: i64) -> Result<(), UserError> {
        check_account(&user("/bin/bash"), Some(&Shadow::new(password.as_bytes(), expires)), TODAY)
    }

    #[test]
    fn accounts_with_and_without_password_or_shadow_entry_may_run_commands() {
        assert!(check("$y$j9T$abc", -1).is_ok());
        assert!(check("*", -1).is_ok());
        assert!(check("", -1).is_ok());
        assert!(check("!", -1).is_ok());
        assert!(check("!!", -1).is_ok());
        assert!(check_account(&user("/bin/bash"), None, TODAY).is_ok());
    }

    #[test]
    fn a_locked_account_is_refused_with_a_remedy() {
        for password in ["!*", "!!*", "!$y$j9T$abc"] {
            let error = check(password, -1).unwrap_err();
            assert!(matches!(error, UserError::Locked { .. }), "{password}: {error}");
            assert!(error.to_string().contains("usermod"));
        }
    }

    #[test]
    fn an_account_is_invalid_from_its_expiry_date() {
        assert!(check("*", TODAY + 1).is_ok());
        assert!(matches!(check("*", TODAY), Err(UserError::Expired { .. })));
        assert!(matches!(check("*", 0), Err(UserError::Expired { .. })));
    }

    #[test]
    fn a_shell_that_permits_no_login_is_refused() {
        for shell in ["/usr/sbin/nologin", "/sbin/nologin", "/bin/false"] {
            let error = check_account(&user(shell), None, TODAY).unwrap_err();
            assert!(matches!(error, UserError::NoShell { .. }), "{shell}: {error}");
        }
    }

    #[test]
    fn the_first_line_of_nologin_is_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nologin");
        assert_eq!(nologin_reason(&path), None);
        fs::write(&path, "Back at noon.\nAsk Ada.\n").unwrap();
        assert_eq!(nologin_reason(&path).as_deref(), Some("Back at noon."));
        fs::write(&path, "").unwrap();
        assert_eq!(nologin_reason(&path).as_deref(), Some("no reason is given"));
        let pipe = path.with_file_name("pipe");
        unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reason = nologin_reason(&pipe);
        assert_eq!(reason.as_deref(), Some("it is a named pipe, not a regular file"));
    }

    #[test]
    fn the_current_user_has_the_effective_user_id() {
        assert_eq!(current().unwrap().uid, geteuid().as_raw());
    }

    #[test]
    fn unknown_names_are_an_error() {
        for name in ["no-such-user-here", "", "with\0zero", "with:colon"] {
            assert!(matches!(lookup(name), Err(UserError::Unknown { .. })), "{name:?}");
        }
    }

    #[test]
    fn only_root_reads_the_shadow_file() {
        if geteuid().is_root() {
            assert!(shadow("no-such-user-here").unwrap().is_none());
            let root = shadow("root").unwrap();
            assert!(!Path::new("/etc/shadow").exists() || root.is_some());
        } else {
            // Not root's entry, which systemd's module for the user database makes up for everybody
            // (nss-systemd(8)).
            assert!(!matches!(shadow("daemon"), Ok(Some(_))));
        }
    }
}
