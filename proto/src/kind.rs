//! What a header can name: the kinds of messages, and a command's channel and streams.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Which command of a connection a frame belongs to; 0 is the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

impl ChannelId {
    /// The connection itself.
    pub const CONNECTION: Self = Self(0);
}

impl fmt::Display for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Who may send a kind of message.
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
        /// What the body of a frame is (PROTOCOL.md, "Kinds").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $code,)* }

        impl Kind {
            /// Every kind of this version, in the order of their codes.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The kind with this code, if this version has one.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Kind::$name),)* _ => None }
            }

            /// Its name in PROTOCOL.md.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }

            /// The reason to reject another kind where only this one is permitted.
            pub(crate) fn expected(self) -> &'static str {
                match self { $(Kind::$name => concat!("expected `", $text, "`"),)* }
            }

            /// The only end that may send it.
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
    /// The client is in.
    Welcome = 0x03, "welcome", Server, 0;
    /// The connection (channel 0) or one command is refused, with a reason and a remedy.
    Refuse = 0x04, "refuse", Server, 0;
    /// Are you there?
    Ping = 0x05, "ping", Either, 0;
    /// I am.
    Pong = 0x06, "pong", Either, 0;
    /// The sender will send nothing more and closes, with a reason.
    Goodbye = 0x07, "goodbye", Either, 0;
    /// A command to run.
    Open = 0x10, "open", Client, 0x03;
    /// The command runs.
    Started = 0x11, "started", Server, 0;
    /// Bytes for the command's standard input.
    Stdin = 0x12, "stdin", Client, 0x01;
    /// Bytes from the command's standard output.
    Stdout = 0x13, "stdout", Server, 0x01;
    /// Bytes from the command's standard error.
    Stderr = 0x14, "stderr", Server, 0x01;
    /// The named stream has ended.
    Eof = 0x15, "eof", Either, 0;
    /// Nobody reads the named stream any more.
    Stop = 0x16, "stop", Either, 0;
    /// How far the named stream was consumed, and how far it may be sent.
    Credit = 0x17, "credit", Either, 0;
    /// A signal for the command's process group.
    Signal = 0x18, "signal", Client, 0;
    /// The terminal's new size.
    Resize = 0x19, "resize", Client, 0;
    /// The command itself is over, its streams are not yet.
    Ended = 0x1a, "ended", Server, 0;
    /// The command and its streams are over: status, byte totals, resource use.
    Exit = 0x1b, "exit", Server, 0;
    /// The client gives the channel's slot back.
    Close = 0x1c, "close", Client, 0;
    /// What would become of a command that was asked about.
    Explained = 0x1d, "explained", Server, 0;
}

impl Kind {
    /// Whether it concerns the connection (channel 0). `refuse` concerns either.
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

/// One of a command's three streams.
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
    /// The kind of the frames that carry its bytes.
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
