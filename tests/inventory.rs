//! Hosts as files tell of them: listed, with the place of each value; asked, refused, reached; and given keys.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{labsh_in, run, text};

/// A configuration directory with these two files.
fn world(config: &str, hosts: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix("labsh-inventory-").tempdir().unwrap();
    let files = directory.path().join("config/labsh");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("config.toml"), config).unwrap();
    fs::write(files.join("hosts.toml"), hosts).unwrap();
    directory
}

fn labsh(path: &Path, words: &[&str]) -> Output {
    let mut command = labsh_in(path);
    for variable in ["LABSH_PORT", "LABSH_HOST_ID", "LABSH_CONNECT_TIMEOUT"] {
        command.env_remove(variable);
    }
    command.args(words).output().unwrap()
}

fn stdout(path: &Path, words: &[&str]) -> String {
    let output = labsh(path, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    text(&output.stdout)
}

/// What is said of wrong use.
fn refusal(path: &Path, words: &[&str]) -> String {
    let output = labsh(path, words);
    assert_eq!(output.status.code(), Some(125), "{words:?}: {output:?}");
    text(&output.stderr)
}

const ROOMS: &str = "[groups]
lab-a = \"lab[01-04]\"
some = \"@lab-a!lab04\"

[hosts.\"@lab-a\"]
address = \"{host}.cs.example\"
port = 5300
groups = [\"cs\"]
variables = { floor = 2 }

[hosts.lab03]
user = \"bob\"
";

#[test]
fn hosts_are_listed_with_what_is_known_of_them() {
    let world = world(
        "[hosts.lab02]\naddress = \"10.0.0.2\"\nplain = true\n[hosts.\"bob@lab03\"]\nkey = \"bobs\"\n",
        ROOMS,
    );
    let path = world.path();
    run(labsh_in(path).args(["key", "new", "alice"]));
    let listed = stdout(path, &["hosts"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split("  ").collect::<Vec<_>>()).collect();
    assert_eq!(rows.len(), 5, "{listed}");
    assert!(listed.starts_with("HOST   ADDRESS                "), "{listed}");
    for line in [
        "lab01  lab01.cs.example:5300  alice  -     cs lab-a some",
        "lab02  10.0.0.2:5300 (plain)  alice  -     cs lab-a some",
        "lab03  lab03.cs.example:5300  bobs   bob   cs lab-a some",
        "lab04  lab04.cs.example:5300  alice  -     cs lab-a",
    ] {
        assert!(listed.lines().any(|listed| listed == line), "{line}\n{listed}");
    }
    let some = stdout(path, &["hosts", "-x", "lab01", "@some"]);
    let names: Vec<&str> = some.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["lab02", "lab03"]);

    let groups = stdout(path, &["hosts", "--groups"]);
    assert_eq!(
        groups,
        "GROUP  COUNT  HOSTS\ncs     4      lab[01-04]\nlab-a  4      lab[01-04]\nsome   3      lab[01-03]\n"
    );
    let of_one: Vec<Value> = stdout(path, &["hosts", "--groups", "--json", "lab04"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        of_one.iter().map(|group| group["group"].as_str().unwrap()).collect::<Vec<_>>(),
        ["cs", "lab-a"]
    );
    assert_eq!(of_one[0]["hosts"], serde_json::json!(["lab04"]));
}

#[test]
fn every_value_is_shown_with_the_line_it_comes_from() {
    let world = world("[defaults]\nconnect_timeout = \"3s\"\n\n[hosts.lab03]\nkey = \"alice\"\n", ROOMS);
    let path = world.path();
    let files = path.join("config/labsh");
    let mut command = labsh_in(path);
    let output = run(command.env("LABSH_PORT", "77").args(["hosts", "--origin", "lab03"]));
    let shown = text(&output.stdout);
    let line_of = |what: &str| {
        let line = shown.lines().find(|line| line.trim_start().starts_with(what)).unwrap();
        line[what.len() + 2..].split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let (config, hosts) = (files.join("config.toml"), files.join("hosts.toml"));
    let (config, hosts) = (config.display(), hosts.display());
    assert_eq!(shown.lines().next(), Some("lab03"));
    assert_eq!(line_of("address"), format!("lab03.cs.example {hosts}:6"));
    assert_eq!(line_of("port"), "77 environment");
    assert_eq!(line_of("host_id"), "lab03 default");
    assert_eq!(line_of("key"), format!("alice {config}:4"));
    assert_eq!(line_of("user"), format!("bob {hosts}:12"));
    assert_eq!(line_of("connect_timeout"), format!("3s {config}:1"));
    assert_eq!(line_of("group     "), format!("cs {hosts}:8"));
    assert_eq!(line_of("variable floor"), format!("2 {hosts}:9"));

    let line: Value = serde_json::from_str(&stdout(path, &["hosts", "--json", "lab03"])).unwrap();
    assert_eq!(line["address"], "lab03.cs.example");
    assert_eq!(line["port"], 5300);
    assert_eq!(line["user"], "bob");
    assert_eq!(line["variables"]["floor"], "2");
    assert_eq!(line["groups"], serde_json::json!(["cs", "lab-a", "some"]));
    assert_eq!(line["origins"]["port"], format!("{hosts}:7"));
    assert_eq!(line["origins"]["plain"], "default");
}

#[test]
fn a_mistake_is_named_with_its_file_and_line_and_a_group_with_its_neighbour() {
    let world = world("", ROOMS);
    let path = world.path();
    let file = path.join("config/labsh/hosts.toml");
    let told = refusal(path, &["hosts", "@lab-aa"]);
    assert!(
        told.contains("there is no group \"lab-aa\"; perhaps @lab-a; there are: cs, lab-a, some"),
        "{told}"
    );
    assert!(refusal(path, &["run", "@som", "true"]).contains("perhaps @some"));
    assert!(refusal(path, &["hosts", "lab01!lab01"]).contains("is no host at all"));
    assert!(refusal(path, &["hosts", "lab[0-999999999]"]).contains("is there a digit too many?"));
    for (hosts, told) in [
        ("[groups]\na = \"@b\"\nb = \"@a\"\n", ":2: the groups go round in a circle: @a → @b → @a"),
        ("[groups]\na = \"@nowhere\"\n", ":2: there is no group \"nowhere\""),
        ("[groups]\na = \"lab[01-\"\n", ":2: \"lab[01-\": the bracket at position 4 has no partner"),
        ("[hosts.\"lab[0-999999999]\"]\n", ":1: \"lab[0-999999999]\" are more than 100000 hosts"),
        ("\n[hosts.a]\nprot = 1\n", ":3: unknown field `prot`"),
        ("[hosts.\"a!a\"]\n", ":1: \"a!a\" is no host at all"),
        (
            "[hosts.\"a,b\"]\nport = 1\n[hosts.\"b,c\"]\nport = 2\n",
            ":4: the port of b is \"2\" here and \"1\" in line 2, and both tables are for 2 hosts",
        ),
    ] {
        fs::write(&file, hosts).unwrap();
        let expected = format!("labsh: {}{told}", file.display());
        let refused = refusal(path, &["hosts"]);
        assert!(refused.contains(&expected), "{expected}\n{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    fs::write(&file, "").unwrap();
    assert!(
        refusal(path, &["hosts"]).contains("no hosts are known; write them into ~/.config/labsh/hosts.toml")
    );
}
