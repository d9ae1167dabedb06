//! Splits a line into words as Python's `shlex` does, which Ansible and ClusterShell use.

/// Splits a line as `shlex.split` in POSIX mode with comments: at white space, with quotes and
/// backslashes.
pub(crate) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' => break,
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or("a quote has no end; write a second one")? {
                        end if end == c => break,
                        '\\' if c == '"' => {
                            let escaped =
                                chars.next().ok_or("a quote has no end; write a second one")?;
                            if !matches!(escaped, '\\' | '"') {
                                word.push('\\');
                            }
                            word.push(escaped);
                        }
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().ok_or("a character is missing after the backslash")?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}
