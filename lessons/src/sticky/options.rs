//! What can be varied in the lesson: the small messages, the command, and the read size.

use std::num::NonZeroUsize;

use super::text;
use crate::options::Options;
use crate::shell::output_of;
use crate::stage::LessonError;

/// The read size of many first programs: `recv(1024)`.
pub(super) const DEFAULT_RECV_SIZE: usize = 1024;

/// Bytes that fit into any receive buffer, whatever the defaults of this machine are.
pub(super) const MAX_WAITING_BYTES: usize = 32 << 10;

/// A small message.
pub(super) struct Message {
    pub(super) label: String,
    pub(super) bytes: Vec<u8>,
}

/// Returns the size of all messages together, in bytes.
pub(super) fn total_size(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.bytes.len()).sum()
}

/// Returns three commands, or messages of the chosen sizes.
pub(super) fn small_messages(options: &Options) -> Result<Vec<Message>, LessonError> {
    if options.sizes.is_empty() {
        let message = |line: &str| Message { label: line.to_owned(), bytes: line.into() };
        return Ok(["ls -l", "pwd", "whoami"].map(message).into());
    }
    let total: usize = options.sizes.iter().map(|size| size.get()).sum();
    if options.sizes.len() < 2 || total > MAX_WAITING_BYTES {
        return Err(LessonError::bad_option(text::bad_sizes(MAX_WAITING_BYTES)));
    }
    let message = |(index, size): (usize, &NonZeroUsize)| {
        let letter = b'a' + (index % 26) as u8;
        Message { label: format!("{size} × {}", letter as char), bytes: vec![letter; size.get()] }
    };
    Ok(options.sizes.iter().enumerate().map(message).collect())
}

/// Returns a command, and a read size that is too small for its output.
pub(super) fn large_answer(options: &Options) -> Result<(String, usize), LessonError> {
    let recv_size = options.recv.map_or(DEFAULT_RECV_SIZE, |size| size.get());
    let command = options.command.clone().unwrap_or_else(|| "ls -l /usr/bin".to_owned());
    let size = output_of(&command)?.len();
    if size <= recv_size {
        return Err(LessonError::bad_option(text::answer_too_small(&command, size, recv_size)));
    }
    Ok((command, recv_size))
}
