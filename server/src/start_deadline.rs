//! When the start of a command is given up: its time limit, or the configured one, has passed.

use std::time::Duration;

use labsh_proto::message::{Refuse, RefuseCode};
use tokio::time::{Instant, sleep_until};

/// What to do about a command that does not start.
const REMEDY: &str = "its directory or program may be on a file server that does not respond; try \
    another directory (--cwd /), or ask that host's administrator";

/// When a command must have started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartDeadline {
    due: Instant,
    /// The configured limit; `None` if the command's own time limit ends earlier.
    start_timeout: Option<Duration>,
}

impl StartDeadline {
    /// Returns the deadline of a command that was requested then: its own time limit in
    /// milliseconds, where 0 means none, or the configured one.
    pub(crate) fn new(requested: Instant, timeout: u64, start_timeout: Duration) -> Self {
        let due = requested + start_timeout;
        match time_limit(requested, timeout) {
            Some(limit) if limit <= due => Self { due: limit, start_timeout: None },
            _ => Self { due, start_timeout: Some(start_timeout) },
        }
    }

    /// Waits until it has passed, and returns the refusal.
    pub(crate) async fn passed(self) -> Refuse {
        sleep_until(self.due).await;
        match self.start_timeout {
            None => Refuse::new(
                RefuseCode::TIMED_OUT,
                "the command had not started when its time was up (--timeout)",
                REMEDY,
            ),
            Some(limit) => Refuse::new(
                RefuseCode::NOT_STARTED,
                format!("the command did not start within {limit:?} (start_timeout)"),
                REMEDY,
            ),
        }
    }
}

/// Returns when the time of a command is up, which counts from its request; `None` for 0 or a time
/// that no clock reaches.
pub(crate) fn time_limit(requested: Instant, timeout: u64) -> Option<Instant> {
    let timeout = Duration::from_millis(timeout);
    if timeout.is_zero() { None } else { requested.checked_add(timeout) }
}
