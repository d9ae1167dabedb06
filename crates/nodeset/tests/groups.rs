//! Nested groups, files, wildcards, and the errors in them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use labsh_nodeset::{Groups, MAX_HOSTS, NamedBy, NodeSet, NodeSetError};

struct TestGroups(BTreeMap<&'static str, &'static str>);

impl Groups for TestGroups {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.0.get(name).map(|content| (*content).to_owned()))
    }

    fn all(&self) -> Result<String, String> {
        Ok("lab[01-10]".to_owned())
    }

    fn file(&self, path: &str, named_by: NamedBy) -> Result<String, String> {
        match path {
            "-" if named_by == NamedBy::User => Ok("lab08\nlab[09-\n".to_owned()),
            "users.txt" => Ok("lab01\n\nlab02,root@lab03\n".to_owned()),
            "missing.txt" | "-" => Err(format!("{path}: No such file or directory")),
            "rooms/a.txt" => {
                Ok("# the first row\nlab01\nlab02 lab03 # and the rest\n\n".to_owned())
            }
            "typed.txt" => Ok("lab01\nlab[02-\n".to_owned()),
            "nested.txt" => Ok("\n^typed.txt".to_owned()),
            "long.txt" => Ok(format!("\n{}\n", "x".repeat(2000))),
            "through.txt" => Ok("lab01\n^missing.txt\n".to_owned()),
            _ => Ok("lab0[1-\n".to_owned()),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        if name.contains('@') { Err(format!("{name:?} has a user")) } else { Ok(()) }
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().map(|name| (*name).to_owned()).collect()
    }
}

fn groups() -> TestGroups {
    TestGroups(BTreeMap::from([
        ("a", "lab[01-03]"),
        ("b", "@a,lab07"),
        ("rack1", "lab01"),
        ("rack2", "lab02"),
        ("empty", ""),
        ("x", "@y"),
        ("y", "lab01,@z"),
        ("z", "@x"),
        ("itself", "@itself"),
        ("racks:r1", "lab[04-05]"),
        ("piped", "^-"),
    ]))
}

fn folded(expression: &str) -> String {
    NodeSet::parse(expression, &groups()).unwrap().to_string()
}

fn error(expression: &str) -> NodeSetError {
    NodeSet::parse(expression, &groups()).unwrap_err()
}

#[test]
fn groups_can_be_operands() {
    assert_eq!(folded("@b"), "lab[01-03,07]");
    assert_eq!(folded("@*!@b"), "lab[04-06,08-10]");
    assert_eq!(folded("@b&@a"), "lab[01-03]");
    assert_eq!(folded("@rack[1-2]"), "lab[01-02]");
    assert_eq!(folded("@racks:r1"), "lab[04-05]");
    assert_eq!(folded("@empty,lab01"), "lab01");
    assert_eq!(folded("lab01 lab02\tlab03"), "lab[01-03]");
}

#[test]
fn wildcards_match_known_hosts() {
    assert_eq!(folded("lab*"), "lab[01-10]");
    assert_eq!(folded("lab0?!lab0[1-3]"), "lab[04-09]");
    assert_eq!(folded("*[1-2]"), "lab[01-02]");
    assert_eq!(folded("x*,lab01"), "lab01");
    assert_eq!(folded("unix:/run/*.sock"), "unix:/run/*.sock");
}

#[test]
fn a_caret_names_a_file_at_the_start_and_is_an_operator_in_the_middle() {
    assert_eq!(folded("^rooms/a.txt"), "lab[01-03]");
    assert!(
        error("^rooms/a.txt!lab01").to_string().contains("a.txt!lab01"),
        "a path ends at a comma or a space"
    );
    assert_eq!(folded("lab09 ^rooms/a.txt"), "lab[01-03,09]");
    assert_eq!(folded("lab09,^rooms/a.txt"), "lab[01-03,09]");
    assert_eq!(folded("lab01 ^ ^rooms/a.txt"), "lab[02-03]");
    // Without a slash, it is a host, as in ClusterShell.
    for operator in ["^", " ^", "^ ", " ^ "] {
        for second in ["lab[02-03]", "lab[02-03/1]", "@rack2,lab03"] {
            let expression = format!("lab[01-02]{operator}{second}");
            assert_eq!(folded(&expression), "lab[01,03]", "{expression}");
        }
    }
}

#[test]
fn a_dash_after_a_caret_is_standard_input() {
    for expression in ["^-", "lab01,^-", "lab01 ^-", "^-!lab01", "^- & lab01"] {
        let message = error(expression).to_string();
        assert!(message.starts_with("standard input:2: \"lab[09-\": "), "{expression}: {message}");
    }
    assert!(error("^-x").to_string().starts_with("-x:1: "), "{}", error("^-x"));
    // Any command would lose its input to a group that reads it.
    assert!(error("@piped").to_string().contains("-: No such file"), "{}", error("@piped"));
}

#[test]
fn addresses_are_not_ranges() {
    assert_eq!(
        folded("[::1]:5274,10.0.0.7,lab01.example:99"),
        "10.0.0.7,[::1]:5274,lab01.example:99"
    );
    assert_eq!(folded("[fe80::1%eth0],[::1]"), "[::1],[fe80::1%eth0]");
    assert_eq!(folded("unix:/run/a!b.sock,lab01"), "lab01,unix:/run/a!b.sock");
    // Ansible's ranges have colons.
    assert!(error("lab[01:40]").to_string().contains("[01:40]: a range has a dash"));
}

#[test]
fn a_set_may_begin_with_a_bracket() {
    assert_eq!(folded("[01-02]node[3-4]"), "[01-02]node[3-4]");
    assert_eq!(folded("[1-3] ! 2"), "[1,3]");
    // A single number may be of any size.
    let huge = "n[99999999999999999998,99999999999999999999]";
    assert_eq!(folded("n99999999999999999998,n99999999999999999999"), huge);
    assert_eq!(folded(huge), huge);
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    assert!(matches!(error("@nothere"), NodeSetError::UnknownGroup { .. }));
    assert!(error("@nothere").to_string().contains("there are: a, b, empty"));
    assert!(error("@emty").to_string().contains("perhaps @empty"), "{}", error("@emty"));
    assert!(!error("@nothere").to_string().contains("perhaps"));
    assert!(error("@x").to_string().contains("@x → @y → @z → @x"));
    assert!(error("@itself").to_string().contains("@itself → @itself"));
    assert!(error("").to_string().contains("missing at the end"));
    assert!(error("lab01,,lab02").to_string().contains("in front of \",\""));
    assert!(error("lab01!").to_string().contains("missing at the end"));
    assert!(error("lab[01-02").to_string().contains("position 4"));
    assert!(error("lab01]").to_string().contains("position 6"));
    assert!(error("lab[3-1]").to_string().contains("counts backwards"));
    assert!(error("^missing.txt").to_string().contains("No such file"));
    for file in ["^typed.txt", "^nested.txt"] {
        assert!(
            error(file).to_string().starts_with("typed.txt:2: \"lab[02-\": "),
            "{}",
            error(file)
        );
    }
    for (file, message) in [
        ("^users.txt", "users.txt:3: \"root@lab03\" has a user"),
        ("^through.txt", "through.txt:2: missing.txt: No such file"),
        ("^long.txt", "long.txt:2: a name that begins with "),
    ] {
        assert!(error(file).to_string().starts_with(message), "{}", error(file));
    }
    assert!(error("lab01 ^").to_string().contains("missing at the end"));
    assert!(error("^ lab01").to_string().contains("missing after \"^\""));
}

#[test]
fn a_typing_error_does_not_exhaust_memory() {
    for expression in ["n[1-1000000000]", "n[1-1000]m[1-1000]k[1-2]", "n[0-18446744073709551615]"] {
        assert!(matches!(error(expression), NodeSetError::TooMany { .. }), "{expression}");
    }
    assert_eq!(NodeSet::parse(&format!("n[1-{MAX_HOSTS}]"), &groups()).unwrap().len(), MAX_HOSTS);
    assert!(error("n[1-99999999999999999999]").to_string().contains("too large"));
}

#[test]
fn names_that_are_too_long_are_refused_before_they_are_built() {
    let zeros = "0".repeat(70_000);
    for long in [
        format!("lab[{zeros}0-{zeros}9]"),
        format!("{zeros}[0-99999]"),
        format!("lab{}", "[1]".repeat(1000)),
        format!("[::{zeros}]"),
    ] {
        let message = error(&long).to_string();
        assert!(
            message.ends_with("is longer than 1000 bytes; shorten it") && message.len() < 200,
            "{message}"
        );
    }
    // A set that was built from such names can still be shown.
    let wide = NodeSet::of([format!("lab{zeros}1"), format!("lab{zeros}2")]);
    assert_eq!(wide.to_string(), format!("lab[{zeros}1-{zeros}2]"));
}

/// Groups whose names are numbers; the members are computed on request.
struct Numbered(fn(u32) -> String);

impl Groups for Numbered {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        Ok(name.parse().ok().map(self.0))
    }

    fn all(&self) -> Result<String, String> {
        Err("@* is not used in these tests".to_owned())
    }

    fn file(&self, path: &str, _: NamedBy) -> Result<String, String> {
        Err(format!("{path} is not used in these tests"))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn the_depth_of_groups_is_limited() {
    let endless = Numbered(|number| format!("@{}", number + 1));
    let error = NodeSet::parse("@0", &endless).unwrap_err();
    assert!(matches!(error, NodeSetError::TooDeep { .. }), "{error}");
    assert!(error.to_string().contains("groups are nested more than 100 deep"), "{error}");
}

#[test]
fn a_shared_group_is_evaluated_once() {
    // Without the cache, this would take 2^90 evaluations.
    let shared = Numbered(|number| match number {
        90.. => "lab01".to_owned(),
        _ => format!("@{0},@{0}!lab[02-03]", number + 1),
    });
    assert_eq!(NodeSet::parse("@0", &shared).unwrap().to_string(), "lab01");
}
