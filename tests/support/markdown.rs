//! Reads Markdown as far as tests of the documents need it: code blocks, code spans and tables.

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// What follows the opening fence: `sh`, `console`, …
    pub language: String,
    /// The line above the fence, where it is an HTML comment: its text.
    pub remark: Option<String>,
    pub lines: Vec<String>,
}

/// A table: its cells, without the line that separates the head.
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The fenced blocks of a document.
pub fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut above = "";
    for line in document.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.lines.push(line.to_owned()),
            (None, Some(language)) => {
                let remark = above.strip_prefix("<!-- ").and_then(|it| it.strip_suffix(" -->"));
                open = Some(Block {
                    language: language.to_owned(),
                    remark: remark.map(str::to_owned),
                    lines: Vec::new(),
                });
            }
            (None, None) => {}
        }
        above = line;
    }
    blocks
}

/// The lines of a document that are in no fenced block.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    document.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The headings of a document, with their marks.
pub fn headings(document: &str) -> Vec<&str> {
    prose(document).filter(|line| line.starts_with('#')).collect()
}

/// The code spans of a document. A span that is broken between two lines is not found.
pub fn spans(document: &str) -> Vec<String> {
    prose(document).flat_map(spans_of_line).collect()
}

/// The code spans of one line; in a table `\|` is a bar.
pub fn spans_of_line(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|")).collect()
}

/// The tables of a document.
pub fn tables(document: &str) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in prose(document).chain([""]) {
        if line.starts_with('|') {
            rows.push(cells(line));
        } else if !rows.is_empty() {
            let mut rows = std::mem::take(&mut rows).into_iter();
            let head = rows.next().unwrap();
            tables.push(Table { head, rows: rows.skip(1).collect() });
        }
    }
    tables
}

fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\0");
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().replace('\0', "\\|")).collect()
}

/// The words of a shell's line, command by command. Quotes are taken off; what is in them stays one
/// word. Comments are left out.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | ';' | '&' | '(' | ')' | '<' | '>') => {
                let command = commands.last_mut().unwrap();
                command.extend(word.take());
                if c != ' ' && !command.is_empty() {
                    commands.push(Vec::new());
                }
            }
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().unwrap().extend(word);
    commands.retain(|command| !command.is_empty());
    commands
}
