//! What a command line can vary in a lesson.

use std::num::NonZeroUsize;

use crate::real_session::RealSession;

/// The variations that a teacher chose; a lesson ignores those that it does not have.
#[derive(Default)]
pub struct Options {
    /// The command whose output is sent, as one line for `/bin/sh`.
    pub command: Option<String>,
    /// How many bytes a naive program reads at once.
    pub recv: Option<NonZeroUsize>,
    /// The sizes of small messages, in bytes.
    pub sizes: Vec<NonZeroUsize>,
    /// A server and a client to watch, for [`crate::Lesson::needs_real_session`].
    pub real_session: Option<RealSession>,
}
