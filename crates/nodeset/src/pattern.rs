//! One pattern such as `rack[1-2]n[01-04]`, and the names that it stands for.

use crate::{LONGEST, MOST, NodeSetError};

/// All names of a pattern, in the order in which it writes them.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, NodeSetError> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    // Of the longest of them, so that what is too much is known before it is made.
    let mut length = 0;
    let mut grow = |by: usize| {
        length += by;
        let too_long = || NodeSetError::TooLong { beginning: pattern.chars().take(40).collect() };
        (length <= LONGEST).then_some(()).ok_or_else(too_long)
    };
    while !rest.is_empty() {
        let position = |at: &str| pattern[..pattern.len() - at.len()].chars().count() + 1;
        let unpaired = |at: &str| NodeSetError::Bracket {
            expression: pattern.to_owned(),
            position: position(at),
        };
        let literal_end = rest.find(['[', ']']).unwrap_or(rest.len());
        let (literal, behind) = rest.split_at(literal_end);
        grow(literal.len())?;
        names.iter_mut().for_each(|name| name.push_str(literal));
        rest = behind;
        let Some(inner) = rest.strip_prefix('[') else {
            if rest.is_empty() {
                break;
            }
            return Err(unpaired(rest));
        };
        let Some((list, behind)) = inner.split_once(']') else { return Err(unpaired(rest)) };
        if list.contains('[') {
            return Err(unpaired(rest));
        }
        if is_ipv6(list) {
            grow(list.len() + 2)?;
            names.iter_mut().for_each(|name| *name = format!("{name}[{list}]"));
        } else {
            grow(list.split([',', '-', '/']).map(str::len).max().unwrap_or(0))?;
            let numbers = numbers(list, MOST / names.len()).map_err(|wrong| {
                wrong.unwrap_or_else(|| NodeSetError::TooMany { expression: pattern.to_owned() })
            })?;
            names = names
                .iter()
                .flat_map(|name| numbers.iter().map(move |number| format!("{name}{number}")))
                .collect();
        }
        rest = behind;
    }
    Ok(names)
}

/// Whether this stands for those of the known hosts that are called so. A path may hold these signs
/// itself.
pub(crate) fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?']) && !pattern.starts_with("unix:")
}

/// Whether a host is called so: `*` is anything, `?` is one character.
pub(crate) fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), host.chars().collect());
    let (mut at, mut position) = (0, 0);
    // The last `*`, and where what it stands for ends so far.
    let mut star: Option<(usize, usize)> = None;
    while position < host.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, position));
                at += 1;
            }
            (Some(sign), _) if *sign == '?' || *sign == host[position] => {
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
    pattern[at..].iter().all(|sign| *sign == '*')
}

/// `[::1]` is an address with its brackets, not a range.
fn is_ipv6(list: &str) -> bool {
    list.contains(':')
}

/// The numbers of a list of ranges; `Err(None)` where they are more than `most`.
fn numbers(list: &str, most: usize) -> Result<Vec<String>, Option<NodeSetError>> {
    let wrong = |reason| Some(NodeSetError::Range { range: list.to_owned(), reason });
    let mut numbers = Vec::new();
    for range in list.split(',').map(str::trim) {
        let (range, step) = match range.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)),
            None => (range, Some(1)),
        };
        let Some(step) = step else { return Err(wrong("a step is a whole number from 1")) };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if first.is_empty() || last.is_empty() {
            return Err(wrong("a number is missing"));
        }
        let number = |text: &str| {
            if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong("that is no number"));
            }
            text.parse::<u64>().map_err(|_| wrong("that number is too large"))
        };
        let (start, end) = (number(first)?, number(last)?);
        if start > end {
            return Err(wrong("it counts backwards"));
        }
        // [01-3] could mean 01 to 03 or 01 to 3.
        let padded = |text: &str| text.len() > 1 && text.starts_with('0');
        if (padded(first) || padded(last)) && first.len() != last.len() {
            return Err(wrong("the first and the last number have different widths"));
        }
        if (end - start) / step >= (most - numbers.len()) as u64 {
            return Err(None);
        }
        let width = first.len();
        let mut next = Some(start);
        while let Some(number) = next.filter(|number| *number <= end) {
            numbers.push(if padded(first) {
                format!("{number:0width$}")
            } else {
                number.to_string()
            });
            next = number.checked_add(step);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_any_text_and_for_any_character() {
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
