//! What differs between the shells: the script, how a line arrives, how candidates are printed.

use std::ffi::OsString;

use clap::ValueEnum;

use super::unquote::{Quote, words};
use super::{Candidate, VARIABLE};

/// A shell for which there are completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// A line, up to the cursor.
#[derive(Debug)]
pub(super) struct Line {
    /// The words before the one at the cursor, without the program.
    pub(super) before: Vec<OsString>,
    /// The beginning of the word at the cursor, without its quoting.
    pub(super) current: String,
    /// The part of `current` that stays on the line when the shell inserts a candidate.
    stays: String,
    /// How the place where a candidate is inserted is quoted.
    quote: Quote,
}

/// Returns the script that makes a shell ask these programs for candidates.
pub(crate) fn script(shell: Shell, programs: &[&str]) -> String {
    let text = match shell {
        Shell::Bash => include_str!("labsh.bash"),
        Shell::Zsh => include_str!("labsh.zsh"),
        Shell::Fish => include_str!("labsh.fish"),
    };
    match shell {
        Shell::Bash | Shell::Zsh => text.replace("PROGRAMS", &programs.join(" ")),
        Shell::Fish => programs.iter().fold(text.to_owned(), |text, program| {
            text + &format!(
                "complete -c {program} -e\n\
                complete -c {program} -f -a '(__labsh_complete)'\n"
            )
        }),
    }
}

impl Shell {
    /// Returns the shell that runs this process for candidates.
    pub(super) fn of_environment() -> Option<Self> {
        let name = std::env::var(VARIABLE).ok()?;
        Self::from_str(&name, false).ok()
    }

    /// Reads the line from the arguments of this process.
    pub(super) fn line(self, arguments: impl Iterator<Item = OsString>) -> Option<Line> {
        let mut arguments: Vec<OsString> = arguments.collect();
        let last = arguments.pop()?.into_string().ok()?;
        match self {
            // The line, and the part of its last word that bash replaces: what follows the last
            // character of COMP_WORDBREAKS.
            Self::Bash => Some(bash_line(&arguments.pop()?.into_string().ok()?, &last)),
            Self::Zsh => Some(Line::plain(arguments, last)),
            // The last word is as typed: fish removes the quoting of complete words alone.
            Self::Fish => {
                let current = words(&last).pop().map(|word| word.text).unwrap_or_default();
                Some(Line::plain(arguments, current))
            }
        }
    }

    /// Formats candidates for the script.
    pub(super) fn format(self, line: &Line, candidates: &[Candidate]) -> String {
        let format = |candidate: &Candidate| match self {
            Self::Bash => line.bash_insertion(candidate) + "\n",
            Self::Zsh => {
                let kind = if candidate.is_open { "open" } else { "final" };
                format!("{kind}\t{}\t{}\n", candidate.value, candidate.help)
            }
            Self::Fish => format!("{}\t{}\n", candidate.value, candidate.help),
        };
        let fits = |candidate: &&Candidate| self != Self::Bash || line.can_insert(candidate);
        candidates.iter().filter(fits).map(format).collect()
    }
}

fn bash_line(line: &str, replaced: &str) -> Line {
    let mut words = words(line);
    let current = words.pop().unwrap_or_default();
    let stays = current.raw.strip_suffix(replaced).unwrap_or_default();
    let stays = self::words(stays).pop().unwrap_or_default();
    let before = words.into_iter().skip(1).map(|word| word.text.into()).collect();
    Line { before, current: current.text, stays: stays.text, quote: stays.quote }
}

impl Line {
    fn plain(before: Vec<OsString>, current: String) -> Self {
        Self { before, current, stays: String::new(), quote: Quote::None }
    }

    /// Whether bash can insert a candidate: between double quotes nothing protects a `!` from the
    /// expansion of history.
    fn can_insert(&self, candidate: &Candidate) -> bool {
        self.quote != Quote::Double || !candidate.value.contains('!')
    }

    /// Returns what bash inserts for a candidate, in the quoting of its place.
    fn bash_insertion(&self, candidate: &Candidate) -> String {
        let rest = candidate.value.strip_prefix(&self.stays).unwrap_or_default();
        let quoted = |special: fn(char) -> bool| -> String {
            let escape = |c: char| special(c).then_some('\\').into_iter().chain([c]);
            rest.chars().flat_map(escape).collect()
        };
        match self.quote {
            // Readline closes the quotation itself, which ends the word.
            Quote::Single => rest.replace('\'', r"'\''"),
            Quote::Double => quoted(|c| "\\\"$`".contains(c)),
            Quote::None => {
                let quoted = quoted(|c| !c.is_alphanumeric() && !"_-./:=@%+,".contains(c));
                // A home directory's ~ is not quoted.
                let quoted = match quoted.strip_prefix("\\~/") {
                    Some(below) => format!("~/{below}"),
                    None => quoted,
                };
                quoted + if candidate.is_open { "" } else { " " }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclamation_mark_is_not_inserted_where_bash_would_expand_it() {
        let candidates = ["a!b", "ac"].map(Candidate::new);
        let inserted = |line: &str| Shell::Bash.format(&bash_line(line, "a"), &candidates);
        assert_eq!(inserted("labsh cp a"), "a\\!b \nac \n");
        assert_eq!(inserted("labsh cp 'a"), "a!b\nac\n");
        assert_eq!(inserted("labsh cp \"a"), "ac\n");
    }
}
