//! `explained`: how a command would run, for an `open` with the flag EXPLAIN.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::Kind;
use crate::message::{Body, Variable};

/// The most that the lists of an [`Explained`] may take together, in bytes; the rest of its frame
/// is for the other fields.
const MAX_LISTS: usize = 48 << 10;

/// `explained`: how the command would run. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explained {
    /// The name of the file that grants this key its rights on the host.
    pub entry: String,
    /// Networks from which the key may be used; if empty, from anywhere.
    pub from: Vec<String>,
    /// The last second in which the key may be used to connect, since 1970-01-01; 0: no expiry.
    pub expires: u64,
    /// The number of channels of a connection.
    pub channels: u32,
    /// The user that the command would run as.
    pub user: String,
    /// That user's number.
    pub uid: u32,
    /// The number of that user's primary group.
    pub gid: u32,
    /// That user's home directory.
    pub home: Vec<u8>,
    /// The directory in which the command would start; the user can enter it.
    pub directory: Vec<u8>,
    /// The file that would be executed; the user is permitted to execute it.
    pub program: Vec<u8>,
    /// The arguments of the program, its name first.
    pub words: Vec<Vec<u8>>,
    /// The variables in its environment.
    pub environment: Vec<Variable>,
    /// Names of the variables that a client may set; `*` matches any characters.
    pub accepted: Vec<String>,
    /// The number of items omitted from the ends of these lists because the frame is full.
    pub left_off: u32,
}

impl Explained {
    /// Omits items that do not fit into a frame: words first, which the client knows already, then
    /// variables, networks and accepted names.
    #[must_use]
    pub fn truncate(mut self) -> Self {
        let mut capacity = MAX_LISTS;
        let mut left_off = 0;
        truncate_list(&mut self.accepted, &mut capacity, &mut left_off, String::len);
        truncate_list(&mut self.from, &mut capacity, &mut left_off, String::len);
        truncate_list(&mut self.environment, &mut capacity, &mut left_off, |(name, value)| {
            name.len() + value.len() + 8
        });
        truncate_list(&mut self.words, &mut capacity, &mut left_off, Vec::len);
        self.left_off = u32::try_from(left_off).unwrap_or(u32::MAX);
        self
    }
}

fn truncate_list<T>(
    items: &mut Vec<T>,
    capacity: &mut usize,
    left_off: &mut usize,
    size: impl Fn(&T) -> usize,
) {
    let mut fits = |item: &T| {
        // A length of 8 bytes precedes each item.
        let left = capacity.checked_sub(size(item) + 8);
        left.inspect(|left| *capacity = *left).is_some()
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
    fn the_explanation_of_the_longest_command_fits_into_one_frame() {
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
        let truncated = long.truncate();
        let frame = truncated.frame(ChannelId(1));
        assert!(frame.body.len() <= MAX_BODY as usize, "{}", frame.body.len());
        assert_eq!(Explained::from_frame(&frame), Ok(truncated.clone()));
        let Explained { words: sent_words, environment, from, accepted, left_off, .. } = truncated;
        let sent = sent_words.len() + environment.len() + from.len() + accepted.len();
        assert_eq!(left_off as usize, words + variables + 600 - sent);

        let short = Explained { words: vec![b"true".to_vec()], ..Explained::default() };
        assert_eq!(short.clone().truncate(), short);
    }
}
