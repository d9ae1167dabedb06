//! A host's name in natural order: its texts and its numbers are compared in turn.

use std::cmp::Ordering;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

/// A run of digits, or the text between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    Digits(&'a str),
}

impl Name {
    pub(crate) fn new(name: String) -> Self {
        Self(name)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            let digits = rest.bytes().next()?.is_ascii_digit();
            let end =
                rest.bytes().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (piece, tail) = rest.split_at(end);
            rest = tail;
            Some(if digits { Piece::Digits(piece) } else { Piece::Text(piece) })
        })
    }
}

/// Compares two numbers of any length by value; of equal ones, the one with fewer leading zeros
/// comes first.
pub(crate) fn compare_digits(one: &str, other: &str) -> Ordering {
    fn value(digits: &str) -> (usize, &str, usize) {
        let value = digits.trim_start_matches('0');
        (value.len(), value, digits.len())
    }
    value(one).cmp(&value(other))
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut ours, mut theirs) = (self.pieces(), other.pieces());
        loop {
            let order = match (ours.next(), theirs.next()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(Piece::Digits(one)), Some(Piece::Digits(other))) => {
                    compare_digits(one, other)
                }
                (Some(Piece::Text(one)), Some(Piece::Text(other))) => one.cmp(other),
                (Some(Piece::Digits(_)), Some(Piece::Text(_))) => Ordering::Less,
                (Some(Piece::Text(_)), Some(Piece::Digits(_))) => Ordering::Greater,
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Vec<String> {
        let mut names: Vec<Name> = names.iter().map(|name| Name::new((*name).to_owned())).collect();
        names.sort();
        names.iter().map(|name| name.as_str().to_owned()).collect()
    }

    #[test]
    fn numbers_are_compared_by_value() {
        assert_eq!(
            sorted(&["lab10", "lab9", "lab2-ib1", "lab2"]),
            ["lab2", "lab2-ib1", "lab9", "lab10"]
        );
        assert_eq!(sorted(&["n010", "n10", "n9"]), ["n9", "n10", "n010"]);
        let huge = "n99999999999999999999999999999999";
        assert_eq!(sorted(&[huge, "n1"]), ["n1", huge]);
    }
}
