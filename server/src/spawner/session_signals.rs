//! Signals and counts the processes of sessions, found by scanning `/proc` once for many sessions.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpgid, getsid};

use super::command::pidfd_open;

/// Limit on scans of `/proc` for one batch. A second scan finds a new process only if one was being
/// forked during the first.
const MAX_SCANS: usize = 8;

/// The processes of a session, or a part of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Members {
    /// All processes of the session.
    All,
    /// All but those of the leader's group, which kill(2) reaches without a scan.
    OutsideLeaderGroup,
    /// Those of one process group.
    Group(Pid),
}

impl Members {
    fn include(self, group: Pid, session: Pid) -> bool {
        match self {
            Members::All => true,
            Members::OutsideLeaderGroup => group != session,
            Members::Group(id) => group == id,
        }
    }
}

/// Signals for the members of sessions, in order for each session. One scan of `/proc` serves the
/// whole batch, as a client can send signals much faster than `/proc` can be scanned.
#[derive(Default)]
pub(super) struct SignalBatch(HashMap<Pid, Vec<MemberSignal>>);

#[derive(PartialEq)]
struct MemberSignal {
    members: Members,
    signal: i32,
}

impl SignalBatch {
    /// Adds a signal. Of equal signals only the last one remains, so that its order relative to the
    /// signals that cancel it (SIGSTOP and SIGCONT) is preserved.
    pub(super) fn add(&mut self, session: Pid, members: Members, signal: i32) {
        let added = MemberSignal { members, signal };
        let queue = self.0.entry(session).or_default();
        queue.retain(|queued| *queued != added);
        queue.push(added);
    }

    /// Sends all signals.
    ///
    /// The leaders of the sessions must not have been reaped, so that their ids are not reused. A
    /// pidfd is opened before a process is checked, so a signal reaches the process that was
    /// checked or none.
    pub(super) fn send_all(self) {
        if self.0.is_empty() {
            return;
        }
        let mut signaled = HashSet::new();
        for _ in 0..MAX_SCANS {
            let before = signaled.len();
            for process in processes() {
                if !signaled.contains(&process) && !self.signals_for(process).is_empty() {
                    signaled.insert(process);
                    let Ok(pidfd) = pidfd_open(process) else { continue };
                    for signal in self.signals_for(process) {
                        send(&pidfd, signal);
                    }
                }
            }
            if signaled.len() == before {
                return;
            }
        }
    }

    fn signals_for(&self, process: Pid) -> Vec<i32> {
        let Some((session, group)) = session_and_group(process) else { return Vec::new() };
        let Some(queue) = self.0.get(&session) else { return Vec::new() };
        let matching = queue.iter().filter(|queued| queued.members.include(group, session));
        matching.map(|queued| queued.signal).collect()
    }
}

/// Returns those of the sessions in which at least one of these members has not exited.
pub(super) fn occupied(sessions: &HashMap<Pid, Vec<Members>>) -> HashSet<Pid> {
    let mut occupied = HashSet::new();
    for process in processes() {
        let Some((session, group)) = session_and_group(process) else { continue };
        let Some(members) = sessions.get(&session) else { continue };
        if members.iter().any(|members| members.include(group, session)) && !has_exited(process) {
            occupied.insert(session);
        }
    }
    occupied
}

/// Returns the ids of all processes; none if `/proc` cannot be read.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let number = |name: &str| name.parse().ok().map(Pid::from_raw);
    entries.filter_map(move |entry| number(entry.ok()?.file_name().to_str()?))
}

fn session_and_group(process: Pid) -> Option<(Pid, Pid)> {
    Some((getsid(Some(process)).ok()?, getpgid(Some(process)).ok()?))
}

/// Returns whether a process is a zombie or gone. A process whose first thread has ended, but not
/// the others, looks like a zombie in `/proc`; its pidfd is readable only once all have.
fn has_exited(process: Pid) -> bool {
    let Ok(pidfd) = pidfd_open(process) else { return true };
    let mut ends = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut ends, PollTimeout::ZERO).is_ok_and(|readable| readable > 0)
}

fn send(pidfd: &OwnedFd, signal: i32) {
    // SAFETY: with a null pointer for the siginfo the call touches no memory. Errors (an invalid
    // signal, a process that has ended or changed its user) are ignored.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use nix::libc::{SIGCONT, SIGHUP, SIGSTOP, SIGTERM};
    use nix::unistd::getpid;

    use super::*;

    #[test]
    fn of_equal_signals_only_the_last_is_sent() {
        // A session of its own, as a command has: in a container the session id of the test itself
        // may be 0.
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "echo; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        leader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let session = Pid::from_raw(leader.id().try_into().unwrap());
        let other = Pid::from_raw(i32::MAX);
        let mut batch = SignalBatch::default();
        for _ in 0..1000 {
            for signal in [SIGSTOP, SIGTERM, SIGCONT, SIGSTOP] {
                batch.add(session, Members::Group(session), signal);
                batch.add(session, Members::Group(other), signal);
                batch.add(session, Members::OutsideLeaderGroup, signal);
                batch.add(other, Members::All, signal);
            }
        }
        batch.add(session, Members::All, SIGHUP);
        assert_eq!(batch.signals_for(session), [SIGTERM, SIGCONT, SIGSTOP, SIGHUP]);
        assert!(batch.signals_for(getpid()).is_empty());
        drop(leader.stdin.take());
        leader.wait().unwrap();
    }
}
