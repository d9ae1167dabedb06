//! Runs the console transcripts of the README and the guide, and compares what they show with what
//! is printed. What differs from run to run is masked: times, sizes, addresses, the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::documents::documents;
use crate::support::markdown::{self, Block};
use crate::support::{
    LABSH, LABSHD, Labshd, am_root, feed, labsh_in, own_files, program, run, temp_dir, text, tools,
};

/// The kernel of the machine on which the transcripts were recorded.
const RECORDED_KERNEL: &str = "6.18.44-fc-v509";

/// The hosts lab01 to lab40, which are one labshd, and a directory of the user alice.
struct Lab {
    labshd: Labshd,
    dir: TempDir,
    port: u16,
}

impl Lab {
    fn start() -> Self {
        // Each host has an address of its own, and all of them one port, as they would have 5274.
        let labshd = Labshd::launch("", |command| {
            let file = command.get_args().last().unwrap().to_owned();
            let configuration = fs::read_to_string(&file).unwrap();
            fs::write(&file, configuration.replace("listen = [", "listen = ['0.0.0.0:0', "))
                .unwrap();
        });
        let line = labshd.log().wait_for("listening address=0.0.0.0:");
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();

        let mut hosts = String::from("[groups]\nlab-a = 'lab[01-40]'\n");
        for number in 1..=40 {
            hosts += &format!("[hosts.lab{number:02}]\naddress = '127.0.1.{number}:{port}'\n");
        }
        fs::write(labshd.file("config/labsh/hosts.toml"), hosts).unwrap();
        fs::write(labshd.file("config/labsh/config.toml"), "[defaults]\nkey = 'alice@desk'\n")
            .unwrap();
        run(labsh_in(labshd.path()).args(["key", "new", "alice@desk"]));
        let enrolment = labshd.file("enrolment");
        let mut enroll = labsh_in(labshd.path());
        run(enroll.args(["key", "enroll", "alice@desk", "--host", "@lab-a", "--out", &enrolment]));
        for file in fs::read_dir(&enrolment).unwrap() {
            let mut add = program(LABSHD);
            add.args(["--config", &labshd.file("labshd.toml"), "key", "add"]);
            if am_root() {
                add.args(["--user", "root"]);
            }
            feed(&mut add, &fs::read(file.unwrap().path()).unwrap());
        }
        labshd.reload();

        let dir = temp_dir();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("notes.txt"), "notes\n").unwrap();
        for number in 0..11 {
            fs::write(dir.path().join(format!("data/{number}.csv")), "1,2\n").unwrap();
        }
        Self { labshd, dir, port }
    }

    /// Runs the commands of a transcript in one shell, and returns it with what they print.
    fn replay(&self, block: &Block) -> Vec<String> {
        let commands = block.lines.iter().filter_map(|line| line.strip_prefix("$ "));
        // The echo of a command leaves `$?` as it is.
        let script: String = commands
            .enumerate()
            .map(|(index, command)| format!("(s=$?; echo COMMAND {index}; exit $s)\n{command}\n"))
            .collect();
        let mut shell = program("sh");
        shell.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(self.dir.path());
        own_files(&mut shell, self.labshd.path());
        let programs = Path::new(LABSH).parent().unwrap();
        shell.env("PATH", tools::search_path_after(&[programs])).env("COLUMNS", "80");
        shell.stdin(Stdio::null());
        let output = text(&shell.output().unwrap().stdout);
        let mut commands = block.lines.iter().filter(|line| line.starts_with("$ "));
        let kernel = text(&run(program("uname").arg("-r")).stdout);
        output
            .lines()
            .map(|line| match line.starts_with("COMMAND ") {
                true => commands.next().unwrap().clone(),
                false => self.by_name(line).replace(kernel.trim(), RECORDED_KERNEL),
            })
            .collect()
    }

    /// A line in which addresses are the names that a host would have in a real room.
    fn by_name(&self, line: &str) -> String {
        (1..=40).rev().fold(line.to_owned(), |line, number| {
            line.replace(
                &format!("127.0.1.{number}:{}", self.port),
                &format!("lab{number:02}:5274"),
            )
            .replace(&format!("\"127.0.1.{number}\""), &format!("\"lab{number:02}\""))
            .replace(&format!("\"port\":{}", self.port), "\"port\":5274")
        })
    }
}

/// A line without what differs from run to run: times, and the host that was the slowest.
fn mask(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let end = number.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(number.len());
        let (number, after) = number.split_at(end);
        masked += before;
        let unit = ["ms", "s"].into_iter().find(|unit| {
            let after = after.strip_prefix(' ').and_then(|after| after.strip_prefix(unit));
            after.is_some_and(|after| !after.starts_with(char::is_alphanumeric))
        });
        let measured = ["_ms\":", "memory_bytes\":", "slowest lab"]
            .iter()
            .any(|before| masked.ends_with(before));
        match unit {
            Some(unit) => {
                masked += "TIME";
                rest = &after[1 + unit.len()..];
            }
            None => {
                masked += if measured { "NUMBER" } else { number };
                rest = after;
            }
        }
    }
    masked + rest
}

/// Whether a transcript shows what was printed. Two streams may arrive in either order; a line `…`
/// is for any lines.
fn shows(shown: &[String], printed: &[String]) -> bool {
    let masked =
        |lines: &[String]| -> Vec<String> { lines.iter().map(|line| mask(line)).collect() };
    let (mut shown, mut printed) = (masked(shown), masked(printed));
    if shown.iter().any(|line| line == "…") {
        let mut printed = printed.iter();
        return shown.iter().filter(|line| *line != "…").all(|line| printed.any(|l| l == line));
    }
    shown.sort();
    printed.sort();
    shown == printed
}

#[test]
fn transcripts_show_what_the_programs_print() {
    let transcripts: BTreeSet<Block> = documents("README.md", "docs/guide")
        .into_iter()
        .chain(documents("README.zh-CN.md", "docs/guide.zh-CN"))
        .flat_map(|(_, document)| markdown::blocks(&document))
        .filter(|block| block.language == "console" && block.lines[0].starts_with("$ "))
        .collect();
    let not_run = |block: &&Block| {
        block.remark.as_ref().is_some_and(|remark| remark.starts_with("not run: "))
    };
    let (not_run, transcripts): (Vec<&Block>, Vec<&Block>) = transcripts.iter().partition(not_run);
    println!("{} transcripts, and {} that are not run", transcripts.len(), not_run.len());
    assert!(transcripts.len() >= 10 && not_run.len() <= 4);
    let lab = Lab::start();
    let differing: Vec<String> = transcripts
        .into_iter()
        .map(|transcript| (transcript, lab.replay(transcript)))
        .filter(|(transcript, printed)| !shows(&transcript.lines, printed))
        .map(|(transcript, printed)| {
            let (shown, printed) = (transcript.lines.join("\n"), printed.join("\n"));
            format!("a document shows\n{shown}\nand this was printed:\n{printed}\n")
        })
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
