//! Which environment variables a client may set for its commands.

use std::fmt;
use std::str::FromStr;

use crate::diagnostics::Problem;

/// No configuration allows these. A command runs as the key's own user, who could set them inside
/// the command anyway; but a variable takes effect before the command's first word does, in the
/// dynamic loader, the C library and the shell, and there it would make "run exactly these words"
/// untrue. The C library's part is what it ignores itself in set-user-id programs.
const NEVER: &[&str] = &[
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
    // What shells and interpreters run or obey before they come to the command, and what gives a
    // line's words another meaning: where `cd`, `*` or a name leads.
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

/// Facts that labshd sets itself; a client that could change them would make them useless to the
/// command.
const FACTS: &[&str] = &["LABSH_*", "HOME", "USER", "LOGNAME", "SHELL"];

/// A name in which each `*` stands for any characters, also for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Allows every name.
    pub fn any() -> Self {
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
            let remedy =
                "write a variable's name (letters, digits, _), with * for any characters: \"LC_*\"";
            return Err(Problem::new(format!("{text:?} is no name of a variable"), remedy));
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

/// Whether a client may set the variable; if not, why.
pub(crate) fn verdict(allowed: &[Pattern], name: &[u8]) -> Result<(), &'static str> {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let starts_well = name.starts_with(|c: char| !c.is_ascii_digit());
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("its name is not made of letters, digits and _ alone");
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
    if listed(FACTS) {
        return Some("labshd sets it itself");
    }
    listed(NEVER)
        .then_some("it would change what runs before the command itself; set it inside the command")
}

/// Taking the first place where each middle part fits leaves the most room for those behind it, so
/// nothing needs to be tried twice, however long a name the client sends.
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
    fn what_would_run_before_the_command_is_never_allowed() {
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
            assert!(verdict(&patterns(&["*"]), name.as_bytes()).is_err(), "{name}");
            assert!(name.parse::<Pattern>().is_err(), "{name}");
        }
        assert_eq!(verdict(&patterns(&["*"]), b"PATH"), Ok(()));
        assert_eq!(verdict(&patterns(&["*"]), b"CUDA_VISIBLE_DEVICES"), Ok(()));
    }

    #[test]
    fn only_what_is_listed_passes() {
        let allowed = patterns(&["LANG", "LC_*"]);
        assert_eq!(verdict(&allowed, b"LC_ALL"), Ok(()));
        assert!(verdict(&allowed, b"TERM").unwrap_err().contains("accept_env"));
        assert!(verdict(&[], b"LANG").is_err());
    }

    #[test]
    fn names_that_no_shell_could_use_are_refused() {
        for name in ["", "1A", "A B", "A-B", "BASH_FUNC_x%%", "Ä", "A\n"] {
            assert!(verdict(&[Pattern::any()], name.as_bytes()).is_err(), "{name:?}");
        }
    }
}
