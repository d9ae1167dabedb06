//! Finds candidates: the definition of the command line says what the word at the cursor is, and
//! the name of a value says what its candidates are.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};
use labsh_client::config::Config;
use labsh_client::keys::key_store::KeyStore;
use labsh_lessons::{LESSONS, Language};
use labsh_server::account::RunsAs;
use labsh_server::keys_command::{self, ListedEntry};
use labsh_server::reload::SettingsSource;

use super::{Candidate, hosts, paths};
use crate::command_line::{Position, takes_value};
use crate::cp::operands::remote_operand;
use crate::flags::ConnectionFlags;
use crate::rsh::keywords::KEYWORDS;
use crate::rsh::options::Treatment;

/// The program whose line is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Labsh,
    Rsh,
    Labshd,
}

/// The subsystems that a host has by default.
const SUBSYSTEMS: [&str; 2] = ["sftp", "labsh-copy"];

/// The line before the word at the cursor.
pub(super) struct Context<'a> {
    program: Program,
    definition: &'a Command,
    before: &'a [OsString],
    position: Position<'a>,
    /// None where the configuration cannot be read.
    config: OnceCell<Option<Config>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(program: Program, definition: &'a Command, before: &'a [OsString]) -> Self {
        let position = Position::after(definition, before);
        // `labsh rsh` has the command line of labsh-rsh.
        let program = match position.command.get_name() {
            "rsh" => Program::Rsh,
            _ => program,
        };
        Self { program, definition, before, position, config: OnceCell::new() }
    }

    fn config(&self) -> Option<&Config> {
        self.config.get_or_init(|| Config::load().ok()).as_ref()
    }

    /// Returns words that may follow, of which some may not begin like `current`.
    pub(super) fn candidates(&self, current: &str) -> Vec<Candidate> {
        if let Some(option) = self.position.option {
            return self.values(option, 0, current);
        }
        if self.position.accepts_options && current.starts_with('-') {
            return self.options(current);
        }
        let mut found = Vec::new();
        if self.position.words.is_empty() {
            let shown = self.position.command.get_subcommands().filter(|one| !one.is_hide_set());
            found.extend(
                shown.map(|one| {
                    Candidate::new(one.get_name()).with_help(first_line(one.get_about()))
                }),
            );
        }
        if let Some((positional, index)) = self.positional() {
            found.extend(self.values(positional, index, current));
        }
        found
    }

    /// Returns the positional argument of the word at the cursor, and how many words it has so far.
    fn positional(&self) -> Option<(&'a Arg, usize)> {
        let mut index = self.position.words.len();
        for argument in self.position.command.get_positionals() {
            let most = argument.get_num_args().map_or(1, |count| count.max_values());
            if index < most {
                return Some((argument, index));
            }
            index -= most;
        }
        None
    }

    /// Returns options, or candidates for the value within the same word.
    fn options(&self, current: &str) -> Vec<Candidate> {
        let named = current.strip_prefix("--").and_then(|long| long.split_once('='));
        if let Some((name, value)) = named {
            let option = self.position.long(name).filter(|option| takes_value(option));
            let values = option.map(|option| self.values(option, 0, value)).unwrap_or_default();
            return after(values, &format!("--{name}="));
        }
        let mut letters = current.chars().skip(1);
        if let Some(option) = letters.next().and_then(|letter| self.position.short(letter))
            && takes_value(option)
            && current.len() > 2
        {
            let (letter, value) = current.split_at(2);
            return after(self.values(option, 0, value), letter);
        }
        let shown = self.position.command.get_arguments();
        let shown = shown.filter(|option| !option.is_positional() && !option.is_hide_set());
        shown.filter_map(candidate_of_option).collect()
    }

    /// Returns candidates for a value. `index` is the number of values that precede it.
    fn values(&self, argument: &Arg, index: usize, current: &str) -> Vec<Candidate> {
        let possible = argument.get_possible_values();
        if !possible.is_empty() {
            let shown = possible.iter().filter(|value| !value.is_hide_set());
            return shown
                .map(|value| {
                    Candidate::new(value.get_name()).with_help(first_line(value.get_help()))
                })
                .collect();
        }
        let names = argument.get_value_names().unwrap_or_default();
        let name =
            names.get(index.min(names.len().saturating_sub(1))).map_or("", |name| name.as_str());
        let subcommand = self.position.command.get_name();
        match (self.program, name) {
            (Program::Labshd, "KEY" | "HOST") => self.entries(name),
            (Program::Labshd, "USER") => accounts(),
            (Program::Rsh, "HOST") => self.destinations(current),
            (Program::Rsh, "COMMAND") => self.subsystems(),
            (Program::Rsh, "KEY=VALUE") => keywords(current),
            (Program::Labsh, "TARGET" | "HOST") if is_for_one_host(subcommand) => {
                hosts::hosts(self.config())
            }
            (Program::Labsh, "TARGET" | "HOST" | "HOSTS" | "SET") => {
                hosts::sets(self.config(), current)
            }
            (Program::Labsh, "FROM" | "TO") => self.operands(current),
            (Program::Labsh, "ID") if subcommand == "new" => Vec::new(),
            (Program::Labsh, "COMMAND") if subcommand == "try" => paths::local(current, false),
            (_, "KEY" | "ID") => keys(current),
            (_, "LESSON") => lessons(),
            (_, "NAME[=VALUE]") => variables(),
            // A directory on the host.
            (_, "DIR") if argument.get_id() == "cwd" => Vec::new(),
            (_, "DIR" | "DIRECTORY") => paths::local(current, true),
            (_, "FILE" | "PATH") => paths::local(current, false),
            _ => Vec::new(),
        }
    }

    /// Returns `HOST` and `USER@HOST`.
    fn destinations(&self, current: &str) -> Vec<Candidate> {
        let user = current.rfind('@').map_or("", |at| &current[..=at]);
        after(hosts::hosts(self.config()), user)
    }

    fn subsystems(&self) -> Vec<Candidate> {
        let is_subsystem = self.position.given.iter().any(|option| option.get_id() == "s");
        let names =
            SUBSYSTEMS.into_iter().filter(|_| is_subsystem && self.position.words.len() == 1);
        names.map(Candidate::new).collect()
    }

    /// Returns what `labsh cp` copies: local files, and files on hosts.
    fn operands(&self, current: &str) -> Vec<Candidate> {
        let mut found = match remote_operand(OsStr::new(current)) {
            Some((target, path)) => {
                let flags = self.matches().and_then(|matches| connection_flags(&matches));
                let listed = paths::remote(&target, &path, &flags.unwrap_or_default());
                after(listed, &format!("{target}:"))
            }
            None => paths::local(current, false),
        };
        if !current.contains('/') && !current.ends_with(':') {
            let sets = hosts::sets(self.config(), current).into_iter();
            found.extend(sets.map(|set| Candidate::open(format!("{}:", set.value))));
        }
        found
    }

    /// Returns the options so far, as far as they can be parsed.
    fn matches(&self) -> Option<ArgMatches> {
        let name = OsString::from(self.definition.get_name());
        let words = [name].into_iter().chain(self.before.iter().cloned());
        let lenient = self.definition.clone().ignore_errors(true);
        lenient.try_get_matches_from(words).ok().map(leaf)
    }

    /// Returns the keys or hosts of labshd's entries, if this user may read them.
    fn entries(&self, name: &str) -> Vec<Candidate> {
        let file = self
            .matches()
            .and_then(|matches| matches.try_get_one::<PathBuf>("config").ok().flatten().cloned());
        let Ok(source) = SettingsSource::new(file) else { return Vec::new() };
        let (entries, _) =
            keys_command::entries(&source.read_config().0.keys_dir, &RunsAs::current());
        let value = |entry: &ListedEntry| match name {
            "KEY" => Candidate::new(entry.key.as_str()),
            _ => Candidate::new(entry.host_id.as_str()),
        };
        entries.iter().map(value).collect()
    }
}

fn leaf(mut matches: ArgMatches) -> ArgMatches {
    while let Some((_, subcommand)) = matches.remove_subcommand() {
        matches = subcommand;
    }
    matches
}

fn connection_flags(matches: &ArgMatches) -> Option<ConnectionFlags> {
    ConnectionFlags::from_arg_matches(matches).ok()
}

/// Whether a subcommand takes one host, not a set.
fn is_for_one_host(subcommand: &str) -> bool {
    ["ping", "shell", "revoke"].contains(&subcommand)
}

fn after(candidates: Vec<Candidate>, prefix: &str) -> Vec<Candidate> {
    candidates.into_iter().map(|candidate| candidate.after(prefix)).collect()
}

fn candidate_of_option(option: &Arg) -> Option<Candidate> {
    let name = match (option.get_long(), option.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(letter)) => format!("-{letter}"),
        (None, None) => return None,
    };
    Some(Candidate::new(name).with_help(first_line(option.get_help())))
}

/// Returns the first line of a description.
fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn keys(current: &str) -> Vec<Candidate> {
    if current.contains('/') {
        return paths::local(current, false);
    }
    let keys = KeyStore::open().and_then(|store| store.list()).unwrap_or_default();
    keys.into_iter().map(|key| Candidate::new(key.name)).collect()
}

fn lessons() -> Vec<Candidate> {
    let language = Language::of_locale();
    let lesson = |lesson: &labsh_lessons::Lesson| {
        Candidate::new(lesson.name).with_help(lesson.title(language))
    };
    LESSONS.iter().map(lesson).chain([Candidate::new("all")]).collect()
}

fn variables() -> Vec<Candidate> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.map(Candidate::new).collect()
}

/// Returns settings of ssh, whose names have no case: what is typed stays as it is.
fn keywords(current: &str) -> Vec<Candidate> {
    let typed = current.to_ascii_lowercase();
    let honoured = KEYWORDS.iter().filter(|(_, treatment)| *treatment == Treatment::Honoured);
    let rests = honoured.filter_map(|(keyword, _)| keyword.strip_prefix(&*typed));
    rests.map(|rest| Candidate::open(format!("{current}{rest}="))).collect()
}

/// Returns the accounts of this machine's own file; a directory service may have too many.
fn accounts() -> Vec<Candidate> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    accounts.lines().filter_map(|line| line.split(':').next()).map(Candidate::new).collect()
}
