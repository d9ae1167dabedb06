//! Reports the result of a copy: messages for people, lines of JSON for programs.

use std::ffi::OsString;
use std::time::Duration;

use labsh_client::fanout::End;
use labsh_client::terminal_text::shell_word;
use labsh_copy::{Counts, Progress, SUBSYSTEM};
use labsh_proto::message::Program;
use serde_json::json;

use crate::console::print;
use crate::cp::CopyRun;
use crate::cp::display::bytes;
use crate::cp::options::CopyOptions;
use crate::fleet::last_run::keep_as_last;
use crate::fleet::report::{self, HostReport, Kind, State};
use crate::fleet::summary;
use crate::json::{Event, Fields};
use crate::remote::record;

/// A copy that has ended.
pub(super) struct Ended<'a> {
    pub(super) run: &'a CopyRun,
    pub(super) reports: &'a [HostReport],
    /// Whether the target is a set of hosts.
    pub(super) many: bool,
    /// Whether the user left.
    pub(super) left: bool,
    pub(super) exit_status: u8,
    pub(super) took: Duration,
}

impl Ended<'_> {
    /// Reports the result, also if the user left.
    pub(super) fn report(&self, options: &CopyOptions) -> anyhow::Result<()> {
        let lines = if self.many { self.lines() } else { Vec::new() };
        let event = self.event();
        if self.many {
            keep_as_last(&typed(&options.words), &event, &lines);
        }
        if options.json.is_some() {
            return print(event.line().as_bytes());
        }
        if !self.many {
            self.note_of_one(options.quiet);
        }
        for line in lines.iter().filter(|_| self.exit_status != 0 || !options.quiet) {
            self.run.display.note(line);
        }
        Ok(())
    }

    /// Writes the message about the only host.
    fn note_of_one(&self, quiet: bool) {
        let display = &self.run.display;
        let Some(HostReport { state: State::Over(end, _), .. }) = self.reports.first() else {
            return;
        };
        match report::reason(end, &program()) {
            Some(_) if self.left => {
                display.note("left; a large file that had begun is continued by the next copy")
            }
            Some(reason) => display.note(&reason),
            None if quiet => {}
            None => display.note(&format!(
                "{}, in {}",
                counted(self.run.counts()),
                report::seconds(self.took)
            )),
        }
    }

    /// Returns the closing lines for many hosts.
    fn lines(&self) -> Vec<String> {
        let mut lines =
            report::summary_of(self.reports, &program(), self.took, |kind| match kind {
                Kind::Exit(_) => "not everything was copied".to_owned(),
                kind => kind.text(),
            });
        lines[0] += &format!("; {}", counted(self.run.counts()));
        lines
    }

    fn event(&self) -> Event {
        summary::summary(self.reports, outcome, self.took, self.exit_status)
            .with("files", files(self.run.counts()))
    }
}

/// Returns the line of JSON of a host that has ended.
pub(super) fn over(host: &HostReport, end: &End, progress: &Progress, took: Duration) -> Event {
    summary::over(host, outcome(end), took).with("files", files(progress.counts()))
}

fn outcome(end: &End) -> Fields {
    record::of_host(end, &program(), Kind::of(end).exit_status())
}

fn files(counts: Counts) -> serde_json::Value {
    json!({
        "copied": counts.copied,
        "unchanged": counts.unchanged,
        "failed": counts.failed,
        "bytes": counts.transferred_bytes,
    })
}

fn program() -> Program {
    Program::Subsystem(SUBSYSTEM.into())
}

/// Returns the command in shell syntax.
fn typed(words: &[OsString]) -> String {
    let words = words.iter().map(|word| shell_word(&word.to_string_lossy()).into_owned());
    format!("labsh cp {}", words.collect::<Vec<_>>().join(" "))
}

/// `3 copied (1.2 MiB), 5 unchanged, 1 failed`.
fn counted(counts: Counts) -> String {
    let mut text = format!("{} copied ({})", counts.copied, bytes(counts.transferred_bytes));
    for (count, what) in [(counts.unchanged, "unchanged"), (counts.failed, "failed")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}
