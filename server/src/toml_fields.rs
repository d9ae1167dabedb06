//! Reads the values of a TOML file and reports every error in it at once, each with its line.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use labsh_diagnostics::{Diagnostic, LineIndex, wording};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::value::Datetime;

use crate::diagnostics::Problem;

/// The keys of a TOML file that have not been read yet, and the errors found so far.
///
/// Each method that reads a key leaves the default in place where the key is absent or its value is
/// wrong; a wrong value becomes a diagnostic.
pub(crate) struct Fields<'text> {
    file: &'text Path,
    lines: LineIndex,
    values: BTreeMap<String, Field<'text>>,
    known: Vec<&'static str>,
    diagnostics: Vec<Diagnostic>,
}

struct Field<'text> {
    line: usize,
    value: Spanned<DeValue<'text>>,
}

impl<'text> Fields<'text> {
    /// Parses `text`. Syntax errors become diagnostics; the keys that could be parsed remain.
    pub(crate) fn parse(file: &'text Path, text: &'text str) -> Self {
        let lines = LineIndex::new(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let diagnostics = errors.into_iter().map(|error| {
            let line = error.span().map(|span| lines.line(span.start));
            let remedy = "correct it: every line reads `name = value`, and text is in \"quotes\"";
            Problem::new(error.message().replace('\n', ", "), remedy).at(file, line)
        });
        let diagnostics = diagnostics.collect();
        let values = table.into_inner().into_iter().map(|(key, value)| {
            let line = lines.line(key.span().start);
            (key.into_inner().into_owned(), Field { line, value })
        });
        let values = values.collect();
        Self { file, lines, values, known: Vec::new(), diagnostics }
    }

    /// Reads a whole number within `range`.
    pub(crate) fn count(
        &mut self,
        target: &mut u32,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        self.set(target, key, &remedy, |number: i64| {
            u32::try_from(number)
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| Problem::new(format!("{number} is out of range"), &remedy))
        });
    }

    /// Reads a duration within `range`, written like `"1m 30s"`.
    pub(crate) fn duration(
        &mut self,
        target: &mut Duration,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) {
        let [least, most] =
            [range.start(), range.end()].map(|time| humantime::format_duration(*time));
        let remedy = format!("write a time from \"{least}\" to \"{most}\", for example \"1m 30s\"");
        self.set(target, key, &remedy, |text: String| {
            humantime::parse_duration(&text)
                .map_err(|error| Problem::new(format!("{text:?} is no time: {error}"), &remedy))
                .and_then(|time| match range.contains(&time) {
                    true => Ok(time),
                    false => Err(Problem::new(format!("{text:?} is out of range"), &remedy)),
                })
        });
    }

    /// Reads `true` or `false`.
    pub(crate) fn flag(&mut self, target: &mut bool, key: &'static str) {
        self.set(target, key, "write true or false, without quotes", Ok);
    }

    /// Reads a string and converts it.
    pub(crate) fn text<T>(
        &mut self,
        target: &mut T,
        key: &'static str,
        convert: impl FnOnce(&str) -> Result<T, Problem>,
    ) {
        let remedy = format!("write a text in quotes: {key} = \"…\"");
        self.set(target, key, &remedy, |text: String| convert(&text));
    }

    /// Reads a date, or a date with a time, and converts it.
    pub(crate) fn date<T>(
        &mut self,
        target: &mut T,
        key: &'static str,
        convert: impl FnOnce(Datetime) -> Result<T, Problem>,
    ) {
        let remedy = format!("write a date without quotes: {key} = 2031-12-31");
        self.set(target, key, &remedy, convert);
    }

    /// Reads a list of strings and converts each; an error has the line of its string. Returns how
    /// many strings the list has, or `None` where it is absent or no list of strings.
    pub(crate) fn list<T>(
        &mut self,
        target: &mut Vec<T>,
        key: &'static str,
        mut convert: impl FnMut(&str) -> Result<T, Problem>,
    ) -> Option<usize> {
        let remedy = format!("write a list of texts: {key} = [\"…\", \"…\"]");
        let mut items: Option<Vec<Spanned<String>>> = None;
        self.set(&mut items, key, &remedy, |items| Ok(Some(items)));
        let items = items?;
        let count = items.len();
        target.clear();
        for item in items {
            match convert(item.get_ref()) {
                Ok(value) => target.push(value),
                Err(problem) => {
                    let line = self.lines.line(item.span().start);
                    self.report_value(line, key, problem);
                }
            }
        }
        Some(count)
    }

    /// Reads a table and converts each of its values; an error has the line of its value. The table
    /// replaces the default as a whole.
    pub(crate) fn table<T>(
        &mut self,
        target: &mut BTreeMap<String, T>,
        key: &'static str,
        mut convert: impl FnMut(&str, toml::Value) -> Result<T, Problem>,
    ) {
        let remedy = format!("write a table: [{key}], and below it lines of the form name = value");
        let mut items: Option<BTreeMap<String, Spanned<toml::Value>>> = None;
        self.set(&mut items, key, &remedy, |items| Ok(Some(items)));
        let Some(items) = items else { return };
        target.clear();
        for (name, item) in items {
            let line = self.lines.line(item.span().start);
            match convert(&name, item.into_inner()) {
                Ok(value) => drop(target.insert(name, value)),
                Err(problem) => self.report_value(line, key, problem),
            }
        }
    }

    /// Returns the line of a key that has not been read yet.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.values.get(key).map(|field| field.line)
    }

    /// Adds an error that the value of no single key shows.
    pub(crate) fn report(&mut self, line: Option<usize>, problem: Problem) {
        self.diagnostics.push(problem.at(self.file, line));
    }

    /// Returns all errors, ordered by line. A key that has not been read is unknown: an error.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        let mut remedy =
            format!("correct or remove it (what is understood here: {})", self.known.join(", "));
        let mut unknown: Vec<_> =
            self.values.iter().map(|(key, field)| (field.line, key)).collect();
        unknown.sort();
        for (line, key) in unknown {
            let problem = Problem::new(format!("{key:?} is not understood"), remedy);
            self.diagnostics.push(problem.at(self.file, Some(line)));
            // Only the first diagnostic lists the known keys: there are many.
            remedy = "correct or remove it".to_owned();
        }
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.origin.line);
        self.diagnostics
    }

    /// Reads `key` as an `R` and converts it into `target`.
    fn set<R: DeserializeOwned, T>(
        &mut self,
        target: &mut T,
        key: &'static str,
        remedy: &str,
        convert: impl FnOnce(R) -> Result<T, Problem>,
    ) {
        self.known.push(key);
        let Some(Field { line, value }) = self.values.remove(key) else { return };
        match R::deserialize(ValueDeserializer::from(value)) {
            Err(error) => {
                let line = error.span().map_or(line, |span| self.lines.line(span.start));
                self.report_value(
                    line,
                    key,
                    Problem::new(wording::reword(error.message()), remedy),
                );
            }
            Ok(raw) => match convert(raw) {
                Ok(value) => *target = value,
                Err(problem) => self.report_value(line, key, problem),
            },
        }
    }

    fn report_value(&mut self, line: usize, key: &str, problem: Problem) {
        let Problem { reason, remedy } = problem;
        self.report(Some(line), Problem::new(format!("{key}: {reason}"), remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ((u32, Vec<String>), Vec<Diagnostic>) {
        let mut fields = Fields::parse(Path::new("f.toml"), text);
        let mut result = (7, vec![String::from("default")]);
        fields.count(&mut result.0, "count", 1..=10);
        fields.list(&mut result.1, "list", |item| match item {
            "bad" => Err(Problem::new("bad", "remove it")),
            item => Ok(item.to_owned()),
        });
        (result, fields.finish())
    }

    fn lines(text: &str) -> Vec<usize> {
        read(text).1.into_iter().filter_map(|diagnostic| diagnostic.origin.line).collect()
    }

    #[test]
    fn an_absent_key_keeps_its_default() {
        assert_eq!(read(""), ((7, vec![String::from("default")]), vec![]));
        assert_eq!(read("count = 3\nlist = []"), ((3, vec![]), vec![]));
    }

    #[test]
    fn all_errors_are_reported_at_once_each_with_its_line() {
        assert_eq!(
            lines("# first\ncolour = 1\ncount = 11\nlist = [\n 'a',\n 'bad',\n]"),
            [2, 3, 6]
        );
        assert_eq!(lines("list = 'a'\n\ncount = 'many'"), [1, 3]);
        assert_eq!(lines("list = ['a',\n 5]"), [2]);
        let text = read("count = 'many'").1[0].to_string();
        assert!(text.contains("count: the text \"many\" instead of a whole number"), "{text}");
        let text = read("colour = 1").1[0].to_string();
        assert_eq!(
            text,
            "f.toml:1: \"colour\" is not understood; correct or remove it (what is understood \
             here: count, list)"
        );
    }

    #[test]
    fn syntax_errors_are_reported_with_their_line() {
        assert_eq!(lines("count = 3\nlist = [\"a\"")[0], 2);
        assert_eq!(lines("count = 3\ncount = 4"), [2]);
    }
}
