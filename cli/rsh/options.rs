//! The options of `labsh rsh` and how labsh treats each, for the parser, the help, the manual page
//! and completions.

/// How labsh treats an option or a keyword of ssh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It has the effect that it has with ssh.
    Honoured,
    /// It is ignored: it concerns nothing in labsh, or ssh too goes on without its effect.
    Passed,
    /// The command runs without it, with a warning that says what is missing.
    Missed(&'static str),
    /// It is an error, because the command would do something else; with an alternative.
    Refused(&'static str),
}

use Treatment::{Honoured, Missed, Passed, Refused};

/// An option with one letter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShortOption {
    /// The letter.
    pub(crate) letter: &'static str,
    /// The name of its value, if it takes one.
    pub(crate) value: Option<&'static str>,
    /// How labsh treats it.
    pub(crate) treatment: Treatment,
    /// Its description.
    pub(crate) help: &'static str,
}

/// An option with a word: one of labsh, for which ssh has no letter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LongOption {
    /// The word, without dashes.
    pub(crate) name: &'static str,
    /// The name of its value, if it takes one.
    pub(crate) value: Option<&'static str>,
    /// Its description.
    pub(crate) help: &'static str,
}

const fn flag(letter: &'static str, treatment: Treatment, help: &'static str) -> ShortOption {
    ShortOption { letter, value: None, treatment, help }
}

const fn valued(
    letter: &'static str,
    value: &'static str,
    treatment: Treatment,
    help: &'static str,
) -> ShortOption {
    ShortOption { letter, value: Some(value), treatment, help }
}

pub(crate) const NO_FORWARDING: &str = "labsh forwards no ports; use ssh for that";
pub(crate) const NO_X11: &str =
    "the command runs without a display: labsh forwards no X11; use ssh for that";
pub(crate) const NO_AGENT: &str =
    "the command runs without your ssh agent, which labsh does not forward";
pub(crate) const NO_PROXY: &str =
    "labsh connects directly; run labsh on the host in between: labsh rsh BETWEEN labsh rsh HOST …";
pub(crate) const NO_BINDING: &str = "the system chooses the address here; leave it out";
pub(crate) const NO_BACKGROUND: &str = "run it in the background yourself: labsh rsh -n … &";
const NO_MASTER: &str =
    "labsh's agent keeps connections open, without a master; see `labsh agent --help`";

/// All options with one letter.
pub(crate) const SHORT_OPTIONS: &[ShortOption] = &[
    flag("4", Honoured, "Connect over IPv4 only"),
    flag("6", Honoured, "Connect over IPv6 only"),
    valued("E", "FILE", Honoured, "Append what labsh has to say to FILE instead of stderr"),
    valued(
        "e",
        "CHAR",
        Honoured,
        "The escape character of a terminal session, ^X or none [default: ~]",
    ),
    valued("F", "FILE", Honoured, "Read this labsh configuration and no other; none reads none"),
    flag("G", Honoured, "Print the settings that would be used, a line each, and connect nowhere"),
    valued("i", "KEY", Honoured, "The labsh key: its name, or the path of its file"),
    valued("l", "USER", Honoured, "Refuse to run as another user; chooses a configured key"),
    flag("n", Honoured, "Give the command nothing to read"),
    valued("o", "KEY=VALUE", Honoured, "A setting as in ssh_config(5), see below"),
    valued("p", "PORT", Honoured, "The port [default: 5274]"),
    flag("q", Honoured, "Say nothing, not even what went wrong"),
    flag("s", Honoured, "The words are the name of a subsystem, such as sftp"),
    flag("T", Honoured, "Never a terminal"),
    flag("t", Honoured, "A terminal if stdin is one; twice, always"),
    flag("V", Honoured, "Print the version on stderr"),
    flag("v", Honoured, "Say what is being done"),
    flag("A", Missed(NO_AGENT), "No agent is forwarded, which is said"),
    flag("X", Missed(NO_X11), "No X11 is forwarded, which is said"),
    flag("Y", Missed(NO_X11), "No X11 is forwarded, which is said"),
    flag("2", Passed, "There is one protocol"),
    flag("a", Passed, "No agent is forwarded"),
    flag("C", Passed, "Nothing is compressed"),
    valued("c", "CIPHERS", Passed, "TLS 1.3 chooses"),
    flag("g", Passed, "No ports are forwarded"),
    flag("K", Passed, "There is no GSSAPI"),
    flag("k", Passed, "There is no GSSAPI"),
    flag("M", Passed, "The agent of labsh keeps connections open by itself"),
    valued("m", "MACS", Passed, "TLS 1.3 chooses"),
    valued("P", "TAG", Passed, "The configuration has no tags"),
    valued("S", "PATH", Passed, "The agent of labsh has a socket of its own"),
    flag("x", Passed, "No X11 is forwarded"),
    flag("y", Passed, "Nothing is written to syslog"),
    valued("B", "INTERFACE", Refused(NO_BINDING), "The system chooses it"),
    valued("b", "ADDRESS", Refused(NO_BINDING), "The system chooses it"),
    valued("D", "PORT", Refused(NO_FORWARDING), "No ports are forwarded"),
    flag("f", Refused(NO_BACKGROUND), "Write & behind the command"),
    valued("I", "PKCS11", Refused("name a labsh key with -i"), "Keys are files"),
    valued("J", "HOST", Refused(NO_PROXY), "The connection is direct"),
    valued("L", "ADDRESS", Refused(NO_FORWARDING), "No ports are forwarded"),
    flag(
        "N",
        Refused("a connection without a command does nothing here"),
        "No ports are forwarded",
    ),
    valued("O", "ORDER", Refused(NO_MASTER), "There is no master connection; see labsh agent"),
    valued(
        "Q",
        "QUERY",
        Refused("see labsh's documents for its algorithms"),
        "Nothing can be chosen",
    ),
    valued("R", "ADDRESS", Refused(NO_FORWARDING), "No ports are forwarded"),
    valued("W", "HOST:PORT", Refused(NO_FORWARDING), "No ports are forwarded"),
    valued("w", "TUNNEL", Refused(NO_FORWARDING), "No tunnels are made"),
];

/// All options with a word.
pub(crate) const LONG_OPTIONS: &[LongOption] = &[
    LongOption { name: "key", value: Some("KEY"), help: "As -i" },
    LongOption {
        name: "host-id",
        value: Some("NAME"),
        help: "The name under which the key was enrolled there, if it is not HOST's",
    },
    LongOption {
        name: "plain",
        value: None,
        help: "No TLS: everything can be read and changed on the way",
    },
    LongOption {
        name: "connect-timeout",
        value: Some("DURATION"),
        help: "How long connecting may take",
    },
    LongOption {
        name: "no-wait-eof",
        value: None,
        help: "Leave when the command ends, even if processes that it started hold its output \
            open",
    },
    LongOption { name: "help", value: None, help: "Print help" },
    LongOption { name: "version", value: None, help: "Print the version" },
];
