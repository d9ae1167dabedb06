//! Flow control of one stream: how far its sender may send, and when its receiver raises that
//! limit.
//!
//! All positions are absolute, counted in bytes from the start of the stream, as in QUIC (RFC 9000,
//! section 4.1). PROTOCOL.md, "Flow control", has the rules.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// The largest window that a receiver grows for one stream, in bytes: the bandwidth-delay product
/// of 640 MiB/s and a round-trip time of 100 ms.
const MAX_STREAM_WINDOW: u64 = 64 << 20;

/// The window of a stream beside an interactive channel on a short link, in bytes: the
/// bandwidth-delay product of 1 Gbit/s and a round-trip time of 2 ms.
///
/// All data in flight is delivered before the answers on other channels (head-of-line blocking). On
/// faster links so small a window costs throughput, which is why no stream has it all the time.
const LOW_LATENCY_WINDOW: u64 = 256 << 10;

/// For how long a stream keeps [`LOW_LATENCY_WINDOW`] after the last sign of an interactive
/// channel, in bytes of its own data.
const LOW_LATENCY_SPAN: u64 = 64 << 20;

/// The most that the windows of one connection may grow together, in bytes.
const MAX_CONNECTION_GROWTH: u64 = 128 << 20;

/// The sender's half of a stream's flow control.
#[derive(Debug)]
pub struct SendWindow {
    sent: u64,
    consumed: u64,
    limit: u64,
}

impl SendWindow {
    /// Creates the window of a new stream, which may send up to `first_limit`.
    pub fn new(first_limit: u64) -> Self {
        Self { sent: 0, consumed: 0, limit: first_limit }
    }

    /// Returns the number of bytes that may be sent now.
    pub fn available(&self) -> u64 {
        self.limit - self.sent
    }

    /// Returns the number of bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the position up to which the peer has passed the bytes on.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Returns the position up to which the sender may send.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts bytes as sent, at most [`Self::available`]; returns the position after them.
    pub fn advance(&mut self, bytes: u64) -> u64 {
        debug_assert!(bytes <= self.available());
        self.sent += bytes;
        self.sent
    }

    /// Applies a `credit` of the peer; an error is the rule that it breaks.
    pub fn apply_credit(&mut self, consumed: u64, limit: u64) -> Result<(), &'static str> {
        if consumed < self.consumed {
            return Err("the consumed position decreases");
        }
        if consumed > self.sent {
            return Err("the consumed position is past what was sent");
        }
        if limit < self.limit {
            return Err("the limit decreases");
        }
        if limit - consumed > limits::MAX_WINDOW {
            return Err("the limit is more than 1 GiB past the consumed position");
        }
        self.consumed = consumed;
        self.limit = limit;
        Ok(())
    }
}

/// A number of bytes that windows may grow by together. Clones share it, as windows share memory.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicU64>);

impl Budget {
    /// Creates a budget of this many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What the windows of one connection may grow by: a budget of its own, within the process's.
#[derive(Debug, Clone)]
pub struct ConnectionBudget {
    connection: Budget,
    process: Budget,
}

impl ConnectionBudget {
    /// Creates the budget of a new connection, 128 MiB, within the process's.
    pub fn new(process: Budget) -> Self {
        Self { connection: Budget::new(MAX_CONNECTION_GROWTH), process }
    }

    fn take(&self, bytes: u64) -> bool {
        if !self.connection.take(bytes) {
            return false;
        }
        let taken = self.process.take(bytes);
        if !taken {
            self.connection.give_back(bytes);
        }
        taken
    }
}

/// The receiver's half of a stream's flow control. Dropping it returns its growth to the budget.
#[derive(Debug)]
pub struct ReceiveWindow {
    received: u64,
    consumed: u64,
    limit: u64,
    window: u64,
    max_window: u64,
    /// Up to this consumed position the window is limited to [`LOW_LATENCY_WINDOW`].
    low_latency_until: u64,
    grown: u64,
    /// The received position at the last growth.
    grown_at: u64,
    /// Whether the last frame used up the limit, so that its sender waits for credit.
    sender_limited: bool,
    budget: ConnectionBudget,
}

impl ReceiveWindow {
    /// Creates the window of a new stream, which may send up to `first_limit`.
    pub fn new(first_limit: u64, budget: ConnectionBudget) -> Self {
        Self {
            received: 0,
            consumed: 0,
            limit: first_limit,
            window: first_limit,
            max_window: MAX_STREAM_WINDOW,
            low_latency_until: 0,
            grown: 0,
            grown_at: 0,
            sender_limited: false,
            budget,
        }
    }

    /// Creates a window that never grows, for a stream whose data in flight delays interactive data
    /// of the same stream.
    pub fn fixed(first_limit: u64, budget: ConnectionBudget) -> Self {
        let mut window = Self::new(first_limit, budget);
        window.max_window = first_limit;
        window
    }

    /// Returns the number of bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of bytes passed on to their destination so far.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Returns whether all received bytes were passed on to their destination.
    pub fn all_consumed(&self) -> bool {
        self.consumed == self.received
    }

    /// Counts received bytes; `limited` is the frame's flag LIMITED, which says that the sender now
    /// waits for credit. Past the limit, the error is the position that the bytes reach.
    pub fn receive(&mut self, bytes: u64, limited: bool) -> Result<(), u64> {
        let position = self.received + bytes;
        if position > self.limit {
            return Err(position);
        }
        self.received = position;
        self.sender_limited = limited;
        Ok(())
    }

    /// Prefers the latency of other channels to the throughput of this stream: limits the window to
    /// 256 KiB for the next 64 MiB.
    pub fn prefer_latency(&mut self) {
        self.low_latency_until = self.consumed + LOW_LATENCY_SPAN;
    }

    /// Returns the limit that was announced last.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts bytes as passed on to their destination; returns whether a `credit` should be sent:
    /// when the new limit is a quarter of the window past the old one.
    ///
    /// Doubles the window if the reader has consumed everything while the sender waits for credit:
    /// then the round-trip time limits the stream, and not the reader. The sender must have used
    /// the window since it last grew: what it says of itself is not enough.
    pub fn consume(&mut self, bytes: u64) -> bool {
        self.consumed = (self.consumed + bytes).min(self.received);
        if self.sender_limited && self.all_consumed() {
            self.sender_limited = false;
            if self.received - self.grown_at >= self.window {
                self.grow();
            }
        }
        self.next_limit() - self.limit >= self.effective_window() / 4
    }

    /// Raises the limit and returns the positions to announce: consumed, and the limit.
    pub fn announce(&mut self) -> (u64, u64) {
        self.limit = self.next_limit();
        (self.consumed, self.limit)
    }

    fn next_limit(&self) -> u64 {
        self.limit.max(self.consumed + self.effective_window())
    }

    fn effective_window(&self) -> u64 {
        if self.consumed < self.low_latency_until {
            self.window.min(LOW_LATENCY_WINDOW)
        } else {
            self.window
        }
    }

    fn grow(&mut self) {
        let more = self.window;
        if self.effective_window() == self.window
            && self.window + more <= self.max_window
            && self.budget.take(more)
        {
            self.window += more;
            self.grown += more;
            self.grown_at = self.received;
        }
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        self.budget.connection.give_back(self.grown);
        self.budget.process.give_back(self.grown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(first: u64) -> ReceiveWindow {
        ReceiveWindow::new(first, ConnectionBudget::new(Budget::new(1 << 30)))
    }

    #[test]
    fn a_credit_is_due_after_a_quarter_of_the_window() {
        let mut window = window(1024);
        window.receive(300, false).unwrap();
        assert!(!window.consume(255));
        assert!(window.consume(1));
        assert_eq!(window.announce(), (256, 1280));
        assert!(!window.consume(44));
    }

    #[test]
    fn a_fixed_window_does_not_grow_on_a_long_link() {
        let mut window = ReceiveWindow::fixed(1024, ConnectionBudget::new(Budget::new(1 << 30)));
        for sent in 1..=8 {
            window.receive(1024, true).unwrap();
            assert!(window.consume(1024));
            assert_eq!(window.announce(), (sent * 1024, (sent + 1) * 1024));
        }
    }

    #[test]
    fn data_past_the_limit_is_an_error() {
        let mut window = window(10);
        assert_eq!(window.receive(11, false), Err(11));
        assert_eq!(window.receive(10, false), Ok(()));
        assert_eq!(window.receive(1, false), Err(11));
    }

    #[test]
    fn the_window_grows_for_a_long_link_and_not_for_a_slow_reader() {
        let mut window = window(1 << 20);
        // The link delivers a whole window, and the reader consumes it while the sender waits.
        window.receive(1 << 20, true).unwrap();
        assert!(window.consume(1 << 20));
        assert_eq!(window.announce(), (1 << 20, 3 << 20));
        // The same, but the reader leaves a byte: now the reader is slow.
        window.receive(2 << 20, true).unwrap();
        window.consume((2 << 20) - 1);
        assert_eq!(window.announce().1, (3 << 20) - 1 + (2 << 20));
    }

    #[test]
    fn a_sender_that_does_not_use_the_window_gets_no_larger_one() {
        let mut window = window(1024);
        for _ in 0..1023 {
            window.receive(1, true).unwrap();
            window.consume(1);
        }
        assert_eq!(window.announce(), (1023, 2047));
        window.receive(1, true).unwrap();
        window.consume(1);
        assert_eq!(window.announce(), (1024, 3072));
        window.receive(1024, true).unwrap();
        window.consume(1024);
        assert_eq!(window.announce(), (2048, 4096));
    }

    #[test]
    fn a_low_latency_window_is_small_for_a_span_of_bytes() {
        let mut window = window(1 << 20);
        window.prefer_latency();
        // A limit never decreases: no credit is due until the reader comes close to the old one.
        window.receive(512 << 10, false).unwrap();
        assert!(!window.consume(512 << 10));
        window.receive(512 << 10, true).unwrap();
        assert!(window.consume(512 << 10));
        assert_eq!(window.announce(), (1 << 20, (1 << 20) + LOW_LATENCY_WINDOW));
        while window.consumed < LOW_LATENCY_SPAN {
            window.receive(LOW_LATENCY_WINDOW, false).unwrap();
            window.consume(LOW_LATENCY_WINDOW);
            window.announce();
        }
        assert_eq!(window.limit() - window.consumed, 1 << 20);
    }

    #[test]
    fn windows_grow_within_the_budget_and_return_it() {
        let process = Budget::new(100);
        let mut first = ReceiveWindow::new(64, ConnectionBudget::new(process.clone()));
        for _ in 0..3 {
            let (_, limit) = first.announce();
            first.receive(limit - first.received(), true).unwrap();
            first.consume(u64::MAX >> 1);
        }
        assert_eq!(first.window, 128);
        drop(first);
        assert!(process.take(100));
    }

    #[test]
    fn invalid_credits_are_refused() {
        let mut window = SendWindow::new(100);
        window.advance(50);
        assert!(window.apply_credit(51, 200).is_err());
        assert!(window.apply_credit(50, 99).is_err());
        assert!(window.apply_credit(50, u64::MAX).is_err());
        window.apply_credit(50, 200).unwrap();
        assert!(window.apply_credit(49, 200).is_err());
        assert_eq!(window.available(), 150);
    }
}
