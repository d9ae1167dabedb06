//! Files and directories through a pair of pipes: the transfer protocol (docs/COPY.md), and both of
//! its sides.
//!
//! One side sends ([`send`]), the other receives ([`receive`]); either may be the one that a person
//! sits at. Both are synchronous, over any [`Read`](std::io::Read) and [`Write`](std::io::Write).
//! What a peer says about names is believed as far as [`Name`] and [`Below`] go: single components,
//! none of which leads upwards, each opened without following links.

mod confined_dir;
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

pub use name::{BadName, Below, Name};
pub use receive::{Destination, receive};
pub use send::{SendOptions, Source, send};
pub use serve::{get, put, serve};

/// The subsystem by whose name a client asks labshd for the remote side of a copy.
pub const SUBSYSTEM: &str = "labsh-copy";

/// How many things may be announced without having been settled: what bounds the memory of both
/// sides.
pub const WINDOW: usize = 1024;

/// Why a transfer came to nothing, or to an end before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side is gone, or cannot be reached any more.
    #[error("the transfer was cut: {0}")]
    Link(#[from] io::Error),
    /// The other side said something that it must not say.
    #[error("the other side broke the rules of copying: {0}")]
    Protocol(&'static str),
    /// One side could not begin.
    #[error("{0}")]
    Refused(String),
}

/// Where something has its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where it is read.
    Source,
    /// Where it is to be.
    Destination,
}

/// Something that a person should know about one file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// On which side.
    pub side: Side,
    /// Which: for a sender as the person named it, for a receiver by the name that it has there;
    /// below that as the file system does; any bytes.
    pub path: Vec<u8>,
    /// What about it.
    pub text: String,
    /// Whether it was therefore not copied; otherwise it is a remark.
    pub failure: bool,
}

/// How far a transfer has come; may be read while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    announced: AtomicU64,
    moved: AtomicU64,
    carried: AtomicU64,
    listed: AtomicBool,
    copied: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
}

/// What [`Progress`] says at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Bytes in all files that are known of so far.
    pub announced: u64,
    /// Bytes of these that are done with: copied, found unchanged, or given up.
    pub moved: u64,
    /// Bytes of contents that went from one side to the other.
    pub carried: u64,
    /// Whether all files are known of.
    pub listed: bool,
    /// Files, links and directories that were made or changed.
    pub copied: u64,
    /// Those that were there already, as they should be.
    pub unchanged: u64,
    /// Those that are not as they should be.
    pub failed: u64,
}

impl Progress {
    /// As it stands.
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            announced: of(&self.announced),
            moved: of(&self.moved),
            carried: of(&self.carried),
            listed: self.listed.load(Ordering::Relaxed),
            copied: of(&self.copied),
            unchanged: of(&self.unchanged),
            failed: of(&self.failed),
        }
    }
}

/// Who wants to know how a transfer goes.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Kept up to date.
    pub progress: &'a Progress,
    /// Called for each trouble as it shows itself.
    pub tell: &'a (dyn Fn(Trouble) + Sync),
}

impl Watch<'_> {
    fn add(count: &AtomicU64, by: u64) {
        count.fetch_add(by, Ordering::Relaxed);
    }

    fn trouble(&self, side: Side, path: Vec<u8>, text: impl Into<String>, failure: bool) {
        if failure {
            Self::add(&self.progress.failed, 1);
        }
        (self.tell)(Trouble { side, path, text: text.into(), failure });
    }
}

/// What an error of the operating system says, without its number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}
