//! The steps between fork and exec that turn a copy of the spawner into the command.
//!
//! The spawner has one thread, so its copy may allocate and call any function. It never returns: it
//! executes the program, or reports the failure and exits.

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

use super::DryRunResult;
use super::messages::{Credentials, Failure, Request, Stage};
use super::terminal::Slave;

/// The interpreter of files in no format that the kernel knows, as in execvp(3).
const SHELL: &CStr = c"/bin/sh";

/// The path that execvp(3) searches if `PATH` is not set.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The limit on open descriptors that labshd was started with, which commands get. The spawner
/// raises its own.
#[derive(Clone, Copy)]
pub(super) struct DescriptorLimit {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// The child's descriptors. All are above 2, as the spawner keeps 0 to 2 open.
pub(super) struct ChildEnds {
    pub(super) streams: ChildStreams,
    /// The exec report, close-on-exec: the spawner reads end-of-file once the program is executed,
    /// and a [`Failure`] otherwise.
    pub(super) report: OwnedFd,
}

/// The child's ends of its three streams.
pub(super) enum ChildStreams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(Slave),
}

/// Turns this process into the command, or reports why it cannot and exits.
pub(super) fn run(request: &Request<'_>, ends: &ChildEnds, limit: DescriptorLimit) -> ! {
    let Err(failure) = become_command(request, ends, limit);
    // Without the report labshd takes the command for started, and then sees it exit with 127.
    let _ = unistd::write(&ends.report, &failure.encode());
    // SAFETY: _exit(2) takes any code. It runs no handlers, which belong to labshd.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(127)
    }
}

fn become_command(
    request: &Request<'_>,
    ends: &ChildEnds,
    limit: DescriptorLimit,
) -> Result<Infallible, Failure> {
    unistd::setsid().map_err(|e| Stage::Session.failed(e))?;
    if let ChildStreams::Terminal(slave) = &ends.streams {
        slave.make_controlling().map_err(|e| Stage::Terminal.failed(e))?;
    }
    connect_streams(ends).map_err(|e| Stage::Descriptors.failed(e))?;
    // The spawner has reset all dispositions already and only blocks the signals.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|e| Stage::Signals.failed(e))?;
    setrlimit(Resource::RLIMIT_NOFILE, limit.soft, limit.hard)
        .map_err(|e| Stage::Limits.failed(e))?;
    if let Some(credentials) = &request.identity {
        assume_identity(credentials).map_err(|e| Stage::Identity.failed(e))?;
    }
    enter_directory(request).map_err(|e| Stage::Directory.failed(e))?;
    match &ends.streams {
        ChildStreams::Pipes { .. } => Err(execute(request)),
        ChildStreams::Terminal(slave) => {
            let mut request = request.clone();
            request.env.extend(slave.variables.each_ref().map(CString::as_c_str));
            Err(execute(&request))
        }
    }
}

fn connect_streams(ends: &ChildEnds) -> nix::Result<()> {
    let (stdin, stdout, stderr) = match &ends.streams {
        ChildStreams::Pipes { stdin, stdout, stderr } => (stdin, stdout, stderr),
        ChildStreams::Terminal(slave) => (&slave.fd, &slave.fd, &slave.fd),
    };
    unistd::dup2_stdin(stdin)?;
    unistd::dup2_stdout(stdout)?;
    unistd::dup2_stderr(stderr)?;
    // Closed here rather than by exec: a child that blocks on its working directory must not keep
    // the pipes of other commands open.
    close_all_but(&ends.report)
}

/// Closes every descriptor above 2 except one. The caller must never return to the owners of the
/// others.
pub(super) fn close_all_but(keep: impl AsFd) -> nix::Result<()> {
    let keep = keep.as_fd().as_raw_fd().unsigned_abs();
    if keep > 3 {
        close_range(3, keep - 1)?;
    }
    close_range(keep + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: the call touches no memory. The descriptors have owners in this process, but its only
    // callers are freshly forked processes that leave by exec or _exit, so no owner uses or closes
    // one again.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

/// Changes to a user: groups first, then the group id, then the user id, which gives up the right
/// to change the others. The keyring is left while still root, so that it counts against root's
/// quota.
fn assume_identity(who: &Credentials) -> nix::Result<()> {
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
    // As login does; otherwise programs do not find the user's keys. A kernel without keyrings has
    // none to link.
    let _ = keyctl(libc::KEYCTL_LINK, libc::KEY_SPEC_USER_KEYRING, libc::KEY_SPEC_SESSION_KEYRING);
    Ok(())
}

/// Replaces the session keyring by an empty one. labshd may have one from systemd, and every
/// process with the same session keyring can read its keys, whatever its user (session-keyring(7)).
fn leave_keyring() -> nix::Result<()> {
    match keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 0) {
        // The kernel has no keyrings, or the container forbids their use.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        result => result,
    }
}

fn keyctl(operation: u32, first: i32, second: i32) -> nix::Result<()> {
    // SAFETY: these operations take serial numbers; for the one that takes a name, 0 is a null
    // pointer, which means no name.
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

fn enter_directory(request: &Request<'_>) -> nix::Result<()> {
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
    match try_execute(path, request) {
        // The kernel returns the same error for a missing file and for a missing interpreter.
        Errno::ENOENT if exists(path) => Stage::Interpreter.failed(Errno::ENOENT),
        errno => Stage::Execute.failed(errno),
    }
}

/// Searches the program in the `PATH` of the command's environment; execvp(3) itself would use the
/// `PATH` of this process.
fn search(name: &CStr, request: &Request<'_>) -> Failure {
    if name.is_empty() {
        return Stage::Execute.failed(Errno::ENOENT);
    }
    let path = request.env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
    let mut failure = Stage::Execute.failed(Errno::ENOENT);
    for directory in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        let candidate = join(directory, name);
        match try_execute(&candidate, request) {
            Errno::EACCES => failure = Stage::Execute.failed(Errno::EACCES),
            Errno::ENOENT if exists(&candidate) => {
                failure = Stage::Interpreter.failed(Errno::ENOENT);
            }
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            errno => return Stage::Execute.failed(errno),
        }
    }
    failure
}

/// Joins an element of `PATH` and a name. An empty element means the working directory.
fn join(directory: &[u8], name: &CStr) -> CString {
    let mut path = directory.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    // Neither part contains a NUL byte. If one did, exec would find no program at the empty path.
    CString::new(path).unwrap_or_default()
}

/// Executes a program; returns only if the kernel refuses. A file in no format that the kernel
/// knows is executed by the shell, as execvp(3) does.
fn try_execute(path: &CStr, request: &Request<'_>) -> Errno {
    if request.dry_run {
        return dry_run(path);
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

/// Writes the [`DryRunResult`] and exits, if the kernel would execute this path; otherwise returns
/// the error that the kernel would. It does not check for a script's interpreter.
fn dry_run(path: &CStr) -> Errno {
    match stat(path) {
        Err(errno) => return errno,
        Ok(status)
            if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG =>
        {
            return Errno::EACCES;
        }
        Ok(_) => {}
    }
    // access(2) checks the real ids, which are the user's by now.
    if let Err(errno) = unistd::access(path, AccessFlags::X_OK) {
        return errno;
    }
    let directory = match unistd::getcwd() {
        Ok(directory) => directory.into_os_string().into_encoded_bytes(),
        Err(errno) => return errno,
    };
    let result = DryRunResult { program: path.to_bytes().to_vec(), directory };
    // A pipe takes two paths at once. If labshd has closed its end, it needs no result.
    let _ = unistd::write(io::stdout(), &result.encode());
    // SAFETY: as in `run`.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(0)
    }
}

fn exists(path: &CStr) -> bool {
    unistd::access(path, AccessFlags::F_OK).is_ok()
}
