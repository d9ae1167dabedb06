//! Escapes text from other sources, so that no terminal or shell interprets it as commands.

use std::borrow::Cow;
use std::fmt::{self, Write};

use labsh_diagnostics::characters::{is_interpreted, is_unseen};

/// Escapes every character that a terminal would interpret instead of showing it.
///
/// These are control characters (including line breaks, so one message stays one line), characters
/// that change the direction of writing, and invisible characters. All other characters, of any
/// script, are unchanged.
pub fn escape(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// Text that is escaped when it is displayed; see [`escape`].
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'text>(&'text str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_unseen(c) {
                write!(formatter, "{}", c.escape_default())
            } else {
                formatter.write_char(c)
            }
        })
    }
}

/// Escapes a line of a command's output as [`escape`] does, but leaves its tabs. Bytes that are not
/// UTF-8 become U+FFFD.
pub fn escape_line(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        if is_interpreted(c) && c != '\t' {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// Escapes every character in a JSON text that a terminal would interpret. They occur only in its
/// strings, so the JSON keeps its meaning.
pub fn escape_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_interpreted(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Quotes the text as one word of a POSIX shell, for commands that a user is to paste.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._@-:%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_json_keeps_its_meaning() {
        let hostile = "a\u{9b}2J\u{7f}\u{202e}\u{e0041}\n\u{1b} 语言";
        let json = serde_json::to_string(hostile).unwrap();
        let escaped = escape_json(&json);
        assert_eq!(escaped, r#""a\u009b2J\u007f\u202e\udb40\udc41\n\u001b 语言""#);
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), hostile);
    }

    #[test]
    fn no_control_sequence_reaches_the_terminal() {
        for hostile in [
            "\x1b[2J",
            "\u{9b}2J",
            "a\rb",
            "a\nb",
            "\u{7f}",
            "\u{202e}gpj",
            "\u{2066}",
            "\u{e0041}",
            "lab\u{ad}07",
            "lab\u{200d}07",
        ] {
            let shown = escape(hostile).to_string();
            assert!(!shown.chars().any(is_unseen), "{shown:?}");
            assert!(shown.contains('\\'), "{shown:?}");
        }
        assert_eq!(escape("a\x1b]0;x\x07\n").to_string(), r"a\u{1b}]0;x\u{7}\n");
    }

    #[test]
    fn ordinary_text_of_any_script_is_unchanged() {
        for text in ["no such directory: /srv/ä", "粘包", "שלום", r"C:\x", ""] {
            assert_eq!(escape(text).to_string(), text);
        }
    }

    #[test]
    fn pasted_text_stays_one_word_of_the_shell() {
        assert_eq!(shell_word("alice@lab.key"), "alice@lab.key");
        assert_eq!(shell_word("a b;$(c)"), "'a b;$(c)'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
