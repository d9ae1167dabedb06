//! One command in the spawner's table: its state, its terminal, its signals and its exit.

use std::fs;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use labsh_proto::message::{Status, Usage};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::Ended;
use super::session_signals::{Members, SignalBatch};
use super::terminal::foreground;

/// The signals of clients that reach every process of a command without a terminal, whatever its
/// process group, as they are sent to end it. The others are for programs that expect them.
const FATAL_SIGNALS: [i32; 3] = [libc::SIGHUP, libc::SIGTERM, libc::SIGKILL];

/// A command that the spawner has forked and not reaped.
pub(super) struct Command {
    pub(super) pid: Pid,
    pub(super) forked_at: Instant,
    pub(super) state: State,
    pub(super) ending: Ending,
    pub(super) terminal: Option<Pty>,
}

/// What labshd has sent to end a command.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ending {
    /// Nothing: a leader that exits has ended by itself, and its background processes stay.
    None,
    /// A hang-up that the leader ignores: as above.
    Ignored,
    /// A signal that the leader does not ignore: the rest of its session ends too.
    Begun {
        /// Whether that includes the background jobs of a terminal that survived the hang-up.
        everything: bool,
    },
}

/// The life of a command's leader.
pub(super) enum State {
    /// Forked. `report` ends empty once the program has been executed, and yields the failure
    /// otherwise. labshd receives `labshd_ends` with the reply.
    Starting { report: OwnedFd, labshd_ends: Vec<OwnedFd>, pidfd: OwnedFd },
    /// Executed, or exited before that. `pidfd` becomes readable when the leader exits.
    Running { pidfd: OwnedFd },
    /// A zombie, unreaped so that its ids are not reused.
    Ended,
}

/// The spawner's descriptor of a command's terminal. While it is open, the terminal is not hung up
/// and its foreground group can be queried, even after labshd has exited.
pub(super) struct Pty {
    master: OwnedFd,
    /// The foreground group when the command was first signalled to end, unless it was the
    /// leader's. The kernel forgets it when the leader exits.
    foreground: Option<Pid>,
}

impl Pty {
    pub(super) fn new(master: OwnedFd) -> Self {
        Self { master, foreground: None }
    }
}

impl Command {
    /// Moves from `Starting` to `Running` and returns the exec report and labshd's ends; `None` in
    /// the other states.
    pub(super) fn take_start(&mut self) -> Option<(OwnedFd, Vec<OwnedFd>)> {
        match mem::replace(&mut self.state, State::Ended) {
            State::Starting { report, labshd_ends, pidfd } => {
                self.state = State::Running { pidfd };
                Some((report, labshd_ends))
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Moves from `Running` to `Ended` and returns the exit, if the leader has exited.
    pub(super) fn take_exit(&mut self) -> Option<Ended> {
        let State::Running { pidfd } = &self.state else { return None };
        let ended = poll_exit(pidfd, self.forked_at).ok().flatten()?;
        self.state = State::Ended;
        Some(ended)
    }

    /// Sends a signal of the client: to the command's process group, and to its whole session if
    /// it is one of [`FATAL_SIGNALS`]. With a terminal, it goes to the foreground group instead,
    /// like a key typed there.
    pub(super) fn signal(&self, signal: i32, batch: &mut SignalBatch) {
        let Some(pty) = &self.terminal else {
            if FATAL_SIGNALS.contains(&signal) && !self.leader_has_exited() {
                batch.add(self.pid, Members::OutsideLeaderGroup, signal);
            }
            return self.signal_group(signal);
        };
        match pty.foreground.or_else(|| self.foreground(pty)) {
            Some(group) => batch.add(self.pid, Members::Group(group), signal),
            None => self.signal_group(signal),
        }
    }

    /// Sends a signal that ends the command, and SIGCONT, as a stopped process acts only once it is
    /// continued. Has no effect if the command has ended by itself.
    ///
    /// It goes to every process of the session. With a terminal, unless `everything` ends, only
    /// SIGHUP does: later signals go to the leader's group and to the group that was in the
    /// foreground at the hang-up, so that background jobs that ignore SIGHUP stay (nohup(1)).
    pub(super) fn end(&mut self, signal: i32, everything: bool, batch: &mut SignalBatch) {
        if self.has_ended_by_itself() {
            return;
        }
        let ignored = signal == libc::SIGHUP && !everything && ignores_hang_up(self.pid);
        self.ending = if ignored { Ending::Ignored } else { Ending::Begun { everything } };
        let foreground = self.terminal.as_ref().and_then(|pty| self.foreground(pty));
        if let Some(pty) = &mut self.terminal {
            pty.foreground = pty.foreground.or(foreground);
        }
        let others = match &self.terminal {
            Some(pty) if signal != libc::SIGHUP && !everything => {
                pty.foreground.map(Members::Group)
            }
            _ => Some(Members::OutsideLeaderGroup),
        };
        for signal in [signal, libc::SIGCONT] {
            self.signal_group(signal);
            if let Some(others) = others {
                batch.add(self.pid, others, signal);
            }
        }
    }

    /// Returns whether the leader has exited without a signal of [`Command::end`] that it did not
    /// ignore.
    pub(super) fn has_ended_by_itself(&self) -> bool {
        !matches!(self.ending, Ending::Begun { .. }) && self.leader_has_exited()
    }

    /// Returns the processes that [`Command::end`] would signal next.
    pub(super) fn remaining_members(&self) -> Vec<Members> {
        match (&self.terminal, self.ending) {
            (None, _) | (_, Ending::Begun { everything: true }) => vec![Members::All],
            (Some(pty), _) => {
                [Some(self.pid), pty.foreground].into_iter().flatten().map(Members::Group).collect()
            }
        }
    }

    /// Kills the command if its leader still runs.
    pub(super) fn kill(&mut self, batch: &mut SignalBatch) {
        if matches!(self.state, State::Ended) {
            return;
        }
        if self.terminal.is_some() {
            self.end(libc::SIGHUP, false, batch);
        }
        self.end(libc::SIGKILL, false, batch);
    }

    fn leader_has_exited(&self) -> bool {
        match &self.state {
            State::Starting { pidfd, .. } | State::Running { pidfd } => {
                poll_exit(pidfd, self.forked_at).is_ok_and(|ended| ended.is_some())
            }
            State::Ended => true,
        }
    }

    /// Returns the group in the foreground, unless it is the leader's.
    fn foreground(&self, pty: &Pty) -> Option<Pid> {
        foreground(&pty.master).filter(|group| *group != self.pid)
    }

    fn signal_group(&self, signal: i32) {
        // A child that has not called setsid yet is not in a group of its own.
        let alone = matches!(self.state, State::Starting { .. }).then_some(self.pid.as_raw());
        for target in [Some(-self.pid.as_raw()), alone].into_iter().flatten() {
            // SAFETY: kill(2) touches no memory. The leader is not reaped, so the ids are this
            // command's. Errors (an invalid signal, an empty group, a process that has changed its
            // user) are ignored.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(target, signal);
            }
        }
    }
}

/// Returns whether a process ignores SIGHUP, as one that nohup(1) has started does.
fn ignores_hang_up(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (libc::SIGHUP - 1) != 0)
}

/// Opens a descriptor that refers to a process (pidfd_open(2)).
pub(super) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call touches no memory.
    #[allow(unsafe_code)]
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the descriptor is new, so it has no other owner. Descriptors are ints, so the cast
    // loses nothing.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Returns the leader's exit status and usage without reaping it, or `None` while it runs, or is
/// reported to its debugger only. A raw waitid(2), as the C library hides the fifth argument.
fn poll_exit(pidfd: &OwnedFd, forked_at: Instant) -> nix::Result<Option<Ended>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to writable memory of the types that the call fills in, and all
    // zeros are a valid value of either if it does not. WNOWAIT leaves the process as it is.
    #[allow(unsafe_code)]
    let (result, info, usage) = unsafe {
        let result = libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_fd().as_raw_fd(),
            info.as_mut_ptr(),
            libc::WEXITED | libc::WNOWAIT | libc::WNOHANG,
            usage.as_mut_ptr(),
        );
        (result, info.assume_init(), usage.assume_init())
    };
    Errno::result(result)?;
    // SAFETY: waitid fills these fields in, or leaves them zero.
    #[allow(unsafe_code)]
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    // The kernel has limited both exit codes and signal numbers to a byte.
    let number = status as u8;
    let status = match info.si_code {
        libc::CLD_EXITED => Status::Exited(number),
        code => Status::Signaled { signal: number, core_dumped: code == libc::CLD_DUMPED },
    };
    let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
    let usage = Usage {
        wall: u64::try_from(forked_at.elapsed().as_micros()).unwrap_or(u64::MAX),
        user: micros(usage.ru_utime),
        system: micros(usage.ru_stime),
        peak_memory: usage.ru_maxrss as u64 * 1024,
    };
    Ok(Some(Ended { status, usage }))
}
