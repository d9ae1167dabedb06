//! Combines a command line of `labsh rsh` into settings. If an option is repeated, the first value
//! counts, as with ssh.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use labsh_client::config::overrides::{ConnectionOverrides, parse_duration};
use labsh_client::config::target::{Target, parse_port};
use labsh_client::keys::key_store::KeyName;
use labsh_proto::environment;
use labsh_proto::key::HostId;
use labsh_proto::message::Variable;
use labsh_transport::socket::AddressFamily;

use crate::console::Level;
use crate::flags::EscapeCharacter;
use crate::rsh::destination::{self, Destination};
use crate::rsh::keywords::{Setting, matches, parse_time};
use crate::rsh::options::Treatment;
use crate::rsh::parse::{Item, Line};

/// When the command gets a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestTty {
    /// Never.
    No,
    /// For a login shell, if stdin is a terminal.
    Auto,
    /// If stdin is a terminal.
    Yes,
    /// Always.
    Force,
}

/// An action instead of running a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instead {
    /// `--help`
    Help,
    /// `-V`, `--version`
    Version,
    /// `-G`
    PrintSettings,
}

/// The settings of a command line.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The target, as typed.
    pub(crate) target: Option<Target>,
    /// The connection, and the user.
    pub(crate) overrides: ConnectionOverrides,
    /// The only configuration file to read; an empty path for none.
    pub(crate) configuration: Option<PathBuf>,
    /// When the command gets a terminal.
    pub(crate) request_tty: Option<RequestTty>,
    /// The escape character of a terminal session.
    pub(crate) escape: Option<EscapeCharacter>,
    /// How much labsh writes about itself.
    pub(crate) level: Option<Level>,
    /// The file for what labsh writes about itself.
    pub(crate) log_file: Option<PathBuf>,
    /// Patterns of local variables to pass on where the host allows them.
    pub(crate) send_env: Vec<String>,
    /// Variables to set.
    pub(crate) set_env: Vec<Variable>,
    /// The command if the line has none; `Some(None)` for none.
    pub(crate) remote_command: Option<Option<String>>,
    /// Whether stdin is not read.
    pub(crate) stdin_null: Option<bool>,
    /// Whether the words name a subsystem.
    pub(crate) subsystem: Option<bool>,
    /// Whether labsh exits without waiting for processes that the command left behind.
    pub(crate) no_wait_eof: bool,
    /// An action instead of running a command.
    pub(crate) instead: Option<Instead>,
    /// Ignored options, for `-v`.
    pub(crate) passed_over: Vec<String>,
    /// Warnings about options without effect.
    pub(crate) missed: Vec<String>,
    /// The words of the command.
    pub(crate) command: Vec<OsString>,
    /// The address of the host, as typed.
    host_name: Option<String>,
}

impl Settings {
    /// Parses a command line.
    pub(crate) fn read(line: Line) -> anyhow::Result<Self> {
        let mut settings = Self { command: line.command, ..Self::default() };
        for item in &line.items {
            match item {
                Item::Destination(text) => settings.destination(text)?,
                Item::Long(option, value) => settings
                    .long(option.name, value.as_deref().unwrap_or_default())
                    .with_context(|| format!("--{}", option.name))?,
                Item::Short(option, value) => {
                    let value = value.as_deref().unwrap_or_default();
                    match option.treatment {
                        Treatment::Honoured => settings.short(option.letter, value)?,
                        Treatment::Passed => {
                            settings.passed_over.push(format!("-{}", option.letter))
                        }
                        Treatment::Missed(what) => {
                            settings.missed(&format!("-{}", option.letter), what)
                        }
                        Treatment::Refused(remedy) => {
                            bail!("-{} cannot be honoured: {remedy}", option.letter)
                        }
                    }
                }
            }
        }
        settings.place_host_name().context("-o hostname")?;
        Ok(settings)
    }

    /// The value may contain %h and the like, which need the whole line.
    fn place_host_name(&mut self) -> anyhow::Result<()> {
        let Some((name, target)) = self.host_name.take().zip(self.target.as_ref()) else {
            return Ok(());
        };
        let name = name.replace("%h", &target.host.to_string()).replace("%%", "%");
        let address: Target =
            name.parse().map_err(|error| anyhow!("{name:?} is no host: {error}"))?;
        if address.port.is_some() {
            bail!("{name:?} holds a port; give it with -p");
        }
        self.overrides.address = Some(address.host);
        Ok(())
    }

    fn destination(&mut self, text: &OsStr) -> anyhow::Result<()> {
        let Destination { user, mut target } = Destination::parse(text)?;
        first(&mut self.overrides.user, user);
        first(&mut self.overrides.port, target.port.take());
        self.target = Some(target);
        Ok(())
    }

    fn short(&mut self, letter: &str, value: &OsStr) -> anyhow::Result<()> {
        match letter {
            "4" => first(&mut self.overrides.family, Some(AddressFamily::Inet)),
            "6" => first(&mut self.overrides.family, Some(AddressFamily::Inet6)),
            "E" => self.log_file = Some(value.into()),
            "e" => self.escape = Some(escape(text(value)?).context("-e")?),
            "F" => self.configuration = Some(configuration(value)),
            "G" => self.instead(Instead::PrintSettings),
            "i" => self.key(text(value)?).context("-i")?,
            "l" => first(
                &mut self.overrides.user,
                Some(destination::user(text(value)?).context("-l")?),
            ),
            "n" => self.stdin_null = Some(true),
            "o" => self.setting(&Setting::parse(text(value)?)?)?,
            "p" => first(&mut self.overrides.port, Some(port(text(value)?).context("-p")?)),
            "q" => self.level = Some(Level::Nothing),
            "s" => self.subsystem = Some(true),
            "T" => self.request_tty = Some(RequestTty::No),
            "t" => {
                self.request_tty = match self.request_tty {
                    Some(RequestTty::Yes | RequestTty::Force) => Some(RequestTty::Force),
                    _ => Some(RequestTty::Yes),
                }
            }
            "V" => self.instead(Instead::Version),
            "v" => self.level = Some(Level::Everything),
            other => bail!("-{other} is not handled"),
        }
        Ok(())
    }

    fn long(&mut self, name: &str, value: &OsStr) -> anyhow::Result<()> {
        match name {
            "key" => self.key(text(value)?)?,
            "host-id" => first(&mut self.overrides.host_id, Some(HostId::new(text(value)?)?)),
            "plain" => self.overrides.plain = Some(true),
            "connect-timeout" => {
                first(&mut self.overrides.connect_timeout, Some(parse_duration(text(value)?)?));
            }
            "no-wait-eof" => self.no_wait_eof = true,
            "help" => self.instead(Instead::Help),
            "version" => self.instead(Instead::Version),
            other => bail!("--{other} is not handled"),
        }
        Ok(())
    }

    /// Warns once, however many options ask for it.
    fn missed(&mut self, option: &str, what: &str) {
        if !self.missed.iter().any(|warning| warning.ends_with(what)) {
            self.missed.push(format!("{option}: {what}"));
        }
    }

    fn instead(&mut self, what: Instead) {
        first(&mut self.instead, Some(what));
    }

    fn setting(&mut self, setting: &Setting) -> anyhow::Result<()> {
        match setting.treatment() {
            Treatment::Honoured => self
                .honour(setting)
                .with_context(|| format!("-o {}={}", setting.keyword, setting.value)),
            Treatment::Passed => {
                self.passed_over.push(format!("-o {}", setting.keyword));
                Ok(())
            }
            Treatment::Missed(what) => {
                self.missed(&format!("-o {}", setting.keyword), what);
                Ok(())
            }
            Treatment::Refused(remedy) => {
                bail!("-o {} cannot be honoured: {remedy}", setting.keyword)
            }
        }
    }

    fn honour(&mut self, setting: &Setting) -> anyhow::Result<()> {
        let word = setting.word()?;
        match setting.keyword.as_str() {
            "addressfamily" => match lower(&word).as_str() {
                "any" => {}
                "inet" => first(&mut self.overrides.family, Some(AddressFamily::Inet)),
                "inet6" => first(&mut self.overrides.family, Some(AddressFamily::Inet6)),
                _ => bail!("write any, inet or inet6"),
            },
            "connecttimeout" if lower(&word) == "none" => {}
            "connecttimeout" => {
                let time = parse_time(&word)
                    .ok_or_else(|| anyhow!("write seconds, or a time like 1m30s"))?;
                // 0 stands for the default.
                first(
                    &mut self.overrides.connect_timeout,
                    Some(time).filter(|time| !time.is_zero()),
                );
            }
            "escapechar" => first(&mut self.escape, Some(escape(&word)?)),
            "hostkeyalias" => first(&mut self.overrides.host_id, Some(HostId::new(&word)?)),
            "hostname" => first(&mut self.host_name, Some(word)),
            "identityfile" => self.key(&word)?,
            "loglevel" => first(&mut self.level, Some(log_level(&word)?)),
            "port" => first(&mut self.overrides.port, Some(port(&word)?)),
            "remotecommand" => {
                // The whole value, with quotation marks, is a line for the shell.
                let command = (lower(&setting.value) != "none").then(|| setting.value.clone());
                first(&mut self.remote_command, Some(command));
            }
            "requesttty" => first(&mut self.request_tty, Some(request_tty(&word)?)),
            "sendenv" => self.send_env(setting.words()?),
            "sessiontype" => match lower(&word).as_str() {
                "default" => first(&mut self.subsystem, Some(false)),
                "subsystem" => first(&mut self.subsystem, Some(true)),
                _ => bail!(
                    "a connection without a command does nothing here; write default or subsystem"
                ),
            },
            "setenv" => self.set_env(setting.words()?)?,
            "stdinnull" => {
                first(&mut self.stdin_null, Some(lower(&word) == "yes" || lower(&word) == "true"))
            }
            "user" => first(&mut self.overrides.user, Some(destination::user(&word)?)),
            other => bail!("{other} is not handled"),
        }
        Ok(())
    }

    /// Adds patterns of variables to pass on; one that begins with `-` removes earlier patterns.
    fn send_env(&mut self, patterns: Vec<String>) {
        for pattern in patterns {
            match pattern.strip_prefix('-') {
                Some(removed) => {
                    self.send_env.retain(|known| !matches(removed.as_bytes(), known.as_bytes()));
                }
                None => self.send_env.push(pattern),
            }
        }
    }

    fn set_env(&mut self, assignments: Vec<String>) -> anyhow::Result<()> {
        for text in assignments {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| anyhow!("{text:?} has no =; write NAME=VALUE"))?;
            if !self.set_env.iter().any(|(known, _)| known == name.as_bytes()) {
                self.set_env.push((name.into(), value.into()));
            }
        }
        Ok(())
    }

    fn key(&mut self, text: &str) -> anyhow::Result<()> {
        if lower(text) == "none" {
            return Ok(());
        }
        let home =
            std::env::home_dir().zip(text.strip_prefix("~/")).map(|(home, rest)| home.join(rest));
        let key = match home {
            Some(path) => KeyName::Path(path),
            None => text.parse()?,
        };
        first(&mut self.overrides.key, Some(key));
        Ok(())
    }

    /// Returns the variables to pass on with their values, without those that are set explicitly,
    /// and without those that no host accepts.
    pub(crate) fn sent(
        &self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<Variable> {
        let wanted = |name: &OsString| {
            let fits = |pattern: &String| matches(pattern.as_bytes(), name.as_bytes());
            environment::check(name.as_bytes()).is_ok()
                && self.send_env.iter().any(fits)
                && !self.set_env.iter().any(|(set, _)| set == name.as_bytes())
        };
        let mut sent: Vec<Variable> = variables
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect();
        sent.sort();
        sent
    }
}

fn log_level(word: &str) -> anyhow::Result<Level> {
    Ok(match lower(word).as_str() {
        "quiet" => Level::Nothing,
        "fatal" | "error" | "info" => Level::Errors,
        "verbose" | "debug" | "debug1" | "debug2" | "debug3" => Level::Everything,
        _ => bail!("write QUIET, ERROR, INFO, VERBOSE or DEBUG"),
    })
}

fn request_tty(word: &str) -> anyhow::Result<RequestTty> {
    Ok(match lower(word).as_str() {
        "no" | "false" => RequestTty::No,
        "auto" => RequestTty::Auto,
        "yes" | "true" => RequestTty::Yes,
        "force" => RequestTty::Force,
        _ => bail!("write no, yes, force or auto"),
    })
}

/// Sets a value unless an earlier option set it.
fn first<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

fn text(value: &OsStr) -> anyhow::Result<&str> {
    value.to_str().ok_or_else(|| {
        anyhow!("{value:?} is not UTF-8; only the command's own words may be other bytes")
    })
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

fn port(text: &str) -> anyhow::Result<u16> {
    parse_port(text).map_err(|error| anyhow!("{text:?}: {error}"))
}

fn configuration(value: &OsStr) -> PathBuf {
    if value.eq_ignore_ascii_case("none") { PathBuf::new() } else { value.into() }
}

fn escape(text: &str) -> anyhow::Result<EscapeCharacter> {
    text.parse().map_err(|error| anyhow!("{text:?} is no escape character; {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsh::keywords::KEYWORDS;
    use crate::rsh::options::{LONG_OPTIONS, SHORT_OPTIONS};
    use crate::rsh::parse::parse;

    fn read(words: &[&str]) -> anyhow::Result<Settings> {
        Settings::read(parse(words.iter().map(OsString::from))?)
    }

    fn settings(words: &[&str]) -> Settings {
        read(words).unwrap_or_else(|error| panic!("{words:?}: {error:#}"))
    }

    #[test]
    fn whatever_the_tables_call_honoured_is_handled() {
        let refused = |words: &[&str]| {
            read(words).err().map(|error| format!("{error:#}")).unwrap_or_default()
        };
        let shorts = SHORT_OPTIONS.iter().filter(|option| option.treatment == Treatment::Honoured);
        let shorts = shorts.map(|option| (format!("-{}", option.letter), option.value));
        let longs = LONG_OPTIONS.iter().map(|option| (format!("--{}", option.name), option.value));
        for (option, value) in shorts.chain(longs) {
            // No value suits all of them; an error about this one shows that it is parsed.
            let words =
                if value.is_some() { vec![option.as_str(), "?"] } else { vec![option.as_str()] };
            assert!(!refused(&words).contains("is not handled"), "{option}");
        }
        for (keyword, treatment) in KEYWORDS {
            assert_eq!(*keyword, keyword.to_ascii_lowercase(), "or it is never found");
            let said = refused(&["-o", &format!("{keyword}=?"), "h"]);
            assert!(!said.contains("is not handled"), "{said}");
            assert_eq!(
                matches!(treatment, Treatment::Refused(_)),
                said.contains("cannot be honoured"),
                "{said}"
            );
        }
    }

    #[test]
    fn of_two_values_the_first_counts() {
        let said = settings(&[
            "-p",
            "1",
            "-oPort=2",
            "ssh://a@h:3",
            "-l",
            "b",
            "-oUser=c",
            "-p4",
            "-iK",
            "--key=L",
        ]);
        assert_eq!((said.overrides.port, said.overrides.user.as_deref()), (Some(1), Some("a")));
        assert_eq!(said.overrides.key, Some("K".parse().unwrap()));
        let said = settings(&[
            "-oHostName=x%%h.%h",
            "h",
            "-oHostName=other",
            "-oConnectTimeout=0",
            "-oConnectTimeout=2",
        ]);
        assert_eq!(said.overrides.address.unwrap().to_string(), "x%h.h");
        assert_eq!(said.overrides.connect_timeout, Some(std::time::Duration::from_secs(2)));
        let said = settings(&["-oSetEnv=A=1 B=2", "-oSetEnv=A=3 C=", "h"]);
        let pairs =
            [("A", "1"), ("B", "2"), ("C", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(said.set_env, pairs);
    }

    #[test]
    fn letters_for_terminals_add_up_and_take_back() {
        for (words, expected) in [
            (&["h"][..], None),
            (&["-t", "h"], Some(RequestTty::Yes)),
            (&["-tt", "h"], Some(RequestTty::Force)),
            (&["-t", "h", "-t"], Some(RequestTty::Force)),
            (&["-tttt", "h"], Some(RequestTty::Force)),
            (&["-tT", "h"], Some(RequestTty::No)),
            (&["-Tt", "h"], Some(RequestTty::Yes)),
            (&["-t", "-oRequestTTY=no", "h"], Some(RequestTty::Yes)),
            (&["-oRequestTTY=Auto", "-oRequestTTY=no", "h"], Some(RequestTty::Auto)),
        ] {
            assert_eq!(settings(words).request_tty, expected, "{words:?}");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_named_with_their_option() {
        for (words, expected) in [
            (["-p", "0"], "-p: \"0\""),
            (["-e", "xyz"], "-e: \"xyz\""),
            (["-i", "a b"], "-i: "),
            (["-oConnectTimeout=soon", "h"], "-o connecttimeout=soon: write seconds"),
            (["-oAddressFamily=inet7", "h"], "write any, inet or inet6"),
            (["-oLogLevel=loud", "h"], "-o loglevel=loud: write QUIET"),
            (["-oRequestTTY=maybe", "h"], "-o requesttty=maybe: write no"),
            (["-oHostName=h:22", "h"], "-o hostname: \"h:22\" holds a port"),
            (["-oHostName=-x", "h"], "begin with '-'"),
            (["-oUser=\"bob", "h"], "never closed"),
            (["--connect-timeout=5", "h"], "--connect-timeout: "),
            (["-oHostKeyAlias=a b", "--host-id=a b"], "--host-id: "),
        ] {
            let said = format!("{:#}", read(&words).unwrap_err());
            assert!(said.contains(expected), "{words:?}: {said}");
        }
    }

    #[test]
    fn only_what_is_asked_for_and_not_set_is_sent() {
        let environment =
            || [("B", "2"), ("AA", "1"), ("C", "3")].into_iter().map(|(n, v)| (n.into(), v.into()));
        let said = settings(&["-oSendEnv=A* C", "-oSetEnv=C=x", "-oSendEnv=NONE", "h"]);
        assert_eq!(said.sent(environment()), [(b"AA".to_vec(), b"1".to_vec())]);
        assert!(settings(&["-oSendEnv=*", "-oSendEnv=-*", "h"]).sent(environment()).is_empty());
    }
}
