//! Reads `--help`: which options and subcommands there are, their values, defaults and variables.

use std::collections::{BTreeMap, BTreeSet};

use super::{program, text};

/// What `--help` prints about a subcommand.
pub struct Help {
    pub text: String,
    /// By each name, short and long.
    pub options: BTreeMap<String, HelpOption>,
    pub subcommands: BTreeSet<String>,
}

#[derive(Default)]
pub struct HelpOption {
    /// The name of its value, with `=` and brackets where it is optional: `FILE`, `[=FORM]`.
    pub value: String,
    pub default: Option<String>,
    /// The environment variable that sets it.
    pub variable: Option<String>,
}

/// Asks a program for the help of a subcommand.
pub fn help(path: &str, subcommand: &[&str]) -> Help {
    let output = program(path).args(subcommand).arg("--help").output().unwrap();
    let text = text(&output.stdout);
    let mut options: BTreeMap<String, HelpOption> = BTreeMap::new();
    let mut current: Vec<String> = Vec::new();
    let mut subcommands = BTreeSet::new();
    let mut in_commands = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            in_commands = line == "Commands:";
            current.clear();
        } else if in_commands && !line.starts_with("   ") {
            subcommands.extend(line.split_whitespace().next().map(str::to_owned));
        } else if line.trim_start().starts_with('-') && !line.starts_with("       ") {
            current = record_names(line.trim_start(), &mut options);
        }
        for name in &current {
            let option = options.get_mut(name).unwrap();
            record_remarks(&format!("{} ", line.trim()), option);
        }
    }
    Help { text, options, subcommands }
}

/// Records the names on an option's line (`-x, --exclude <HOSTS>  Leave …`), and returns them.
fn record_names(line: &str, options: &mut BTreeMap<String, HelpOption>) -> Vec<String> {
    let specification = line.split("  ").next().unwrap().replace(['<', '>'], "").replace("...", "");
    let pieces: Vec<(&str, &str)> = specification.split(", ").map(name_and_value).collect();
    let value = pieces.last().unwrap().1;
    // A sentence of the explanations below the options begins with one as well.
    if pieces.iter().any(|(name, value)| !name.starts_with('-') || value.contains(' ')) {
        return Vec::new();
    }
    for (name, _) in &pieces {
        let option = HelpOption { value: value.to_owned(), ..HelpOption::default() };
        options.insert((*name).to_owned(), option);
    }
    pieces.into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// An option and its value: `--out DIR`, `--json[=FORM]`, `--lang en`.
pub fn name_and_value(option: &str) -> (&str, &str) {
    let end = option.find([' ', '=', '[']).unwrap_or(option.len());
    (&option[..end], option[end..].trim_start())
}

/// Records `[default: …]` and `[env: …]`, which may be broken between two lines.
fn record_remarks(line: &str, option: &mut HelpOption) {
    for word in line.split_whitespace() {
        let word = word.trim_end_matches([']', '=']);
        match (&option.default, &option.variable) {
            (Some(value), _) if value.is_empty() => option.default = Some(word.to_owned()),
            (_, Some(name)) if name.is_empty() => option.variable = Some(word.to_owned()),
            _ if word == "[default:" => option.default = Some(String::new()),
            _ if word == "[env:" => option.variable = Some(String::new()),
            _ => {}
        }
    }
}
