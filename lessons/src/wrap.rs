//! Measures, breaks and cuts text for a terminal, and escapes received bytes.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Returns how many columns a text takes; a Chinese character takes two.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Breaks a text into lines of at most `columns` columns, at blanks and between Chinese characters.
///
/// No line begins with a closing mark such as ，。」 or ends with an opening one. A word that is
/// longer than a line is broken at the end of the line.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for piece in pieces(paragraph) {
            if width(&line) + width(piece.trim_end()) > columns && !line.is_empty() {
                lines.push(line.trim_end().to_owned());
                line.clear();
            }
            for character in piece.chars() {
                let one = character.width().unwrap_or(0);
                if width(&line) + one > columns && character != ' ' {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(character);
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Splits a text where a line may break; blanks belong to the piece before them.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, character) in text.char_indices() {
        if before.is_some_and(|before| may_break(before, character)) {
            pieces.push(&text[start..at]);
            start = at;
        }
        before = Some(character);
    }
    pieces.push(&text[start..]);
    pieces
}

fn may_break(before: char, after: char) -> bool {
    let wide = |character: char| character.width() == Some(2);
    let opening = |character| "（《「『【“".contains(character);
    let closing = |character| "，。：；！？、）》」』】”…—,.:;!?)".contains(character);
    if after == ' ' || opening(before) || closing(after) {
        return false;
    }
    before == ' ' || wide(before) || wide(after) || opening(after)
}

/// Cuts a text to at most `columns` columns, with … at the end if something is missing.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut fitting = String::new();
    for character in text.chars() {
        if width(&fitting) + character.width().unwrap_or(0) + 1 > columns {
            break;
        }
        fitting.push(character);
    }
    if columns > 0 {
        fitting.push('…');
    }
    fitting
}

/// Returns bytes as text without control characters: they become `\n` or `\x1b`, and bytes that are
/// not UTF-8 `\x80`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if character.is_ascii_control() => {
                    text.push_str(&format!("\\x{:02x}", character as u32))
                }
                // Characters without a width: C1 controls, joiners, marks that change the direction
                // of text.
                _ if character.width().unwrap_or(0) == 0 => {
                    text.push_str(&character.escape_unicode().to_string());
                }
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_too_wide_and_no_character_is_lost() {
        let texts = [
            "one two three four five",
            "第一条消息和第二条消息粘在一起，recv 一次就读走了（共 12 字节）。",
            "short",
        ];
        for text in texts {
            for columns in 2..40 {
                let lines = wrap(text, columns);
                assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:?}");
                let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
                assert_eq!(letters(&lines.concat()), letters(text));
            }
        }
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a\n\nb", 8), ["a", "", "b"]);
    }

    #[test]
    fn no_line_begins_with_a_closing_mark_or_ends_with_an_opening_one() {
        assert_eq!(wrap("粘包，粘包", 4), ["粘", "包，", "粘包"]);
        assert_eq!(wrap("甲乙（丙）", 6), ["甲乙", "（丙）"]);
    }

    #[test]
    fn a_cut_is_marked() {
        assert_eq!(fit("粘包粘包", 8), "粘包粘包");
        assert_eq!(fit("粘包粘包", 7), "粘包粘…");
        assert_eq!(fit("粘包粘包", 6), "粘包…");
        assert_eq!(fit("x", 0), "");
    }

    #[test]
    fn received_bytes_cannot_control_a_terminal() {
        assert_eq!(escape(b"a\tb\r\n\x1b[2J\x7f"), "a\\tb\\r\\n\\x1b[2J\\x7f");
        assert_eq!(escape("é粘\u{202e}\u{9b}".as_bytes()), "é粘\\u{202e}\\u{9b}");
        assert_eq!(escape(&[b'x', 0xff, 0xe7, 0xb2]), "x\\xff\\xe7\\xb2");
    }
}
