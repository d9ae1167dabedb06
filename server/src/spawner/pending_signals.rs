//! Which signals are on their way to a command: enough that the last one counts, and no more.

use std::ops::BitOr;
use std::sync::{Arc, Mutex};

use nix::libc;

use super::client::lock;

/// How many signals may be under way to one command before those that undo each other are left out
/// as well.
const SIGNALS_UNDER_WAY: usize = 32;

/// What stops a process; SIGCONT undoes it, and it undoes SIGCONT (signal(7)).
const STOPS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The signals that are under way to one command.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Those that nothing behind them undoes, a bit each.
    kinds: u64,
    count: usize,
}

/// A signal that is on its way to one command; while it is, there is no need for another of its
/// kind, as with those that are pending in the kernel (signal(7)).
#[derive(Debug)]
pub(super) struct UnderWay {
    signals: Arc<Mutex<Signals>>,
    bit: u64,
}

impl UnderWay {
    /// `None` where one is on its way already.
    pub(super) fn new(signals: &Arc<Mutex<Signals>>, signal: i32) -> Option<Self> {
        let own = bit(signal);
        let undone = match signal {
            libc::SIGCONT => STOPS.map(bit).into_iter().fold(0, BitOr::bitor),
            stop if STOPS.contains(&stop) => bit(libc::SIGCONT),
            _ => 0,
        };
        let mut under_way = lock(signals);
        if under_way.kinds & own != 0 || undone != 0 && under_way.count >= SIGNALS_UNDER_WAY {
            return None;
        }
        under_way.kinds = under_way.kinds & !undone | own;
        under_way.count += 1;
        Some(Self { signals: signals.clone(), bit: own })
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal.unsigned_abs() % u64::BITS)
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = lock(&self.signals);
        under_way.kinds &= !self.bit;
        under_way.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_undo_each_other_are_few_too() {
        let signals = Arc::<Mutex<Signals>>::default();
        let flood = [libc::SIGSTOP, libc::SIGCONT, libc::SIGTERM].into_iter().cycle().take(10_000);
        let under_way: Vec<UnderWay> =
            flood.filter_map(|signal| UnderWay::new(&signals, signal)).collect();
        assert_eq!(under_way.len(), SIGNALS_UNDER_WAY);
        drop(under_way);
        assert!(UnderWay::new(&signals, libc::SIGCONT).is_some());
    }
}
