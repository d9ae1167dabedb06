//! From names back to patterns: the numbers of names that are otherwise alike become ranges,
//! dimension by dimension.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{Name, Piece, compare_digits};

/// Digits of one dimension, in the order in which people count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Numbers(BTreeSet<Digits>);

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

/// A product of sets of numbers: as many as the name has runs of digits.
type Product = Vec<Numbers>;

pub(crate) fn fold(names: &BTreeSet<Name>) -> String {
    // What the names have in common: their texts, with a place for each run of digits.
    let mut alike: BTreeMap<Vec<Option<&str>>, Vec<Product>> = BTreeMap::new();
    let mut order: Vec<Vec<Option<&str>>> = Vec::new();
    for name in names {
        let mut skeleton = Vec::new();
        let mut numbers = Vec::new();
        // The numbers of an address in brackets or of a path are no range.
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
        if !alike.contains_key(&skeleton) {
            order.push(skeleton.clone());
        }
        alike.entry(skeleton).or_default().push(numbers);
    }
    let mut folded = Vec::new();
    for skeleton in order {
        for product in merge(alike.remove(&skeleton).unwrap_or_default()) {
            folded.push(write(&skeleton, &product));
        }
    }
    folded.join(",")
}

/// Joins products that differ in one dimension only, until none do.
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
    fn ranges(&self) -> String {
        let mut left = self.0.clone();
        let mut runs: Vec<(Digits, Digits)> = Vec::new();
        // Zeros in front first: 09 goes on with 10, and so 10 must not have been taken by 9.
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

/// The next number of the same width; 99 is followed by 100. `None` where a range could not say it.
fn successor(digits: &Digits) -> Option<Digits> {
    let next = digits.0.parse::<u64>().ok()?.checked_add(1)?.to_string();
    // Names that nobody has measured come here: format! would panic where they are very wide.
    let zeros = "0".repeat(digits.0.len().saturating_sub(next.len()));
    Some(Digits(zeros + &next))
}
