//! Words in quotes or not, as Python tells them apart: Ansible and ClusterShell are written in it.

/// The words of a line, as Python's `shlex` in its POSIX mode tells them apart: quotes,
/// backslashes, comments.
pub(crate) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut signs = line.chars();
    while let Some(sign) = signs.next() {
        match sign {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' => break,
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match signs.next().ok_or("a quote has no end; write a second one")? {
                        end if end == sign => break,
                        '\\' if sign == '"' => {
                            let escaped =
                                signs.next().ok_or("a quote has no end; write a second one")?;
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
                .push(signs.next().ok_or("a backslash has nothing behind it")?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}
