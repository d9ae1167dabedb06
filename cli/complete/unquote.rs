//! Undoes the quoting of a shell's words.

/// How the next character of a word is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Quote {
    #[default]
    None,
    Single,
    Double,
}

/// A word of a line as it is typed, and its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word {
    pub(super) raw: String,
    pub(super) text: String,
    /// The quoting at its end: not `None` if a quotation mark has no partner.
    pub(super) quote: Quote,
}

/// Splits a line into words; the last one is at the cursor and may be empty. Variables and other
/// substitutions remain as they are typed.
pub(super) fn words(line: &str) -> Vec<Word> {
    let mut words = vec![Word::default()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let word = words.last_mut().expect("there is always one");
        if character.is_whitespace() && word.quote == Quote::None {
            if !word.raw.is_empty() {
                words.push(Word::default());
            }
            continue;
        }
        word.raw.push(character);
        match (word.quote, character) {
            (Quote::None, '\'') => word.quote = Quote::Single,
            (Quote::None, '"') => word.quote = Quote::Double,
            (Quote::Single, '\'') | (Quote::Double, '"') => word.quote = Quote::None,
            (Quote::None | Quote::Double, '\\') => {
                // A backslash at the end quotes what has not been typed yet.
                let Some(next) = characters.next() else { break };
                word.raw.push(next);
                if word.quote == Quote::Double && !"\\\"$`".contains(next) {
                    word.text.push('\\');
                }
                word.text.push(next);
            }
            _ => word.text.push(character),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let text =
            |line: &str| -> Vec<String> { words(line).into_iter().map(|word| word.text).collect() };
        assert_eq!(text("labsh run lab"), ["labsh", "run", "lab"]);
        assert_eq!(text("labsh  run "), ["labsh", "run", ""]);
        assert_eq!(text(r#"cp my\ file "a b"'c d'e"#), ["cp", "my file", "a bc de"]);
        assert_eq!(text(r#"x "a\"b\c" '\'"#), ["x", r#"a"b\c"#, r"\"]);
        assert_eq!(text("x \"lab07:a b"), ["x", "lab07:a b"]);
        assert_eq!(words("x 'a").pop().unwrap().quote, Quote::Single);
        assert_eq!(text("x a\\"), ["x", "a"]);
    }
}
