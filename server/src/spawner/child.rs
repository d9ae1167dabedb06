//! What happens between fork and exec: changes when a command is to find itself in another state at
//! birth.
//!
//! The spawner has one thread, so a forked copy of it may allocate and call whatever it likes. What
//! it may not do is return: it ends by becoming the command, or by reporting why it could not.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{self, AccessFlags};

use super::Rehearsed;
use super::terminal::Slave;
use super::wire::{Credentials, Failure, Request, Stage};

const SHELL: &CStr = c"/bin/sh";

/// Where execvp(3) looks when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The limit on open descriptors that labshd was started with; the spawner raises its own.
#[derive(Clone, Copy)]
pub(super) struct OpenFiles {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// The child's ends of what connects it to the world. All are above 2: the spawner keeps 0 to 2
/// taken.
pub(super) struct Ends {
    pub(super) streams: Streams,
    /// Close-on-exec: it closes silently when the program is executed, and carries the failure
    /// otherwise.
    pub(super) report: OwnedFd,
}

/// The child's ends of its three streams.
pub(super) enum Streams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(Slave),
}

/// Becomes the command.
pub(super) fn run(request: &Request<'_>, ends: &Ends, limit: OpenFiles) -> ! {
    let Err(failure) = become_command(request, ends, limit);
    // Nobody is left to tell when even this fails.
    let _ = unistd::write(&ends.report, &failure.encode());
    // SAFETY: _exit(2) takes any code and runs no handlers, which belong to labshd's copy of the
    // program.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(127)
    }
}

fn become_command(
    request: &Request<'_>,
    ends: &Ends,
    limit: OpenFiles,
) -> Result<Infallible, Failure> {
    unistd::setsid().map_err(|e| Stage::Session.failed(e))?;
    if let Streams::Terminal(slave) = &ends.streams {
        slave.control().map_err(|e| Stage::Terminal.failed(e))?;
    }
    connect(ends).map_err(|e| Stage::Descriptors.failed(e))?;
    // The spawner blocks every signal and handles none, so an empty mask is all that is missing.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|e| Stage::Signals.failed(e))?;
    setrlimit(Resource::RLIMIT_NOFILE, limit.soft, limit.hard)
        .map_err(|e| Stage::Limits.failed(e))?;
    if let Some(credentials) = &request.identity {
        take_on(credentials).map_err(|e| Stage::Identity.failed(e))?;
    }
    enter(request).map_err(|e| Stage::Directory.failed(e))?;
    match &ends.streams {
        Streams::Pipes { .. } => Err(execute(request)),
        Streams::Terminal(slave) => {
            let mut request = request.clone();
            request.env.push(&slave.variable);
            Err(execute(&request))
        }
    }
}

fn connect(ends: &Ends) -> nix::Result<()> {
    let (stdin, stdout, stderr) = match &ends.streams {
        Streams::Pipes { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Streams::Terminal(slave) => (&slave.fd, &slave.fd, &slave.fd),
    };
    unistd::dup2_stdin(stdin)?;
    unistd::dup2_stdout(stdout)?;
    unistd::dup2_stderr(stderr)?;
    // Closed here rather than by exec: a child stuck in its working directory must not hold the
    // pipes of others.
    close_all_but(&ends.report)
}

/// Closes every descriptor above 2 but one. For processes that never return to the owners of the
/// others.
pub(super) fn close_all_but(keep: impl AsFd) -> nix::Result<()> {
    let keep = keep.as_fd().as_raw_fd().unsigned_abs();
    if keep > 3 {
        close_range(3, keep - 1)?;
    }
    close_range(keep + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: the call touches no memory. The descriptors have owners in this process, but the only
    // callers are freshly forked and leave by exec or _exit, so no owner ever uses or closes one
    // again.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

/// Groups first, then the group, then the user: each step needs the rights that the last one gives
/// up. The keyring comes before all, so that it counts for root and not against what the user may
/// have.
fn take_on(who: &Credentials) -> nix::Result<()> {
    leave_keyring()?;
    unistd::setgroups(&who.groups)?;
    unistd::setresgid(who.gid, who.gid, who.gid)?;
    unistd::setresuid(who.uid, who.uid, who.uid)?;
    let root = unistd::Uid::from_raw(0);
    let regained = !who.uid.is_root()
        && (unistd::setuid(root).is_ok()
            || who.gid.as_raw() != 0 && unistd::setgid(unistd::Gid::from_raw(0)).is_ok());
    if regained {
        return Err(Errno::ENOTRECOVERABLE);
    }
    // As where login sets a session up; without it, a program that looks for the user's keys finds
    // none.
    let _ = keyctl(libc::KEYCTL_LINK, libc::KEY_SPEC_USER_KEYRING, libc::KEY_SPEC_SESSION_KEYRING);
    Ok(())
}

/// Exchanges the session keyring for an empty one. labshd may have been given one (systemd does
/// that), and whoever has the same keyring can read what others put into it, whichever user they
/// are (session-keyring(7)).
fn leave_keyring() -> nix::Result<()> {
    match keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 0) {
        // No kernel that has keyrings, or a container that lets nobody use them.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        result => result,
    }
}

fn keyctl(operation: u32, first: i32, second: i32) -> nix::Result<()> {
    // SAFETY: these operations take serial numbers; where one takes a name, 0 is the null pointer
    // for "none".
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            operation,
            libc::c_long::from(first),
            libc::c_long::from(second),
        )
    };
    Errno::result(result).map(drop)
}

fn enter(request: &Request<'_>) -> nix::Result<()> {
    unistd::chdir(request.cwd)
        .or_else(|error| if request.cwd_fallback_root { unistd::chdir(c"/") } else { Err(error) })
}

fn execute(request: &Request<'_>) -> Failure {
    let name = request.argv[0];
    match request.program {
        Some(program) => execute_at(program, request),
        None if name.to_bytes().contains(&b'/') => execute_at(name, request),
        None => search(name, request),
    }
}

fn execute_at(path: &CStr, request: &Request<'_>) -> Failure {
    match attempt(path, request) {
        // The kernel says the same of a missing file and of a file whose interpreter is missing.
        Errno::ENOENT if exists(path) => Stage::Interpreter.failed(Errno::ENOENT),
        errno => Stage::Execute.failed(errno),
    }
}

/// execvp(3) by the `PATH` of the command's environment; the C library's looks at the caller's own.
fn search(name: &CStr, request: &Request<'_>) -> Failure {
    if name.is_empty() {
        return Stage::Execute.failed(Errno::ENOENT);
    }
    let path = request.env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
    let mut worst = Stage::Execute.failed(Errno::ENOENT);
    for directory in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        let candidate = join(directory, name);
        match attempt(&candidate, request) {
            Errno::EACCES => worst = Stage::Execute.failed(Errno::EACCES),
            Errno::ENOENT if exists(&candidate) => worst = Stage::Interpreter.failed(Errno::ENOENT),
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            errno => return Stage::Execute.failed(errno),
        }
    }
    worst
}

/// An empty element of `PATH` means the working directory.
fn join(directory: &[u8], name: &CStr) -> CString {
    let mut path = directory.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    // Neither part can hold a zero; were it so, an empty path is one that no exec finds.
    CString::new(path).unwrap_or_default()
}

/// Returns only when the kernel would not execute this path.
fn attempt(path: &CStr, request: &Request<'_>) -> Errno {
    if request.rehearse {
        return rehearse(path);
    }
    let Err(errno) = unistd::execve(path, &request.argv, &request.env);
    if errno != Errno::ENOEXEC {
        return errno;
    }
    let argv: Vec<&CStr> =
        [SHELL, path].into_iter().chain(request.argv[1..].iter().copied()).collect();
    let Err(errno) = unistd::execve(SHELL, &argv, &request.env);
    errno
}

/// Ends the child, having told what it found, where the kernel would execute this path; otherwise
/// returns what the kernel would say. Whether a script's interpreter is there is not looked at.
fn rehearse(path: &CStr) -> Errno {
    match stat(path) {
        Err(errno) => return errno,
        Ok(status)
            if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG =>
        {
            return Errno::EACCES;
        }
        Ok(_) => {}
    }
    // It judges by the real ids, which are those that were taken on.
    if let Err(errno) = unistd::access(path, AccessFlags::X_OK) {
        return errno;
    }
    let directory = match unistd::getcwd() {
        Ok(directory) => directory.into_os_string().into_encoded_bytes(),
        Err(errno) => return errno,
    };
    let found = Rehearsed { program: path.to_bytes().to_vec(), directory };
    // Two paths are less than a pipe holds, so it is written at once; a reader who has gone asks no
    // more.
    let _ = unistd::write(io::stdout(), &found.encode());
    // SAFETY: as in `run`.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(0)
    }
}

fn exists(path: &CStr) -> bool {
    unistd::access(path, AccessFlags::F_OK).is_ok()
}
