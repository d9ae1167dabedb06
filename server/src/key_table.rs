//! The table of the permitted keys, as `labshd key list` and `labshd check` print it.

use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::entry::Entry;
use crate::logs::Escaped;

/// Formats entries as a table, without their secrets.
pub(crate) fn table(entries: &[Arc<Entry>], now: SystemTime) -> String {
    let heading = ["KEY", "HOST", "USER", "FROM", "EXPIRES", "FILE"].map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(entries.iter().map(|entry| row(entry, now)));
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let lines = rows.iter().map(|row| {
        // `format!` would panic for a very wide cell, as of an entry with thousands of networks.
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let blanks = width.saturating_sub(cell.chars().count());
            cell.to_owned() + &" ".repeat(blanks)
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn row(entry: &Entry, now: SystemTime) -> [String; 6] {
    let from = match entry.from.is_empty() {
        true => "anywhere".to_owned(),
        false => entry.from.iter().map(IpNet::to_string).collect::<Vec<_>>().join(","),
    };
    let expires = entry.expires.map_or("never".to_owned(), |end| {
        let word = if now > end { "expired " } else { "" };
        format!("{word}{}", humantime::format_rfc3339_seconds(end))
    });
    let file = entry.file.file_name().unwrap_or_default().to_string_lossy();
    [
        entry.key.key_id().to_string(),
        Escaped(entry.key.host_id()).to_string(),
        Escaped(entry.user.as_deref().unwrap_or("-")).to_string(),
        from,
        expires,
        Escaped(file).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::account::RunsAs;
    use crate::entry::tests::{line, line_for};

    #[test]
    fn names_that_look_alike_are_listed_differently() {
        let text = format!("key = '{}'\nuser = 'bob'\n", line_for("alice", "lab\u{ad}07", 7));
        let entry = Entry::parse(Path::new("a.toml"), &text, &RunsAs::Root, &|_| Ok(()));
        let listed = table(&[Arc::new(entry.unwrap())], SystemTime::UNIX_EPOCH);
        assert!(listed.contains("lab\\u00ad07"), "{listed}");
    }

    #[test]
    fn an_entry_with_thousands_of_networks_is_listed() {
        let networks = (0..6_000_u32)
            .map(|host| std::net::IpAddr::from((1_000_000_000 + host).to_be_bytes()).to_string())
            .collect::<Vec<_>>();
        let text = format!("key = {:?}\nuser = \"bob\"\nfrom = {networks:?}\n", line("alice"));
        let entry = Entry::parse(Path::new("alice.toml"), &text, &RunsAs::Root, &|_| Ok(()));
        let listed = table(&[Arc::new(entry.unwrap())], SystemTime::UNIX_EPOCH);
        let (heading, row) = listed.split_once('\n').unwrap();
        assert!(heading.len() > 65_535 && heading.find("FILE") == row.find("alice.toml"));
    }
}
