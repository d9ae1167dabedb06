//! Shows the progress of a copy: messages, and below them on a terminal a line with the amount and
//! the rate.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use labsh_copy::Counts;

use crate::console;
use crate::fleet::screen::{CLEAR, bottom_line, columns, cut, has_progress_line};

/// The time over which the rate is averaged: a short stall does not show, a slower link soon does.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Writes to stderr, which the copying threads share.
pub(super) struct Display {
    progress: bool,
    state: Mutex<State>,
}

struct State {
    shown: bool,
    /// Samples of the last seconds: the time, and the bytes moved by then.
    moments: Vec<(Instant, u64)>,
}

impl Display {
    pub(super) fn new(quiet: bool) -> Self {
        let state = State { shown: false, moments: vec![(Instant::now(), 0)] };
        let progress = !quiet && has_progress_line() && !console::uses_json();
        Self { progress, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a message.
    pub(super) fn note(&self, text: &str) {
        self.write(&console::message(text));
    }

    /// Writes a line to stderr.
    pub(super) fn write(&self, line: &str) {
        let mut state = self.lock();
        let clear = if std::mem::take(&mut state.shown) { CLEAR } else { "" };
        // A closed stderr cannot be reported anywhere.
        let _ = io::stderr().write_all(format!("{clear}{line}").as_bytes());
    }

    /// Draws the progress line.
    pub(super) fn draw(&self, counts: Counts, done: usize, hosts: usize) {
        if !self.progress {
            return;
        }
        let mut state = self.lock();
        let now = Instant::now();
        state.moments.push((now, counts.processed_bytes));
        let old = state.moments.iter().take_while(|(when, _)| now - *when > RATE_WINDOW).count();
        // One older sample is kept, so that the rate has a start.
        state.moments.drain(..old.saturating_sub(1));
        let (since, before) = state.moments[0];
        let rate = (counts.processed_bytes.saturating_sub(before)) as f64
            / (now - since).as_secs_f64().max(0.001);
        let text = line(counts, rate, done, hosts);
        let line = bottom_line(cut(&text, columns().saturating_sub(1)));
        let _ = io::stderr().write_all(line.as_bytes());
        state.shown = true;
    }

    /// Clears the progress line.
    pub(super) fn clear(&self) {
        if std::mem::take(&mut self.lock().shown) {
            let _ = io::stderr().write_all(CLEAR.as_bytes());
        }
    }
}

/// `37 %  1.2 of 3.4 GiB  110 MiB/s  20 s left  3/40 hosts done`.
fn line(counts: Counts, rate: f64, done: usize, hosts: usize) -> String {
    let mut text = String::new();
    if counts.listed && counts.announced_bytes > 0 {
        text +=
            &format!("{} %  ", counts.processed_bytes.saturating_mul(100) / counts.announced_bytes);
    }
    text += &format!("{} of {}", bytes(counts.processed_bytes), bytes(counts.announced_bytes));
    if !counts.listed {
        text += " so far";
    }
    text += &format!("  {}/s", bytes(rate as u64));
    if counts.listed && rate >= 1.0 {
        let left = counts.announced_bytes.saturating_sub(counts.processed_bytes) as f64 / rate;
        text += &format!("  {} left", time(left as u64));
    }
    let files = counts.copied + counts.unchanged + counts.failed;
    text += &format!("  {files} {}", if files == 1 { "file" } else { "files" });
    if hosts > 1 {
        text += &format!("  {done}/{hosts} hosts done");
    }
    text
}

fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Formats a number of bytes with three digits and a power of 1024.
pub(super) fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 999.5 && unit < 5 {
        value /= 1024.0;
        unit += 1;
    }
    let unit = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
    if unit == "B" || value >= 9.95 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0, 999, 1000, 1024, 10_240, 1 << 20, 10 << 20, 1023 << 20, 5 << 30, u64::MAX]
            .map(bytes);
        assert_eq!(
            shown,
            [
                "0 B",
                "999 B",
                "1.0 KiB",
                "1.0 KiB",
                "10 KiB",
                "1.0 MiB",
                "10 MiB",
                "1.0 GiB",
                "5.0 GiB",
                "16384 PiB"
            ]
        );
    }

    #[test]
    fn an_end_is_foretold_only_where_it_is_known() {
        let counts = Counts {
            announced_bytes: 4 << 30,
            processed_bytes: 1 << 30,
            listed: true,
            copied: 2,
            ..Counts::default()
        };
        let rate = (100 << 20) as f64;
        assert_eq!(
            line(counts, rate, 0, 1),
            "25 %  1.0 GiB of 4.0 GiB  100 MiB/s  30 s left  2 files"
        );
        let some = Counts { listed: false, ..counts };
        assert_eq!(
            line(some, 0.0, 3, 40),
            "1.0 GiB of 4.0 GiB so far  0 B/s  2 files  3/40 hosts done"
        );
        assert_eq!(
            line(Counts { listed: true, ..Counts::default() }, 0.0, 0, 1),
            "0 B of 0 B  0 B/s  0 files"
        );
    }
}
