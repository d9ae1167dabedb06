//! The environment variables that a client may set for its commands.

use std::fmt;
use std::str::FromStr;

use crate::diagnostics::Problem;

/// Variables that no configuration allows. They take effect before the program starts, in the
/// dynamic loader, the C library or the shell, so the command would not be exactly the requested
/// words. (The user of the key can still set them inside a command.) The C library's are those that
/// it ignores in set-user-id programs.
const NEVER_ALLOWED: &[&str] = &[
    // The dynamic loader and the C library.
    "LD_*",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_*",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TZDIR",
    // What shells and interpreters execute before the command, and what changes the meaning of a
    // command line: where `cd` goes, what `*` or a program's name stands for.
    "BASHOPTS",
    "BASH_ENV",
    "BASH_FUNC_*",
    "CDPATH",
    "ENV",
    "EXECIGNORE",
    "FPATH",
    "GLOBIGNORE",
    "IFS",
    "NULLCMD",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONSTARTUP",
    "READNULLCMD",
    "SHELLOPTS",
    "ZDOTDIR",
];

/// Variables that labshd sets itself, so that commands can rely on them.
const SET_BY_LABSHD: &[&str] = &["LABSH_*", "HOME", "USER", "LOGNAME", "SHELL"];

/// A pattern for names of variables, in which `*` matches any number of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Returns the pattern that matches every name.
    pub(crate) fn any() -> Self {
        Self("*".to_owned())
    }

    fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }
}

impl FromStr for Pattern {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '*';
        if text.is_empty()
            || text.starts_with(|c: char| c.is_ascii_digit())
            || !text.chars().all(allowed)
        {
            let remedy = "write the name of a variable (letters, digits, _), with * for any \
                characters: \"LC_*\"";
            return Err(Problem::new(format!("{text:?} is not the name of a variable"), remedy));
        }
        if let Some(reason) = forbidden(text) {
            return Err(Problem::new(
                format!("{text:?} cannot be allowed: {reason}"),
                "remove it from the list",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Checks that a client may set the variable. The error is the reason.
pub(crate) fn check(allowed: &[Pattern], name: &[u8]) -> Result<(), &'static str> {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let starts_well = name.starts_with(|c: char| !c.is_ascii_digit());
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("its name must consist of letters, digits and _");
    }
    if let Some(reason) = forbidden(name) {
        return Err(reason);
    }
    match allowed.iter().any(|pattern| pattern.matches(name)) {
        true => Ok(()),
        false => Err("accept_env in labshd's configuration does not list it"),
    }
}

fn forbidden(name: &str) -> Option<&'static str> {
    let listed = |list: &[&str]| list.iter().any(|pattern| matches(pattern, name));
    if listed(SET_BY_LABSHD) {
        return Some("labshd sets it itself");
    }
    listed(NEVER_ALLOWED).then_some("it takes effect before the command starts")
}

/// Matches a name against a pattern, in linear time. Each middle part is matched at its first
/// occurrence, which leaves the longest rest for the following parts, so no backtracking is needed.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let (middle, end) = tail.rsplit_once('*').unwrap_or(("", tail));
    for part in middle.split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("LC_*", "LC_ALL", true),
            ("LC_*", "LC_", true),
            ("LC_*", "LC", false),
            ("*_PROXY", "HTTP_PROXY", true),
            ("A*B*C", "AxBxBxC", true),
            ("A*B*C", "AxC", false),
            ("*AB*BA", "ABA", false),
            ("*AB*BA", "xABxBA", true),
            ("A**B", "AB", true),
            ("TERM", "TERMINAL", false),
            ("*", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn variables_that_take_effect_before_the_command_are_never_allowed() {
        for name in [
            "LD_PRELOAD",
            "BASH_ENV",
            "ENV",
            "IFS",
            "CDPATH",
            "GLOBIGNORE",
            "GLIBC_TUNABLES",
            "HOME",
            "SHELL",
            "LABSH_SOURCE",
        ] {
            assert!(check(&patterns(&["*"]), name.as_bytes()).is_err(), "{name}");
            assert!(name.parse::<Pattern>().is_err(), "{name}");
        }
        assert_eq!(check(&patterns(&["*"]), b"PATH"), Ok(()));
        assert_eq!(check(&patterns(&["*"]), b"CUDA_VISIBLE_DEVICES"), Ok(()));
    }

    #[test]
    fn only_listed_variables_are_allowed() {
        let allowed = patterns(&["LANG", "LC_*"]);
        assert_eq!(check(&allowed, b"LC_ALL"), Ok(()));
        assert!(check(&allowed, b"TERM").unwrap_err().contains("accept_env"));
        assert!(check(&[], b"LANG").is_err());
    }

    #[test]
    fn names_that_shells_cannot_use_are_refused() {
        for name in ["", "1A", "A B", "A-B", "BASH_FUNC_x%%", "Ä", "A\n"] {
            assert!(check(&[Pattern::any()], name.as_bytes()).is_err(), "{name:?}");
        }
    }
}
