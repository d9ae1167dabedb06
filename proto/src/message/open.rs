//! `open`: the command to run, and what Linux could not execute.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CommandId, Resize};
use crate::error::ProtocolError;
use crate::frame::Kind;
use crate::limits::MAX_WORD_WITH_NUL;
use crate::wire;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// These exact words, no shell; the first is looked up in PATH unless it holds a slash.
    Argv(Vec<Vec<u8>>),
    /// One string for the user's shell, given behind `-c`.
    Shell(Vec<u8>),
    /// The user's shell as a login shell: its name begins with `-`, and it reads what to do from
    /// its stdin.
    LoginShell,
    /// The program that the server's configuration has under this name.
    Subsystem(Vec<u8>),
}

/// When a command counts as over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// When it has ended and both its output streams have, as with ssh.
    StreamsEnd,
    /// When it has ended and what had been written by then is delivered.
    CommandEnds,
}

/// A terminal for the command ([`Features::TERMINAL`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The value of TERM.
    pub name: String,
    /// Its size at the start.
    pub size: Resize,
}

/// An environment variable: its name and its value.
pub type Variable = (Vec<u8>, Vec<u8>);

/// `open`: run a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Chosen by the client.
    pub command: CommandId,
    /// How long the command may outlive its connection, in milliseconds; 0: not at all.
    pub linger: u64,
    /// After how many milliseconds the server ends it; 0: never.
    pub timeout: u64,
    /// When it counts as over.
    pub until: Until,
    /// What is run.
    pub program: Program,
    /// Variables on top of the clean environment; the server's configuration decides which pass.
    pub environment: Vec<Variable>,
    /// The working directory; the user's home when absent, and what a relative one starts from.
    pub directory: Option<Vec<u8>>,
    /// As whom the client expects it to run; refused where that is somebody else. Absent: whoever
    /// it is.
    pub user: Option<Vec<u8>>,
    /// The terminal, if it is to have one.
    pub terminal: Option<Terminal>,
}

/// Why a command cannot be put on the wire, or must not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// No words at all, or an empty first word, shell string or name of a subsystem.
    #[error("the command is empty")]
    Empty,
    /// execve(2) cannot take it.
    #[error("{0} holds a NUL byte, which no program can be given")]
    Nul(&'static str),
    /// Longer than execve(2) takes in one piece.
    #[error("{what} is {length} bytes long, the limit is {} (128 KiB, as for any program on \
        Linux)", MAX_WORD_WITH_NUL - 1)]
    Word {
        /// What it is: a word, a variable, …
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// The name of a variable is empty or holds `=`.
    #[error("an environment variable's name is empty or holds '='")]
    VariableName,
    /// Everything together is too long.
    #[error("the command with its environment is longer than 1 MiB, the limit")]
    TooLong,
}

impl Open {
    /// Checks what Linux could not execute anyway: both ends call it, so that nothing is half done.
    pub fn check(&self) -> Result<(), BadCommand> {
        match &self.program {
            Program::Argv(words) => {
                if words.first().is_none_or(Vec::is_empty) {
                    return Err(BadCommand::Empty);
                }
                words.iter().try_for_each(|word| check_word("a word of the command", word))?;
            }
            Program::Shell(line) if line.is_empty() => return Err(BadCommand::Empty),
            Program::Shell(line) => check_word("the shell command", line)?,
            Program::LoginShell => {}
            Program::Subsystem(name) if name.is_empty() => return Err(BadCommand::Empty),
            Program::Subsystem(name) => check_word("the subsystem's name", name)?,
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(&b'=') {
                return Err(BadCommand::VariableName);
            }
            check_word("the name of a variable", name)?;
            check_word("the value of a variable", value)?;
            if name.len() + value.len() + 1 >= MAX_WORD_WITH_NUL {
                return Err(BadCommand::Word {
                    what: "a variable",
                    length: name.len() + value.len() + 1,
                });
            }
        }
        if let Some(terminal) = &self.terminal {
            check_word("the terminal's name", terminal.name.as_bytes())?;
        }
        self.user.iter().try_for_each(|user| check_word("the user's name", user))?;
        self.directory
            .iter()
            .try_for_each(|directory| check_word("the working directory", directory))
    }

    /// The encoded body, to be cut into frames; checked first.
    pub fn encode(&self) -> Result<Bytes, BadCommand> {
        self.check()?;
        wire::encode(self).map(Bytes::from).map_err(|_| BadCommand::TooLong)
    }

    /// Decodes what all frames of an `open` carried together. Call [`Open::check`] on it.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        wire::decode(body).map_err(|detail| ProtocolError::Malformed { kind: Kind::Open, detail })
    }
}

fn check_word(what: &'static str, word: &[u8]) -> Result<(), BadCommand> {
    if word.contains(&0) {
        return Err(BadCommand::Nul(what));
    }
    if word.len() >= MAX_WORD_WITH_NUL {
        return Err(BadCommand::Word { what, length: word.len() });
    }
    Ok(())
}
