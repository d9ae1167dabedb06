//! The limits that both ends agree on beforehand (PROTOCOL.md, "Limits").

/// The size of the header that precedes every message, in bytes.
pub const HEADER_LENGTH: usize = 12;

/// The longest body of a frame after authentication, in bytes.
pub const MAX_BODY: u32 = 65_536;

/// The longest body of a frame before authentication, in bytes.
pub const MAX_BODY_BEFORE_AUTHENTICATION: u32 = 512;

/// The body for bulk data, in bytes: with its header it fills exactly four TLS records.
pub const BULK_BODY: usize = 65_536 - HEADER_LENGTH;

/// The longest data body while several channels compete, in bytes: short turns bound the latency of
/// the other channels.
pub const TURN_BODY: usize = 16_384 - HEADER_LENGTH;

/// The longest encoded command, summed over all frames of its `open`, in bytes.
pub const MAX_COMMAND: usize = 1 << 20;

/// All unfinished `open`s of one connection together, in bytes; commands beyond it are refused.
pub const MAX_UNFINISHED_OPEN_BYTES: usize = 8 << 20;

/// The longest word of a command including its terminating NUL, in bytes: Linux's MAX_ARG_STRLEN
/// (execve(2)).
pub const MAX_WORD_WITH_NUL: usize = 128 << 10;

/// The number of variables of a command: a server checks each, and real environments have hundreds.
pub const MAX_VARIABLES: usize = 1_024;

/// The first limit on stdin of a new channel, in bytes: this much may follow `open` without credit.
pub const FIRST_STDIN_LIMIT: u64 = 128 << 10;

/// The first limit on stdout and on stderr of a new channel, in bytes.
pub const FIRST_OUTPUT_LIMIT: u64 = 1 << 20;

/// The first limit on the output of a command with a terminal, in bytes: all data in flight is
/// delivered before the echo of a key, and this much takes half a second at 1 Mbit/s.
pub const FIRST_TERMINAL_LIMIT: u64 = 64 << 10;

/// The furthest that a limit may be past the consumed position, in bytes.
pub const MAX_WINDOW: u64 = 1 << 30;

/// The longest reason or remedy in a `refuse` or `goodbye`, in bytes; senders truncate, receivers
/// reject.
pub const MAX_TEXT: usize = 2_048;

/// The longest reason or remedy before authentication, in bytes: two of them fit into
/// [`MAX_BODY_BEFORE_AUTHENTICATION`].
pub const MAX_TEXT_BEFORE_AUTHENTICATION: usize = 240;

/// The longest version text of a server, in bytes.
pub const MAX_VERSION: usize = 64;

/// The longest identifier of a key, in bytes.
pub const MAX_KEY_ID: usize = 64;

/// The longest identifier of a host, in bytes.
pub const MAX_HOST_ID: usize = 255;

/// The number of channels that a client may open before it knows the limit in `welcome`.
pub const MAX_CHANNELS_BEFORE_WELCOME: u32 = 1;
