//! The lessons on the command line: each in both languages, their options, and the errors for wrong
//! use.

use std::process::{Command, Output, Stdio};

use crate::support::{LABSH, program, text, tools};

/// `labsh lesson` with these words, in an environment that sets no language, width or colour.
fn lesson(words: &[&str]) -> Command {
    let mut labsh = program(LABSH);
    labsh.arg("lesson").args(words).stdin(Stdio::null());
    labsh.env_remove("LANG");
    labsh
}

fn output(words: &[&str]) -> Output {
    lesson(words).output().unwrap()
}

/// The stdout of a lesson, which must succeed.
fn shown(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{command:?}: {stdout}{}", text(&output.stderr));
    stdout
}

fn assert_refused(words: &[&str], reasons: &[&str]) {
    let output = output(words);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{words:?}: {stderr}");
    for reason in reasons {
        assert!(stderr.contains(reason), "{words:?}: {reason:?} is not in {stderr}");
    }
}

/// The text with its line breaks removed.
fn unwrapped(shown: &str) -> String {
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The names that `labsh lesson` lists.
fn names() -> Vec<String> {
    let listed = shown(&mut lesson(&[]));
    listed.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

fn is_chinese(character: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&character)
}

/// The lines of a lesson's own text; received data may be in any language.
fn own_lines(shown: &str) -> Vec<&str> {
    shown.lines().filter(|line| !line.starts_with("  │")).collect()
}

/// The columns that a text takes, in which only Chinese characters and punctuation are wide.
fn columns(line: &str) -> usize {
    let wide = |c: char| {
        is_chinese(c)
            || ('\u{3000}'..='\u{303f}').contains(&c)
            || ('\u{ff00}'..='\u{ff60}').contains(&c)
    };
    line.chars().map(|character| if wide(character) { 2 } else { 1 }).sum()
}

#[test]
fn lessons_are_listed_in_both_languages() {
    let (english, chinese) =
        (shown(&mut lesson(&["--lang", "en"])), shown(&mut lesson(&["--lang", "zh"])));
    assert_eq!(english.lines().count(), chinese.lines().count());
    for name in ["phone", "loop", "sticky", "length-first", "fixed-header"] {
        assert!(names().iter().any(|listed| listed == name), "{english}");
    }
    for (english, chinese) in english.lines().zip(chinese.lines()) {
        assert_eq!(english.split_whitespace().next(), chinese.split_whitespace().next());
        assert!(chinese.contains(is_chinese), "{chinese}");
        assert!(english.split_whitespace().count() > 3, "{english}");
    }
}

#[test]
fn every_lesson_shows_what_it_is_about_in_english() {
    for name in names() {
        let shown = shown(&mut lesson(&[&name, "--lang", "en"]));
        assert!(shown.contains("\n✓ "), "{shown}");
        for line in own_lines(&shown) {
            let foreign = line.replace("粘包", "");
            assert!(!foreign.contains(is_chinese), "{name}: {line}");
        }
        assert!(!shown.contains('\x1b'), "no colours without a terminal");
    }
}

#[test]
fn every_lesson_shows_what_it_is_about_in_chinese() {
    for name in names() {
        let shown = shown(&mut lesson(&[&name, "--lang", "zh"]));
        assert!(shown.contains("\n✓ "), "{shown}");
        // Every line of the lesson's own text contains Chinese.
        for line in own_lines(&shown).iter().filter(|line| {
            ["✓ ", "▶ ", "1. ", "2. ", "3. "].iter().any(|mark| line.starts_with(mark))
        }) {
            assert!(line.contains(is_chinese), "{name}: {line}");
        }
        for english in ["question", "answers client", "is free", "at most", "lines "] {
            assert!(!shown.contains(english), "{name}: {english}: {shown}");
        }
    }
}

#[test]
fn lessons_follow_locale_and_width() {
    for (width, locale) in [("60", "zh_CN.UTF-8"), ("140", "C.UTF-8")] {
        let shown = shown(lesson(&["all"]).env("LANG", locale).env("COLUMNS", width));
        for line in shown.lines() {
            assert!(columns(line) <= width.parse().unwrap(), "wider than {width}: {line}");
        }
        let chinese = shown.lines().filter(|line| line.contains(is_chinese)).count();
        assert_eq!(chinese > shown.lines().count() / 4, locale.starts_with("zh"), "{chinese}");
        let last = shown.lines().last().unwrap();
        assert!(last.contains(&names().len().to_string()), "{last}");
    }
    // LC_ALL overrides LANG, and --lang overrides both.
    let listed = shown(lesson(&["--lang", "en"]).env("LC_ALL", "zh_CN.UTF-8").env("LANG", "C"));
    assert_eq!(listed, shown(&mut lesson(&[])));
    let listed = shown(lesson(&[]).env("LC_ALL", "zh_CN.UTF-8").env("LANG", "C"));
    assert_eq!(listed, shown(&mut lesson(&["--lang", "zh"])));
}

#[test]
fn sticky_packets_are_in_the_bytes_and_in_the_figure() {
    let shown = shown(&mut lesson(&["sticky"]));
    assert!(shown.contains("ls -lpwdwhoami"), "three messages in one recv: {shown}");
    assert!(shown.contains("|BBBB pwd BBB"), "glued in the picture: {shown}");
    assert!(
        shown.contains("asked `ps`, received (1024 bytes)"),
        "the second answer is a piece: {shown}"
    );
}

#[test]
fn command_read_size_and_message_sizes_are_options() {
    let shown = shown(&mut lesson(&[
        "sticky",
        "--command",
        "seq 5000",
        "--recv",
        "256",
        "--sizes",
        "5,7,100",
    ]));
    for sentence in [
        "one recv() returned (112 bytes)",
        "aaaaabbbbbbbcccc",
        "received (256 bytes)",
        "has 23893 bytes",
    ] {
        assert!(unwrapped(&shown).contains(sentence), "{sentence}: {shown}");
    }
    // The rest of one answer and the next answer, in one read.
    let shown = self::shown(&mut lesson(&["sticky", "--command", "seq 500"]));
    assert!(unwrapped(&shown).contains("The other 868 stayed"), "{shown}");
    // More than all buffers together.
    let shown = self::shown(&mut lesson(&[
        "sticky",
        "--command",
        "head -c 1000000 /dev/zero",
        "--recv",
        "65536",
    ]));
    assert!(unwrapped(&shown).contains("has 1000000 bytes"), "{shown}");
    for name in ["length-first", "fixed-header"] {
        let shown = self::shown(&mut lesson(&[name, "--command", "seq 5000"]));
        assert!(unwrapped(&shown).contains("23893 bytes"), "{shown}");
    }
}

#[test]
fn color_can_be_forced_and_switched_off() {
    let colored = shown(&mut lesson(&["sticky", "--color", "always"]));
    assert!(colored.contains("\x1b[38;5;16;48;5;") && !colored.contains("[AAA"), "{colored}");
    assert!(!shown(&mut lesson(&["sticky", "--color", "never"])).contains('\x1b'));
    let asked = shown(lesson(&["sticky", "--color", "always"]).env("NO_COLOR", "1"));
    assert!(asked.contains('\x1b'), "--color always was asked for");
}

/// Runs the words on a terminal of script(1) with these variables.
fn on_a_terminal(words: &str, variables: &str) -> String {
    let line = format!("stty rows 40 cols 66; env {variables} '{LABSH}' lesson {words}");
    let mut script = program("script");
    let output = script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stdout));
    text(&output.stdout)
}

#[test]
fn a_terminal_gets_colors_and_lines_within_its_width() {
    if tools::need("script", "apt-get install bsdutils").is_none() {
        return;
    }
    let colored = on_a_terminal("sticky", "-u NO_COLOR TERM=xterm-256color");
    assert!(colored.contains("\x1b[38;5;16;48;5;"), "{colored}");
    for variables in ["NO_COLOR=1 TERM=xterm-256color", "-u NO_COLOR TERM=dumb"] {
        let plain = on_a_terminal("sticky", variables);
        assert!(!plain.contains('\x1b'), "{variables}: {plain}");
        let widest = plain.lines().map(|line| columns(line.trim_end())).max().unwrap();
        assert!((60..=66).contains(&widest), "{widest}: {plain}");
    }
}

#[test]
fn wrong_use_is_refused_with_a_remedy() {
    assert_refused(&["stiky"], &["no lesson stiky", "did you mean sticky?"]);
    assert_refused(&["header"], &["did you mean fixed-header?"]);
    assert_refused(&["qqqq"], &["there are: phone, loop", "fixed-header"]);
    assert_refused(&["sticky", "nosuch\u{1b}[2J"], &["\\u{1b}"]);
    assert_refused(
        &["sticky", "--recv", "0"],
        &["--recv", "end of the connection", "write 1 or more"],
    );
    assert_refused(&["sticky", "--recv", "many"], &["a number of bytes from 1"]);
    assert_refused(&["sticky", "--recv", "-5"], &["a number of bytes from 1"]);
    assert_refused(
        &["sticky", "--sizes", "5,0"],
        &["--sizes", "empty message", "labsh lesson loop"],
    );
    assert_refused(&["sticky", "--sizes", "5"], &["two messages"]);
    assert_refused(&["sticky", "--command", " "], &["--command", "empty"]);
    assert_refused(&["sticky", "--command", "seq 5000\nps"], &["--command", "one line"]);
    assert_refused(
        &["sticky", "--command", &"#".repeat(5000)],
        &["--command", "at most 1000 bytes"],
    );
    assert_refused(&["sticky", "--lang", "fr"], &["--lang", "en", "zh"]);
    for (command, reason) in [
        ("true", "prints nothing"),
        ("echo no >&2; exit 3", "failed: exit status: 3 (no)"),
        ("nosuch_command", "not found"),
        ("seq 3", "a smaller --recv"),
        ("yes", "prints more than"),
    ] {
        assert_refused(&["sticky", "--command", command], &[reason]);
    }
    for name in ["length-first", "fixed-header", "wire"] {
        assert_refused(&[name, "--command", "true"], &["prints nothing", "seq 5000"]);
    }
    assert_refused(&["wire", "--command", "yes"], &["prints more than"]);
    let random = "cat /proc/sys/kernel/random/uuid";
    assert_refused(&["wire", "--command", random], &["does something else each time"]);
    assert_refused(
        &["sticky", "--lang", "zh", "--command", "true"],
        &["什么也没有输出", "seq 5000"],
    );
}

#[test]
fn a_failing_lesson_does_not_stop_the_next_ones() {
    let output = output(&["all", "--command", "true"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    let failed = stdout.lines().last().unwrap();
    assert!(failed.contains("sticky") && failed.contains("fixed-header"), "{failed}");
    assert!(!failed.contains("phone") && !failed.contains("loop"), "{failed}");
    assert!(
        stdout.contains("✗ That cannot be done: the command 'true' prints nothing"),
        "{stdout}"
    );
}

#[test]
fn a_closed_stdout_is_no_failure_of_the_lesson() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = lesson(&["sticky"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("cannot write to standard output"),
        "{}",
        text(&output.stderr)
    );
}
