//! The numbers that both ends agree on beforehand (PROTOCOL.md, "Limits").

/// Size of the header in front of every message, in bytes.
pub const HEADER_LENGTH: usize = 12;

/// The longest body of a frame after authentication, in bytes.
pub const BODY: u32 = 65_536;

/// The longest body of a frame before authentication, in bytes.
pub const BODY_BEFORE_AUTHENTICATION: u32 = 512;

/// The body that fills four TLS records together with its header; senders of bulk data use it.
pub const BULK_BODY: usize = 65_536 - HEADER_LENGTH;

/// The longest data body while several channels compete, so that none waits long for its turn.
pub const TURN_BODY: usize = 16_384 - HEADER_LENGTH;

/// The longest encoded `open` over all its frames, in bytes.
pub const COMMAND: usize = 1 << 20;

/// All unfinished `open`s of one connection together; what is past it is refused, in bytes.
pub const UNFINISHED_OPENS: usize = 8 << 20;

/// One word of a command must be shorter than this, as for execve(2) on Linux (its terminating NUL
/// counts).
pub const WORD: usize = 128 << 10;

/// The first limit on stdin of a new channel: this much may be sent at once behind `open`, in
/// bytes.
pub const FIRST_STDIN_LIMIT: u64 = 128 << 10;

/// The first limit on stdout and on stderr of a new channel, in bytes.
pub const FIRST_OUTPUT_LIMIT: u64 = 1 << 20;

/// The same for a command with a terminal, in bytes: all of it may be ahead of the answer to a key,
/// so it is half a second's worth on a link of 1 Mbit/s.
pub const FIRST_TERMINAL_LIMIT: u64 = 64 << 10;

/// No limit may lie further than this beyond what was consumed, in bytes.
pub const WINDOW: u64 = 1 << 30;

/// The longest reason or remedy in a `refuse` or `goodbye`, in bytes; senders cut, receivers
/// reject.
pub const TEXT: usize = 2_048;

/// The same before authentication: two of these fit into [`BODY_BEFORE_AUTHENTICATION`].
pub const TEXT_BEFORE_AUTHENTICATION: usize = 240;

/// The longest text in which a server says its version, in bytes.
pub const VERSION: usize = 64;

/// The longest identifier of a key, in bytes.
pub const KEY_ID: usize = 64;

/// The longest identifier of a host, in bytes.
pub const HOST_ID: usize = 255;

/// Channels that a client may open before `welcome` has told it the server's own limit.
pub const CHANNELS_BEFORE_WELCOME: u32 = 1;
