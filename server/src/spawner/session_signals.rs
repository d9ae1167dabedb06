//! Sends signals to the processes of terminal sessions, found by scanning `/proc` once per batch.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::unistd::{Pid, getpgid, getsid};

use super::command::pidfd_open;

/// Limit on scans of `/proc` for one batch. A second scan finds a new process only if one was being
/// forked during the first.
const MAX_SCANS: usize = 8;

/// Signals for the members of sessions, in order for each session. One scan of `/proc` serves the
/// whole batch, as a client can send signals much faster than `/proc` can be scanned.
#[derive(Default)]
pub(super) struct SignalBatch(HashMap<Pid, Vec<GroupSignal>>);

#[derive(PartialEq)]
struct GroupSignal {
    /// `None` means the whole session.
    group: Option<Pid>,
    signal: i32,
}

impl SignalBatch {
    /// Adds a signal. Of equal signals only the last one remains, so that its order relative to the
    /// signals that cancel it (SIGSTOP and SIGCONT) is preserved.
    pub(super) fn add(&mut self, session: Pid, group: Option<Pid>, signal: i32) {
        let added = GroupSignal { group, signal };
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
            let Ok(entries) = fs::read_dir("/proc") else { return };
            let processes =
                entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            for process in processes.map(Pid::from_raw) {
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
        let queue = getsid(Some(process)).ok().and_then(|session| self.0.get(&session));
        let (Some(queue), Ok(group)) = (queue, getpgid(Some(process))) else { return Vec::new() };
        let matching = queue.iter().filter(|queued| queued.group.is_none_or(|id| id == group));
        matching.map(|queued| queued.signal).collect()
    }
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
                batch.add(session, Some(session), signal);
                batch.add(session, Some(other), signal);
                batch.add(other, None, signal);
            }
        }
        batch.add(session, None, SIGHUP);
        assert_eq!(batch.signals_for(session), [SIGTERM, SIGCONT, SIGSTOP, SIGHUP]);
        assert!(batch.signals_for(getpid()).is_empty());
        drop(leader.stdin.take());
        leader.wait().unwrap();
    }
}
