//! Signals for the processes of a terminal's session: changes with how those are found.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::unistd::{Pid, getpgid, getsid};

use super::process::pidfd_open;

/// How often all processes are gone through at most. The second time finds nobody new, unless
/// somebody was just being forked.
const PASSES: usize = 8;

/// What sessions are still to be told, each in order. The machine's processes are gone through once
/// for all of it, as a client can send far more signals than there is time to look for whom they
/// are.
#[derive(Default)]
pub(super) struct Tidings(HashMap<Pid, Vec<Tiding>>);

#[derive(PartialEq)]
struct Tiding {
    /// `None` is the whole session.
    group: Option<Pid>,
    signal: i32,
}

impl Tidings {
    /// Of those that are the same only the last one is kept: it counts against what it undoes, and
    /// what undoes it.
    pub(super) fn add(&mut self, session: Pid, group: Option<Pid>, signal: i32) {
        let tiding = Tiding { group, signal };
        let waiting = self.0.entry(session).or_default();
        waiting.retain(|other| *other != tiding);
        waiting.push(tiding);
    }

    /// Sends all of them.
    ///
    /// The sessions' leaders must not have been reaped: then nobody else can have their numbers. A
    /// process is held by a pidfd before it is looked at, so it is the one that was looked at, or
    /// is gone, when a signal is sent.
    pub(super) fn tell(self) {
        if self.0.is_empty() {
            return;
        }
        let mut told = HashSet::new();
        for _ in 0..PASSES {
            let before = told.len();
            let Ok(entries) = fs::read_dir("/proc") else { return };
            let processes =
                entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            for process in processes.map(Pid::from_raw) {
                if !told.contains(&process) && !self.signals_for(process).is_empty() {
                    told.insert(process);
                    let Ok(pidfd) = pidfd_open(process) else { continue };
                    self.signals_for(process).into_iter().for_each(|signal| send(&pidfd, signal));
                }
            }
            if told.len() == before {
                return;
            }
        }
    }

    fn signals_for(&self, process: Pid) -> Vec<i32> {
        let waiting = getsid(Some(process)).ok().and_then(|session| self.0.get(&session));
        let (Some(waiting), Ok(its)) = (waiting, getpgid(Some(process))) else { return Vec::new() };
        let meant = waiting.iter().filter(|tiding| tiding.group.is_none_or(|group| group == its));
        meant.map(|tiding| tiding.signal).collect()
    }
}

fn send(pidfd: &OwnedFd, signal: i32) {
    // SAFETY: with a null pointer for the siginfo the call touches no memory. Errors (no such
    // signal, a process that is gone or has become another user) need no answer.
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
    fn a_flood_is_told_once_and_its_last_signal_counts() {
        // A session of its own, as a command's is: in a container the test's own may have no
        // number.
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "echo; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        leader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let session = Pid::from_raw(leader.id().try_into().unwrap());
        let other = Pid::from_raw(i32::MAX);
        let mut tidings = Tidings::default();
        for _ in 0..1000 {
            for signal in [SIGSTOP, SIGTERM, SIGCONT, SIGSTOP] {
                tidings.add(session, Some(session), signal);
                tidings.add(session, Some(other), signal);
                tidings.add(other, None, signal);
            }
        }
        tidings.add(session, None, SIGHUP);
        assert_eq!(tidings.signals_for(session), [SIGTERM, SIGCONT, SIGSTOP, SIGHUP]);
        assert!(tidings.signals_for(getpid()).is_empty());
        drop(leader.stdin.take());
        leader.wait().unwrap();
    }
}
