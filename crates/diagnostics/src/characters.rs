//! The characters that are escaped in text that goes to a terminal, a table or a log.

/// Returns whether a terminal would interpret this character instead of showing it.
pub fn is_interpreted(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks, embeddings, overrides and isolates of writing direction ("Trojan Source").
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Zero-width space, word joiner and invisible operators, byte order mark, annotations,
            // tags.
            | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns whether two names that differ only in this character can look the same: it is one that
/// [`is_interpreted`], or has no width (Unicode's property Default_Ignorable_Code_Point).
pub fn is_unseen(c: char) -> bool {
    is_interpreted(c)
        || matches!(c,
            // Soft hyphen, joiners, fillers, vowels and variations without a shape.
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200c}' | '\u{200d}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0080}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_look_like_nothing_are_unseen_and_letters_are_not() {
        for c in
            ['\n', '\u{1b}', '\u{9b}', '\u{ad}', '\u{200b}', '\u{200d}', '\u{202e}', '\u{feff}']
        {
            assert!(is_unseen(c), "{c:?}");
        }
        for c in ['\u{2060}', '\u{3164}', '\u{fe0f}', '\u{e0041}', '\u{e0100}', '\u{180e}'] {
            assert!(is_unseen(c), "{c:?}");
        }
        for c in "a-_.: é粘ש語\u{301}".chars() {
            assert!(!is_unseen(c), "{c:?}");
        }
    }
}
