//! What the command line makes of what people type.

use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::CommandFactory;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_proto::key::HostId;
use labsh_proto::message::Program;

use super::*;
use crate::flags::{EscapeCharacter, FormFlags, form};

fn parse(words: &[&str]) -> Result<Action, clap::Error> {
    super::parse(["labsh"].iter().chain(words).map(OsString::from)).map(|(line, _)| line.action)
}

fn run(words: &[&str]) -> RunOptions {
    match parse(&[&["run"], words].concat()) {
        Ok(Action::Run(options)) => *options,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refusal(words: &[&str]) -> String {
    parse(words).expect_err("it should be refused").to_string()
}

fn argv(words: &[&str]) -> Program {
    Program::Argv(words.iter().map(|word| word.as_bytes().to_vec()).collect())
}

fn shell(line: &str) -> Program {
    Program::Shell(line.as_bytes().to_vec())
}

#[test]
fn the_definitions_hold_together() {
    CommandLine::command().debug_assert();
}

#[test]
fn a_subcommand_says_of_itself_what_the_list_of_all_says() {
    let (listed, mut built) = (CommandLine::command(), CommandLine::command());
    built.build();
    for subcommand in listed.get_subcommands() {
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string);
        let own = built.find_subcommand(subcommand.get_name()).unwrap();
        assert_eq!(about(own), about(subcommand), "{}", subcommand.get_name());
    }
}

#[test]
fn an_option_that_has_an_effect_is_in_the_help() {
    let mut command = CommandLine::command();
    command.build();
    for (subcommand, shown) in [("run", true), ("cp", true), ("ping", false), ("explain", false)] {
        let help = command.find_subcommand_mut(subcommand).unwrap().render_help().to_string();
        assert_eq!(help.contains("--keep "), shown, "{subcommand}: {help}");
    }
    let hosts = command.find_subcommand_mut("hosts").unwrap();
    let help = hosts.find_subcommand_mut("check").unwrap().render_help().to_string();
    assert!(!help.contains("--keep "), "{help}");
}

#[test]
fn one_word_is_for_the_shell_and_several_are_exact() {
    assert_eq!(run(&["lab07", "ps aux | wc -l"]).program(), shell("ps aux | wc -l"));
    assert_eq!(run(&["lab07", "uptime"]).program(), shell("uptime"));
    let words = ["grep", "-r", "a b", "", "$HOME", "/srv"];
    assert_eq!(run(&[&["lab07"], &words[..]].concat()).program(), argv(&words));
    assert_eq!(run(&["--argv", "lab07", "my program"]).program(), argv(&["my program"]));
    assert_eq!(
        run(&["--shell", "lab07", "echo", "$HOME", ">", "x"]).program(),
        shell("echo $HOME > x")
    );
    let bytes = OsString::from_vec(vec![0xff, b'a']);
    assert_eq!(
        form(&[bytes.clone(), bytes], FormFlags::default()),
        Program::Argv(vec![vec![0xff, b'a'], vec![0xff, b'a']])
    );
    assert!(refusal(&["run", "--shell", "--argv", "lab07", "x"]).contains("--argv"));
}

#[test]
fn everything_behind_the_target_is_the_commands() {
    let options =
        run(&["-p", "1", "lab07", "prog", "-p", "2", "--timeout", "x", "--help", "--", "-n"]);
    assert_eq!(options.connection.port, Some(1));
    assert_eq!(options.command.timeout, None);
    assert!(!options.command.no_stdin);
    assert_eq!(
        options.program(),
        argv(&["prog", "-p", "2", "--timeout", "x", "--help", "--", "-n"])
    );
    assert_eq!(run(&["lab07", "--version", "x"]).program(), argv(&["--version", "x"]));
}

#[test]
fn dashes_right_behind_the_target_are_dropped_once() {
    assert_eq!(run(&["lab07", "--", "-x", "y"]).program(), argv(&["-x", "y"]));
    assert_eq!(run(&["lab07", "--", "--", "y"]).program(), argv(&["--", "y"]));
    assert_eq!(run(&["--", "lab07", "--", "y"]).program(), shell("y"));
}

fn terminal(words: &[&str]) -> ShellOptions {
    match parse(&[&["shell"], words].concat()) {
        Ok(Action::Shell(options)) => *options,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn a_terminal_is_for_a_login_shell_unless_there_is_a_command() {
    assert_eq!(terminal(&["lab07"]).program(), Program::LoginShell);
    assert_eq!(terminal(&["lab07", "--"]).program(), Program::LoginShell);
    assert_eq!(terminal(&["lab07", "htop"]).program(), shell("htop"));
    assert_eq!(
        terminal(&["lab07", "--", "less", "-R", "a b"]).program(),
        argv(&["less", "-R", "a b"])
    );
    assert_eq!(terminal(&["--argv", "lab07", "htop"]).program(), argv(&["htop"]));
    let options = terminal(&["-e", "^]", "--force-tty", "--env", "A=b", "lab07:1", "-e"]);
    assert_eq!(options.terminal.escape, Some(EscapeCharacter(Some(0x1d))));
    assert!(options.terminal.force_tty);
    assert_eq!(options.program(), shell("-e"));
    assert_eq!(
        terminal(&["lab07"]).terminal.escape.unwrap_or_default(),
        EscapeCharacter(Some(b'~'))
    );
    assert!(refusal(&["shell"]).contains("<TARGET> [[--] <COMMAND>...]"));
    let text = refusal(&["shell", "alice@lab07"]);
    assert!(
        text.contains("key's entry on the host") && text.contains("Usage: labsh shell"),
        "{text}"
    );
    assert!(refusal(&["shell", "--escape", "ab", "lab07"]).contains("one character of ASCII"));
}

#[test]
fn a_command_is_given_a_terminal_by_a_flag() {
    for (words, count) in
        [(&["lab07", "top"][..], 0), (&["-t", "lab07", "top"], 1), (&["-tt", "lab07", "top"], 2)]
    {
        assert_eq!(run(words).tty, count);
    }
    assert_eq!(
        run(&["--tty", "-e", "none", "h", "top"]).terminal.escape,
        Some(EscapeCharacter(None))
    );
    assert!(refusal(&["run", "-t", "-n", "lab07", "top"]).contains("cannot be used with"));
}

#[test]
fn a_bad_target_is_refused_with_the_reason() {
    for (target, reason) in [
        ("alice@lab07", "key's entry on the host"),
        ("", "empty"),
        ("lab07:0", "1 to 65535"),
        ("lab\u{7}07", "cannot contain '\\u{7}'"),
    ] {
        let text = refusal(&["run", target, "true"]);
        assert!(text.contains("'<TARGET>'") && text.contains(reason), "{text}");
        assert!(text.contains("Usage: labsh run"), "{text}");
        assert!(refusal(&["ping", target]).contains(reason));
    }
    assert!(refusal(&["run", "--", "-oProxyCommand=x", "true"]).contains("begin with '-'"));
    assert!(refusal(&["run", "-oProxyCommand=x", "true"]).contains("unexpected argument '-o'"));
}

#[test]
fn a_missing_command_is_refused_with_an_example() {
    for words in [&["run", "lab07"][..], &["run", "lab07", "--"]] {
        let text = refusal(words);
        assert!(
            text.contains("labsh run lab07 uname -a") && text.contains("Usage: labsh run"),
            "{text}"
        );
    }
    assert!(refusal(&["run"]).contains("<TARGET> [--] <COMMAND>..."));
    assert!(refusal(&["try"]).contains("<COMMAND>"));
}

#[test]
fn options_read_as_they_are_documented() {
    let options = run(&[
        "--key",
        "alice",
        "--host-id",
        "Shared",
        "--plain",
        "--connect-timeout",
        "3s",
        "--timeout",
        "1m30s",
        "--no-wait-eof",
        "--env",
        "A=b=c",
        "--env",
        "E=",
        "--cwd",
        "/srv",
        "-n",
        "--json",
        "--status-fd",
        "3",
        "-v",
        "lab07",
        "true",
    ]);
    let overrides = options.connection.overrides();
    assert_eq!(overrides.key, Some("alice".parse().unwrap()));
    assert_eq!(overrides.host_id, Some(HostId::new("shared").unwrap()));
    assert_eq!((overrides.plain, overrides.port), (Some(true), None));
    assert_eq!(overrides.connect_timeout, Some(Duration::from_secs(3)));
    let command = options.command;
    assert_eq!(command.timeout, Some(Duration::from_secs(90)));
    assert_eq!(command.env, [(b"A".to_vec(), b"b=c".to_vec()), (b"E".to_vec(), vec![])]);
    assert_eq!(command.cwd, Some("/srv".into()));
    assert_eq!(command.status_fd, Some(3));
    assert!(command.no_wait_eof && command.no_stdin && command.json.is_some() && command.verbose);
    assert_eq!(run(&["lab07", "true"]).connection.overrides(), ConnectionOverrides::default());
}

#[test]
fn a_variable_by_name_takes_this_machines_value() {
    let path = std::env::var_os("PATH").unwrap().into_vec();
    assert_eq!(run(&["--env", "PATH", "lab07", "true"]).command.env, [(b"PATH".to_vec(), path)]);
    assert!(
        refusal(&["run", "--env", "LABSH_NOT_SET_ANYWHERE", "lab07", "true"])
            .contains("not set here")
    );
    assert!(refusal(&["run", "--env", "=x", "lab07", "true"]).contains("name is missing"));
}

#[test]
fn a_timeout_that_would_mean_never_is_refused() {
    for timeout in ["0s", "1us"] {
        assert!(refusal(&["run", "--timeout", timeout, "lab07", "true"]).contains("at least 1ms"));
    }
    assert!(refusal(&["run", "--timeout", "30", "lab07", "true"]).contains("like 30s"));
}

#[test]
fn try_takes_the_same_command_without_a_target() {
    let Ok(Action::Try(options)) = parse(&["try", "--timeout", "1s", "ls", "-l"]) else { panic!() };
    assert_eq!(options.program(), argv(&["ls", "-l"]));
    let Ok(Action::Try(options)) = parse(&["try", "--", "-x"]) else { panic!() };
    assert_eq!(options.program(), shell("-x"));
}

#[test]
fn the_help_of_run_lists_the_exit_statuses() {
    for flag in ["-h", "--help"] {
        let help = refusal(&["run", flag]);
        for status in ["128+n", "124", "125", "126", "127", "255"] {
            assert!(help.contains(status), "{help}");
        }
    }
}

#[test]
fn an_empty_user_is_none() {
    for words in [&["run", "--user", "", "lab07", "x"], &["explain", "--user", "", "lab07", "x"]] {
        assert!(refusal(words).contains("'--user <USER>'"), "{}", refusal(words));
    }
}

#[test]
fn how_the_words_are_taken_is_explained_with_the_command_and_not_with_the_connection() {
    let help = refusal(&["explain", "--help"]);
    let (connection, command) = help.split_once("\nCommand:").unwrap();
    assert!(command.contains("--argv") && !connection.contains("--argv"), "{help}");
}

#[test]
fn a_host_where_a_subcommand_belongs_is_recognised() {
    for (words, tip) in [
        (&["lab01", "uname", "-a b"][..], Some("did you mean `labsh run lab01 uname '-a b'`?")),
        (&["lab01"], Some("did you mean `labsh shell lab01`?")),
        (&["rum", "lab01", "uname"], None),
        (&["key", "lab01"], None),
    ] {
        let said = refusal(words);
        match tip {
            Some(tip) => assert!(said.contains(tip), "{said}"),
            None => assert!(!said.contains("did you mean"), "{said}"),
        }
    }
}
