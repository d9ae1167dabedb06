//! The commands in the spawner, as labshd knows them, and the delivery of the spawner's replies.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Ended;
use super::messages::{Failure, SpawnerReply};
use super::session_signals::{Members, SignalBatch};
use super::start_limit::StartPermit;
use super::turns::Turn;

/// Locks a mutex, poisoned or not: a panic leaves these states valid, at worst incomplete.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The commands that wait for a reply of the spawner, by id.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) commands: Mutex<HashMap<u64, Waiter>>,
    /// The turns of the orders to spawn that the spawner has not carried out, by id; also of
    /// commands that are released meanwhile.
    pub(super) unanswered: Mutex<HashMap<u64, Turn>>,
    pub(super) lost: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) has_terminal: bool,
    /// Dropped by the first reply.
    pub(super) start_permit: Option<StartPermit>,
    /// Set while the leader runs.
    pub(super) leader: Option<Pid>,
    /// Taken by the first reply.
    pub(super) started: Option<oneshot::Sender<Result<Started, Failure>>>,
    /// Taken at the leader's exit.
    pub(super) ended: Option<oneshot::Sender<Ended>>,
    pub(super) vacant: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: u32,
    /// In the reply's order; some are missing if this process has no free descriptor.
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Waiters {
    pub(super) fn commands(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        lock(&self.commands)
    }

    /// Removes a command that labshd releases. One that is being started counts against the limit
    /// until the spawner has replied.
    pub(super) fn release(&self, id: u64) {
        let mut commands = self.commands();
        match commands.get_mut(&id) {
            Some(Waiter { start_permit: Some(_), started, .. }) => *started = None,
            _ => drop(commands.remove(&id)),
        }
    }

    /// Kills all running commands after the loss of the spawner. Their leaders' ids may be reused
    /// from now on, but only after the kernel has given out all others, and not while a process of
    /// the session is left.
    pub(super) fn kill_all(&self) {
        let mut batch = SignalBatch::default();
        for waiter in self.commands().values() {
            let Some(leader) = waiter.leader else { continue };
            // The spawner may have ended the group already.
            let _ = killpg(leader, Signal::SIGKILL);
            // The jobs of a terminal are only hung up, as at any other end.
            let signal = if waiter.has_terminal { libc::SIGHUP } else { libc::SIGKILL };
            batch.add(leader, Members::OutsideLeaderGroup, signal);
        }
        batch.send_all();
    }

    /// Passes a reply to its waiter, if the command is not released yet.
    pub(super) fn deliver(
        &self,
        id: u64,
        reply: SpawnerReply,
        arrived: &mut VecDeque<Vec<OwnedFd>>,
    ) {
        let mut commands = self.commands();
        match reply {
            SpawnerReply::Attempted => drop(lock(&self.unanswered).remove(&id)),
            SpawnerReply::Spawned(pid) => {
                let descriptors = arrived.pop_front().unwrap_or_default();
                let Some(waiter) = commands.get_mut(&id) else { return };
                waiter.leader = i32::try_from(pid).ok().map(Pid::from_raw);
                waiter.start_permit = None;
                let started = Ok(Started { pid, descriptors });
                if waiter.started.take().is_none_or(|sender| sender.send(started).is_err()) {
                    // Released meanwhile.
                    commands.remove(&id);
                }
            }
            SpawnerReply::Failed(failure) => {
                if let Some(started) = commands.remove(&id).and_then(|waiter| waiter.started) {
                    let _ = started.send(Err(failure));
                }
            }
            SpawnerReply::Ended(ended) => {
                let Some(waiter) = commands.get_mut(&id) else { return };
                waiter.leader = None;
                if let Some(sender) = waiter.ended.take() {
                    let _ = sender.send(ended);
                }
            }
            SpawnerReply::Gone => drop(commands.remove(&id)),
            SpawnerReply::Vacant => {
                if let Some(waiter) = commands.get(&id) {
                    waiter.vacant.cancel();
                }
            }
        }
    }
}
