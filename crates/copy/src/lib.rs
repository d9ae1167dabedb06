//! Copies files and directories over a pair of pipes: both sides of the protocol in docs/COPY.md.
//!
//! One side sends ([`send`]), the other receives ([`receive`]); either can be the client. Both are
//! synchronous, over any [`Read`](std::io::Read) and [`Write`](std::io::Write). Names from a peer
//! are restricted to [`Name`] and [`RelativePath`]: no component leads upwards, and each is opened
//! without following links.

mod confined_dir;
mod contents;
mod destination;
mod digest;
mod existing;
mod fields;
mod holes;
mod metadata;
mod name;
mod partial;
mod receive;
mod send;
mod serve;
pub mod stream;
mod walk;
pub mod wire;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use destination::Destination;
pub use name::{BadName, Name, Placement, RelativePath};
pub use receive::receive;
pub use send::{SendOptions, Source, send};
pub use serve::{get, put, serve};

/// The subsystem by whose name a client asks labshd for the remote side of a copy.
pub const SUBSYSTEM: &str = "labsh-copy";

/// How many announced entries may be unsettled, which bounds the memory of both sides.
pub const MAX_PENDING_ENTRIES: usize = 1024;

/// What a receiver leaves as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveOptions {
    /// Whether modification times are not set.
    pub no_times: bool,
    /// Whether permissions are not set: existing files and directories retain theirs, and new ones
    /// get what was sent within the umask (umask(2)).
    pub no_permissions: bool,
}

/// Options of a transfer, for both of its sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// For the side that sends.
    pub send: SendOptions,
    /// For the side that receives.
    pub receive: ReceiveOptions,
}

/// Why a transfer could not begin or was not completed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to the other side ended or failed.
    #[error("the connection was lost: {0}")]
    Disconnected(#[from] io::Error),
    /// The other side violated the protocol.
    #[error("the other side violated the copy protocol: {0}")]
    Protocol(&'static str),
    /// One side could not begin.
    #[error("{0}")]
    Refused(String),
}

/// A side of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that reads the files.
    Source,
    /// The side that writes the files.
    Destination,
}

/// A failure or remark about one file or directory, for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyReport {
    /// The side with the cause.
    pub side: Side,
    /// The path. It begins with [`Source::display_name`] on the sending side, and with the name at
    /// the destination on the receiving side. It can hold any bytes.
    pub path: Vec<u8>,
    /// The failure or remark.
    pub text: String,
    /// Whether the file was not copied; otherwise this is a remark.
    pub failure: bool,
}

/// The progress of a transfer, which can be read while the transfer runs.
#[derive(Debug, Default)]
pub struct Progress {
    announced_bytes: AtomicU64,
    processed_bytes: AtomicU64,
    transferred_bytes: AtomicU64,
    listed: AtomicBool,
    copied: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
}

/// A snapshot of [`Progress`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Bytes in all files that have been announced.
    pub announced_bytes: u64,
    /// Bytes of announced files that were copied, found unchanged, or given up.
    pub processed_bytes: u64,
    /// Bytes of copied files that were sent from one side to the other.
    pub transferred_bytes: u64,
    /// Whether all files have been announced.
    pub listed: bool,
    /// Files and links that were created or replaced.
    pub copied: u64,
    /// Files and links that were the same already.
    pub unchanged: u64,
    /// Files, links and directories that could not be copied.
    pub failed: u64,
}

impl Progress {
    /// Returns the current counts.
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            announced_bytes: of(&self.announced_bytes),
            processed_bytes: of(&self.processed_bytes),
            transferred_bytes: of(&self.transferred_bytes),
            listed: self.listed.load(Ordering::Relaxed),
            copied: of(&self.copied),
            unchanged: of(&self.unchanged),
            failed: of(&self.failed),
        }
    }
}

/// Receives the progress and the reports of a transfer.
#[derive(Clone, Copy)]
pub struct Observer<'a> {
    /// Updated while the transfer runs.
    pub progress: &'a Progress,
    /// Called for each failure and remark as it occurs.
    pub on_report: &'a (dyn Fn(CopyReport) + Sync),
}

impl Observer<'_> {
    fn add(count: &AtomicU64, by: u64) {
        count.fetch_add(by, Ordering::Relaxed);
    }

    /// Reports a failure, which is counted, or a remark.
    fn report(&self, side: Side, path: Vec<u8>, text: impl Into<String>, failure: bool) {
        if failure {
            Self::add(&self.progress.failed, 1);
        }
        (self.on_report)(CopyReport { side, path, text: text.into(), failure });
    }
}

/// Returns the text of a system error without its number.
fn os_error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}
