//! Parses ssh's syntax of a command line: clustered letters, options on both sides of the host, and
//! then a command.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::rsh::options::{LONG_OPTIONS, LongOption, SHORT_OPTIONS, ShortOption};

/// An item before the command, in order. If an option is repeated, the first value counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// `-p 22`, `-p22`, or a letter of `-xaT`.
    Short(&'static ShortOption, Option<OsString>),
    /// `--key alice`, `--key=alice`, `--plain`.
    Long(&'static LongOption, Option<OsString>),
    /// `[user@]HOST`.
    Destination(OsString),
}

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Options and destination.
    pub(crate) items: Vec<Item>,
    /// The words of the command.
    pub(crate) command: Vec<OsString>,
}

/// Why a command line cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    /// The option does not exist.
    #[error("there is no option {0}; `labsh rsh --help` shows those that there are")]
    Unknown(String),
    /// An option at the end of the line lacks its value.
    #[error("the option {option} needs a value: {option} {value}")]
    NoValue {
        /// The option.
        option: String,
        /// The name of its value.
        value: &'static str,
    },
    /// `--plain=x`.
    #[error("the option --{0} takes no value; leave out the = and what follows it")]
    Value(&'static str),
}

/// Parses a command line without the program's name.
///
/// Options end at the first word that is none, and at `--`. That word is the host. Unless `--`
/// precedes it, options may follow it; the command begins after those.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Line, BadLine> {
    let mut words = words.into_iter().peekable();
    let mut items = Vec::new();
    let terminated = options(&mut words, &mut items)?;
    if let Some(destination) = words.next() {
        items.push(Item::Destination(destination));
        if !terminated {
            options(&mut words, &mut items)?;
        }
    }
    Ok(Line { items, command: words.collect() })
}

/// Parses options as far as they go; returns whether a `--` ended them.
fn options(
    words: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
    items: &mut Vec<Item>,
) -> Result<bool, BadLine> {
    while let Some(word) = words.next_if(|word| word.len() > 1 && word.as_bytes().starts_with(b"-"))
    {
        match word.as_bytes() {
            b"--" => return Ok(true),
            [b'-', b'-', long @ ..] => items.push(long_option(long, words)?),
            [_, letters @ ..] => cluster(letters, words, items)?,
            [] => {}
        }
    }
    Ok(false)
}

fn cluster(
    letters: &[u8],
    words: &mut impl Iterator<Item = OsString>,
    items: &mut Vec<Item>,
) -> Result<(), BadLine> {
    for (at, letter) in letters.iter().enumerate() {
        let name = || format!("-{}", char::from(*letter));
        let option = SHORT_OPTIONS.iter().find(|option| option.letter.as_bytes() == [*letter]);
        let option = option.ok_or_else(|| BadLine::Unknown(name()))?;
        let Some(value) = option.value else {
            items.push(Item::Short(option, None));
            continue;
        };
        let rest = &letters[at + 1..];
        let given =
            if rest.is_empty() { words.next() } else { Some(OsString::from_vec(rest.to_vec())) };
        let given = given.ok_or_else(|| BadLine::NoValue { option: name(), value })?;
        items.push(Item::Short(option, Some(given)));
        break;
    }
    Ok(())
}

fn long_option(text: &[u8], words: &mut impl Iterator<Item = OsString>) -> Result<Item, BadLine> {
    let (name, behind) = match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], Some(OsStr::from_bytes(&text[at + 1..]).to_owned())),
        None => (text, None),
    };
    let shown = || format!("--{}", String::from_utf8_lossy(name));
    let option = LONG_OPTIONS.iter().find(|option| option.name.as_bytes() == name);
    let option = option.ok_or_else(|| BadLine::Unknown(shown()))?;
    match (option.value, behind) {
        (None, Some(_)) => Err(BadLine::Value(option.name)),
        (None, None) => Ok(Item::Long(option, None)),
        (Some(value), behind) => {
            let given = behind.or_else(|| words.next());
            let given = given.ok_or_else(|| BadLine::NoValue { option: shown(), value })?;
            Ok(Item::Long(option, Some(given)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the line in a compact form: options as they are, `@` for the destination, `$` for
    /// the command.
    fn shown(words: &[&str]) -> String {
        let line = match parse(words.iter().map(OsString::from)) {
            Ok(line) => line,
            Err(error) => return format!("{error}"),
        };
        let value = |value: &Option<OsString>| {
            value.as_ref().map(|value| format!("={}", value.to_string_lossy())).unwrap_or_default()
        };
        let items = line.items.iter().map(|item| match item {
            Item::Short(option, given) => format!("{}{}", option.letter, value(given)),
            Item::Long(option, given) => format!("{}{}", option.name, value(given)),
            Item::Destination(text) => format!("@{}", text.to_string_lossy()),
        });
        let command = line.command.iter().map(|word| format!("${}", word.to_string_lossy()));
        items.chain(command).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn command_lines_are_taken_apart_as_ssh_does_it() {
        for (words, expected) in [
            (vec![], ""),
            (vec!["h"], "@h"),
            (vec!["h", "uptime", "-p"], "@h $uptime $-p"),
            (vec!["-p", "22", "h", "x"], "p=22 @h $x"),
            (vec!["-p22", "-lroot", "h"], "p=22 l=root @h"),
            (vec!["-xaT", "h"], "x a T @h"),
            (vec!["-xaTp22", "h"], "x a T p=22 @h"),
            (vec!["-vvv", "h"], "v v v @h"),
            (vec!["-ltroot", "h"], "l=troot @h"),
            (vec!["-tlroot", "h"], "t l=root @h"),
            (vec!["-ttn", "h"], "t t n @h"),
            (vec!["-oProxyCommand=x", "h"], "o=ProxyCommand=x @h"),
            (vec!["-o", "Key Value", "h"], "o=Key Value @h"),
            // A value may look like an option.
            (vec!["-l", "-n", "h"], "l=-n @h"),
            (vec!["-l", "--", "h"], "l=-- @h"),
            // Options may follow the host, up to the command.
            (vec!["h", "-n", "cmd", "-n"], "@h n $cmd $-n"),
            (vec!["h", "-p", "22", "-q", "cmd"], "@h p=22 q $cmd"),
            (vec!["h", "-s", "sftp"], "@h s $sftp"),
            (vec!["h", "--", "-n", "cmd"], "@h $-n $cmd"),
            (vec!["h", "-n", "--", "--", "cmd"], "@h n $-- $cmd"),
            // But not if `--` precedes the host.
            (vec!["--", "h", "-n", "cmd"], "@h $-n $cmd"),
            (vec!["-s", "--", "h", "sftp"], "s @h $sftp"),
            (vec!["--", "-host", "x"], "@-host $x"),
            (vec!["--", "h", "--", "x"], "@h $-- $x"),
            // A lone dash and an empty word are words.
            (vec!["-", "x"], "@- $x"),
            (vec!["", "x"], "@ $x"),
            (vec!["h", "", "x"], "@h $ $x"),
            (vec!["h", "-", "-n"], "@h $- $-n"),
            (vec!["--key", "alice", "--plain", "h"], "key=alice plain @h"),
            (vec!["--key=a=b", "h", "--host-id=x", "cmd"], "key=a=b @h host-id=x $cmd"),
            (vec!["--key=", "h"], "key= @h"),
            (vec!["a\0b", "c\0d"], "@a\0b $c\0d"),
        ] {
            assert_eq!(shown(&words), expected, "{words:?}");
        }
    }

    #[test]
    fn lines_that_mean_nothing_say_what_is_wrong() {
        for (words, expected) in [
            (vec!["-p"], "the option -p needs a value: -p PORT"),
            (vec!["h", "-l"], "the option -l needs a value"),
            (vec!["-xo"], "the option -o needs a value"),
            (vec!["--key"], "the option --key needs a value: --key KEY"),
            (vec!["-Z", "h"], "no option -Z"),
            (vec!["-x-", "h"], "no option --"),
            (vec!["-n\u{e4}", "h"], "no option -"),
            (vec!["--nosuch", "h"], "no option --nosuch"),
            (vec!["---", "h"], "no option ---"),
            (vec!["--=x", "h"], "no option --"),
            (vec!["--plain=yes", "h"], "--plain takes no value"),
            (vec!["-1", "h"], "no option -1"),
        ] {
            assert!(shown(&words).contains(expected), "{words:?}: {}", shown(&words));
        }
    }

    #[test]
    fn words_need_not_be_text() {
        let word = OsString::from_vec(vec![b'-', b'l', 0xff]);
        let line = parse([word, "h".into(), OsString::from_vec(vec![0xfe])]).unwrap();
        assert!(
            matches!(&line.items[0], Item::Short(_, Some(value)) if value.as_bytes() == [0xff])
        );
        assert_eq!(line.command[0].as_bytes(), [0xfe]);
        assert!(parse([OsString::from_vec(vec![b'-', 0xff])]).is_err());
    }
}
