//! Who a user of this machine is, and whether they may run commands: changes with the rules for
//! accounts.
//!
//! There is no PAM here. What login would otherwise refuse by it is checked from the same files: an
//! expired or locked account, a shell that is none, and nologin(5). The age of a *password* is not
//! checked, as none is used; nor are limits.conf(5) and time.conf(5), which belong to PAM modules.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io, ptr};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{self, Group, geteuid, getgrouplist};

/// Where nologin(5) may stand.
pub(crate) const NOLOGIN: [&str; 2] = ["/etc/nologin", "/run/nologin"];

/// A user, as the user database (nsswitch.conf(5)) has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory; it need not exist.
    pub home: PathBuf,
    /// The group of terminals, through which write(1) may write to this user's; `tty` where there
    /// is one.
    pub terminal_group: Option<u32>,
    /// Login shell; `/bin/sh` where the database names none (passwd(5)).
    pub shell: PathBuf,
}

/// Why a user cannot run commands, and what would change that.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("there is no user {name:?} on this machine")]
    Unknown {
        /// The name asked for, or the number where it is this process's own.
        name: String,
    },
    /// The password field begins with `!`, and something stands behind that.
    #[error(
        "the account of {name} is locked; `usermod -p '*' {name}` unlocks it without giving it a \
         password, \
         `usermod -U {name}` with the one it had"
    )]
    Locked {
        /// The user.
        name: String,
    },
    /// The account's last day has passed (shadow(5)).
    #[error("the account of {name} has expired; `chage -E -1 {name}` makes it valid for good")]
    Expired {
        /// The user.
        name: String,
    },
    /// The login shell refuses to be one.
    #[error(
        "{name} has no login shell ({}); name another user, or give it one with `chsh -s /bin/sh \
         {name}`",
        shell.display()
    )]
    NoShell {
        /// The user.
        name: String,
        /// The shell in the database.
        shell: PathBuf,
    },
    /// nologin(5) keeps everybody but root out.
    #[error("this machine lets nobody in for now: {reason} (remove {file} to change that)")]
    NoLogins {
        /// Which file says so.
        file: &'static str,
        /// The file's first line.
        reason: String,
    },
    /// There was no descriptor to read the user database with.
    #[error("labshd has no descriptors left to look up the user {name:?}")]
    NoDescriptors {
        /// The name asked for.
        name: String,
    },
    /// The user database did not answer.
    #[error("cannot look up the user {name:?}: {source}")]
    Lookup {
        /// The name asked for.
        name: String,
        /// The reason.
        source: io::Error,
    },
}

/// Looks up a user who is to run commands. Blocks for as long as the user database takes (it may be
/// on the network): call it from a thread that may.
///
/// As root, which alone may read shadow(5) and become somebody else, it also applies the rules for
/// accounts.
///
/// # Errors
///
/// [`UserError::Unknown`], [`UserError::Lookup`] and [`UserError::NoDescriptors`];
/// [`UserError::NoLogins`]; and as root [`UserError::Locked`], [`UserError::Expired`] and
/// [`UserError::NoShell`].
pub fn lookup(name: &str) -> Result<User, UserError> {
    with_descriptors(name, || find(name))
}

fn find(name: &str) -> Result<User, UserError> {
    let user = unistd::User::from_name(name).map_err(|errno| failed(name, errno))?;
    let user = complete(user.ok_or_else(|| UserError::Unknown { name: name.to_owned() })?)?;
    if user.uid != 0
        && let Some((file, reason)) =
            NOLOGIN.iter().find_map(|file| Some((file, closed(Path::new(file))?)))
    {
        return Err(UserError::NoLogins { file, reason });
    }
    if geteuid().is_root() {
        admit(&user, shadow(name)?.as_ref(), today())?;
    }
    Ok(user)
}

/// The user that this process runs as. No rule for accounts applies: they are in already. Blocks
/// like [`lookup`].
///
/// # Errors
///
/// [`UserError::Unknown`] when the effective user id has no entry, [`UserError::Lookup`] and
/// [`UserError::NoDescriptors`].
pub fn current() -> Result<User, UserError> {
    let uid = geteuid();
    let name = uid.to_string();
    with_descriptors(&name, || {
        let user = unistd::User::from_uid(uid).map_err(|errno| failed(&name, errno))?;
        complete(user.ok_or_else(|| UserError::Unknown { name: name.clone() })?)
    })
}

/// Asks the user database only where descriptors are left, before and behind. A source that cannot
/// open its files for want of one passes the question on to the next (nsswitch.conf(5)), and that
/// one may answer something else: systemd's knows a root whose account is locked.
fn with_descriptors(
    name: &str,
    ask: impl FnOnce() -> Result<User, UserError>,
) -> Result<User, UserError> {
    let left = || match fs::File::open("/dev/null") {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            Err(UserError::NoDescriptors { name: name.to_owned() })
        }
        _ => Ok(()),
    };
    left()?;
    let answer = ask();
    left()?;
    answer
}

fn failed(name: &str, errno: Errno) -> UserError {
    UserError::Lookup { name: name.to_owned(), source: errno.into() }
}

fn complete(user: unistd::User) -> Result<User, UserError> {
    // A zero cannot come out of a C string.
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    let groups = getgrouplist(&name, user.gid).map_err(|errno| failed(&user.name, errno))?;
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

/// What shadow(5) says about an account, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Shadow {
    locked: bool,
    /// The first day, counted from 1970, on which it is no longer valid.
    expires: Option<i64>,
}

impl Shadow {
    /// `!` in front of something has locked what stands there (`passwd -l`, `usermod -L`). `!` or
    /// `!!` alone is what useradd writes for an account that never had a password, and that is how
    /// lab accounts are made; to lock such a one, give it an expiry date, as usermod(8) itself
    /// advises.
    fn new(password: &[u8], expires: i64) -> Shadow {
        let locked = password.starts_with(b"!") && password.iter().any(|&byte| byte != b'!');
        Shadow { locked, expires: (expires >= 0).then_some(expires) }
    }
}

fn admit(user: &User, shadow: Option<&Shadow>, today: i64) -> Result<(), UserError> {
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

/// The reason that nologin(5) gives, where it stands. A file that cannot be read keeps people out
/// too.
fn closed(path: &Path) -> Option<String> {
    match fs::read(path) {
        Ok(text) => {
            let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(first).trim().to_owned();
            Some(if line.is_empty() { "no reason is given".to_owned() } else { line })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    }
}

/// The shadow entry; `None` where there is none (a directory service, a machine without the file).
fn shadow(name: &str) -> Result<Option<Shadow>, UserError> {
    let Ok(c_name) = CString::new(name) else { return Ok(None) };
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::spwd>::uninit();
        let mut found: *mut libc::spwd = ptr::null_mut();
        // SAFETY: every pointer is valid for the call, the buffer for as many bytes as are named.
        // The reentrant variant keeps no state between threads.
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
                // SAFETY: success with a result means that `found` points to `entry`, filled in,
                // whose strings lie in `buffer`; both outlive this use.
                #[allow(unsafe_code)]
                let (password, expires) =
                    unsafe { (CStr::from_ptr((*found).sp_pwdp), (*found).sp_expire) };
                return Ok(Some(Shadow::new(password.to_bytes(), expires)));
            }
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            errno => return Err(failed(name, Errno::from_raw(errno))),
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

    fn verdict(password: &str, expires: i64) -> Result<(), UserError> {
        admit(&user("/bin/bash"), Some(&Shadow::new(password.as_bytes(), expires)), TODAY)
    }

    #[test]
    fn a_password_no_password_and_no_shadow_entry_are_all_admitted() {
        assert!(verdict("$y$j9T$abc", -1).is_ok());
        assert!(verdict("*", -1).is_ok());
        assert!(verdict("", -1).is_ok());
        assert!(verdict("!", -1).is_ok());
        assert!(verdict("!!", -1).is_ok());
        assert!(admit(&user("/bin/bash"), None, TODAY).is_ok());
    }

    #[test]
    fn a_locked_password_is_refused_with_the_way_out() {
        for password in ["!*", "!!*", "!$y$j9T$abc"] {
            let error = verdict(password, -1).unwrap_err();
            assert!(matches!(error, UserError::Locked { .. }), "{password}: {error}");
            assert!(error.to_string().contains("usermod"));
        }
    }

    #[test]
    fn an_account_ends_on_its_day_of_expiry() {
        assert!(verdict("*", TODAY + 1).is_ok());
        assert!(matches!(verdict("*", TODAY), Err(UserError::Expired { .. })));
        assert!(matches!(verdict("*", 0), Err(UserError::Expired { .. })));
    }

    #[test]
    fn a_shell_that_is_none_is_refused() {
        for shell in ["/usr/sbin/nologin", "/sbin/nologin", "/bin/false"] {
            let error = admit(&user(shell), None, TODAY).unwrap_err();
            assert!(matches!(error, UserError::NoShell { .. }), "{shell}: {error}");
        }
    }

    #[test]
    fn nologin_gives_its_first_line_as_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nologin");
        assert_eq!(closed(&path), None);
        fs::write(&path, "Back at noon.\nAsk Ada.\n").unwrap();
        assert_eq!(closed(&path).as_deref(), Some("Back at noon."));
        fs::write(&path, "").unwrap();
        assert_eq!(closed(&path).as_deref(), Some("no reason is given"));
    }

    #[test]
    fn the_current_user_has_the_effective_user_id() {
        assert_eq!(current().unwrap().uid, geteuid().as_raw());
    }

    #[test]
    fn unknown_names_are_unknown() {
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
