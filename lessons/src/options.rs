//! What can be varied in a lesson, from the command line.

use crate::real_session::RealSession;

/// A teacher's wishes. What a lesson has no use for, it passes over.
#[derive(Default)]
pub struct Options {
    /// The command whose output is sent, as one line for `/bin/sh`.
    pub command: Option<String>,
    /// How many bytes are read at once; never 0.
    pub recv: Option<std::num::NonZeroUsize>,
    /// The sizes of small messages, in bytes.
    pub sizes: Vec<std::num::NonZeroUsize>,
    /// A server and a client to watch, for [`crate::Lesson::needs_real_session`].
    pub real_session: Option<RealSession>,
}
