//! Limits the lines of the log that connections without a proven key can cause: they cost the peer
//! nothing, and would fill a disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

/// Lines of one kind that are logged at once; further ones are only counted.
const MAX_LINES_AT_ONCE: u32 = 20;

/// The time after which another line of a kind may be logged.
const TIME_PER_LINE: Duration = Duration::from_secs(1);

/// The interval between the lines with the counts.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was evicted to make room.
    Evicted,
    /// No descriptor was left for it.
    TurnedAway,
    /// It ended before the client proved a key.
    NotAuthenticated,
}

/// The lines about connections without a proven key.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLog {
    kinds: [Mutex<Kind>; 3],
    counted: Notify,
}

/// The lines of one kind.
#[derive(Debug, Default)]
struct Kind {
    /// How many lines were logged, less those for which time has passed since.
    logged: u32,
    /// When `logged` was last reduced.
    reduced: Option<Instant>,
    /// How many lines were counted instead of logged.
    counted: u64,
}

impl Kind {
    /// Returns whether another line may be logged now; counts it otherwise.
    fn permits(&mut self, now: Instant) -> bool {
        let reduced = *self.reduced.get_or_insert(now);
        let lines = (now - reduced).as_nanos() / TIME_PER_LINE.as_nanos();
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        self.logged = self.logged.saturating_sub(lines);
        self.reduced = Some(if self.logged == 0 { now } else { reduced + TIME_PER_LINE * lines });
        if self.logged < MAX_LINES_AT_ONCE {
            self.logged += 1;
            return true;
        }
        self.counted += 1;
        false
    }
}

impl ConnectionLog {
    /// Returns whether a line about a connection may be logged now; counts it otherwise.
    pub(crate) fn permits(&self, outcome: Outcome) -> bool {
        let kind = &self.kinds[outcome as usize];
        let permitted = kind.lock().unwrap_or_else(PoisonError::into_inner).permits(Instant::now());
        if !permitted {
            self.counted.notify_one();
        }
        permitted
    }

    /// Logs the counts of lines that were not logged, now and then, while there are any.
    pub(crate) async fn log_counts(&self) {
        loop {
            self.counted.notified().await;
            sleep(COUNT_INTERVAL).await;
            self.log_counts_now();
        }
    }

    /// Logs the counts, if there are any.
    pub(crate) fn log_counts_now(&self) {
        let take = |kind: &Mutex<Kind>| {
            std::mem::take(&mut kind.lock().unwrap_or_else(PoisonError::into_inner).counted)
        };
        let [evicted, turned_away, not_authenticated] = self.kinds.each_ref().map(take);
        if evicted + turned_away + not_authenticated > 0 {
            tracing::warn!(
                evicted,
                turned_away,
                not_authenticated,
                "more unauthenticated connections than the log lists"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_end_are_counted_and_one_each_second_is_logged() {
        let (mut kind, start) = (Kind::default(), Instant::now());
        let mut logged = |after: Duration, lines: u32| {
            (0..lines).filter(|_| kind.permits(start + after)).count() as u32
        };
        assert_eq!(logged(Duration::ZERO, 1_000), MAX_LINES_AT_ONCE);
        assert_eq!(logged(TIME_PER_LINE / 2, 1_000), 0);
        assert_eq!(logged(TIME_PER_LINE, 1_000), 1);
        assert_eq!(logged(TIME_PER_LINE * 3, 1_000), 2);
        assert_eq!(logged(TIME_PER_LINE * 1_000, 1_000), MAX_LINES_AT_ONCE);
        assert_eq!(kind.counted, 5_000 - 2 * u64::from(MAX_LINES_AT_ONCE) - 3);
    }
}
