//! Parses `-o Key=Value`: the keywords of ssh_config(5) that labsh knows, and the syntax of their
//! values.

use std::time::Duration;

use Treatment::{Honoured, Missed, Refused};

use crate::rsh::options::{
    NO_AGENT, NO_BACKGROUND, NO_BINDING, NO_FORWARDING, NO_PROXY, NO_X11, Treatment,
};

/// Values that switch a setting off, so that it is accepted.
const OFF: &[&str] = &["no", "none", "false"];

/// Keywords, in lower case, that have an effect, a warning or an error; all others are ignored,
/// also those that ssh does not know.
///
/// Tools send, among the ignored ones: batchmode (labsh never asks), stricthostkeychecking,
/// userknownhostsfile and checkhostip (a host proves that it has the key), controlmaster,
/// controlpath and controlpersist (the agent keeps connections open), serveraliveinterval (labsh
/// checks the connection anyway), compression, ciphers, ipqos, and all authentication methods.
pub(crate) const KEYWORDS: &[(&str, Treatment)] = &[
    ("addressfamily", Honoured),
    ("connecttimeout", Honoured),
    ("escapechar", Honoured),
    ("hostkeyalias", Honoured),
    ("hostname", Honoured),
    ("identityfile", Honoured),
    ("loglevel", Honoured),
    ("port", Honoured),
    ("remotecommand", Honoured),
    ("requesttty", Honoured),
    ("sendenv", Honoured),
    ("sessiontype", Honoured),
    ("setenv", Honoured),
    ("stdinnull", Honoured),
    ("user", Honoured),
    ("bindaddress", Refused(NO_BINDING)),
    ("bindinterface", Refused(NO_BINDING)),
    ("dynamicforward", Refused(NO_FORWARDING)),
    ("forwardagent", Missed(NO_AGENT)),
    ("forwardx11", Missed(NO_X11)),
    ("forkafterauthentication", Refused(NO_BACKGROUND)),
    ("localforward", Refused(NO_FORWARDING)),
    ("permitlocalcommand", Refused("labsh runs nothing on this machine; run it yourself")),
    ("pkcs11provider", Refused("name a labsh key with -i")),
    ("proxycommand", Refused(NO_PROXY)),
    ("proxyjump", Refused(NO_PROXY)),
    ("remoteforward", Refused(NO_FORWARDING)),
    ("tunnel", Refused(NO_FORWARDING)),
];

/// The setting of one `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The keyword, in lower case.
    pub(crate) keyword: String,
    /// The value without surrounding blanks; never empty.
    pub(crate) value: String,
}

/// Why a setting is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSetting {
    /// There is no keyword.
    #[error("-o {0:?} names no setting; write -o Key=Value")]
    Keyword(String),
    /// There is no value.
    #[error("-o {0} needs a value; write -o {0}=VALUE")]
    NoValue(String),
    /// A quotation mark is not closed.
    #[error("-o {0}: a quotation mark is never closed")]
    Quotes(String),
}

impl Setting {
    /// Parses `Key=Value`, `Key Value` or `Key = Value`.
    pub(crate) fn parse(text: &str) -> Result<Self, BadSetting> {
        let blank = |c: char| c.is_ascii_whitespace();
        let text = text.trim_matches(blank);
        let end = text.find(|c: char| blank(c) || c == '=').unwrap_or(text.len());
        let (keyword, rest) = text.split_at(end);
        if keyword.is_empty() || keyword.contains('"') {
            return Err(BadSetting::Keyword(text.to_owned()));
        }
        let rest = rest.trim_start_matches(blank);
        let value = rest.strip_prefix('=').unwrap_or(rest).trim_start_matches(blank);
        if value.is_empty() {
            return Err(BadSetting::NoValue(keyword.to_owned()));
        }
        Ok(Self { keyword: keyword.to_ascii_lowercase(), value: value.to_owned() })
    }

    /// Returns how labsh treats the setting.
    pub(crate) fn treatment(&self) -> Treatment {
        let found = KEYWORDS.iter().find(|(keyword, _)| *keyword == self.keyword);
        match found.map_or(Treatment::Passed, |(_, treatment)| *treatment) {
            Refused(_) | Missed(_) if OFF.contains(&self.value.to_ascii_lowercase().as_str()) => {
                Treatment::Passed
            }
            treatment => treatment,
        }
    }

    /// Splits the value into words: blanks separate them, double and single quotation marks group,
    /// a backslash escapes a quotation mark or a backslash.
    pub(crate) fn words(&self) -> Result<Vec<String>, BadSetting> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut rest = self.value.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\\' if rest.peek().is_some_and(|next| matches!(next, '"' | '\'' | '\\')) => {
                    word.get_or_insert_default().extend(rest.next());
                }
                c if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => {
                    quote = Some(c);
                    // An empty pair of quotation marks is a word.
                    word.get_or_insert_default();
                }
                c if quote.is_none() && c.is_ascii_whitespace() => words.extend(word.take()),
                c => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_some() {
            return Err(BadSetting::Quotes(self.keyword.clone()));
        }
        words.extend(word);
        Ok(words)
    }

    /// Returns the value if it is a single word.
    pub(crate) fn word(&self) -> Result<String, BadSetting> {
        self.words()?.into_iter().next().ok_or_else(|| BadSetting::NoValue(self.keyword.clone()))
    }
}

/// Parses a time in ssh's syntax: numbers with a unit each (s, m, h, d, w), or seconds without one.
/// Returns none for other texts.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().ok()?;
        let mut behind = rest[end..].chars();
        let unit = match behind.next().map(|c| c.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = behind.as_str();
    }
    Some(Duration::from_secs(seconds))
}

/// Whether a name matches a pattern in which `*` stands for any characters and `?` for one.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', behind)), rest) => {
            matches(behind, name) || rest.is_some_and(|(_, shorter)| matches(pattern, shorter))
        }
        (Some((b'?', behind)), Some((_, shorter))) => matches(behind, shorter),
        (Some((byte, behind)), Some((first, shorter))) => byte == first && matches(behind, shorter),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(text: &str) -> Setting {
        Setting::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn settings_are_written_in_three_ways() {
        for text in ["Port=22", "port 22", "PORT = 22", " Port =22 ", "Port\t=\t22", "Port= 22"] {
            assert_eq!(
                setting(text),
                Setting { keyword: "port".into(), value: "22".into() },
                "{text:?}"
            );
        }
        assert_eq!(setting("SetEnv==x").value, "=x");
        for (text, error) in [
            ("", "names no setting"),
            ("=x", "names no setting"),
            ("\"Port=1\"", "names no setting"),
            ("ControlPersist", "ControlPersist needs a value"),
            ("Port=", "Port needs a value"),
            ("Port = ", "Port needs a value"),
        ] {
            let said = Setting::parse(text).unwrap_err().to_string();
            assert!(said.contains(error), "{text:?}: {said}");
        }
    }

    #[test]
    fn words_may_be_quoted() {
        for (text, expected) in [
            ("User=\"bob\"", vec!["bob"]),
            ("SetEnv A=1 B=\"x y\"  'C=a\"b'", vec!["A=1", "B=x y", "C=a\"b"]),
            ("SetEnv=A=\"\" ''", vec!["A=", ""]),
            (r#"SetEnv=A=\"x\\ B=\n"#, vec!["A=\"x\\", "B=\\n"]),
            (r#"ControlPath="/home/ada/.ansible/cp/%h""#, vec!["/home/ada/.ansible/cp/%h"]),
        ] {
            assert_eq!(setting(text).words().unwrap(), expected, "{text}");
        }
        assert!(setting("User=\"bob").words().unwrap_err().to_string().contains("never closed"));
    }

    #[test]
    fn what_matters_and_cannot_be_is_refused_unless_it_is_switched_off() {
        for text in
            ["ProxyCommand=nc %h %p", "proxyjump=between", "LocalForward=1:a:2", "Tunnel=yes"]
        {
            assert!(matches!(setting(text).treatment(), Refused(_)), "{text}");
        }
        for text in [
            "ProxyCommand=none",
            "PermitLocalCommand=no",
            "Tunnel=False",
            "ControlMaster=auto",
            "X=y",
        ] {
            assert_eq!(setting(text).treatment(), Treatment::Passed, "{text}");
        }
        assert_eq!(setting("RemoteCommand=none").treatment(), Honoured);
    }

    #[test]
    fn times_are_written_as_ssh_writes_them() {
        for (text, seconds) in
            [("0", 0), ("10", 10), ("1m30s", 90), ("1H", 3600), ("2d1", 172_801), ("1w", 604_800)]
        {
            assert_eq!(parse_time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "-1", "+1", "s", "1.5", "1y", "99999999999999999999", "18446744073709551615w"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_name_variables() {
        for (pattern, name, fits) in [
            ("LC_*", "LC_ALL", true),
            ("LC_*", "LC_", true),
            ("LC_*", "LANG", false),
            ("L?NG", "LANG", true),
            ("L?NG", "LNG", false),
            ("*", "", true),
            ("GIT_PROTOCOL", "GIT_PROTOCOL", true),
            ("GIT_PROTOCOL", "GIT_PROTOCOLS", false),
            ("*A*B*", "xAyBz", true),
            ("*A*B*", "xByAz", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
