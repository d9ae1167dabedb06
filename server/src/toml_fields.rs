//! How keys are read from a TOML file, so that every mistake is found at once and has its line.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::value::Datetime;

use crate::diagnostics::{Mistake, Wrong};

/// What a file holds, minus what has been taken out. A wrong value becomes a mistake, and its
/// default stays.
pub(crate) struct Fields<'text> {
    file: &'text Path,
    text: &'text str,
    values: BTreeMap<String, Field<'text>>,
    known: Vec<&'static str>,
    mistakes: Vec<Mistake>,
}

struct Field<'text> {
    line: usize,
    value: Spanned<DeValue<'text>>,
}

impl<'text> Fields<'text> {
    /// Takes the text apart. What is not TOML is a mistake like any other.
    pub(crate) fn parse(file: &'text Path, text: &'text str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mistakes = errors.into_iter().map(|error| {
            let line = error.span().map(|span| line_of(text, &span));
            let remedy =
                "correct it: every line reads `name = value`, and text stands in \"quotes\"";
            Wrong::new(error.message().replace('\n', ", "), remedy).at(file, line)
        });
        let mistakes = mistakes.collect();
        let values = table.into_inner().into_iter().map(|(key, value)| {
            let line = line_of(text, &key.span());
            (key.into_inner().into_owned(), Field { line, value })
        });
        Self { file, text, values: values.collect(), known: Vec::new(), mistakes }
    }

    /// A whole number within the range.
    pub(crate) fn count(&mut self, place: &mut u32, key: &'static str, range: RangeInclusive<u32>) {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        self.set(place, key, &remedy, |number: i64| {
            u32::try_from(number)
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| Wrong::new(format!("{number} is out of range"), &remedy))
        });
    }

    /// A time within the range, as people write it: `"10s"`.
    pub(crate) fn duration(
        &mut self,
        place: &mut Duration,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) {
        let [least, most] =
            [range.start(), range.end()].map(|time| humantime::format_duration(*time));
        let remedy = format!("write a time from \"{least}\" to \"{most}\", for example \"1m 30s\"");
        self.set(place, key, &remedy, |text: String| {
            humantime::parse_duration(&text)
                .map_err(|error| Wrong::new(format!("{text:?} is no time: {error}"), &remedy))
                .and_then(|time| match range.contains(&time) {
                    true => Ok(time),
                    false => Err(Wrong::new(format!("{text:?} is out of range"), &remedy)),
                })
        });
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, place: &mut bool, key: &'static str) {
        self.set(place, key, "write true or false, without quotes", Ok);
    }

    /// A text that `convert` understands.
    pub(crate) fn text<T>(
        &mut self,
        place: &mut T,
        key: &'static str,
        convert: impl FnOnce(&str) -> Result<T, Wrong>,
    ) {
        let remedy = format!("write a text in quotes: {key} = \"…\"");
        self.set(place, key, &remedy, |text: String| convert(&text));
    }

    /// A date, or a date with a time.
    pub(crate) fn date<T>(
        &mut self,
        place: &mut T,
        key: &'static str,
        convert: impl FnOnce(Datetime) -> Result<T, Wrong>,
    ) {
        let remedy = format!("write a date without quotes: {key} = 2031-12-31");
        self.set(place, key, &remedy, convert);
    }

    /// A list of texts that `convert` understands, each with its own line. If it is there: how many
    /// they are.
    pub(crate) fn list<T>(
        &mut self,
        place: &mut Vec<T>,
        key: &'static str,
        mut convert: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<usize> {
        let remedy = format!("write a list of texts: {key} = [\"…\", \"…\"]");
        let mut items: Option<Vec<Spanned<String>>> = None;
        self.set(&mut items, key, &remedy, |items| Ok(Some(items)));
        let items = items?;
        let count = items.len();
        place.clear();
        for item in items {
            match convert(item.get_ref()) {
                Ok(value) => place.push(value),
                Err(wrong) => {
                    let line = line_of(self.text, &item.span());
                    self.tell(Some(line), key, wrong);
                }
            }
        }
        Some(count)
    }

    /// A table of names and values that `convert` understands, each with its own line. What it
    /// names takes the place of all that was there.
    pub(crate) fn table<T>(
        &mut self,
        place: &mut BTreeMap<String, T>,
        key: &'static str,
        mut convert: impl FnMut(&str, toml::Value) -> Result<T, Wrong>,
    ) {
        let remedy = format!("write a table: [{key}], and below it lines of the form name = value");
        let mut items: Option<BTreeMap<String, Spanned<toml::Value>>> = None;
        self.set(&mut items, key, &remedy, |items| Ok(Some(items)));
        let Some(items) = items else { return };
        place.clear();
        for (name, item) in items {
            let line = line_of(self.text, &item.span());
            match convert(&name, item.into_inner()) {
                Ok(value) => drop(place.insert(name, value)),
                Err(wrong) => self.tell(Some(line), key, wrong),
            }
        }
    }

    /// The line of a key that has not been taken out yet.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.values.get(key).map(|field| field.line)
    }

    /// Adds a mistake that no single value shows.
    pub(crate) fn mistake(&mut self, line: Option<usize>, wrong: Wrong) {
        self.mistakes.push(wrong.at(self.file, line));
    }

    /// All mistakes, in the order of their lines; whatever has not been taken out by now is one.
    pub(crate) fn finish(mut self) -> Vec<Mistake> {
        let mut remedy =
            format!("correct or remove it; what is understood here: {}", self.known.join(", "));
        let mut unknown: Vec<_> =
            self.values.iter().map(|(key, field)| (field.line, key)).collect();
        unknown.sort();
        for (line, key) in unknown {
            let wrong = Wrong::new(format!("{key:?} is not understood"), remedy);
            self.mistakes.push(wrong.at(self.file, Some(line)));
            // The list is long; once is enough.
            remedy = "correct or remove it".to_owned();
        }
        self.mistakes.sort_by_key(|mistake| mistake.line);
        self.mistakes
    }

    fn set<R: DeserializeOwned, T>(
        &mut self,
        place: &mut T,
        key: &'static str,
        remedy: &str,
        convert: impl FnOnce(R) -> Result<T, Wrong>,
    ) {
        self.known.push(key);
        let Some(Field { line, value }) = self.values.remove(key) else { return };
        match R::deserialize(ValueDeserializer::from(value)) {
            Err(error) => {
                let line = error.span().map_or(line, |span| line_of(self.text, &span));
                self.tell(Some(line), key, Wrong::new(error.message(), remedy));
            }
            Ok(raw) => match convert(raw) {
                Ok(value) => *place = value,
                Err(wrong) => self.tell(Some(line), key, wrong),
            },
        }
    }

    fn tell(&mut self, line: Option<usize>, key: &str, wrong: Wrong) {
        self.mistake(line, Wrong::new(format!("{key}: {}", wrong.problem), wrong.remedy));
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().iter().take(span.start);
    1 + before.filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ((u32, Vec<String>), Vec<Mistake>) {
        let mut fields = Fields::parse(Path::new("f.toml"), text);
        let mut result = (7, vec![String::from("default")]);
        fields.count(&mut result.0, "count", 1..=10);
        fields.list(&mut result.1, "list", |item| match item {
            "bad" => Err(Wrong::new("bad", "remove it")),
            item => Ok(item.to_owned()),
        });
        (result, fields.finish())
    }

    fn lines(text: &str) -> Vec<usize> {
        read(text).1.into_iter().filter_map(|mistake| mistake.line).collect()
    }

    #[test]
    fn what_is_not_said_keeps_its_default() {
        assert_eq!(read(""), ((7, vec![String::from("default")]), vec![]));
        assert_eq!(read("count = 3\nlist = []"), ((3, vec![]), vec![]));
    }

    #[test]
    fn all_mistakes_are_told_at_once_each_with_its_line() {
        assert_eq!(
            lines("# first\ncolour = 1\ncount = 11\nlist = [\n 'a',\n 'bad',\n]"),
            [2, 3, 6]
        );
        assert_eq!(lines("list = 'a'\n\ncount = 'many'"), [1, 3]);
        assert_eq!(lines("list = ['a',\n 5]"), [2]);
        let text = read("colour = 1").1[0].to_string();
        assert_eq!(
            text,
            "f.toml:1: \"colour\" is not understood (correct or remove it; what is understood \
             here: count, list)"
        );
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line() {
        assert_eq!(lines("count = 3\nlist = [\"a\"")[0], 2);
        assert_eq!(lines("count = 3\ncount = 4"), [2]);
    }
}
