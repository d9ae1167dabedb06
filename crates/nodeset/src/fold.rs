//! Folds names into patterns: the numbers of names that are otherwise equal become ranges, one
//! dimension at a time.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use crate::name::{Name, Piece, compare_digits};

/// The texts of a name, with `None` for each run of digits between them.
type Skeleton<'a> = Vec<Option<&'a str>>;

/// The different numbers of one dimension, as written, in order.
type Numbers<'a> = Vec<&'a str>;

/// A Cartesian product: for each run of digits in the name, the index of its numbers in
/// [`Products::known`].
type Product = Vec<usize>;

/// Names that differ in their numbers only.
struct Alike<'a> {
    skeleton: Skeleton<'a>,
    /// The numbers of all names, one name after the other.
    numbers: Vec<&'a str>,
}

/// Returns the shortest expression found for `names`.
pub(crate) fn fold(names: &BTreeSet<Name>) -> String {
    if let (Some(name), 1) = (names.first(), names.len()) {
        return name.as_str().to_owned();
    }
    let mut groups: Vec<Alike<'_>> = Vec::new();
    let mut by_skeleton: HashMap<Skeleton<'_>, usize> = HashMap::new();
    let (mut skeleton, mut numbers) = (Skeleton::new(), Vec::new());
    for name in names {
        skeleton.clear();
        numbers.clear();
        // The numbers in a bracketed address or a path are not folded.
        if name.as_str().contains('[') || name.as_str().starts_with("unix:") {
            skeleton.push(Some(name.as_str()));
        } else {
            for piece in name.pieces() {
                match piece {
                    Piece::Text(text) => skeleton.push(Some(text)),
                    Piece::Digits(digits) => {
                        skeleton.push(None);
                        numbers.push(digits);
                    }
                }
            }
        }
        // Names that differ in their numbers only mostly follow each other.
        let last = groups.last_mut().filter(|last| last.skeleton == skeleton);
        if let Some(last) = last {
            last.numbers.extend(&numbers);
        } else if let Some(index) = by_skeleton.get(&skeleton) {
            groups[*index].numbers.extend(&numbers);
        } else {
            by_skeleton.insert(skeleton.clone(), groups.len());
            groups.push(Alike { skeleton: skeleton.clone(), numbers: numbers.clone() });
        }
    }
    let patterns: Vec<String> = groups.iter().flat_map(Alike::patterns).collect();
    patterns.join(",")
}

impl Alike<'_> {
    /// Returns the patterns of the names.
    fn patterns(&self) -> Vec<String> {
        let dimensions = self.skeleton.iter().filter(|piece| piece.is_none()).count();
        match dimensions {
            0 => vec![write(&self.skeleton, [].into_iter())],
            1 => vec![write(&self.skeleton, [&self.numbers].into_iter())],
            _ => {
                let mut products = Products::new(&self.numbers, dimensions);
                products.merge();
                let numbers = |product: &Product| {
                    write(&self.skeleton, product.iter().map(|index| &products.known[*index]))
                };
                products.products.iter().map(numbers).collect()
            }
        }
    }
}

/// The products that names have been joined to.
struct Products<'a> {
    products: Vec<Product>,
    /// All numbers that a dimension of a product has, each once.
    known: Vec<Numbers<'a>>,
    index: HashMap<Numbers<'a>, usize>,
}

impl<'a> Products<'a> {
    /// Returns a product for each name.
    fn new(numbers: &[&'a str], dimensions: usize) -> Self {
        let mut all = Self { products: Vec::new(), known: Vec::new(), index: HashMap::new() };
        for name in numbers.chunks(dimensions) {
            let product = name.iter().map(|number| all.index_of(vec![*number])).collect();
            all.products.push(product);
        }
        all
    }

    fn index_of(&mut self, numbers: Numbers<'a>) -> usize {
        if let Some(index) = self.index.get(&numbers) {
            return *index;
        }
        self.index.insert(numbers.clone(), self.known.len());
        self.known.push(numbers);
        self.known.len() - 1
    }

    /// Joins products that differ in a single dimension, until none do.
    fn merge(&mut self) {
        let dimensions = self.products.first().map_or(0, Vec::len);
        loop {
            let before = self.products.len();
            for dimension in (0..dimensions).rev() {
                self.merge_dimension(dimension);
            }
            if self.products.len() == before {
                break;
            }
        }
        let known = &self.known;
        let compare = |one: &Product, other: &Product| {
            let mut pairs = one.iter().zip(other);
            pairs
                .find_map(|(one, other)| {
                    Some(compare_numbers(&known[*one], &known[*other]))
                        .filter(|order| order.is_ne())
                })
                .unwrap_or(Ordering::Equal)
        };
        self.products.sort_by(compare);
    }

    fn merge_dimension(&mut self, dimension: usize) {
        // The other dimensions, and the numbers in this one.
        let mut joined: Vec<(Product, Vec<usize>)> = Vec::new();
        let mut by_others: HashMap<Product, usize> = HashMap::new();
        for mut product in std::mem::take(&mut self.products) {
            let numbers = std::mem::take(&mut product[dimension]);
            let index = *by_others.entry(product).or_insert_with_key(|product| {
                joined.push((product.clone(), Vec::new()));
                joined.len() - 1
            });
            joined[index].1.push(numbers);
        }
        for (mut product, parts) in joined {
            product[dimension] = match parts[..] {
                [part] => part,
                _ => {
                    let numbers = parts.iter().flat_map(|part| &self.known[*part]);
                    let mut numbers: Numbers<'a> = numbers.copied().collect();
                    numbers.sort_by(|one, other| compare_digits(one, other));
                    self.index_of(numbers)
                }
            };
            self.products.push(product);
        }
    }
}

/// Compares two lists of numbers, each in order.
fn compare_numbers(one: &[&str], other: &[&str]) -> Ordering {
    let mut pairs = one.iter().zip(other).map(|(one, other)| compare_digits(one, other));
    pairs.find(|order| order.is_ne()).unwrap_or(one.len().cmp(&other.len()))
}

/// Writes a product as a pattern.
fn write<'a, 'b: 'a>(
    skeleton: &[Option<&str>],
    mut numbers: impl Iterator<Item = &'a Numbers<'b>>,
) -> String {
    let mut text = String::new();
    for piece in skeleton {
        match piece {
            Some(literal) => text.push_str(literal),
            None => text.extend(numbers.next().map(|numbers| ranges(numbers))),
        }
    }
    text
}

/// Numbers that follow each other.
struct Run<'a> {
    first: &'a str,
    last: &'a str,
    /// The value after the last one; `None` if it is larger than a range can hold.
    next: Option<u64>,
}

/// Returns the numbers, which are in order, as ranges in brackets; a single number needs no
/// brackets.
fn ranges(numbers: &[&str]) -> String {
    let mut runs: Vec<Run<'_>> = Vec::new();
    // For each width the last run of padded numbers, and the last of the others.
    let mut last_padded: HashMap<usize, usize> = HashMap::new();
    let mut last_other: Option<usize> = None;
    for number in numbers {
        let value: Option<u64> = number.parse().ok();
        let padded = number.len() > 1 && number.starts_with('0');
        let continued = |run: &usize| value.is_some() && runs[*run].next == value;
        // After 09, 10 is one of the padded numbers.
        let run = last_padded.get(&number.len()).copied().filter(continued);
        if let Some(run) = run.or_else(|| last_other.filter(|run| !padded && continued(run))) {
            runs[run].last = number;
            runs[run].next = value.and_then(|value| value.checked_add(1));
            continue;
        }
        if padded {
            last_padded.insert(number.len(), runs.len());
        } else {
            last_other = Some(runs.len());
        }
        let next = value.and_then(|value| value.checked_add(1));
        runs.push(Run { first: number, last: number, next });
    }
    let text: Vec<String> = runs
        .iter()
        .map(
            |Run { first, last, .. }| {
                if first == last { (*first).to_owned() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    match &text[..] {
        [one] if !one.contains('-') => one.clone(),
        _ => format!("[{}]", text.join(",")),
    }
}
