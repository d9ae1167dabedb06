//! The kinds of messages, and the channels and streams that they belong to.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The id of a channel, which carries one command; 0 is the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

impl ChannelId {
    /// The channel of messages about the connection itself.
    pub const CONNECTION: Self = Self(0);
}

impl fmt::Display for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The end that may send a kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Only the client.
    Client,
    /// Only the server.
    Server,
    /// Both.
    Either,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $sender:ident,
        $flags:literal;)*) => {
        /// The kind of a message, which says how its body is encoded (PROTOCOL.md, "Kinds").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $code,)* }

        impl Kind {
            /// All kinds of this version, in the order of their codes.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// Returns the kind with this code, if this version has one.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Kind::$name),)* _ => None }
            }

            /// Returns its name in PROTOCOL.md.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }

            /// Returns the reason to reject another kind where only this one is permitted.
            pub(crate) fn expected(self) -> &'static str {
                match self { $(Kind::$name => concat!("expected `", $text, "`"),)* }
            }

            /// Returns the end that may send it.
            pub fn sender(self) -> Sender {
                match self { $(Kind::$name => Sender::$sender,)* }
            }

            pub(crate) fn defined_flags(self) -> u8 {
                match self { $(Kind::$name => $flags,)* }
            }
        }
    };
}

kinds! {
    /// The server's nonce, the first message of a connection.
    Challenge = 0x01, "challenge", Server, 0;
    /// The client's answer to the challenge.
    Response = 0x02, "response", Client, 0;
    /// The client is authenticated.
    Welcome = 0x03, "welcome", Server, 0;
    /// The refusal of the connection (channel 0) or of a command, with a reason and a remedy.
    Refuse = 0x04, "refuse", Server, 0;
    /// A request for a sign of life.
    Ping = 0x05, "ping", Either, 0;
    /// The answer to a ping.
    Pong = 0x06, "pong", Either, 0;
    /// The sender's last message, with a reason.
    Goodbye = 0x07, "goodbye", Either, 0;
    /// A command to run.
    Open = 0x10, "open", Client, 0x03;
    /// The command is running.
    Started = 0x11, "started", Server, 0;
    /// Data for the command's standard input.
    Stdin = 0x12, "stdin", Client, 0x01;
    /// Data from the command's standard output.
    Stdout = 0x13, "stdout", Server, 0x01;
    /// Data from the command's standard error.
    Stderr = 0x14, "stderr", Server, 0x01;
    /// The end of a stream.
    Eof = 0x15, "eof", Either, 0;
    /// A stream has no reader any more.
    Stop = 0x16, "stop", Either, 0;
    /// The position up to which a stream was consumed, and the limit up to which it may be sent.
    Credit = 0x17, "credit", Either, 0;
    /// A signal for the command's process group.
    Signal = 0x18, "signal", Client, 0;
    /// The new size of the command's terminal.
    Resize = 0x19, "resize", Client, 0;
    /// The command has ended; its streams may still be open.
    Ended = 0x1a, "ended", Server, 0;
    /// The command and its streams are over: exit status, lengths of the streams, resource usage.
    Exit = 0x1b, "exit", Server, 0;
    /// The client releases the channel's slot.
    Close = 0x1c, "close", Client, 0;
    /// How a command would run, for an `open` with the flag EXPLAIN.
    Explained = 0x1d, "explained", Server, 0;
}

impl Kind {
    /// Returns whether this kind is allowed on the channel: some concern the connection (channel
    /// 0), some a command, and `refuse` either.
    pub(crate) fn fits(self, channel: ChannelId) -> bool {
        match self {
            Kind::Refuse => true,
            Kind::Challenge
            | Kind::Response
            | Kind::Welcome
            | Kind::Ping
            | Kind::Pong
            | Kind::Goodbye => channel == ChannelId::CONNECTION,
            _ => channel != ChannelId::CONNECTION,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One of the three streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// From the client to the command.
    Stdin,
    /// From the command to the client.
    Stdout,
    /// From the command to the client.
    Stderr,
}

impl Stream {
    /// Returns the kind of its data frames.
    pub fn kind(self) -> Kind {
        match self {
            Stream::Stdin => Kind::Stdin,
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind().name())
    }
}
