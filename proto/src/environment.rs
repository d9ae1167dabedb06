//! The environment variables that no server accepts from a client. A client need not send them.

/// Variables that no configuration allows. They take effect before the program starts, in the
/// dynamic loader, the C library or the shell, so the command would not be exactly the requested
/// words. (The user of the key can still set them inside a command.) The C library's are those that
/// it ignores in set-user-id programs.
const NEVER_ALLOWED: Names = Names {
    prefixes: &["LD_", "MALLOC_", "BASH_FUNC_"],
    names: &[
        // The dynamic loader and the C library.
        "GCONV_PATH",
        "GETCONF_DIR",
        "GLIBC_TUNABLES",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "TZDIR",
        // What shells and interpreters execute before the command, and what changes the meaning of
        // a command line: where `cd` goes, what `*` or a program's name stands for.
        "BASHOPTS",
        "BASH_ENV",
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
    ],
};

/// Variables that the server sets itself, so that commands can rely on them.
const SET_BY_SERVER: Names = Names {
    prefixes: &["LABSH_"],
    names: &["HOME", "USER", "LOGNAME", "SHELL", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY"],
};

/// Names of variables, and how others begin.
struct Names {
    prefixes: &'static [&'static str],
    names: &'static [&'static str],
}

impl Names {
    /// Returns whether the name is one of them, or begins like one. It does not allocate and hardly
    /// compares, as a client may send a thousand names with each command.
    fn contain(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix)) || self.names.contains(&name)
    }
}

/// Checks that a server can be configured to accept the variable. The error is the reason.
pub fn check(name: &[u8]) -> Result<(), &'static str> {
    let name = core::str::from_utf8(name).unwrap_or_default();
    let starts_well = name.starts_with(|c: char| !c.is_ascii_digit());
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("its name must consist of letters, digits and _");
    }
    reserved(name).map_or(Ok(()), Err)
}

/// Returns why no server accepts a variable, or a pattern of variables, with this name; none if the
/// configuration decides.
pub fn reserved(name: &str) -> Option<&'static str> {
    if SET_BY_SERVER.contain(name) {
        return Some("labshd sets it itself");
    }
    NEVER_ALLOWED.contain(name).then_some("it takes effect before the command starts")
}

/// Matches a name against a pattern, in which `*` stands for any characters, in linear time. Each
/// middle part is matched at its first occurrence, which leaves the longest rest for the following
/// parts, so no backtracking is needed.
pub fn matches(pattern: &str, name: &str) -> bool {
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
    fn names_that_shells_cannot_use_are_never_accepted() {
        for name in ["", "1A", "A B", "A-B", "BASH_FUNC_x%%", "\u{c4}", "A\n"] {
            assert!(check(name.as_bytes()).is_err(), "{name:?}");
        }
    }
}
