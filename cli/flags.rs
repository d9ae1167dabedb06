//! The flags that several subcommands share: how a host is reached, how a command runs, and how its
//! terminal is joined to the local one.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use labsh_client::config::overrides::{ConnectionOverrides, parse_duration, parse_keep};
use labsh_client::config::target::parse_port;
use labsh_client::keys::key_store::KeyName;
use labsh_proto::key::HostId;
use labsh_proto::message::{Program, Until, Variable};

/// The part of a help text that lists the exit statuses of one command.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  the command's own, or
  128+n  signal n ended the command
  124    it timed out
  125    labsh or labshd refused or failed before the command ran
  126    the command is not executable
  127    the command was not found
  255    the connection failed
  These numbers can be the command's own as well: stderr says which it was,
  and --status-fd and --json say it to programs.";

/// Flags for the connection to a host.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionFlags {
    /// The key: its name, or the path of its file [env: LABSH_KEY]
    #[arg(long, value_name = "KEY")]
    pub key: Option<KeyName>,
    /// The name under which the key was enrolled there, if it is not TARGET's [env: LABSH_HOST_ID]
    #[arg(long, value_name = "NAME", value_parser = HostId::new)]
    pub host_id: Option<HostId>,
    /// The port, if TARGET does not name it [env: LABSH_PORT] [default: 5274]
    #[arg(short, long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,
    /// No TLS: both ends still prove who they are, but everything can be read and changed on the
    /// way
    #[arg(long)]
    pub plain: bool,
    /// How long connecting may take [env: LABSH_CONNECT_TIMEOUT] [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub connect_timeout: Option<Duration>,
    /// How long a connection to one host stays open for the next command, or off [env: LABSH_KEEP]
    /// [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_keep)]
    pub keep: Option<Duration>,
}

impl ConnectionFlags {
    /// Returns the settings that the flags override.
    pub(crate) fn overrides(&self) -> ConnectionOverrides {
        ConnectionOverrides {
            port: self.port,
            host_id: self.host_id.clone(),
            key: self.key.clone(),
            plain: self.plain.then_some(true),
            connect_timeout: self.connect_timeout,
            keep: self.keep,
            ..ConnectionOverrides::default()
        }
    }
}

/// Options for running a command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Command")]
pub(crate) struct CommandFlags {
    /// The form of the command's words.
    #[command(flatten)]
    pub form: FormFlags,
    /// End the command after this time (30s, 5m); the host does it, even if labsh has gone
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Leave when the command ends, even if processes that it started hold its output open
    #[arg(long)]
    pub no_wait_eof: bool,
    /// Set a variable there, or with NAME alone pass this machine's own (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    #[arg(value_parser = OsStringValueParser::new().try_map(variable))]
    pub env: Vec<Variable>,
    /// Start in this directory; a relative one starts from the home directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<OsString>,
    /// Give the command nothing to read
    #[arg(short = 'n', long)]
    pub no_stdin: bool,
    /// Report the outcome in one line of JSON on stderr; of many hosts, print a line for each
    /// event, or one: summary
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "events")]
    pub json: Option<JsonForm>,
    /// Report the outcome in one line of JSON on this open file descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(1..))]
    pub status_fd: Option<RawFd>,
    /// Report on stderr what is being done, on one host
    #[arg(short, long)]
    pub verbose: bool,
    /// Variables that the host may refuse; the command then runs without them.
    #[arg(skip)]
    pub env_where_allowed: Vec<Variable>,
    /// Refuse to run as another user; chooses a key that is configured for that user
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
}

impl CommandFlags {
    /// Returns the options that the host applies.
    pub(crate) fn remote(&self) -> labsh_client::CommandOptions {
        labsh_client::CommandOptions {
            environment: self.env.clone(),
            directory: self.cwd.clone(),
            timeout: self.timeout,
            until: if self.no_wait_eof { Until::CommandEnds } else { Until::StreamsEnd },
            user: self.user.as_ref().map(Into::into),
        }
    }
}

/// Flags for the form of a command's words.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Command")]
pub(crate) struct FormFlags {
    /// Join the words with blanks and have your shell there run the line
    #[arg(long, conflicts_with = "argv")]
    pub shell: bool,
    /// Run exactly these words, without a shell, even a single one
    #[arg(long)]
    pub argv: bool,
}

/// Returns the program for the words of a command line: one word is a line for the shell, several
/// are exact words, unless flags override that.
pub(crate) fn form(words: &[OsString], flags: FormFlags) -> Program {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    if flags.shell || (words.len() == 1 && !flags.argv) {
        Program::Shell(words.join(&b' '))
    } else {
        Program::Argv(words.into_iter().map(<[u8]>::to_vec).collect())
    }
}

pub(crate) fn variable(text: OsString) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], bytes[at + 1..].to_vec()),
        None => match std::env::var_os(&text) {
            Some(value) => (bytes, value.as_bytes().to_vec()),
            None => return Err("it is not set here; write NAME=VALUE".to_owned()),
        },
    };
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok((name.to_vec(), value)) }
}

/// What `--json` prints for many hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonForm {
    /// A line for each event
    Events,
    /// One line for the whole run
    Summary,
}

/// Flags for a terminal on the host and the local one.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Terminal")]
pub(crate) struct TerminalFlags {
    /// The character that begins an escape at the start of a line, ^X for a control character, or
    /// none [default: ~]
    #[arg(short, long, value_name = "CHAR")]
    pub escape: Option<EscapeCharacter>,
    /// Get a terminal on the host even if local stdin is not a terminal
    #[arg(long, conflicts_with = "no_stdin")]
    pub force_tty: bool,
}

/// The escape character, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EscapeCharacter(pub Option<u8>);

impl Default for EscapeCharacter {
    fn default() -> Self {
        Self(Some(b'~'))
    }
}

impl FromStr for EscapeCharacter {
    type Err = String;

    /// Parses an ASCII character, `^X` for a control character, or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            [c @ 1..=0x7f] => Ok(Self(Some(*c))),
            [b'^', c @ (b'@'..=b'_' | b'a'..=b'z')] if c & 0x1f != 0 => Ok(Self(Some(c & 0x1f))),
            _ => {
                Err("write one character of ASCII, ^X for a control character, or none".to_owned())
            }
        }
    }
}
