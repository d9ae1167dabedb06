//! Compares the results of expressions with ClusterShell's own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What the end-to-end tests do where a tool is not installed.
#[path = "../../../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub)]
mod tools;

use labsh_nodeset::{NoGroups, NodeSet};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Returns the path of `clush`, one of ClusterShell's programs.
fn clush() -> Option<PathBuf> {
    tools::need("clush", "apt-get install clustershell")
}

/// Returns ClusterShell's result for each expression: the folded set and its names, or an error.
fn oracle(clush: &Path, expressions: &[String]) -> Vec<Result<(String, BTreeSet<String>), String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle.py");
    let mut child = tools::program(tools::python_of(clush))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().unwrap();
    let text = expressions.join("\n") + "\n";
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let written = writer.join().unwrap();
    assert!(
        output.status.success(),
        "ClusterShell is needed (Debian package clustershell): {written:?}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = text
        .lines()
        .map(|line| match line.split_once('\t').expect("two fields") {
            ("error", message) => Err(message.to_owned()),
            (folded, names) => {
                Ok((folded.to_owned(), names.split_whitespace().map(str::to_owned).collect()))
            }
        })
        .collect();
    assert_eq!(answers.len(), expressions.len());
    answers
}

/// Returns `count` values of a strategy, the same in every run.
fn values<T: std::fmt::Debug>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Blanks, as people write them around operators and in brackets.
fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("  ")]
}

fn range() -> impl Strategy<Value = String> {
    let number = 0..130_u32;
    prop_oneof![
        number.clone().prop_map(|number| number.to_string()),
        number.clone().prop_map(|number| format!("{number:03}")),
        (number.clone(), 0..20_u32).prop_map(|(first, more)| format!("{first}-{}", first + more)),
        (number.clone(), 0..20_u32)
            .prop_map(|(first, more)| format!("{first:03}-{:03}", first + more)),
        (number, 0..20_u32, 1..5_u32, blank(), blank()).prop_map(
            |(first, more, step, before, after)| {
                let last = first + more;
                format!("{before}{first}{after}-{before}{last}{after}/{before}{step}{after}")
            }
        ),
    ]
}

fn brackets() -> impl Strategy<Value = String> {
    (prop::collection::vec(range(), 1..4), blank())
        .prop_map(|(ranges, blank)| format!("[{}]", ranges.join(&format!("{blank},{blank}"))))
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        (prop::sample::select(vec!["lab", "n"]), brackets())
            .prop_map(|(text, list)| text.to_owned() + &list),
        (brackets(), brackets()).prop_map(|(rack, node)| format!("r{rack}n{node}")),
        brackets().prop_map(|list| format!("{list}node")),
        (prop::sample::select(vec!["lab", "n", "gate"]), 0..12_u32)
            .prop_map(|(text, number)| format!("{text}{number}")),
        Just("gateway".to_owned()),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec![",", "!", "&", "^"]);
    let more =
        (blank(), operator, blank(), pattern()).prop_map(|(before, operator, after, pattern)| {
            before.to_owned() + operator + after + &pattern
        });
    (blank(), pattern(), prop::collection::vec(more, 0..4), blank()).prop_map(
        |(before, first, rest, after)| before.to_owned() + &first + &rest.concat() + after,
    )
}

#[test]
fn expressions_have_the_same_hosts_as_in_clustershell() {
    let Some(clush) = clush() else { return };
    let expressions = values(600, expression());
    let mut lengths = (0, 0);
    for (expression, answer) in expressions.iter().zip(oracle(&clush, &expressions)) {
        let (folded, names) = answer.unwrap_or_else(|message| panic!("{expression}: {message}"));
        let ours = NodeSet::parse(expression, &NoGroups).unwrap();
        assert_eq!(ours.iter().map(str::to_owned).collect::<BTreeSet<_>>(), names, "{expression}");
        lengths = (lengths.0 + ours.to_string().len(), lengths.1 + folded.len());
    }
    // Several dimensions can be folded in different ways; in total, ours are hardly longer.
    assert!(lengths.0 <= lengths.1 + lengths.1 / 20, "{lengths:?}");
}

#[test]
fn one_dimension_is_folded_as_in_clustershell() {
    let Some(clush) = clush() else { return };
    let ranges = |width: usize| {
        let range = (0..130_u32, 0..20_u32)
            .prop_map(move |(first, more)| format!("{first:0width$}-{:0width$}", first + more));
        prop::collection::vec(range, 1..6)
    };
    let lists = values(200, ranges(1)).into_iter().chain(values(200, ranges(3)));
    let expressions: Vec<String> =
        lists.map(|ranges| format!("lab[{}]-ib", ranges.join(","))).collect();
    for (expression, answer) in expressions.iter().zip(oracle(&clush, &expressions)) {
        let (folded, _) = answer.unwrap_or_else(|message| panic!("{expression}: {message}"));
        assert_eq!(
            NodeSet::parse(expression, &NoGroups).unwrap().to_string(),
            folded,
            "{expression}"
        );
    }
}

#[test]
fn clustershell_expands_our_folded_sets_to_the_same_hosts() {
    let Some(clush) = clush() else { return };
    let expressions = values(400, expression());
    let sets: Vec<NodeSet> =
        expressions.iter().map(|text| NodeSet::parse(text, &NoGroups).unwrap()).collect();
    let folded: Vec<String> = sets.iter().map(NodeSet::to_string).collect();
    for ((set, folded), answer) in sets.iter().zip(&folded).zip(oracle(&clush, &folded)) {
        match answer {
            Ok((_, names)) => {
                assert_eq!(
                    set.iter().map(str::to_owned).collect::<BTreeSet<_>>(),
                    names,
                    "{folded}"
                );
            }
            Err(message) => assert!(set.is_empty(), "{folded}: {message}"),
        }
    }
}

#[test]
fn invalid_expressions_are_refused_by_both() {
    let Some(clush) = clush() else { return };
    let invalid: Vec<String> =
        ["n[5-3]", "n[1", "n1]", "n[]", "n[01-3]", "n[1-03]", "n[a-b]", "n[1-2", "n[1,]"]
            .into_iter()
            .chain([
                "n[4/2]", "n[1 2]", "n[1-3/0]", "n[1:3]", "a,,b", "a!", "a ^", ",a", "[1-", "n[ ]",
            ])
            .map(str::to_owned)
            .collect();
    for (expression, answer) in invalid.iter().zip(oracle(&clush, &invalid)) {
        assert!(answer.is_err(), "ClusterShell accepts {expression}");
        assert!(NodeSet::parse(expression, &NoGroups).is_err(), "{expression}");
    }
}

/// Sets of very different sizes, which are joined in different ways.
fn numbers() -> impl Strategy<Value = BTreeSet<u32>> {
    prop_oneof![
        prop::collection::btree_set(0..60_u32, 0..4),
        prop::collection::btree_set(0..60_u32, 0..60)
    ]
}

proptest! {
    #[test]
    fn operations_are_those_of_sets(one in numbers(), other in numbers()) {
        let set = |numbers: &BTreeSet<u32>| NodeSet::of(numbers.iter().map(u32::to_string));
        let (ours, theirs) = (set(&one), set(&other));
        prop_assert_eq!(ours.clone().union(theirs.clone()), set(&(&one | &other)));
        prop_assert_eq!(ours.clone().intersection(&theirs), set(&(&one & &other)));
        prop_assert_eq!(ours.clone().difference(&theirs), set(&(&one - &other)));
        prop_assert_eq!(ours.clone().symmetric_difference(theirs), set(&(&one ^ &other)));
        prop_assert_eq!(ours.clone().union(ours.clone()), ours);
    }

    #[test]
    fn a_folded_set_parses_to_the_same_set(expression in expression()) {
        let set = NodeSet::parse(&expression, &NoGroups).unwrap();
        if !set.is_empty() {
            prop_assert_eq!(&NodeSet::parse(&set.to_string(), &NoGroups).unwrap(), &set);
        }
    }

    #[test]
    fn no_text_causes_a_panic(text in "[a-z0-9\\[\\],!&^@/ :*-]{0,40}") {
        if let Some(set) = NodeSet::parse(&text, &NoGroups).ok().filter(|set| !set.is_empty()) {
            prop_assert_eq!(&NodeSet::parse(&set.to_string(), &NoGroups).unwrap(), &set);
        }
    }

    #[test]
    fn names_with_operators_do_not_panic(names in prop::collection::vec(".{0,12}", 0..6)) {
        let set = NodeSet::of(names);
        prop_assert!(!set.to_string().is_empty() || set.len() <= 1);
    }
}
