//! Expands Ansible's patterns of hosts: ranges, and a port after a colon.

use labsh_nodeset::MAX_HOSTS;

/// Splits `name:22` or `[address]:22` into the host and the port.
pub(crate) fn split_port(pattern: &str) -> (&str, Option<&str>) {
    let Some((host, port)) = pattern.rsplit_once(':') else { return (pattern, None) };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return (pattern, None);
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'))
        && !address.contains(['[', ']'])
        && address.matches(':').count() > 1
    {
        return (address, Some(port));
    }
    // A colon outside the brackets of a range is part of an IPv6 address.
    let mut in_brackets = false;
    let mut outside = host.chars().filter(|c| {
        in_brackets = *c == '[' || (in_brackets && *c != ']');
        *c == ':' && !in_brackets
    });
    if outside.next().is_some() || host.is_empty() { (pattern, None) } else { (host, Some(port)) }
}

/// Returns all names of a pattern such as `www[01:50:2].example` or `db-[a:f]`.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((literal, tail)) = rest.split_once('[') {
        let (range, tail) = tail.split_once(']').ok_or_else(|| {
            format!("{pattern:?}: a bracket is unmatched; write a range like [01:50]")
        })?;
        let invalid = |reason: &str| {
            format!("[{range}]: {reason}; write a range like [01:50], [1:9:2] or [a:f]")
        };
        let values = values(range, MAX_HOSTS / names.len()).map_err(invalid)?;
        names = names
            .iter()
            .flat_map(|name| values.iter().map(move |value| format!("{name}{literal}{value}")))
            .collect();
        rest = tail;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

/// Returns the values of a range, `limit` at most.
fn values(range: &str, limit: usize) -> Result<Vec<String>, &'static str> {
    let mut bounds = range.split(':');
    let (first, last) = (bounds.next().unwrap_or_default(), bounds.next().unwrap_or_default());
    let step = match (bounds.next(), bounds.next()) {
        (None, _) => 1,
        (Some(step), None) => step
            .parse::<usize>()
            .ok()
            .filter(|step| *step > 0)
            .ok_or("the step is a whole number from 1")?,
        (Some(_), Some(_)) => return Err("there are more than three parts"),
    };
    if last.is_empty() {
        return Err("the end is missing");
    }
    let letter = |text: &str| {
        let letters = || ('a'..='z').chain('A'..='Z');
        letters().position(|letter| letter.to_string() == text)
    };
    if let (Some(first), Some(last)) = (letter(first), letter(last)) {
        if first > last {
            return Err("it counts backwards");
        }
        let letters = ('a'..='z').chain('A'..='Z').take(last + 1).skip(first).step_by(step);
        let letters: Vec<String> = letters.take(limit + 1).map(String::from).collect();
        return if letters.len() > limit { Err("that is too many hosts") } else { Ok(letters) };
    }
    let number = |text: &str| {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("that is not a number");
        }
        text.parse::<u64>().map_err(|_| "that number is too large")
    };
    let padded = first.len() > 1 && first.starts_with('0');
    if padded && first.len() != last.len() {
        return Err("the first and the last number have different widths");
    }
    let (start, end) = (if first.is_empty() { 0 } else { number(first)? }, number(last)?);
    if start > end {
        return Err("it counts backwards");
    }
    if (end - start) / step as u64 >= limit as u64 {
        return Err("that is too many hosts");
    }
    let width = if padded { first.len() } else { 0 };
    Ok((start..=end).step_by(step).map(|number| format!("{number:0width$}")).collect())
}
