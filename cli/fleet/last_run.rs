//! Records the last run on many hosts, for `labsh last` and for targets such as `@last:failed`.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use etcetera::base_strategy::{BaseStrategy, Xdg};
use labsh_diagnostics::text_file;
use labsh_nodeset::{Groups, NamedBy, NodeSet};
use serde::{Deserialize, Serialize};

use crate::console::note;
use crate::json::{Event, Fields};

/// The outcomes that may follow `@last:`, besides `failed`, which is every outcome but `ok`.
pub(crate) const OUTCOMES: [&str; 8] =
    ["ok", "exited", "signaled", "timed-out", "not-begun", "refused", "unreachable", "lost"];

/// A run on many hosts. A run on a single host does not replace it: after looking into one failed
/// host, users still want to retry the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// When the run ended (RFC 3339).
    pub(crate) when: String,
    /// The command, in shell syntax.
    pub(crate) command: String,
    /// The closing lines of the run.
    pub(crate) summary: Vec<String>,
    /// Each host's outcome, by name.
    pub(crate) hosts: BTreeMap<String, Outcome>,
    /// The other fields of the run's summary.
    #[serde(flatten)]
    pub(crate) more: Fields,
}

/// One host's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// One of [`OUTCOMES`].
    pub(crate) outcome: String,
    /// Further fields, for programs.
    #[serde(flatten)]
    pub(crate) more: Fields,
}

impl Last {
    /// Replaces the recorded run atomically, in a file that only this user can read.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let path = path()?;
        let directory = path.parent().context("there is no place for it")?;
        let written =
            DirBuilder::new().recursive(true).mode(0o700).create(directory).and_then(|()| {
                // NamedTempFile creates it with mode 0600.
                let mut file = tempfile::NamedTempFile::new_in(directory)?;
                serde_json::to_writer(&mut file, self)?;
                file.write_all(b"\n")?;
                file.persist(&path).map(drop).map_err(|error| error.error)
            });
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the recorded run.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let path = path()?;
        let text = match text_file::read_text(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => anyhow::bail!(
                "there is no last run; `labsh run` keeps one when it has a set of hosts, such as \
                 lab[01-40]"
            ),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text).with_context(|| {
            format!("{} is not what labsh writes there; the next run replaces it", path.display())
        })
    }

    /// Returns the run as a line of JSON.
    pub(crate) fn into_event(self) -> anyhow::Result<Event> {
        let fields: Fields = serde_json::from_value(serde_json::to_value(self)?)?;
        Ok(Event::new("summary").with_all(fields))
    }

    /// Returns the hosts with this outcome, one a line; all hosts without an outcome.
    fn hosts(&self, word: Option<&str>) -> Result<String, String> {
        if let Some(word) = word.filter(|word| *word != "failed" && !OUTCOMES.contains(word)) {
            return Err(format!(
                "@last:{word}: there is no such outcome; there are failed, which is all but ok, \
                 and {}",
                OUTCOMES.join(", ")
            ));
        }
        let meant = |outcome: &str| match word {
            None => true,
            Some("failed") => outcome != "ok",
            Some(word) => outcome == word,
        };
        let hosts = self.hosts.iter().filter(|(_, host)| meant(&host.outcome));
        Ok(hosts.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("\n"))
    }
}

/// Adds groups of the last run to other groups: `@last`, `@last:failed`, `@last:unreachable` …
pub(crate) struct WithLast<'a, G>(pub(crate) &'a G);

impl<G: Groups> Groups for WithLast<'_, G> {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        let word = match name.strip_prefix("last") {
            Some("") => None,
            Some(rest) if rest.starts_with(':') => Some(&rest[1..]),
            _ => return self.0.group(name),
        };
        Last::load().map_err(|error| format!("@{name}: {error:#}"))?.hosts(word).map(Some)
    }

    fn all(&self) -> Result<String, String> {
        self.0.all()
    }

    fn all_names(&self) -> NodeSet {
        self.0.all_names()
    }

    fn check_wildcard(&self, name: &str) -> Result<(), String> {
        self.0.check_wildcard(name)
    }

    fn file(&self, path: &str, named_by: NamedBy) -> Result<String, String> {
        self.0.file(path, named_by)
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        self.0.check_name(name)
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

/// Records this run as the last one: its command, its summary for programs and its closing lines. A
/// failure is reported and does not change the exit status.
pub(crate) fn keep_as_last(command: &str, summary: &Event, lines: &[String]) {
    let run = summary
        .clone()
        // A clock may be wrong by any time.
        .with(
            "when",
            humantime::format_rfc3339_seconds(SystemTime::now().max(UNIX_EPOCH)).to_string(),
        )
        .with("command", command)
        .with("summary", lines);
    let saved = serde_json::from_value(run.into_fields().into())
        .context("the summary cannot be read back")
        .and_then(|last: Last| last.save());
    if let Err(error) = saved {
        note(&format!("@last is not this run: {error:#}"));
    }
}

/// `$XDG_STATE_HOME/labsh/last.json`.
fn path() -> anyhow::Result<PathBuf> {
    let directories = Xdg::new().context("there is no home directory")?;
    let state = directories.state_dir().context("there is no directory for state")?;
    Ok(state.join("labsh/last.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_how_they_ended() {
        let of = |outcome: &str| Outcome { outcome: outcome.into(), more: Fields::new() };
        let last = Last {
            when: "2026-01-01T00:00:00Z".into(),
            command: "true".into(),
            summary: Vec::new(),
            hosts: [("a", "ok"), ("b", "unreachable"), ("c", "exited")]
                .map(|(name, outcome)| (name.to_owned(), of(outcome)))
                .into(),
            more: Fields::new(),
        };
        assert_eq!(last.hosts(None).unwrap(), "a\nb\nc");
        assert_eq!(last.hosts(Some("failed")).unwrap(), "b\nc");
        assert_eq!(last.hosts(Some("unreachable")).unwrap(), "b");
        assert_eq!(last.hosts(Some("lost")).unwrap(), "");
        assert!(last.hosts(Some("Failed")).unwrap_err().contains("unreachable"));
    }
}
