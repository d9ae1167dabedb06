//! Compares ClusterShell's groups with ClusterShell's own results.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What the end-to-end tests do where a tool is not installed.
#[path = "../../../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub)]
mod tools;

mod support;

use labsh_inventory::clustershell::{self, ClusterShell};
use labsh_nodeset::{Groups, NamedBy, NodeSet};
use proptest::prelude::*;
use serde_json::Value;
use support::values;

/// Hosts by source and group.
type Sources = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns the path of `clush`, one of ClusterShell's programs.
fn clush() -> Option<PathBuf> {
    tools::need("clush", "apt-get install clustershell")
}

/// Returns ClusterShell's default source and all groups, except those of sources in `left_out`,
/// whose upcalls it would run.
fn oracle(clush: &Path, configuration: &Path, left_out: &[&str]) -> (Option<String>, Sources) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles/groups.py");
    let output = tools::program(tools::python_of(clush))
        .arg(script)
        .arg(configuration)
        .args(left_out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let groups: Value = serde_json::from_slice(&output.stdout).unwrap();
    (
        groups["default"].as_str().map(str::to_owned),
        serde_json::from_value(groups["sources"].clone()).unwrap(),
    )
}

/// The groups of all sources, each under its qualified name.
struct AllSources<'a>(&'a ClusterShell);

impl Groups for AllSources<'_> {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        let (source, group) =
            name.split_once(':').ok_or_else(|| format!("{name} names no source"))?;
        let source = self.0.sources.iter().find(|(other, _)| other == source);
        let Some((name, source)) = source else { return Ok(None) };
        Ok(source.clone().qualified(name).groups.get(group).map(|group| group.members.clone()))
    }

    fn all(&self) -> Result<String, String> {
        Err("@* names no source".to_owned())
    }

    fn file(&self, path: &str, _: NamedBy) -> Result<String, String> {
        Err(format!("{path} is not used in these tests"))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

fn ours(groups: &ClusterShell) -> Sources {
    let hosts = |source: &str, group: &str| {
        let set = NodeSet::parse(&format!("@{source}:{group}"), &AllSources(groups)).unwrap();
        set.iter().map(str::to_owned).collect()
    };
    let sources = groups.sources.iter().map(|(name, source)| {
        (
            name.clone(),
            source.groups.keys().map(|group| (group.clone(), hosts(name, group))).collect(),
        )
    });
    sources.collect()
}

/// The source that Debian's package configures, verbatim.
const LOCAL: &str = concat!(
    "\n[local]\n",
    "map: [ -f $CFGDIR/groups ] && f=$CFGDIR/groups || f=$CFGDIR/groups.d/local.cfg; ",
    r"sed -n 's/^$GROUP:\(.*\)/\1/p' $f",
    "\n",
    "all: [ -f $CFGDIR/groups ] && f=$CFGDIR/groups || f=$CFGDIR/groups.d/local.cfg; ",
    r"sed -n 's/^all:\(.*\)/\1/p' $f",
    "\n",
    "list: [ -f $CFGDIR/groups ] && f=$CFGDIR/groups || f=$CFGDIR/groups.d/local.cfg; ",
    r"sed -n 's/^\([0-9A-Za-z_-]*\):.*/\1/p' $f",
    "\n",
);

const FLAT: &str = "\
# rooms
lab: lab[01-40]!lab07
lab: gate
adm: example0
all: @lab,@adm @racks:r1
odd:lab[1-9/2]
";

const RACKS: &str = "\
# two sources in one file
racks:
  r1: 'n[1-3]'
  r2: ['n4', 'n5,n6', '@r1']
  r3: \"@r2!n4\"
  r4: '@local:lab&lab[01-10]'
  all: '@r[1-3]'
roles:
  login: gate
  both: '@login,@racks:r1^n[2-4]'
";

/// Returns a directory whose path has no blank: the commands of Debian's sources do not quote it.
fn unquoted_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/tmp").unwrap()
}

/// Returns a configuration directory of ClusterShell with sources of every kind.
fn directory() -> tempfile::TempDir {
    let directory = unquoted_directory();
    let path = |name: &str| directory.path().join(name);
    let main = "[Main]\n# which one\ndefault: racks\nconfdir: /nonexistent \
        $CFGDIR/groups.conf.d\nautodir: \"$CFGDIR/groups.d\"\n";
    fs::write(path("groups.conf"), format!("{main}{LOCAL}")).unwrap();
    fs::create_dir(path("groups.d")).unwrap();
    fs::create_dir(path("groups.conf.d")).unwrap();
    fs::write(path("groups.d/local.cfg"), FLAT).unwrap();
    fs::write(path("groups.d/racks.yaml"), RACKS).unwrap();
    fs::write(path("groups.d/note.yaml.example"), "not: [read\n").unwrap();
    let slurm = "[slurm,slurmpart]\nmap: sinfo -h -o \"%N\" -p $GROUP\nlist = sinfo -h -o \
        \"%R\"\n    and more\n";
    fs::write(path("groups.conf.d/slurm.conf"), slurm).unwrap();
    let here = "[here]\nmap: sed -n 's/^$GROUP:\\(.*\\)/\\1/p' $SOURCE.txt\nlist: sed -n \
        's/^\\([a-z]*\\):.*/\\1/p' $SOURCE.txt\n";
    fs::write(path("groups.conf.d/here.conf"), here).unwrap();
    fs::write(path("groups.conf.d/here.txt"), "a: n[1-2]\nb: @a,n7\n").unwrap();
    directory
}

#[test]
fn every_kind_of_source_has_the_groups_that_clustershell_reads() {
    let directory = directory();
    let groups = clustershell::read(directory.path()).unwrap();
    let ignored: Vec<&str> = groups.ignored.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(ignored, ["slurm", "slurmpart"]);
    assert!(groups.ignored[0].1.to_string().ends_with("groups.conf.d/slurm.conf:1"));
    let names: Vec<&str> = groups.sources.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["here", "racks", "roles", "local"]);
    if let Some(clush) = clush() {
        let theirs = oracle(&clush, &directory.path().join("groups.conf"), &ignored);
        assert_eq!((groups.default.clone(), ours(&groups)), theirs);
    }
    // The old place of the flat file comes first.
    fs::write(directory.path().join("groups"), "old: n1\n").unwrap();
    let groups = clustershell::read(&directory.path().join("groups.conf")).unwrap();
    assert_eq!(groups.sources[3].1.groups.keys().collect::<Vec<_>>(), ["old"]);
    assert_eq!(
        groups.sources[3].1.groups["old"].origin.to_string(),
        format!("{}:1", directory.path().join("groups").display())
    );
}

#[test]
fn a_single_file_can_be_read() {
    let directory = directory();
    let yaml = clustershell::read(&directory.path().join("groups.d/racks.yaml")).unwrap();
    assert_eq!(yaml.default.as_deref(), Some("racks"));
    assert_eq!(yaml.sources[0].1.groups["r2"].members, "n4\nn5,n6\n@r1");
    assert_eq!(yaml.sources[0].1.groups["r2"].origin.line, Some(4));
    let flat = clustershell::read(&directory.path().join("groups.d/local.cfg")).unwrap();
    assert_eq!(flat.default.as_deref(), Some("local"));
    assert_eq!(flat.sources[0].1.groups["lab"].members, "lab[01-40]!lab07\ngate");
}

/// Expressions that may name the groups before them.
fn groups() -> impl Strategy<Value = Vec<String>> {
    let part = prop_oneof![
        (0..30_u32, 0..9_u32)
            .prop_map(|(first, more)| format!("lab[{first:02}-{:02}]", first + more)),
        (1..9_u32, 0..3_u32).prop_map(|(rack, node)| format!("r{rack}n{node}")),
        (0..8_usize).prop_map(|group| format!("@g{group}")),
        (0..8_usize).prop_map(|group| format!("@local:g{group}")),
    ];
    let more = (prop::sample::select(vec![",", "!", "&", "^"]), part.clone());
    let expression = (part, prop::collection::vec(more, 0..4));
    prop::collection::vec(expression, 2..8).prop_map(|expressions| {
        let written = expressions.into_iter().enumerate().map(|(index, (first, rest))| {
            let text =
                rest.into_iter().fold(first, |text, (operator, part)| text + operator + &part);
            // A group that names itself or a later group could form a cycle.
            (index..8).fold(text, |text, later| text.replace(&format!("g{later}"), "none"))
        });
        written.collect()
    })
}

#[test]
fn generated_groups_have_the_hosts_that_clustershell_reads() {
    let Some(clush) = clush() else { return };
    for groups in values(12, groups()) {
        let directory = unquoted_directory();
        let path = |name: &str| directory.path().join(name);
        let main = "[Main]\nconfdir:\nautodir: $CFGDIR/groups.d\ndefault = local\n";
        fs::write(path("groups.conf"), format!("{main}{LOCAL}")).unwrap();
        fs::create_dir(path("groups.d")).unwrap();
        let (mut flat, mut yaml) =
            ("none: other\n".to_owned(), "racks:\n  none: 'other'\n".to_owned());
        for (index, members) in groups.iter().enumerate() {
            let _ = writeln!(flat, "g{index}: {members}");
            let _ = writeln!(yaml, "  g{index}: \"{members}\" # a comment");
        }
        fs::write(path("groups"), &flat).unwrap();
        fs::write(path("groups.d/racks.yaml"), &yaml).unwrap();
        let groups = clustershell::read(&path("groups.conf"))
            .unwrap_or_else(|diagnostic| panic!("{diagnostic}\n{yaml}"));
        assert_eq!(
            (groups.default.clone(), ours(&groups)),
            oracle(&clush, &path("groups.conf"), &[]),
            "{yaml}"
        );
    }
}

#[test]
fn errors_in_groups_have_their_line() {
    for (text, line, part) in [
        ("", 1, "the file must be a table"),
        ("racks:\n  r1: n1\n r2: n2\n", 3, "that is not YAML"),
        ("racks: n1\n", 1, "a source must be a table"),
        ("racks:\n  r1:\n", 2, "a group is a set of hosts"),
        ("racks:\n  r1: n1\n  r2: {a: n1}\n", 3, "a group is a set of hosts"),
        ("racks:\n  r1: n1\n  r2: 'n[1-3'\n", 3, "is unmatched"),
        ("racks:\n  r1:\n    - n1\n    - 'n[1-1000000000]'\n", 4, "more than 100000 hosts"),
        ("racks:\n  r1: n*\n", 2, "wildcards"),
        ("racks:\n  r1: '^/etc/passwd'\n", 2, "cannot name a file"),
        ("racks:\n  r1: n1\n  r1: n2\n", 3, "is in line 2 already"),
        ("racks:\n  'r 1': n1\n", 2, "cannot be the name of a group"),
    ] {
        let diagnostic = clustershell::parse_yaml(text, Path::new("racks.yaml")).unwrap_err();
        assert_eq!(diagnostic.origin.line, Some(line), "{text:?}: {diagnostic}");
        assert!(diagnostic.reason.contains(part), "{text:?}: {diagnostic}");
    }
    for (text, line, part) in [
        ("# rooms\nlab\n", 2, "there is no colon"),
        ("lab: n[3-1]\n", 1, "counts backwards"),
        (": n1\n", 1, "cannot be the name of a group"),
        (" lab: n1\n", 1, "cannot be the name of a group"),
    ] {
        let diagnostic = clustershell::parse_flat(text, Path::new("local.cfg")).unwrap_err();
        assert_eq!(diagnostic.origin.line, Some(line), "{text:?}: {diagnostic}");
        assert!(diagnostic.reason.contains(part), "{text:?}: {diagnostic}");
    }
}

#[test]
fn errors_in_the_configuration_have_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("groups.conf");
    let root = directory.path().display();
    fs::create_dir(directory.path().join("groups.d")).unwrap();
    fs::write(directory.path().join("groups.d/a.yaml"), "racks:\n  r1: n1\n").unwrap();
    for (text, line, part) in [
        ("default: local\n", 1, "a section is missing"),
        ("[Main]\ndefault\n", 2, "a value is missing"),
        ("[Main]\ndefault: a\nDefault: b\n", 3, "default is set already"),
        ("[Main]\n[Main]\n", 2, "there is a section [Main] already"),
        ("[Main]\ndefault: racks\n", 2, "there is no source \"racks\""),
        ("[Main]\nautodir: \"x\n", 2, "a quote has no end"),
        (&format!("[Main]\nautodir: \"{root}/groups.conf\"\n"), 2, "is not a readable directory"),
        ("[slurm]\nlist: sinfo\n", 1, "has no map"),
        ("[a,b c]\nmap: true\n", 1, "cannot be the name"),
        (
            "[Main]\nautodir: $CFGDIR/groups.d\n[racks]\nmap: true\n",
            3,
            "there is a source \"racks\" already",
        ),
    ] {
        fs::write(&configuration, text).unwrap();
        let diagnostic = clustershell::read(&configuration).unwrap_err();
        assert_eq!(diagnostic.origin.line, Some(line), "{text:?}: {diagnostic}");
        assert!(diagnostic.reason.contains(part), "{text:?}: {diagnostic}");
    }
    let diagnostic = clustershell::read(&directory.path().join("none")).unwrap_err();
    assert!(diagnostic.reason.starts_with("there is no such file"), "{diagnostic}");
}

/// No upcall starts a program: these would create a file.
#[test]
fn upcalls_are_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let sed = r"sed -n 's/^$GROUP:\(.*\)/\1/p'";
    for upcall in [
        format!("touch {}", trace.display()),
        format!("touch {}; {sed} groups", trace.display()),
        format!("{sed} groups; touch {}", trace.display()),
        format!("{sed} $(touch {})", trace.display()),
    ] {
        fs::write(
            directory.path().join("groups.conf"),
            format!("[it]\nmap: {upcall}\nlist: {upcall}\n"),
        )
        .unwrap();
        let groups = clustershell::read(directory.path()).unwrap();
        assert_eq!(
            (groups.sources.len(), groups.ignored.len(), groups.default),
            (0, 1, None),
            "{upcall}"
        );
    }
    assert!(!trace.exists());
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(
        text in "([a-c0-9:@,!&^*'\"# \\[\\]-]|\\PC|\n|\n  |: |Main|map|sed -n |\\$CFGDIR){0,60}"
    ) {
        let _ = clustershell::parse_yaml(&text, Path::new("groups.yaml"));
        let _ = clustershell::parse_flat(&text, Path::new("local.cfg"));
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("groups.conf"), format!("[Main]\n{text}")).unwrap();
        let _ = clustershell::read(directory.path());
    }
}
