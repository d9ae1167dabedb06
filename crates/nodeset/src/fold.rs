//! Folds names into patterns: the numbers of names that are otherwise equal become ranges, one
//! dimension at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{Name, Piece, compare_digits};

/// The numbers of one dimension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Numbers(BTreeSet<Digits>);

/// A number as written, ordered by value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Digits(String);

impl Ord for Digits {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare_digits(&self.0, &other.0)
    }
}

impl PartialOrd for Digits {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A Cartesian product: one set of numbers for each run of digits in the name.
type Product = Vec<Numbers>;

/// The texts of a name, with `None` for each run of digits between them.
type Skeleton<'a> = Vec<Option<&'a str>>;

/// Returns the shortest expression found for `names`.
pub(crate) fn fold(names: &BTreeSet<Name>) -> String {
    let mut products: BTreeMap<Skeleton, Vec<Product>> = BTreeMap::new();
    let mut order: Vec<Skeleton> = Vec::new();
    for name in names {
        let mut skeleton = Vec::new();
        let mut numbers = Vec::new();
        // The numbers in a bracketed address or a path are not folded.
        let whole = name.as_str().contains('[') || name.as_str().starts_with("unix:");
        let pieces: Vec<Piece> =
            if whole { vec![Piece::Text(name.as_str())] } else { name.pieces().collect() };
        for piece in pieces {
            match piece {
                Piece::Text(text) => skeleton.push(Some(text)),
                Piece::Digits(digits) => {
                    skeleton.push(None);
                    numbers.push(Numbers(BTreeSet::from([Digits(digits.to_owned())])));
                }
            }
        }
        if !products.contains_key(&skeleton) {
            order.push(skeleton.clone());
        }
        products.entry(skeleton).or_default().push(numbers);
    }
    let mut folded = Vec::new();
    for skeleton in order {
        for product in merge(products.remove(&skeleton).unwrap_or_default()) {
            folded.push(write(&skeleton, &product));
        }
    }
    folded.join(",")
}

/// Joins products that differ in a single dimension, until none do.
fn merge(mut products: Vec<Product>) -> Vec<Product> {
    let dimensions = products.first().map_or(0, Vec::len);
    loop {
        let before = products.len();
        for dimension in (0..dimensions).rev() {
            let mut joined: BTreeMap<Vec<Numbers>, Numbers> = BTreeMap::new();
            for mut product in products {
                let numbers = product.remove(dimension);
                joined
                    .entry(product)
                    .or_insert_with(|| Numbers(BTreeSet::new()))
                    .0
                    .extend(numbers.0);
            }
            products = joined
                .into_iter()
                .map(|(mut product, numbers)| {
                    product.insert(dimension, numbers);
                    product
                })
                .collect();
        }
        if products.len() == before {
            products.sort();
            return products;
        }
    }
}

/// Writes a product as a pattern.
fn write(skeleton: &[Option<&str>], product: &Product) -> String {
    let mut text = String::new();
    let mut numbers = product.iter();
    for piece in skeleton {
        match (piece, piece.is_none().then(|| numbers.next()).flatten()) {
            (Some(literal), _) => text.push_str(literal),
            (None, Some(numbers)) => text.push_str(&numbers.ranges()),
            (None, None) => {}
        }
    }
    text
}

impl Numbers {
    /// Returns the numbers as ranges in brackets; a single number needs no brackets.
    fn ranges(&self) -> String {
        let mut left = self.0.clone();
        let mut runs: Vec<(Digits, Digits)> = Vec::new();
        // Start with the padded numbers: 09 continues with 10, so the run of 9 must not take 10.
        let padded = |digits: &&Digits| digits.0.len() > 1 && digits.0.starts_with('0');
        let starts =
            self.0.iter().filter(padded).chain(self.0.iter().filter(|digits| !padded(digits)));
        for first in starts {
            if !left.remove(first) {
                continue;
            }
            let mut last = first.clone();
            while let Some(next) = successor(&last)
                && (first.0.len() == next.0.len() || !padded(&first))
                && left.remove(&next)
            {
                last = next;
            }
            runs.push((first.clone(), last));
        }
        runs.sort();
        let text: Vec<String> = runs
            .into_iter()
            .map(
                |(first, last)| {
                    if first == last { first.0 } else { format!("{}-{}", first.0, last.0) }
                },
            )
            .collect();
        match &text[..] {
            [one] if !one.contains('-') => one.clone(),
            _ => format!("[{}]", text.join(",")),
        }
    }
}

/// Returns the next number, of the same width at least; `None` after the largest a range can hold.
fn successor(digits: &Digits) -> Option<Digits> {
    let next = digits.0.parse::<u64>().ok()?.checked_add(1)?.to_string();
    // The width is not bounded here, and format! panics where it is very large.
    let zeros = "0".repeat(digits.0.len().saturating_sub(next.len()));
    Some(Digits(zeros + &next))
}
