//! Generates the manual pages from the definitions of the command line.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap_mangen::Man;

use crate::console::print;

/// The end of every page: the user's files, and the hand-written pages in packaging/man.
const FILES_AND_SEE_ALSO: &str = r#".SH FILES
.TP
.IR \(ti/.config/labsh/config.toml ", " /etc/labsh/config.toml
The configuration; see
.BR labsh\-config (5).
.TP
.IR \(ti/.config/labsh/hosts.toml ", " /etc/labsh/hosts.toml
The inventory; see
.BR hosts.toml (5).
.TP
.I \(ti/.config/labsh/keys/
The user's keys, mode 0600.
.SH "SEE ALSO"
.BR labsh (1),
.BR labsh\-config (5),
.BR hosts.toml (5),
.BR labshd (8)
"#;

/// Prints the page of labsh itself, or writes one for each subcommand into a directory.
pub(crate) fn execute(
    command: clap::Command,
    directory: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    match directory {
        None => print(page(command)?.1.as_bytes())?,
        Some(directory) => {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            write_all(&command, directory)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_all(command: &clap::Command, directory: &Path) -> anyhow::Result<()> {
    let (name, text) = page(command.clone())?;
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    // Subcommands that only labsh itself calls are hidden.
    let mut shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.try_for_each(|command| write_all(command, directory))
}

/// Returns the name of a page's file, and its text.
fn page(command: clap::Command) -> anyhow::Result<(String, String)> {
    let man =
        Man::new(command).source(concat!("labsh ", env!("CARGO_PKG_VERSION"))).manual("labsh");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let mut text = String::from_utf8(text)?
        // A table would be filled like a paragraph otherwise; the next heading ends it.
        .replace("\n.SH EXTRA\n", "\n.SH NOTES\n.nf\n")
        // The parser has one argument for two arguments of the user.
        .replace(r"<\fITARGET COMMAND\fR>", r"<\fITARGET\fR> <\fICOMMAND\fR>...");
    text.push_str(FILES_AND_SEE_ALSO);
    Ok((man.get_filename(), text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use tempfile::TempDir;

    use super::*;
    use crate::args::CommandLine;

    #[test]
    fn every_subcommand_has_a_page() {
        let directory = TempDir::new().unwrap();
        execute(CommandLine::command(), Some(&directory.path().join("man1"))).unwrap();
        let mut names: Vec<_> = fs::read_dir(directory.path().join("man1"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "labsh-agent-list.1",
                "labsh-agent-status.1",
                "labsh-agent-stop.1",
                "labsh-agent.1",
                "labsh-completions.1",
                "labsh-cp.1",
                "labsh-explain.1",
                "labsh-hosts-check.1",
                "labsh-hosts.1",
                "labsh-key-enroll.1",
                "labsh-key-list.1",
                "labsh-key-new.1",
                "labsh-key-revoke.1",
                "labsh-key-show.1",
                "labsh-key.1",
                "labsh-last.1",
                "labsh-lesson.1",
                "labsh-man.1",
                "labsh-ping.1",
                "labsh-rsh.1",
                "labsh-run.1",
                "labsh-shell.1",
                "labsh-try.1",
                "labsh.1",
            ]
        );
        let run = fs::read_to_string(directory.path().join("man1/labsh-run.1")).unwrap();
        assert!(run.contains(".SH NOTES\n.nf\n") && run.contains("it timed out"), "{run}");
        assert!(run.ends_with(FILES_AND_SEE_ALSO), "{run}");
        assert!(run.contains(r"<\fITARGET\fR> <\fICOMMAND\fR>..."), "{run}");
    }
}
