//! The documents about the code name files and constants that exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The documents whose paths are those of this repository.
const DOCUMENTS: [&str; 7] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/COPY.md",
    "docs/PROTOCOL.md",
    "docs/SECURITY.md",
    "docs/endings.md",
    "docs/limits.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rows of all tables of a document, each with its cells, without the headings.
fn rows(document: &str) -> Vec<Vec<String>> {
    let lines = document.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(trimmed).collect();
    lines.filter(|line| !line.starts_with("| ---") && line.contains('`')).map(cells).collect()
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// The code spans of a text.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What a constant or a key of a configuration is set to in a file.
fn value<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    let constant = |line: &'a str| {
        let (_, declaration) = line.split_once("const ")?;
        let (_, value) = declaration.strip_prefix(name)?.strip_prefix(": ")?.split_once(" = ")?;
        Some(value.trim_end_matches(';'))
    };
    let key = |line: &'a str| line.strip_prefix(name)?.strip_prefix(" = ");
    file.lines().find_map(|line| constant(line).or_else(|| key(line)))
}

/// A number of the code, such as `64 << 10`, as the documents write it, such as `64 KiB`.
fn written(value: &str) -> Option<String> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    let number = match value.split_once("<<").or_else(|| value.split_once('*')) {
        Some((number_of, shift)) if value.contains("<<") => number(number_of)? << number(shift)?,
        Some((first, second)) => number(first)? * number(second)?,
        None => number(value)?,
    };
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| number >= 1 << shift && number.is_multiple_of(1 << shift));
    Some(match unit {
        // 1,024 files are not a size.
        Some((_, shift)) if number == 1 << shift && !value.contains("<<") => thousands(number),
        Some((unit, shift)) => format!("{} {unit}", number >> shift),
        None => thousands(number),
    })
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    groups.join(",")
}

/// Every source file of the programs and libraries, without tests in folders of their own.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["proto", "crates", "client", "server", "cli", "lessons"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                true if name != "tests" && name != "target" => folders.push(path),
                false if name.ends_with(".rs") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn every_limit_is_a_constant_or_a_key_with_that_value() {
    let rows = rows(&read("docs/limits.md"));
    assert!(rows.len() > 35, "{}", rows.len());
    for row in rows {
        let [what, bound, name, file] = row.as_slice() else { panic!("{row:?}") };
        let (name, file) = (name.trim_matches('`'), file.trim_matches('`'));
        let text = read(file);
        let value =
            value(&text, name).unwrap_or_else(|| panic!("{what}: {file} does not define {name}"));
        if let Some(written) = written(value) {
            let bound = format!(" {bound} ");
            let agrees = bound.contains(&format!(" {written} "));
            assert!(agrees, "{what}: {bound} in the document, {name} = {value} in {file}");
        }
    }
}

#[test]
fn every_path_in_the_documents_about_the_code_exists() {
    let mut count = 0;
    for document in DOCUMENTS {
        let text = read(document);
        for path in spans(&text).filter(|span| is_path(span)) {
            assert!(root().join(path).exists(), "{document}: {path} does not exist");
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// Whether a code span is a path of this repository: not a command, an installed file or a label.
fn is_path(span: &str) -> bool {
    let first = span.split('/').next().unwrap();
    span.contains('/')
        && !span.contains([' ', '*', '<', '=', '$', ':'])
        && !span.starts_with(['/', '~', '-'])
        && !["target", "keys.d", "labsh"].contains(&first)
}

#[test]
fn every_unsafe_block_is_listed_in_the_security_document() {
    let text = read("docs/SECURITY.md");
    let section = text.split("## Unsafe code").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: Vec<PathBuf> = rows(section)
        .iter()
        .filter_map(|row| spans(&row[0]).next().map(|file| root().join(file)))
        .collect();
    for file in &listed {
        let text = fs::read_to_string(file).unwrap_or_default();
        assert!(text.contains("unsafe {") || text.contains("unsafe impl"), "{}", file.display());
    }
    for file in sources() {
        let code = fs::read_to_string(&file).unwrap();
        let unlisted = code.contains("allow(unsafe_code)") && !listed.contains(&file);
        assert!(!unlisted, "{} is missing in docs/SECURITY.md", file.display());
    }
}
