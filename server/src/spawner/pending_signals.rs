//! Tracks the unsent signals of a command, so that a flood of them stays small and its last one
//! still takes effect.

use std::ops::BitOr;
use std::sync::{Arc, Mutex};

use nix::libc;

use super::waiters::lock;

/// Limit on the unsent signals of one command, beyond which signals that cancel each other are
/// dropped as well.
const MAX_PENDING_SIGNALS: usize = 32;

/// Signals that stop a process. They discard a pending SIGCONT, and SIGCONT discards them
/// (signal(7)).
const STOP_SIGNALS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The unsent signals of one command.
#[derive(Debug, Default)]
pub(super) struct PendingSignals {
    /// One bit for each unsent signal that no later one cancels.
    uncanceled: u64,
    count: usize,
}

/// An unsent signal of one command. While it exists, an equal one is redundant, as with pending
/// signals in the kernel (signal(7)).
#[derive(Debug)]
pub(super) struct PendingSignal {
    signals: Arc<Mutex<PendingSignals>>,
    bit: u64,
}

impl PendingSignal {
    /// Registers a signal; `None` if it is redundant or there are too many.
    pub(super) fn new(signals: &Arc<Mutex<PendingSignals>>, signal: i32) -> Option<Self> {
        let own = bit(signal);
        let canceled = match signal {
            libc::SIGCONT => STOP_SIGNALS.map(bit).into_iter().fold(0, BitOr::bitor),
            stop if STOP_SIGNALS.contains(&stop) => bit(libc::SIGCONT),
            _ => 0,
        };
        let mut pending = lock(signals);
        let redundant = pending.uncanceled & own != 0;
        if redundant || canceled != 0 && pending.count >= MAX_PENDING_SIGNALS {
            return None;
        }
        pending.uncanceled = pending.uncanceled & !canceled | own;
        pending.count += 1;
        Some(Self { signals: signals.clone(), bit: own })
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal.unsigned_abs() % u64::BITS)
}

impl Drop for PendingSignal {
    fn drop(&mut self) {
        let mut pending = lock(&self.signals);
        pending.uncanceled &= !self.bit;
        pending.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_cancel_each_other_are_limited_too() {
        let signals = Arc::<Mutex<PendingSignals>>::default();
        let flood = [libc::SIGSTOP, libc::SIGCONT, libc::SIGTERM].into_iter().cycle().take(10_000);
        let pending: Vec<PendingSignal> =
            flood.filter_map(|signal| PendingSignal::new(&signals, signal)).collect();
        assert_eq!(pending.len(), MAX_PENDING_SIGNALS);
        drop(pending);
        assert!(PendingSignal::new(&signals, libc::SIGCONT).is_some());
    }
}
