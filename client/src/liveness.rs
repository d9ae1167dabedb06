//! Detecting that the server has disappeared, from how long it is silent.

use std::time::Duration;

use labsh_proto::frame::Frame;
use labsh_proto::limits;
use labsh_transport::framing::{FrameReader, ReadError};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout};

/// Silence is counted in intervals of this length. A client that is stopped (job control, a
/// debugger, a suspended machine) cannot hear the server, and counts one interval at most.
const SILENT_INTERVAL: Duration = Duration::from_secs(5);

/// After this many silent intervals in a row the server is sent a ping.
const PROBE_AFTER_INTERVALS: u32 = 3;

/// After this many silent intervals in a row the server counts as dead.
const DEAD_AFTER_INTERVALS: u32 = 9;

/// A server that is silent for this time counts as dead.
pub(crate) const DEAD_PEER_TIMEOUT: Duration =
    Duration::from_secs(SILENT_INTERVAL.as_secs() * DEAD_AFTER_INTERVALS as u64);

/// What to do after a silent interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Wait for another interval.
    Wait,
    /// Send a ping, which the server has to answer.
    Probe,
    /// Give the server up: it has not answered the ping.
    Dead,
}

/// Counts silent intervals.
#[derive(Debug, Default)]
pub(crate) struct DeadPeerDetector {
    silent_intervals: u32,
    /// The bytes that had been received when the current silence began.
    received: u64,
}

impl DeadPeerDetector {
    /// Returns the server's next frame, or a verdict after each silent interval. Cancel safe.
    pub(crate) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut FrameReader<R>,
    ) -> Result<Result<Option<Frame>, ReadError>, Verdict> {
        let start = Instant::now();
        let next = timeout(SILENT_INTERVAL, reader.next(limits::MAX_BODY)).await;
        if reader.received() > self.received {
            self.received = reader.received();
            self.on_bytes();
        }
        next.map_err(|_| self.on_interval(start.elapsed()))
    }

    fn on_bytes(&mut self) {
        self.silent_intervals = 0;
    }

    /// Counts a [`SILENT_INTERVAL`], which took `elapsed` by the clock.
    fn on_interval(&mut self, elapsed: Duration) -> Verdict {
        if elapsed > 2 * SILENT_INTERVAL {
            // This process did not run for a while. Bytes that arrived meanwhile may still be
            // unread, so the server gets the full time to answer another ping.
            self.silent_intervals = PROBE_AFTER_INTERVALS;
            return Verdict::Probe;
        }
        self.silent_intervals += 1;
        match self.silent_intervals {
            PROBE_AFTER_INTERVALS => Verdict::Probe,
            DEAD_AFTER_INTERVALS.. => Verdict::Dead,
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(detector: &mut DeadPeerDetector, intervals: u32) -> Vec<Verdict> {
        (0..intervals).map(|_| detector.on_interval(SILENT_INTERVAL)).collect()
    }

    #[test]
    fn a_silent_server_is_pinged_once_and_then_given_up() {
        use Verdict::{Dead, Probe, Wait};
        let mut detector = DeadPeerDetector::default();
        assert_eq!(
            verdicts(&mut detector, 9),
            [Wait, Wait, Probe, Wait, Wait, Wait, Wait, Wait, Dead]
        );
        assert_eq!(DEAD_PEER_TIMEOUT, Duration::from_secs(45));
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let mut detector = DeadPeerDetector::default();
        for _ in 0..100 {
            assert!(!verdicts(&mut detector, 8).contains(&Verdict::Dead));
            detector.on_bytes();
        }
    }

    #[test]
    fn a_client_that_was_stopped_gives_the_server_time_to_answer() {
        for intervals in 0..9 {
            let mut detector = DeadPeerDetector::default();
            verdicts(&mut detector, intervals);
            // A stop of ten minutes, whatever was counted before it.
            let elapsed = Duration::from_secs(600);
            assert_eq!(detector.on_interval(elapsed), Verdict::Probe, "after {intervals}");
            assert!(!verdicts(&mut detector, 5).contains(&Verdict::Dead));
            assert_eq!(detector.on_interval(SILENT_INTERVAL), Verdict::Dead);
        }
    }
}
