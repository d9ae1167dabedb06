//! What one key may use of labshd: its sessions, and its commands until they have started, so that
//! they do not delay those of other keys.

use std::collections::HashMap;
use std::panic;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use labsh_proto::message::{Name, Refuse, RefuseCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::spawner::{Line, StartLimit, Turns};

/// Limit on commands of one key that are being started at the same time; others of the key wait.
/// The spawner forks one after the other, so more would not start sooner.
const MAX_STARTS_PER_KEY: usize = 4;

/// Time after which a start no longer counts: its child blocks before exec, on a directory whose
/// file server does not respond.
pub(crate) const MAX_START_TIME: Duration = Duration::from_secs(1);

/// The length from which a command is long, in bytes: a shorter one is decoded and checked in less
/// than a millisecond.
const MIN_LONG_COMMAND: usize = 16 << 10;

/// Limit on long commands of one key that have arrived and not started. Each may occupy ten times
/// its megabyte.
const MAX_LONG_COMMANDS_PER_KEY: usize = 4;

/// Limit on the time that a long command waits for others of its key, before it is refused.
const LONG_COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// The time between two requests of one key, on average: 4,000 each second, more than can be
/// started.
const TIME_PER_REQUEST: Duration = Duration::from_micros(250);

/// Limit on requests of one key that are read without a delay.
const MAX_REQUESTS_AT_ONCE: u32 = 1_024;

/// The pace of one key's requests: the time at which all of them so far are due at their average.
#[derive(Debug, Default)]
struct Pace(Option<Instant>);

impl Pace {
    /// Counts a request, and returns how long to wait before the next one.
    fn delay(&mut self, now: Instant) -> Duration {
        let due = self.0.map_or(now, |due| due.max(now)) + TIME_PER_REQUEST;
        self.0 = Some(due);
        (due - now).saturating_sub(TIME_PER_REQUEST * MAX_REQUESTS_AT_ONCE)
    }
}

/// The share of one key.
#[derive(Debug)]
pub(crate) struct KeyShare {
    /// Where its commands wait for the spawner.
    pub(crate) spawns: Line,
    /// The number of its sessions.
    pub(crate) sessions: AtomicUsize,
    /// Those of its commands that have been forked and have not executed their program.
    pub(crate) children: StartLimit,
    preparations: Line,
    pace: Mutex<Pace>,
    starts: Arc<Semaphore>,
    long_commands: Arc<Semaphore>,
}

impl Default for KeyShare {
    fn default() -> Self {
        Self {
            spawns: Line::default(),
            sessions: AtomicUsize::new(0),
            children: StartLimit::default(),
            preparations: Line::default(),
            pace: Mutex::default(),
            starts: Arc::new(Semaphore::new(MAX_STARTS_PER_KEY)),
            long_commands: Arc::new(Semaphore::new(MAX_LONG_COMMANDS_PER_KEY)),
        }
    }
}

/// A part of a key's share, until it is dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

impl KeyShare {
    /// Waits until another command of the key may be started.
    pub(crate) async fn start(&self) -> Option<Permit> {
        // The semaphore is never closed.
        self.starts.clone().acquire_owned().await.ok()
    }

    /// Waits before the next request of a connection is read. A client can send tens of thousands
    /// of requests each second, and each costs processor time, even if it is closed before its
    /// command has started.
    pub(crate) async fn pace(&self) {
        let now = Instant::now();
        let delay = self.pace.lock().unwrap_or_else(PoisonError::into_inner).delay(now);
        match delay {
            // One read can return hundreds of requests.
            Duration::ZERO => yield_now().await,
            delay => sleep(delay).await,
        }
    }

    /// Waits until the key may have another command of this length; `None` for one that is not
    /// long. The error is the refusal of the command.
    pub(crate) async fn long_command(&self, length: usize) -> Result<Option<Permit>, Refuse> {
        if length < MIN_LONG_COMMAND {
            return Ok(None);
        }
        let permit = self.long_commands.clone().acquire_owned();
        match timeout(LONG_COMMAND_TIMEOUT, permit).await {
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(Refuse::new(
                RefuseCode::RESOURCES,
                format!(
                    "{MAX_LONG_COMMANDS_PER_KEY} commands of more than {} KiB wait to be started \
                     with this key, its limit",
                    MIN_LONG_COMMAND >> 10
                ),
                "try again when they have started, or send long data on standard input",
            )),
        }
    }
}

/// The shares of all keys with a session since the start, which the keys bound.
#[derive(Debug)]
pub(crate) struct KeyShares {
    shares: Mutex<HashMap<Name, Arc<KeyShare>>>,
    preparations: Turns,
}

impl Default for KeyShares {
    fn default() -> Self {
        Self { shares: Mutex::default(), preparations: Turns::new(1) }
    }
}

impl KeyShares {
    /// Returns the share of the key with this name.
    pub(crate) fn of(&self, name: Name) -> Arc<KeyShare> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.entry(name).or_default().clone()
    }

    /// Does `work` for a command of this length. For a long one it runs on a thread of its own, so
    /// that it blocks no other task, one at a time, so that it leaves the other processors to
    /// others, and in turns with those of other keys.
    pub(crate) async fn prepare<T: Send + 'static>(
        &self,
        share: &KeyShare,
        length: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if length < MIN_LONG_COMMAND {
            return work();
        }
        let turn = self.preparations.take(&share.preparations).await;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            // Also if the task that waits is gone: the work cannot be cancelled.
            drop(turn);
            result
        });
        match done.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => panic::resume_unwind(payload),
                // Cancelled: the runtime shuts down.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = MIN_LONG_COMMAND;

    #[tokio::test]
    async fn a_long_command_waits_for_others_of_its_key_and_is_then_refused() {
        let shares = KeyShares::default();
        let (greedy, other) = (shares.of(Name([1; 16])), shares.of(Name([2; 16])));
        let mut held = Vec::new();
        for _ in 0..MAX_LONG_COMMANDS_PER_KEY {
            held.push(greedy.long_command(LONG).await.unwrap());
        }
        let refuse = greedy.long_command(LONG).await.unwrap_err();
        assert_eq!(refuse.code, RefuseCode::RESOURCES);
        assert!(greedy.long_command(LONG - 1).await.unwrap().is_none());
        assert!(other.long_command(LONG).await.unwrap().is_some());
        held.pop();
        assert!(shares.of(Name([1; 16])).long_command(LONG).await.unwrap().is_some());
    }

    #[test]
    fn only_requests_beyond_a_burst_are_delayed() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let burst = (0..MAX_REQUESTS_AT_ONCE).map(|_| pace.delay(start));
        assert_eq!(burst.max(), Some(Duration::ZERO));
        assert_eq!(pace.delay(start), TIME_PER_REQUEST);
        assert_eq!(pace.delay(start), TIME_PER_REQUEST * 2);
        assert_eq!(pace.delay(start + TIME_PER_REQUEST * 3), Duration::ZERO);
        assert_eq!(pace.delay(start + TIME_PER_REQUEST * 3), TIME_PER_REQUEST);
    }

    #[tokio::test]
    async fn preparing_a_long_command_blocks_no_other_task() {
        let shares = KeyShares::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        let share = shares.of(Name([1; 16]));
        let long = shares.prepare(&share, LONG, move || receiver.recv());
        // With one thread, the sending task would never run if the work blocked it.
        let (received, sent) = tokio::join!(long, async { sender.send(7) });
        assert_eq!((received, sent), (Ok(7), Ok(())));
    }
}
