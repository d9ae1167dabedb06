//! What the documents say about the programs is what the programs do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::help::{Help, HelpOption, help, name_and_value};
use crate::support::markdown::{self, Block};
use crate::support::{LABSH, LABSH_RSH, LABSHD, program, temp_dir, text, tools};

/// The README and the folder of the guide, in both languages.
const LANGUAGES: [(&str, &str); 2] =
    [("README.md", "docs/guide"), ("README.zh-CN.md", "docs/guide.zh-CN")];

/// The longest README, in lines.
const MAX_README_LINES: usize = 150;

/// Options of other programs, in commands that the documents tell people to run.
const OTHER_PROGRAMS: &str = "--release --bin --example --workspace --path --locked --now --list \
     --delete --partial --keep-order --ssh --copy --rcopy --hostfile --topology --outdir --errdir \
     --dest";

/// The subcommands with options of their own, all of which the guide names.
const SUBCOMMANDS: [(&str, &[&str]); 15] = [
    (LABSH, &["run"]),
    (LABSH, &["shell"]),
    (LABSH, &["cp"]),
    (LABSH, &["try"]),
    (LABSH, &["explain"]),
    (LABSH, &["ping"]),
    (LABSH, &["last"]),
    (LABSH, &["lesson"]),
    (LABSH, &["hosts"]),
    (LABSH, &["hosts", "check"]),
    (LABSH, &["key", "enroll"]),
    (LABSH, &["key", "revoke"]),
    (LABSHD, &["key", "add"]),
    (LABSHD, &["key", "remove"]),
    (LABSH_RSH, &[]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The names of the guide's files, without the folder.
fn chapters(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The README and every chapter of one language: names and texts.
pub fn documents(readme: &str, folder: &str) -> Vec<(String, String)> {
    let chapters = chapters(folder).into_iter().map(|chapter| format!("{folder}/{chapter}"));
    [readme.to_owned()]
        .into_iter()
        .chain(chapters)
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

fn check(file: &Path) -> Output {
    program(LABSHD).arg("check").arg("--config").arg(file).output().unwrap()
}

/// What `labshd check` prints about settings, without the lines that name files.
fn settings(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let names_files =
        |line: &&str| line.starts_with("configuration") || line.starts_with("keys in");
    let stdout = text(&output.stdout);
    stdout.lines().filter(|line| !names_files(line)).map(str::to_owned).collect()
}

#[test]
fn the_packaged_configuration_says_every_default() {
    // Copied, so that its mode is what an installation gives it, whatever the checkout has.
    let dir = temp_dir();
    let (packaged, empty) = (dir.path().join("packaged.toml"), dir.path().join("empty.toml"));
    fs::write(&packaged, read("packaging/labshd.toml")).unwrap();
    fs::write(&empty, "").unwrap();
    assert_eq!(settings(&check(&packaged)), settings(&check(&empty)));

    // A key that does not exist makes labshd list those that do.
    fs::write(&empty, "nonsense = 1").unwrap();
    let stderr = text(&check(&empty).stderr);
    let known = stderr.split("what is understood here: ").nth(1).unwrap();
    for key in known.trim().trim_end_matches(')').split(", ") {
        let line = |line: &str| {
            let line = line.trim_start_matches('#');
            line.starts_with(&format!("{key} = ")) || line == format!("[{key}]")
        };
        assert!(
            read("packaging/labshd.toml").lines().any(line),
            "{key} is missing in packaging/labshd.toml"
        );
    }
}

#[test]
fn the_packaged_client_configuration_is_understood() {
    let dir = temp_dir();
    fs::create_dir(dir.path().join("labsh")).unwrap();
    let packaged = read("packaging/config.toml");
    // The example as it is, and with everything in it switched on.
    let keys =
        |line: &&str| line.starts_with('#') && (line.contains(" = ") || line.starts_with("#["));
    let on: String = packaged
        .lines()
        .map(|line| if keys(&line) { line.trim_start_matches('#') } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    for config in [&packaged, &on] {
        fs::write(dir.path().join("labsh/config.toml"), config).unwrap();
        let mut labsh = program(LABSH);
        labsh.env("XDG_CONFIG_HOME", dir.path()).args(["run", "lab07", "true"]);
        let stderr = text(&labsh.output().unwrap().stderr);
        assert!(stderr.contains("there is no key"), "{stderr}\n{config}");
    }
}

#[test]
fn options_in_the_documents_exist() {
    let mut known: BTreeSet<String> =
        OTHER_PROGRAMS.split_whitespace().map(str::to_owned).collect();
    for (program, subcommand) in SUBCOMMANDS {
        known.extend(help(program, subcommand).options.into_keys());
    }
    for (readme, folder) in LANGUAGES {
        let (mut mentions, mut distinct) = (0, BTreeSet::new());
        for (name, document) in documents(readme, folder) {
            let words = document.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            for option in words.filter(|word| word.starts_with("--") && !word.ends_with('-')) {
                assert!(known.contains(option), "{name}: {option} is in no --help");
                mentions += 1;
                distinct.insert(option.to_owned());
            }
        }
        println!("{readme} and {folder}: {mentions} options, {} different", distinct.len());
    }
}

#[test]
fn the_guide_names_every_option() {
    for (readme, folder) in LANGUAGES {
        let spans: Vec<String> = documents(readme, folder)
            .iter()
            .flat_map(|(_, document)| markdown::spans(document))
            .collect();
        let mut count = 0;
        for (program, subcommand) in SUBCOMMANDS {
            for option in help(program, subcommand).options.keys() {
                // ssh's short options are in `labsh rsh --help` alone, which the guide says.
                let elsewhere = program == LABSH_RSH && !option.starts_with("--");
                if elsewhere || ["-h", "--help", "--version"].contains(&option.as_str()) {
                    continue;
                }
                let named = |span: &String| {
                    let words = span.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
                    words.into_iter().any(|word| word == option)
                };
                assert!(spans.iter().any(named), "{folder}: {option} of {subcommand:?} is missing");
                count += 1;
            }
        }
        println!("{folder}: all {count} options of {} subcommands", SUBCOMMANDS.len());
    }
}

/// The subcommands whose options a chapter's tables list.
fn of_chapter(chapter: &str) -> Vec<(&'static str, &'static [&'static str])> {
    let wanted: &[&[&str]] = match chapter {
        "running.md" | "many-hosts.md" => &[&["run"]],
        "terminals.md" => &[&["run"], &["shell"]],
        "inventory.md" => &[&["hosts"], &["hosts", "check"]],
        "copying.md" => &[&["cp"]],
        "keys.md" => &[&["run"], &["key", "enroll"], &["key", "add"]],
        "teaching.md" => &[&["lesson"]],
        _ => &[],
    };
    SUBCOMMANDS.into_iter().filter(|(_, subcommand)| wanted.contains(subcommand)).collect()
}

#[test]
fn tables_of_options_agree_with_the_help() {
    for (_, folder) in LANGUAGES {
        let mut count = 0;
        for chapter in chapters(folder) {
            let helps: Vec<Help> = of_chapter(&chapter).iter().map(|(p, s)| help(p, s)).collect();
            for table in markdown::tables(&read(&format!("{folder}/{chapter}"))) {
                if !["option", "选项"].iter().any(|word| table.head[0].contains(word)) {
                    continue;
                }
                for row in &table.rows {
                    count += agree(&format!("{folder}/{chapter}"), &table.head, row, &helps);
                }
            }
        }
        println!("{folder}: {count} options in tables");
        assert!(count > 60, "{count}");
    }
}

/// Checks a row of a table of options against the help: names, values, defaults and variables.
fn agree(file: &str, head: &[String], row: &[String], helps: &[Help]) -> usize {
    let column = |titles: [&str; 2]| {
        let index = head.iter().position(|title| titles.contains(&title.as_str()))?;
        Some(row[index].trim_matches('`').to_owned())
    };
    let (default, variable) = (column(["default", "默认"]), column(["environment", "环境变量"]));
    let spans = markdown::spans_of_line(&row[0]);
    for span in &spans {
        let (name, value) = name_and_value(span);
        let options: Vec<&HelpOption> =
            helps.iter().filter_map(|help| help.options.get(name)).collect();
        let fits = |option: &&HelpOption| {
            // A short name is without its value, and one of the values may be an example.
            let named = value.is_empty() || option.value.split('|').any(|known| known == value);
            let defaults = default.as_ref().is_none_or(|text| {
                option.default.as_deref().unwrap_or_default() == text
                    || spans.len() > 1 && text.is_empty()
            });
            let variables = variable
                .as_ref()
                .is_none_or(|text| option.variable.as_deref().unwrap_or_default() == text);
            named && defaults && variables
        };
        assert!(options.iter().any(fits), "{file}: no help has {span} of the row {row:?}");
    }
    spans.len()
}

#[test]
fn environment_variables_of_a_connection_are_those_of_the_help() {
    let options = help(LABSH, &["run"]).options;
    let variables: Vec<&String> =
        options.values().filter_map(|option| option.variable.as_ref()).collect();
    assert_eq!(variables.len(), 6, "five, one of them for both names of --port: {variables:?}");
    for (_, folder) in LANGUAGES {
        let chapter = read(&format!("{folder}/keys.md"));
        for variable in &variables {
            assert!(chapter.contains(&format!(" | `{variable}` | ")), "{folder}: {variable}");
        }
    }
}

/// The rows of an exit status that the help lists under this heading.
fn statuses(help: &str, heading: &str) -> Vec<(String, String)> {
    let listed = help.split(heading).nth(1).unwrap().split("\n\n").next().unwrap();
    listed
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|line| line.split_once("  "))
        .map(|(status, meaning)| (status.trim().to_owned(), meaning.trim().to_owned()))
        .collect()
}

#[test]
fn exit_statuses_are_those_of_the_help() {
    let help = help(LABSH, &["run"]).text;
    let rows = statuses(&help, "\nExit status:");
    assert_eq!(rows.len(), 6, "{help}");
    let (english, chinese) = (read("docs/guide/running.md"), read("docs/guide.zh-CN/running.md"));
    for (status, meaning) in &rows {
        assert!(english.contains(&format!("\n| {status} | {meaning} |\n")), "{status}: {meaning}");
        assert!(chinese.contains(&format!("\n| {status} | ")), "{status}");
    }
    let of_many = statuses(&help, "\nExit status for many hosts");
    assert_eq!(of_many.len(), 5, "{help}");
    for (_, folder) in LANGUAGES {
        let chapter = read(&format!("{folder}/many-hosts.md"));
        for (status, _) in &of_many {
            let row = |line: &str| line.starts_with(&format!("| {status}"));
            assert!(chapter.lines().any(row), "{folder}/many-hosts.md: {status}");
        }
    }
    println!("{} exit statuses, {} of many hosts, in two languages", rows.len(), of_many.len());
}

/// Words that may come before a program's name in a command.
const BEFORE_PROGRAMS: [&str; 8] = ["sudo", "ssh", "-t", "lab07", "do", "exec", ".", "$"];

/// Checks the commands of labsh's programs in a line of shell, and returns how many there are.
fn check_commands(place: &str, line: &str, helps: &mut Helps) -> usize {
    let mut count = 0;
    for words in markdown::commands(line) {
        for word in &words {
            // A command in quotes, for another program: GIT_SSH_COMMAND='labsh rsh'.
            let inner = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
            if inner.starts_with("labsh ") || inner.starts_with("labsh-rsh ") {
                count += check_commands(place, inner, helps);
            }
        }
        let first = words.iter().position(|word| {
            !BEFORE_PROGRAMS.contains(&word.as_str())
                && (word.starts_with('-') || !word.contains('='))
        });
        let Some(first) = first else { continue };
        let name = words[first].rsplit('/').next().unwrap();
        let program = match name {
            "labsh" => LABSH,
            "labshd" => LABSHD,
            "labsh-rsh" => LABSH_RSH,
            _ => continue,
        };
        check_words(place, program, &words[first + 1..], helps);
        count += 1;
    }
    count
}

/// Checks one command: its subcommand exists, and so does each option before its operands.
fn check_words(place: &str, program: &'static str, words: &[String], helps: &mut Helps) {
    let mut words = words.iter().map(String::as_str).peekable();
    let mut subcommand = Vec::new();
    while let Some(&word) = words.peek() {
        let known = &helps.of(program, &subcommand).subcommands;
        if known.is_empty() || word.starts_with('-') {
            break;
        }
        if !known.contains(word) {
            // `labsh SUBCOMMAND` and `labsh …` name no subcommand; SETs follow `labsh hosts`.
            let placeholder = !word.starts_with(|c: char| c.is_ascii_lowercase());
            let set = subcommand == ["hosts"];
            assert!(placeholder || set, "{place}: {subcommand:?} has no subcommand {word}");
            break;
        }
        subcommand.push(word.to_owned());
        words.next();
    }
    let runs = ["run", "shell", "try", "explain", "rsh"];
    let stops = program == LABSH_RSH || subcommand.first().is_some_and(|s| runs.contains(&&**s));
    let options = &helps.of(program, &subcommand).options;
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            if stops {
                break;
            }
            continue;
        }
        let name = word.split(['=', '[']).next().unwrap();
        // Short options may be written in one word, with or without a value: -tt, -p5274.
        let short = name.starts_with('-') && !name.starts_with("--") && name.len() > 2;
        let name = if short { &name[..2] } else { name };
        let option = options.get(name);
        assert!(option.is_some(), "{place}: {program} {subcommand:?} has no {name}");
        let takes_value = option.is_some_and(|option| {
            !option.value.is_empty() && !option.value.starts_with(['=', '['])
        });
        if takes_value && !word.contains('=') && !short {
            words.next();
        }
    }
}

/// The helps that have been asked for.
#[derive(Default)]
struct Helps(BTreeMap<(&'static str, Vec<String>), Help>);

impl Helps {
    fn of(&mut self, program: &'static str, subcommand: &[String]) -> &Help {
        self.0.entry((program, subcommand.to_vec())).or_insert_with(|| {
            let words: Vec<&str> = subcommand.iter().map(String::as_str).collect();
            help(program, &words)
        })
    }
}

#[test]
fn commands_in_the_documents_are_understood() {
    let mut helps = Helps::default();
    for (readme, folder) in LANGUAGES {
        let (mut in_blocks, mut in_spans) = (0, 0);
        for (name, document) in documents(readme, folder) {
            for block in markdown::blocks(&document) {
                for line in &block.lines {
                    let line = match block.language.as_str() {
                        "sh" => line,
                        "console" if line.starts_with("$ ") => &line[2..],
                        _ => continue,
                    };
                    in_blocks += check_commands(&name, line, &mut helps);
                }
            }
            for span in markdown::spans(&document) {
                in_spans += check_commands(&name, &span, &mut helps);
            }
        }
        println!("{readme} and {folder}: {in_blocks} commands in blocks, {in_spans} in the text");
        assert!(in_blocks > 80 && in_spans > 80, "{in_blocks} {in_spans}");
    }
}

#[test]
fn the_readmes_are_short() {
    for (readme, _) in LANGUAGES {
        let lines = read(readme).lines().count();
        assert!(lines <= MAX_README_LINES, "{readme} has {lines} lines");
    }
}

/// A block without what is written for people: comments, and the language of the lessons.
fn for_programs(block: &Block) -> Block {
    let line = |line: &String| {
        let line = line.split(" # ").next().unwrap().split(" // ").next().unwrap();
        line.replace(" --lang zh", "").trim_end().to_owned()
    };
    let comment = |line: &String| line.trim_start().starts_with("// ");
    Block { lines: block.lines.iter().filter(|l| !comment(l)).map(line).collect(), ..block.clone() }
}

#[test]
fn the_two_languages_have_the_same_structure() {
    assert_eq!(chapters(LANGUAGES[0].1), chapters(LANGUAGES[1].1));
    let [english, chinese] = LANGUAGES.map(|(readme, folder)| documents(readme, folder));
    let mut blocks = 0;
    for ((name, english), (_, chinese)) in english.iter().zip(&chinese) {
        let depths = |document| -> Vec<usize> {
            let depth = |heading: &str| heading.chars().take_while(|c| *c == '#').count();
            markdown::headings(document).into_iter().map(depth).collect()
        };
        assert_eq!(depths(english), depths(chinese), "the headings of {name}");
        let rows = |document| -> Vec<usize> {
            markdown::tables(document).iter().map(|table| table.rows.len()).collect()
        };
        assert_eq!(rows(english), rows(chinese), "the tables of {name}");
        let [english, chinese] = [english, chinese].map(|document| markdown::blocks(document));
        assert_eq!(english.len(), chinese.len(), "the blocks of {name}");
        for (english, chinese) in english.iter().zip(&chinese) {
            // What a lesson prints is in the reader's language.
            if !english.lines[0].starts_with("$ labsh lesson") {
                assert_eq!(for_programs(english), for_programs(chinese), "{name}");
            }
            blocks += 1;
        }
    }
    println!("{} documents, {blocks} blocks of code in each language", english.len());
}

#[test]
fn the_library_chapter_has_the_example() {
    let example = read("client/examples/one_session.rs");
    let code = example.split_once("\n\n").unwrap().1;
    let chapter = markdown::blocks(&read("docs/guide/library.md"));
    let shown = chapter.iter().find(|block| block.language == "rust").unwrap();
    assert_eq!(shown.lines.join("\n"), code.trim_end());
}

#[test]
fn the_lesson_plans_commands_succeed() {
    let count = |document: &str| {
        let dir = temp_dir();
        let path = tools::search_path_after(&[Path::new(LABSH).parent().unwrap()]);
        let document = read(document);
        let commands: Vec<&str> =
            document.lines().filter(|line| line.starts_with("labsh lesson")).collect();
        for command in &commands {
            let mut shell = program("sh");
            shell.args(["-c", command]).current_dir(dir.path()).env("PATH", &path);
            let output = shell.output().unwrap();
            assert!(
                output.status.success(),
                "{command}\n{}{}",
                text(&output.stdout),
                text(&output.stderr)
            );
        }
        assert!(dir.path().join("pages/index.html").exists());
        println!("{} commands", commands.len());
        commands.len()
    };
    let english = count("docs/guide/teaching.md");
    assert!(english > 12, "{english}");
    assert_eq!(count("docs/guide.zh-CN/teaching.md"), english);
}
