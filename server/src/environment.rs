//! The environment variables that a client may set for its commands.

use std::fmt;
use std::str::FromStr;

use labsh_proto::environment::{self, matches, reserved};

use crate::diagnostics::Problem;

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
        if let Some(reason) = reserved(text) {
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
    environment::check(name)?;
    let name = std::str::from_utf8(name).unwrap_or_default();
    match allowed.iter().any(|pattern| pattern.matches(name)) {
        true => Ok(()),
        false => Err("accept_env in labshd's configuration does not list it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
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
            "SSH_CONNECTION",
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
}
