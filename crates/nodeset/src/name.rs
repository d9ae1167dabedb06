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
        let (ours, theirs) = (self.0.as_bytes(), other.0.as_bytes());
        // Most names of a set begin alike: only the first piece that differs is compared.
        let common = ours.iter().zip(theirs).take_while(|(one, other)| one == other).count();
        let (next, their_next) = (ours.get(common), theirs.get(common));
        if ![next, their_next].into_iter().flatten().any(u8::is_ascii_digit) {
            return next.cmp(&their_next);
        }
        let is_digit = |byte: &&u8| byte.is_ascii_digit();
        let start = common - ours[..common].iter().rev().take_while(is_digit).count();
        let end = |bytes: &[u8]| start + bytes[start..].iter().take_while(is_digit).count();
        let (digits, their_digits) = (&self.0[start..end(ours)], &other.0[start..end(theirs)]);
        match (digits.is_empty(), their_digits.is_empty()) {
            (false, false) => compare_digits(digits, their_digits),
            // A number comes after the end of a name, and before a text.
            (true, _) => next.map_or(Ordering::Less, |_| Ordering::Greater),
            (false, true) => their_next.map_or(Ordering::Greater, |_| Ordering::Less),
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

    /// The order as it is defined: piece by piece.
    fn by_pieces(one: &Name, other: &Name) -> Ordering {
        let (mut ours, mut theirs) = (one.pieces(), other.pieces());
        loop {
            let order = match (ours.next(), theirs.next()) {
                (None, None) => return Ordering::Equal,
                (Some(Piece::Digits(one)), Some(Piece::Digits(other))) => {
                    compare_digits(one, other)
                }
                (Some(Piece::Text(one)), Some(Piece::Text(other))) => one.cmp(other),
                (None, _) | (Some(Piece::Digits(_)), Some(Piece::Text(_))) => Ordering::Less,
                (_, None) | (Some(Piece::Text(_)), Some(Piece::Digits(_))) => Ordering::Greater,
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_that_of_the_pieces(one in "[-ab0129é]{0,6}", other in "[-ab0129é]{0,6}") {
            let (one, other) = (Name::new(one), Name::new(other));
            proptest::prop_assert_eq!(one.cmp(&other), by_pieces(&one, &other));
        }
    }
}
