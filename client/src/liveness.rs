//! Whether the server is still there: its silence, measured in time in which this process could
//! have heard it.

use std::time::Duration;

use labsh_proto::frame::Frame;
use labsh_proto::limits;
use labsh_transport::framing::{FrameReader, ReadError};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout};

/// Silence is counted in pieces of this length, so that being stopped (job control, a debugger, a
/// sleeping machine) for however long counts as one piece at most.
pub(crate) const PIECE: Duration = Duration::from_secs(5);

/// After so many pieces the server is asked whether it is there.
const ASK_AFTER: u32 = 3;

/// After so many it has gone.
const GONE_AFTER: u32 = 9;

/// After how much silence a server counts as gone.
pub(crate) const DEAD_PEER_AFTER: Duration =
    Duration::from_secs(PIECE.as_secs() * GONE_AFTER as u64);

/// What follows from a piece of silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Wait,
    /// Ask it to answer.
    Ask,
    /// It has been asked long ago.
    Gone,
}

/// How many pieces of silence there were in a row.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    pieces: u32,
    /// The bytes that had come when it began.
    heard: u64,
}

impl Silence {
    /// The server's next frame, or a verdict for each piece of silence before it. Cancel safe.
    pub(crate) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut FrameReader<R>,
    ) -> Result<Result<Option<Frame>, ReadError>, Verdict> {
        let start = Instant::now();
        let next = timeout(PIECE, reader.next(limits::MAX_BODY)).await;
        if reader.received() > self.heard {
            self.heard = reader.received();
            self.broken();
        }
        next.map_err(|_| self.lasted(start.elapsed()))
    }

    /// Bytes have come.
    fn broken(&mut self) {
        self.pieces = 0;
    }

    /// A wait of [`PIECE`] is over, which in fact took so long, and nothing has come.
    fn lasted(&mut self, took: Duration) -> Verdict {
        if took > 2 * PIECE {
            // It was this process that did not run. What the server sent meanwhile may not have
            // been read yet, and it is given the time to answer anew.
            self.pieces = ASK_AFTER;
            return Verdict::Ask;
        }
        self.pieces += 1;
        match self.pieces {
            ASK_AFTER => Verdict::Ask,
            GONE_AFTER.. => Verdict::Gone,
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(silence: &mut Silence, pieces: u32) -> Vec<Verdict> {
        (0..pieces).map(|_| silence.lasted(PIECE)).collect()
    }

    #[test]
    fn a_silent_server_is_asked_once_and_then_given_up() {
        use Verdict::{Ask, Gone, Wait};
        let mut silence = Silence::default();
        assert_eq!(
            verdicts(&mut silence, 9),
            [Wait, Wait, Ask, Wait, Wait, Wait, Wait, Wait, Gone]
        );
        assert_eq!(DEAD_PEER_AFTER, Duration::from_secs(45));
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let mut silence = Silence::default();
        for _ in 0..100 {
            assert!(!verdicts(&mut silence, 8).contains(&Verdict::Gone));
            silence.broken();
        }
    }

    #[test]
    fn a_client_that_was_stopped_blames_nobody() {
        for pieces in 0..9 {
            let mut silence = Silence::default();
            verdicts(&mut silence, pieces);
            // Ten minutes, as its clock sees it, whatever it had been doing.
            assert_eq!(silence.lasted(Duration::from_secs(600)), Verdict::Ask, "after {pieces}");
            assert!(!verdicts(&mut silence, 5).contains(&Verdict::Gone));
            assert_eq!(silence.lasted(PIECE), Verdict::Gone);
        }
    }
}
