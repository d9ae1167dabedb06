//! What can be varied in a lesson, from the command line.

use std::sync::Arc;

use crate::real::RealSession;

/// A teacher's wishes. What a lesson has no use for, it passes over.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The command whose output is sent, as one line for `/bin/sh`.
    pub command: Option<String>,
    /// How many bytes are read at once; never 0.
    pub recv: Option<std::num::NonZeroUsize>,
    /// The sizes of small messages, in bytes.
    pub sizes: Vec<std::num::NonZeroUsize>,
    /// A labshd and a labsh to watch, for [`crate::Lesson::watches_a_session`].
    pub real: Option<Arc<dyn RealSession>>,
}
