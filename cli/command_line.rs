//! Follows the words of a command line through clap's definition, without parsing values: for
//! completions, and for command lines that clap refuses.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// Where the next word of a command line is.
#[derive(Debug)]
pub(crate) struct Position<'a> {
    /// The subcommand that the words so far name.
    pub(crate) command: &'a Command,
    /// The option whose value the next word is.
    pub(crate) option: Option<&'a Arg>,
    /// The options so far, in order.
    pub(crate) given: Vec<&'a Arg>,
    /// The values of long options, in order.
    values: Vec<(&'a Arg, OsString)>,
    /// The positional words so far.
    pub(crate) words: Vec<OsString>,
    /// Whether the next word may be an option.
    pub(crate) accepts_options: bool,
}

impl<'a> Position<'a> {
    /// Follows these words from the program, whose definition is built (`Command::build`).
    pub(crate) fn after(program: &'a Command, words: &[OsString]) -> Self {
        let mut position = Self {
            command: program,
            option: None,
            given: Vec::new(),
            values: Vec::new(),
            words: Vec::new(),
            accepts_options: true,
        };
        words.iter().for_each(|word| position.follow(word));
        position
    }

    fn follow(&mut self, word: &OsStr) {
        if let Some(option) = self.option.take() {
            self.values.push((option, word.to_owned()));
            return;
        }
        let text = word.to_string_lossy();
        match text.strip_prefix('-').filter(|rest| self.accepts_options && !rest.is_empty()) {
            Some("-") => self.accepts_options = false,
            Some(rest) => match rest.strip_prefix('-') {
                Some(long) => self.follow_long(long),
                None => self.follow_cluster(rest),
            },
            None => self.follow_positional(word, &text),
        }
    }

    fn follow_long(&mut self, long: &str) {
        let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
        let Some(option) = self.long(name) else { return };
        self.given.push(option);
        match value {
            Some(value) => self.values.push((option, value.into())),
            None => self.option = Some(option).filter(|option| takes_next(option)),
        }
    }

    fn follow_cluster(&mut self, letters: &str) {
        for (at, letter) in letters.char_indices() {
            let Some(option) = self.short(letter) else { return };
            self.given.push(option);
            if takes_value(option) {
                let is_last = at + letter.len_utf8() == letters.len();
                self.option = Some(option).filter(|option| is_last && takes_next(option));
                return;
            }
        }
    }

    fn follow_positional(&mut self, word: &OsStr, text: &str) {
        if self.words.is_empty()
            && self.accepts_options
            && let Some(subcommand) = self.command.find_subcommand(text)
        {
            self.command = subcommand;
            return;
        }
        self.words.push(word.to_owned());
        self.accepts_options &= !self.is_in_command();
    }

    /// Whether the next word belongs to the command that is to be run.
    pub(crate) fn is_in_command(&self) -> bool {
        let has_command = self.command.get_positionals().any(Arg::is_trailing_var_arg_set);
        // Options of ssh may follow the host.
        let before = if self.command.get_name().ends_with("rsh") { 2 } else { 1 };
        has_command && self.words.len() >= before
    }

    /// Whether an option is given.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.given.iter().any(|option| option.get_id() == id)
    }

    /// Returns the last value of an option that has no letter, as it is written.
    pub(crate) fn value(&self, id: &str) -> Option<&OsStr> {
        let found = self.values.iter().rev().find(|(option, _)| option.get_id() == id);
        found.map(|(_, value)| value.as_os_str())
    }

    /// Returns the option with this long name.
    pub(crate) fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|option| option.get_long() == Some(name))
    }

    /// Returns the option with this letter.
    pub(crate) fn short(&self, letter: char) -> Option<&'a Arg> {
        self.command.get_arguments().find(|option| option.get_short() == Some(letter))
    }
}

/// Whether an option takes a value.
pub(crate) fn takes_value(option: &Arg) -> bool {
    option.get_num_args().is_some_and(|count| count.takes_values())
}

/// Whether an option takes the next word as its value.
fn takes_next(option: &Arg) -> bool {
    takes_value(option) && !option.is_require_equals_set()
}
