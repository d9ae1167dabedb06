//! Expands a pattern such as `rack[1-2]n[01-04]` into names, and matches names with wildcards.

use crate::{MAX_HOSTS, MAX_NAME_BYTES, NodeSetError};

/// Returns all names of a pattern, in the order of its ranges.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, NodeSetError> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    // The length of the longest name, checked before any name is built.
    let mut length = 0;
    let mut grow = |by: usize| {
        length += by;
        let too_long = || NodeSetError::TooLong { beginning: pattern.chars().take(40).collect() };
        (length <= MAX_NAME_BYTES).then_some(()).ok_or_else(too_long)
    };
    while !rest.is_empty() {
        let position = |at: &str| pattern[..pattern.len() - at.len()].chars().count() + 1;
        let unmatched = |at: &str| NodeSetError::Bracket {
            expression: pattern.to_owned(),
            position: position(at),
        };
        let literal_end = rest.find(['[', ']']).unwrap_or(rest.len());
        let (literal, tail) = rest.split_at(literal_end);
        grow(literal.len())?;
        for name in &mut names {
            name.push_str(literal);
        }
        rest = tail;
        let Some(inner) = rest.strip_prefix('[') else {
            if rest.is_empty() {
                break;
            }
            return Err(unmatched(rest));
        };
        let Some((list, tail)) = inner.split_once(']') else { return Err(unmatched(rest)) };
        if list.contains('[') {
            return Err(unmatched(rest));
        }
        // At the start it is an IPv6 address, as in [::1]:5274, and in a path a part of that.
        let at_start = rest.len() == pattern.len();
        if list.contains(':') && (at_start || pattern.starts_with("unix:")) {
            grow(list.len() + 2)?;
            for name in &mut names {
                *name = format!("{name}[{list}]");
            }
        } else {
            let bounds = list.split([',', '-', '/']).map(|bound| bound.trim().len());
            grow(bounds.max().unwrap_or(0))?;
            let numbers = numbers(list, MAX_HOSTS / names.len()).map_err(|error| {
                error.unwrap_or_else(|| NodeSetError::TooMany { expression: pattern.to_owned() })
            })?;
            names = names
                .iter()
                .flat_map(|name| numbers.iter().map(move |number| format!("{name}{number}")))
                .collect();
        }
        rest = tail;
    }
    Ok(names)
}

/// Returns whether a pattern has wildcards. In the path of a Unix socket they are literal.
pub(crate) fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?']) && !pattern.starts_with("unix:")
}

/// Returns whether `host` matches: `*` stands for any text, `?` for one character.
pub(crate) fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), host.chars().collect());
    let (mut at, mut position) = (0, 0);
    // The last `*`, and the end of the text that it matches so far.
    let mut star: Option<(usize, usize)> = None;
    while position < host.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, position));
                at += 1;
            }
            (Some(symbol), _) if *symbol == '?' || *symbol == host[position] => {
                at += 1;
                position += 1;
            }
            (_, Some((star_at, end))) => {
                star = Some((star_at, end + 1));
                (at, position) = (star_at + 1, end + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|symbol| *symbol == '*')
}

/// Returns the numbers of a list of ranges; `Err(None)` where there are more than `limit`.
fn numbers(list: &str, limit: usize) -> Result<Vec<String>, Option<NodeSetError>> {
    let invalid = |reason| NodeSetError::Range { range: list.to_owned(), reason };
    let mut numbers = Vec::new();
    for element in list.split(',').map(str::trim) {
        let limit = limit - numbers.len();
        match element.split_once('-') {
            Some((first, rest)) => {
                let (last, step) = rest.split_once('/').unwrap_or((rest, "1"));
                range([first, last, step].map(str::trim), limit, &mut numbers)
                    .map_err(|error| error.map(invalid))?;
            }
            None => {
                check_number(element).map_err(invalid)?;
                if limit == 0 {
                    return Err(None);
                }
                numbers.push(element.to_owned());
            }
        }
    }
    Ok(numbers)
}

/// Adds the numbers from the first to the last; `Err(None)` where there are more than `limit`.
fn range(
    [first, last, step]: [&str; 3],
    limit: usize,
    numbers: &mut Vec<String>,
) -> Result<(), Option<&'static str>> {
    let number = |text: &str| {
        check_number(text)?;
        text.parse::<u64>().map_err(|_| "that number is too large")
    };
    let (start, end) = (number(first)?, number(last)?);
    let step = number(step).ok().filter(|step| *step > 0);
    let step = step.ok_or("a step is a whole number from 1")?;
    if start > end {
        return Err(Some("it counts backwards"));
    }
    // [01-3] is ambiguous: 01 to 03, or 01 to 3.
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    if (padded(first) || padded(last)) && first.len() != last.len() {
        return Err(Some("the first and the last number have different widths"));
    }
    if (end - start) / step >= limit as u64 {
        return Err(None);
    }
    let width = if padded(first) { first.len() } else { 0 };
    let mut next = Some(start);
    while let Some(number) = next.filter(|number| *number <= end) {
        numbers.push(format!("{number:0width$}"));
        next = number.checked_add(step);
    }
    Ok(())
}

/// Refuses what is not the digits of a number.
fn check_number(text: &str) -> Result<(), &'static str> {
    match text.bytes().find(|byte| !byte.is_ascii_digit()) {
        None if text.is_empty() => Err("a number is missing"),
        None => Ok(()),
        Some(b':') => Err("a range has a dash between its numbers"),
        Some(b'/') => Err("a step follows a range"),
        Some(_) => Err("that is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_any_text_and_any_character() {
        for (pattern, host) in [
            ("*", "a"),
            ("*", ""),
            ("lab*", "lab07"),
            ("*07", "lab07"),
            ("l?b*7", "lab07"),
            ("*a*a*", "banana"),
            ("??", "ü1"),
        ] {
            assert!(matches(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in
            [("?", ""), ("lab", "lab07"), ("lab*8", "lab07"), ("*a*a*a*a", "banana"), ("b*", "lab")]
        {
            assert!(!matches(pattern, host), "{pattern} {host}");
        }
    }
}
