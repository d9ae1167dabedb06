//! The answer to an `open` that asks what would become of its command.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::Kind;
use crate::message::{Body, Variable};

/// The most that words and variables of an [`Explained`] may be together, in bytes: the rest of its
/// frame is for the rest.
const MAX_LISTS: usize = 48 << 10;

/// `explained`: what the command would find, had it been started. Nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explained {
    /// The name of the file that grants this key its rights on the host.
    pub entry: String,
    /// Networks from which the key may be used; none: from anywhere.
    pub from: Vec<String>,
    /// The last second in which it may be used to connect, counted from 1970; 0: no end.
    pub expires: u64,
    /// How many channels a connection has.
    pub channels: u32,
    /// As whom the command would run.
    pub user: String,
    /// The same as a number.
    pub uid: u32,
    /// The primary group, as a number.
    pub gid: u32,
    /// That user's home directory.
    pub home: Vec<u8>,
    /// Where the command would start. It can be entered.
    pub directory: Vec<u8>,
    /// The file that would be executed. That user may.
    pub program: Vec<u8>,
    /// The words that it would be given, its own name the first of them.
    pub words: Vec<Vec<u8>>,
    /// The variables that it would find.
    pub environment: Vec<Variable>,
    /// Names of the variables that a client may set; `*` stands for any characters.
    pub accepted: Vec<String>,
    /// How many words and variables were left off at the end of their lists, because the frame is
    /// full.
    pub left_off: u32,
}

impl Explained {
    /// Leaves off what does not fit into a frame: of the words first, which the client knows best,
    /// then of the variables, the networks and the accepted names.
    #[must_use]
    pub fn cut(mut self) -> Self {
        let mut room = MAX_LISTS;
        let mut left_off = 0;
        keep(&mut self.accepted, &mut room, &mut left_off, String::len);
        keep(&mut self.from, &mut room, &mut left_off, String::len);
        keep(&mut self.environment, &mut room, &mut left_off, |(name, value)| {
            name.len() + value.len() + 8
        });
        keep(&mut self.words, &mut room, &mut left_off, Vec::len);
        self.left_off = u32::try_from(left_off).unwrap_or(u32::MAX);
        self
    }
}

fn keep<T>(items: &mut Vec<T>, room: &mut usize, left_off: &mut usize, size: impl Fn(&T) -> usize) {
    let mut fits = |item: &T| {
        // Each stands behind its length.
        let left = room.checked_sub(size(item) + 8);
        left.inspect(|left| *room = *left).is_some()
    };
    let count = items.iter().map_while(|item| Some(item).filter(|item| fits(item))).count();
    *left_off += items.len() - count;
    items.truncate(count);
}

impl Body for Explained {
    const KIND: Kind = Kind::Explained;
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::frame::ChannelId;
    use crate::limits::{MAX_BODY, MAX_COMMAND};

    #[test]
    fn the_longest_command_is_explained_in_one_frame() {
        let name = "x".repeat(255);
        let long = Explained {
            entry: name.clone(),
            from: vec![name.clone(); 300],
            user: name.clone(),
            home: vec![b'x'; 4096],
            directory: vec![b'x'; 4096],
            program: vec![b'x'; 4096],
            words: vec![vec![b'x'; 1000]; MAX_COMMAND / 1000],
            environment: vec![(vec![b'A'; 10], vec![b'x'; 90]); MAX_COMMAND / 100],
            accepted: vec![name; 300],
            ..Explained::default()
        };
        let (words, variables) = (long.words.len(), long.environment.len());
        let cut = long.cut();
        let frame = cut.frame(ChannelId(1));
        assert!(frame.body.len() <= MAX_BODY as usize, "{}", frame.body.len());
        assert_eq!(Explained::from_frame(&frame), Ok(cut.clone()));
        let kept = cut.words.len() + cut.environment.len() + cut.from.len() + cut.accepted.len();
        assert_eq!(cut.left_off as usize, words + variables + 600 - kept);

        let short = Explained { words: vec![b"true".to_vec()], ..Explained::default() };
        assert_eq!(short.clone().cut(), short);
    }
}
