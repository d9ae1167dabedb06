//! Flow control of one stream: how far its sender may go, and when its receiver lets it go further.
//!
//! All positions are absolute, counted in bytes from the stream's start (PROTOCOL.md, "Flow
//! control").

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// The widest window that a receiver grows for one stream, in bytes: 640 MB/s at 100 ms of round
/// trip.
const WIDEST: u64 = 64 << 20;

/// How wide a window stays while it shares a short link, in bytes: all that is under way of a
/// stream is ahead of the answers on other channels.
const SHARED: u64 = 256 << 10;

/// So many bytes of its own after it was told to share, a stream counts as alone again.
const ALONE_AFTER: u64 = 64 << 20;

/// What one connection may spend on windows wider than the first, in bytes.
const CONNECTION_GROWTH: u64 = 128 << 20;

/// The sender's half.
#[derive(Debug)]
pub struct SendWindow {
    sent: u64,
    consumed: u64,
    limit: u64,
}

impl SendWindow {
    /// Nothing sent yet, up to `first_limit` allowed.
    pub fn new(first_limit: u64) -> Self {
        Self { sent: 0, consumed: 0, limit: first_limit }
    }

    /// Bytes that may be sent now.
    pub fn available(&self) -> u64 {
        self.limit - self.sent
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Up to here the peer has handed the bytes on.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The position that must not be passed.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts bytes as sent; returns the position behind them. Never more than [`Self::available`].
    pub fn advance(&mut self, bytes: u64) -> u64 {
        debug_assert!(bytes <= self.available());
        self.sent += bytes;
        self.sent
    }

    /// Takes a credit; the error names the rule that it breaks.
    pub fn raise(&mut self, consumed: u64, limit: u64) -> Result<(), &'static str> {
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

/// A supply of bytes that windows grow from; shared, because memory is.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicU64>);

impl Budget {
    /// A supply of so many bytes.
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

/// What the windows of one connection grow from: its own supply and the process's.
#[derive(Debug, Clone)]
pub struct Growth {
    connection: Budget,
    process: Budget,
}

impl Growth {
    /// A fresh supply for a connection beside the process's.
    pub fn new(process: Budget) -> Self {
        Self { connection: Budget::new(CONNECTION_GROWTH), process }
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

/// The receiver's half. What it grew goes back to the supply when it is dropped.
#[derive(Debug)]
pub struct ReceiveWindow {
    received: u64,
    consumed: u64,
    limit: u64,
    window: u64,
    widest: u64,
    shared_until: u64,
    grown: u64,
    sender_waits: bool,
    growth: Growth,
}

impl ReceiveWindow {
    /// Nothing received yet, up to `first_limit` allowed.
    pub fn new(first_limit: u64, growth: Growth) -> Self {
        Self {
            received: 0,
            consumed: 0,
            limit: first_limit,
            window: first_limit,
            widest: WIDEST,
            shared_until: 0,
            grown: 0,
            sender_waits: false,
            growth,
        }
    }

    /// The same, but it stays as wide as it is: where what is under way delays what comes behind
    /// it.
    pub fn fixed(first_limit: u64, growth: Growth) -> Self {
        let mut window = Self::new(first_limit, growth);
        window.widest = first_limit;
        window
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether everything that was received has been handed on for good.
    pub fn all_consumed(&self) -> bool {
        self.consumed == self.received
    }

    /// Counts arrived bytes; `limited` is the frame's flag: its sender now waits for credit. Past
    /// the limit, the error is the position they would have reached.
    pub fn receive(&mut self, bytes: u64, limited: bool) -> Result<(), u64> {
        let position = self.received + bytes;
        if position > self.limit {
            return Err(position);
        }
        self.received = position;
        self.sender_waits = limited;
        Ok(())
    }

    /// Stays at 256 KiB for the next 64 MiB: for where somebody on another channel waits for
    /// answers, and the link is too short to need more.
    pub fn share(&mut self) {
        self.shared_until = self.consumed + ALONE_AFTER;
    }

    /// The limit announced last.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts bytes as handed on for good; true when the sender should hear of it.
    ///
    /// Where our reader has handed on everything and the sender still waits for credit, it is the
    /// link that is longer than the window: the window doubles.
    pub fn consume(&mut self, bytes: u64) -> bool {
        self.consumed = (self.consumed + bytes).min(self.received);
        if self.sender_waits && self.all_consumed() {
            self.sender_waits = false;
            self.widen();
        }
        self.limit_due() - self.limit >= self.width() / 4
    }

    /// The positions to announce: how far consumed, how far the sender may go.
    pub fn announce(&mut self) -> (u64, u64) {
        self.limit = self.limit_due();
        (self.consumed, self.limit)
    }

    fn limit_due(&self) -> u64 {
        self.limit.max(self.consumed + self.width())
    }

    fn width(&self) -> u64 {
        if self.consumed < self.shared_until { self.window.min(SHARED) } else { self.window }
    }

    fn widen(&mut self) {
        let more = self.window;
        if self.width() == self.window
            && self.window + more <= self.widest
            && self.growth.take(more)
        {
            self.window += more;
            self.grown += more;
        }
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        self.growth.connection.give_back(self.grown);
        self.growth.process.give_back(self.grown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(first: u64) -> ReceiveWindow {
        ReceiveWindow::new(first, Growth::new(Budget::new(1 << 30)))
    }

    #[test]
    fn credit_comes_in_quarters() {
        let mut window = window(1024);
        window.receive(300, false).unwrap();
        assert!(!window.consume(255));
        assert!(window.consume(1));
        assert_eq!(window.announce(), (256, 1280));
        assert!(!window.consume(44));
    }

    #[test]
    fn a_fixed_window_stays_as_it_is_however_long_the_link() {
        let mut window = ReceiveWindow::fixed(1024, Growth::new(Budget::new(1 << 30)));
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
    fn a_long_link_widens_the_window_and_a_slow_reader_does_not() {
        let mut window = window(1 << 20);
        // The link delivers a whole window, the reader hands all of it on while the sender waits.
        window.receive(1 << 20, true).unwrap();
        assert!(window.consume(1 << 20));
        assert_eq!(window.announce(), (1 << 20, 3 << 20));
        // The same, but the reader leaves some: the reader is what is slow.
        window.receive(2 << 20, true).unwrap();
        window.consume((2 << 20) - 1);
        assert_eq!(window.announce().1, (3 << 20) - 1 + (2 << 20));
    }

    #[test]
    fn a_shared_window_is_narrow_and_widens_again_once_alone() {
        let mut window = window(1 << 20);
        window.share();
        // What was allowed stays allowed; nothing more is until the reader has come near it.
        window.receive(512 << 10, false).unwrap();
        assert!(!window.consume(512 << 10));
        window.receive(512 << 10, true).unwrap();
        assert!(window.consume(512 << 10));
        assert_eq!(window.announce(), (1 << 20, (1 << 20) + SHARED));
        while window.consumed < ALONE_AFTER {
            window.receive(SHARED, false).unwrap();
            window.consume(SHARED);
            window.announce();
        }
        assert_eq!(window.limit() - window.consumed, 1 << 20);
    }

    #[test]
    fn windows_stop_growing_where_the_supply_ends_and_give_it_back() {
        let process = Budget::new(100);
        let mut first = ReceiveWindow::new(64, Growth::new(process.clone()));
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
    fn impossible_credits_are_refused() {
        let mut window = SendWindow::new(100);
        window.advance(50);
        assert!(window.raise(51, 200).is_err());
        assert!(window.raise(50, 99).is_err());
        assert!(window.raise(50, u64::MAX).is_err());
        window.raise(50, 200).unwrap();
        assert!(window.raise(49, 200).is_err());
        assert_eq!(window.available(), 150);
    }
}
