//! `open`: the command to run, and the checks of its bounds and that Linux can execute it.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CommandId, Resize};
use crate::error::ProtocolError;
use crate::frame::Kind;
use crate::limits::{MAX_VARIABLES, MAX_WORD_WITH_NUL};
use crate::wire;

/// The program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Exactly these words, without a shell; the first is looked up in PATH unless it contains a
    /// slash.
    Argv(Vec<Vec<u8>>),
    /// One string for the user's shell, passed after `-c`.
    Shell(Vec<u8>),
    /// The user's shell as a login shell, its name prefixed with `-`; it reads its commands from
    /// stdin.
    LoginShell,
    /// The program with this name in the server's configuration.
    Subsystem(Vec<u8>),
}

/// When a command is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// When it and both its output streams have ended, as with ssh.
    StreamsEnd,
    /// When it has ended and all output that it had written by then is delivered.
    CommandEnds,
}

/// A terminal for the command; requires [`Features::TERMINAL`].
///
/// [`Features::TERMINAL`]: super::Features::TERMINAL
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
    /// Milliseconds for which the command may outlive its connection; 0: not at all.
    pub linger: u64,
    /// Milliseconds from its request after which the server ends it; 0: never.
    pub timeout: u64,
    /// When it is over.
    pub until: Until,
    /// What to run.
    pub program: Program,
    /// Variables to add to the server's clean environment, if its configuration allows them.
    pub environment: Vec<Variable>,
    /// The working directory. Absent: the user's home, from which a relative path starts, too.
    pub directory: Option<Vec<u8>>,
    /// The user that the client expects it to run as; the server refuses another. Absent: any user.
    pub user: Option<Vec<u8>>,
    /// The terminal to run it with, if any.
    pub terminal: Option<Terminal>,
}

/// Why a command cannot be sent or started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// It has no words, or an empty first word, shell string or subsystem name.
    #[error("the command is empty")]
    Empty,
    /// A text contains a NUL byte, with which execve(2) would end it.
    #[error("{0} contains a NUL byte, which cannot be passed to a program")]
    Nul(&'static str),
    /// A text is longer than execve(2) accepts (MAX_ARG_STRLEN).
    #[error("{what} is {length} bytes long, the limit is {} (128 KiB, as for any program on \
        Linux)", MAX_WORD_WITH_NUL - 1)]
    Word {
        /// The text: a word, a variable, …
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// It has more variables than a server accepts; this many.
    #[error("the command has {0} environment variables, the limit is {MAX_VARIABLES}")]
    TooManyVariables(usize),
    /// The name of a variable is empty or contains `=`.
    #[error("the name of an environment variable is empty or contains '='")]
    VariableName,
    /// The encoded command is too long.
    #[error("the command with its environment is longer than 1 MiB, the limit")]
    TooLong,
}

impl BadCommand {
    /// What to do instead.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Word { .. } | Self::TooLong => "send long data on standard input, or in a file",
            Self::TooManyVariables(_) => {
                "set only those that the command needs, or set them in a script that it runs"
            }
            Self::Empty => "name a program",
            Self::Nul(_) => "send data with NUL bytes on standard input, or in a file",
            Self::VariableName => "name it with letters, digits and underscores",
        }
    }
}

impl Open {
    /// Returns the request to run a program until its streams end, with the server's environment,
    /// in the user's home, without a terminal or a time limit.
    pub fn new(command: CommandId, program: Program) -> Self {
        Self {
            command,
            linger: 0,
            timeout: 0,
            until: Until::StreamsEnd,
            program,
            environment: Vec::new(),
            directory: None,
            user: None,
            terminal: None,
        }
    }

    /// Checks the bounds, and that Linux can execute the command. Both ends call it, so that a
    /// command is refused before anything is done for it.
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
        if self.environment.len() > MAX_VARIABLES {
            return Err(BadCommand::TooManyVariables(self.environment.len()));
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
        if let Some(user) = &self.user {
            check_word("the user's name", user)?;
        }
        if let Some(directory) = &self.directory {
            check_word("the working directory", directory)?;
        }
        Ok(())
    }

    /// Checks and encodes the command, to be split into frames.
    pub fn encode(&self) -> Result<Bytes, BadCommand> {
        self.check()?;
        wire::encode(self).map(Bytes::from).map_err(|_| BadCommand::TooLong)
    }

    /// Decodes the joined bodies of all frames of an `open`. Call [`Open::check`] on the result.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        wire::decode(body).map_err(|detail| ProtocolError::Malformed { kind: Kind::Open, detail })
    }
}

/// A complete `open` that is not decoded yet. Decoding a long one takes milliseconds, for which a
/// server chooses the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedOpen(pub(crate) Bytes);

impl EncodedOpen {
    /// Returns its length in bytes, at most [`limits::MAX_COMMAND`](crate::limits::MAX_COMMAND).
    #[expect(clippy::len_without_is_empty, reason = "an empty one is malformed")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Decodes it; an error ends the connection. Call [`Open::check`] on the result, and
    /// [`Channels::use_terminal`](crate::channel::Channels::use_terminal) if it has a terminal.
    pub fn decode(&self) -> Result<Open, ProtocolError> {
        Open::decode(&self.0)
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
