//! Compares Ansible's inventories with what `ansible-inventory` lists.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the end-to-end tests do where a tool is not installed.
#[path = "../../../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub)]
mod tools;

mod support;

use labsh_diagnostics::Diagnostic;
use labsh_inventory::{Setting, Source, ansible_ini, ansible_yaml};
use proptest::prelude::*;
use serde_json::{Map, Value};
use support::{Contents, contents, values};

/// Returns the inventory that `ansible-inventory` lists.
fn listed(tool: &Path, text: &str, extension: &str) -> Contents {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(format!("hosts.{extension}"));
    fs::write(&file, text).unwrap();
    listed_file(tool, &file)
}

fn listed_file(tool: &Path, file: &Path) -> Contents {
    let home = tempfile::tempdir().unwrap();
    let mut command = tools::program(tool);
    command.args(["--list", "-i"]).arg(file).env("ANSIBLE_INVENTORY_UNPARSED_FAILED", "true");
    let list: Map<String, Value> =
        serde_json::from_str(&output(&mut command, home.path())).unwrap();
    let names = |group: &Value, what: &str| -> Vec<String> {
        let names = group.get(what).and_then(Value::as_array).into_iter().flatten();
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    fn gather(
        list: &Map<String, Value>,
        name: &str,
        names: &dyn Fn(&Value, &str) -> Vec<String>,
    ) -> BTreeSet<String> {
        let Some(group) = list.get(name) else { return BTreeSet::new() };
        let children = names(group, "children");
        let inherited = children.iter().flat_map(|child| gather(list, child, names));
        inherited.chain(names(group, "hosts")).collect()
    }
    let groups = list.keys().filter(|name| *name != "_meta");
    let groups = groups.map(|name| (name.clone(), gather(&list, name, &names))).collect();
    Contents { groups, hosts: hosts(&list["_meta"]["hostvars"]) }
}

/// Returns inventories as Ansible's library parses them, all in one process.
fn parsed_by_ansible(tool: &Path, texts: &[String], extension: &str) -> Vec<Contents> {
    let directory = tempfile::tempdir().unwrap();
    let file = |index: usize| directory.path().join(format!("{index}.{extension}"));
    for (index, text) in texts.iter().enumerate() {
        fs::write(file(index), text).unwrap();
    }
    let mut command = tools::program(tools::python_of(tool));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles/inventories.py"));
    command.args((0..texts.len()).map(file));
    let output = output(&mut command, directory.path());
    let lines = output.lines().map(|line| {
        let inventory: Value = serde_json::from_str(line).unwrap();
        Contents {
            groups: serde_json::from_value(inventory["groups"].clone()).unwrap(),
            hosts: hosts(&inventory["hosts"]),
        }
    });
    lines.collect()
}

/// Runs a tool of Ansible's with a home and a configuration of its own.
fn output(command: &mut Command, directory: &Path) -> String {
    let configuration = directory.join("ansible.cfg");
    fs::write(&configuration, "").unwrap();
    command.env("ANSIBLE_HOME", directory).env("ANSIBLE_CONFIG", configuration);
    let output = command.current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn hosts(variables: &Value) -> BTreeMap<String, BTreeMap<String, String>> {
    let hosts = variables.as_object().unwrap().iter();
    hosts.map(|(host, variables)| (host.clone(), settings(host, variables))).collect()
}

/// Returns the settings of a host according to the connection plugin's documentation.
fn settings(host: &str, variables: &Value) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = variables
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    let labsh = variables.get("ansible_connection").is_some_and(|connection| connection == "labsh");
    let mut settings = BTreeMap::new();
    for (setting, names) in [
        ("address", &["ansible_ssh_host", "ansible_host", "ansible_labsh_target"][..]),
        (
            "port",
            if labsh { &["ansible_port", "ansible_labsh_port"] } else { &["ansible_labsh_port"] },
        ),
        ("user", &["ansible_ssh_user", "ansible_user", "ansible_labsh_user"]),
        ("key", &["ansible_labsh_key"]),
        ("host-id", &["ansible_labsh_host_id"]),
        ("plain", &["ansible_labsh_plain"]),
    ] {
        for name in names {
            // An empty value hides those of lower precedence, and the plugin passes nothing on.
            if let Some(value) = variables.remove(*name) {
                settings
                    .insert(setting.to_owned(), value.replace("{{ inventory_hostname }}", host));
            }
        }
    }
    settings.retain(|_, value| !value.is_empty());
    settings.extend(variables.into_iter().map(|(name, value)| (format!("variable {name}"), value)));
    settings
}

/// Returns our result, with booleans as in Ansible's list.
fn ours(source: &Source) -> Contents {
    let mut contents = contents(source);
    for settings in contents.hosts.values_mut() {
        for value in settings.values_mut() {
            // The INI form holds Python's literals, with a capital letter.
            if value == "True" || value == "False" {
                value.make_ascii_lowercase();
            }
        }
    }
    contents
}

fn compare(text: &str, source: Result<Source, Diagnostic>, theirs: Contents) {
    let source = source.unwrap_or_else(|diagnostic| panic!("{diagnostic}\n{text}"));
    let mut ours = ours(&source);
    // Ansible does not list empty groups.
    ours.groups.retain(|name, hosts| !hosts.is_empty() || theirs.groups.contains_key(name));
    assert_eq!(ours.groups, theirs.groups, "{text}");
    for (host, values) in theirs.hosts {
        assert_eq!(ours.hosts.get(&host), Some(&values), "{host} in {text}");
    }
}

fn tool() -> Option<PathBuf> {
    tools::need(
        "ansible-inventory",
        "python3 -m venv target/ansible-venv && target/ansible-venv/bin/pip install ansible-core",
    )
}

/// An inventory that can be written in both forms.
#[derive(Debug)]
struct Sketch {
    groups: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    children: BTreeSet<&'static str>,
    hosts: Vec<(&'static str, BTreeMap<&'static str, &'static str>)>,
    variables: BTreeMap<&'static str, &'static str>,
}

/// A group's children come after it in this list, so that there are no cycles.
const GROUPS: [&str; 7] = ["all", "zebra", "building", "lab", "alpha", "rack", "gpu"];

fn variables(max: usize) -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    let variable = prop::sample::select(vec![
        ("ansible_host", "10.0.0.1"),
        ("ansible_host", "gate.example"),
        ("ansible_host", "'{{ inventory_hostname }}.example'"),
        ("ansible_labsh_target", "other.example"),
        ("ansible_user", "root"),
        ("ansible_user", "student"),
        ("ansible_ssh_user", "old"),
        ("ansible_labsh_user", "tutor"),
        ("ansible_connection", "labsh"),
        ("ansible_connection", "ssh"),
        ("ansible_port", "2222"),
        ("ansible_labsh_port", "7222"),
        ("ansible_labsh_key", "teacher"),
        ("ansible_labsh_host_id", "'{{ inventory_hostname }}'"),
        ("ansible_labsh_plain", "true"),
        ("ansible_labsh_plain", "false"),
        ("row", "1"),
        ("row", "'2 of 3'"),
        ("row", "\"third # row\""),
        ("model", "x86"),
        ("model", "'it\"s'"),
        ("backup", "True"),
    ]);
    prop::collection::vec(variable, 0..max).prop_map(|pairs| pairs.into_iter().collect())
}

fn part(index: usize) -> impl Strategy<Value = Part> {
    let pattern = prop::sample::select(vec![
        "lab[1:6]",
        "lab[01:07:2]",
        "lab3",
        "lab05",
        "n[a:d].example",
        "n[b:f:2].example",
        "r[1:2]n[09:11]",
        "gate:2022",
        "gate",
        "lab[2:4]:2023",
        "10.1.2.[1:3]",
        "[2001:db8::1]:2024",
        "2001:db8::7",
    ]);
    let hosts = prop::collection::vec((pattern, variables(3)), 0..4);
    let children = prop::collection::btree_set(prop::sample::select(GROUPS.to_vec()), 0..3);
    (hosts, children, variables(4)).prop_map(move |(hosts, mut children, variables)| {
        children.retain(|child| GROUPS.iter().position(|group| group == child).unwrap() > index);
        // YAML does not allow a pattern twice in a group.
        let hosts: BTreeMap<_, _> = hosts.into_iter().collect();
        Part { name: GROUPS[index], children, hosts: hosts.into_iter().collect(), variables }
    })
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let groups: Vec<_> = (0..GROUPS.len()).map(part).collect();
    (groups, 0..GROUPS.len()).prop_map(|(mut groups, turn)| {
        groups.rotate_left(turn);
        Sketch { groups }
    })
}

impl Sketch {
    fn ini(&self) -> String {
        let mut text = "# made by a test\n\n".to_owned();
        for group in &self.groups {
            let _ = writeln!(text, "[{}] # hosts", group.name);
            for (pattern, variables) in &group.hosts {
                text.push_str(pattern);
                for (name, value) in variables {
                    let _ = write!(text, " {name}={value}");
                }
                text.push_str(" # a comment\n");
            }
            let _ = writeln!(text, "; vars\n[{}:vars]", group.name);
            for (name, value) in &group.variables {
                let _ = writeln!(text, "{name} = {value}");
            }
            let _ = writeln!(text, "[{}:children]", group.name);
            for child in &group.children {
                let _ = writeln!(text, "  {child}");
            }
        }
        text
    }

    fn yaml(&self) -> String {
        let mut text = "---\n".to_owned();
        for group in &self.groups {
            let _ = writeln!(text, "{}: # hosts\n  hosts:", group.name);
            for (pattern, variables) in &group.hosts {
                let _ = writeln!(text, "    \"{pattern}\":");
                for (name, value) in variables {
                    let _ = writeln!(text, "      {name}: {value}");
                }
            }
            text.push_str("  vars:\n");
            for (name, value) in &group.variables {
                let _ = writeln!(text, "    {name}: {value} # a comment");
            }
            let children: Vec<String> =
                group.children.iter().map(|child| format!("{child}: ")).collect();
            let _ = writeln!(text, "  children: {{{}}}", children.join(", "));
        }
        text
    }
}

#[test]
fn generated_ini_inventories_are_read_as_ansible_reads_them() {
    let Some(tool) = tool() else { return };
    let texts: Vec<String> = values(100, sketch()).iter().map(Sketch::ini).collect();
    let theirs = parsed_by_ansible(&tool, &texts, "ini");
    assert_eq!(theirs.len(), texts.len());
    for (text, theirs) in texts.iter().zip(theirs) {
        compare(text, ansible_ini::parse(text, Path::new("hosts.ini")), theirs);
    }
}

/// A typical inventory with many edge cases.
const INI: &str = r#"
; hosts in no group come first
mail.example.com
localhost ansible_connection=local
jump:2200 ansible_user="a b" note='single # quoted' plus=a\ b

[web]
www[01:50:2].example.com   http_port=80 ansible_user=www # from the room's plan
db-[a:f].example.com
one ansible_host=192.0.2.50 ansible_user=''

[empty]

[atlanta]
www03.example.com ansible_user=atl
same

[atlanta:vars]
ntp_server=ntp.atlanta.example.com
proxy = "with = sign" # and a comment
ansible_labsh_key = teacher
nothing=None
words=no quotes # are part of it

[raleigh]
same
www05.example.com

[raleigh:vars]
ansible_group_priority=10
ntp_server=ntp.raleigh.example.com

[southeast:children]
atlanta
raleigh # the other half

[southeast:vars]
ntp_server=never
some_server=foo.southeast.example.com
ansible_labsh_user = se

[usa:children]
southeast
web

[usa:vars]
some_server=never
country=usa

[all:vars]
country=none
ansible_connection=labsh
ansible_port=7022
"#;

#[test]
fn edge_cases_of_the_ini_form_are_read_as_ansible_reads_them() {
    let Some(tool) = tool() else { return };
    compare(INI, ansible_ini::parse(INI, Path::new("hosts.ini")), listed(&tool, INI, "ini"));
}

/// Files of variables beside an inventory: name and content.
const VARIABLE_FILES: [(&str, &str); 14] = [
    ("group_vars/all.yml", "---\ncountry: everywhere\nansible_labsh_port: 7200\nmotd: all\n"),
    ("group_vars/web/main.yml", "http_port: 8080\nansible_user: web\nfrom: main\n"),
    ("group_vars/web/extra", "from: extra\n"),
    ("group_vars/web/more/deep.json", "{\"rack\": \"r1\"}\n"),
    ("group_vars/web/.hidden.yml", "from: hidden\n"),
    ("group_vars/web/old.yml~", "from: old\n"),
    ("group_vars/web/notes.txt", "no variables\n"),
    ("group_vars/web.yml", "from: never, the directory comes first\n"),
    ("group_vars/atlanta", "ntp_server: atlanta.file\n"),
    ("group_vars/raleigh.yaml", "# nothing yet\n"),
    (
        "group_vars/southeast.json",
        "{\"ntp_server\": \"southeast.file\", \"ansible_labsh_key\": null}\n",
    ),
    ("group_vars/unknown.yml", "[not read\n"),
    ("host_vars/same.yml", "ntp_server: same.file\nansible_host: 192.0.2.9\n"),
    ("host_vars/www03.example.com", "ansible_user: three\n"),
];

fn write_variable_files(directory: &Path) {
    for (name, text) in VARIABLE_FILES {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

#[test]
fn files_of_variables_are_read_as_ansible_reads_them() {
    let Some(tool) = tool() else { return };
    let directory = tempfile::tempdir().unwrap();
    write_variable_files(directory.path());
    let (ini, yaml) = (directory.path().join("hosts"), directory.path().join("hosts.yml"));
    fs::write(&ini, INI).unwrap();
    fs::write(&yaml, YAML).unwrap();
    compare(INI, ansible_ini::read(&ini), listed_file(&tool, &ini));
    compare(YAML, ansible_yaml::read(&yaml), listed_file(&tool, &yaml));
}

#[test]
fn a_value_from_a_file_of_variables_has_its_line_there() {
    let directory = tempfile::tempdir().unwrap();
    write_variable_files(directory.path());
    let ini = directory.path().join("hosts");
    fs::write(&ini, INI).unwrap();
    let address = |source: &Source| {
        let mut tables = source.tables.iter();
        let table = tables.find(|table| table.settings.address.as_deref() == Some("192.0.2.9"));
        table.map(|table| (table.hosts.to_string(), table.origin.clone()))
    };
    let (hosts, origin) = address(&ansible_ini::read(&ini).unwrap()).unwrap();
    assert_eq!((hosts.as_str(), origin.line), ("same", Some(2)));
    assert_eq!(*origin.path, *directory.path().join("host_vars/same.yml"));
    // A file that is encrypted as a whole is skipped; an invalid one is an error.
    fs::write(&origin.path, "$ANSIBLE_VAULT;1.1;AES256\n3161\n").unwrap();
    assert_eq!(address(&ansible_ini::read(&ini).unwrap()), None);
    for (text, line, part) in [
        ("a: 1\nb: [\n", 2, "that is not YAML"),
        ("- a\n", 1, "variables are a table"),
        ("a: 1\nansible_labsh_port: http\n", 2, "from 1 to 65535"),
    ] {
        fs::write(&origin.path, text).unwrap();
        let diagnostic = ansible_ini::read(&ini).unwrap_err();
        assert_eq!(
            (&diagnostic.origin.path, diagnostic.origin.line),
            (&origin.path, Some(line)),
            "{diagnostic}"
        );
        assert!(diagnostic.reason.contains(part), "{diagnostic}");
    }
}

#[test]
fn each_value_has_its_line() {
    let source = ansible_ini::parse(INI, Path::new("/etc/ansible/hosts")).unwrap();
    let origin = |host: &str, value: &str| {
        let table = source.tables.iter().find(|table| {
            table.hosts.contains(host)
                && table.settings.variables.values().any(|other| other == value)
        });
        table.unwrap().origin.to_string()
    };
    assert_eq!(origin("www07.example.com", "80"), "/etc/ansible/hosts:8");
    assert_eq!(origin("same", "ntp.raleigh.example.com"), "/etc/ansible/hosts:31");
    assert_eq!(source.groups["southeast"].members, "@atlanta,@raleigh");
    assert_eq!(source.groups["southeast"].origin.line, Some(33));
}

#[test]
fn errors_in_the_ini_form_have_their_line() {
    for (text, line, part) in [
        ("[web\nlab1\n", 1, "a bracket is unmatched"),
        ("[web ]\nlab1\n", 1, "is not a section"),
        ("[web:hosst]\n", 1, "children, vars or hosts"),
        ("lab1\nlab[5:1]\n", 2, "counts backwards"),
        ("lab[1:1000000000]\n", 1, "too many hosts"),
        ("lab[01:5]\n", 1, "different widths"),
        ("lab[1:5:0]\n", 1, "whole number from 1"),
        ("lab[x]\n", 1, "the end is missing"),
        ("lab[1:5\n", 1, "is unmatched"),
        ("lab1 user\n", 1, "is not a variable"),
        ("lab1 a='x\n", 1, "a quote has no end"),
        ("lab1 a=x\\\n", 1, "missing after the backslash"),
        ("lab!1\n", 1, "has a meaning in sets of hosts"),
        ("\nlab*\n", 2, "wildcards"),
        ("root@lab1\n", 1, "is a user"),
        ("-lab1\n", 1, "is an option"),
        ("lab1:\n", 1, "a colon"),
        ("[a:vars]\nx=1\n", 1, "the group a is not declared"),
        ("[a:children]\nb\n", 2, "the group b is not declared"),
        ("[a:vars]\nx\n", 2, "name=value"),
        ("[a:children]\nb\n[b:children]\nc\n[c:children]\na\n", 2, "form a cycle: a ← c ← b ← a"),
        ("[a:children]\na\n", 2, "form a cycle: a ← a"),
        ("[a:children]\nall\n", 1, "form a cycle"),
        ("lab1 ansible_labsh_port=ssh\n", 1, "from 1 to 65535"),
        ("lab1 ansible_labsh_port=0\n", 1, "from 1 to 65535"),
        ("lab1 ansible_labsh_plain=perhaps\n", 1, "true or false"),
        ("[a]\n[a:vars]\nansible_group_priority=high\n", 3, "whole number"),
    ] {
        let diagnostic = ansible_ini::parse(text, Path::new("hosts.ini")).unwrap_err();
        assert_eq!(diagnostic.origin.line.unwrap_or(0), line, "{text:?}: {diagnostic}");
        assert!(diagnostic.reason.contains(part), "{text:?}: {diagnostic}");
        assert!(diagnostic.to_string().starts_with(&format!("hosts.ini:{line}: ")), "{diagnostic}");
    }
}

#[test]
fn generated_yaml_inventories_are_read_as_ansible_reads_them() {
    let Some(tool) = tool() else { return };
    let texts: Vec<String> = values(100, sketch()).iter().map(Sketch::yaml).collect();
    let theirs = parsed_by_ansible(&tool, &texts, "yml");
    assert_eq!(theirs.len(), texts.len());
    for (text, theirs) in texts.iter().zip(theirs) {
        compare(text, ansible_yaml::parse(text, Path::new("hosts.yml")), theirs);
    }
}

const YAML: &str = r#"---
# groups within groups, as they are usually written
all:
  hosts:
    mail.example.com:
    jump:2200:
      ansible_user: "a b"
      disks: [sda, {size: large}]
  vars: &common
    ansible_connection: labsh
    ansible_port: 7022
    country: none
  children:
    usa:
      children:
        southeast:
          children:
            atlanta:
              hosts:
                www[01:05:2].example.com: {http_port: 80, nothing: null}
                same:
              vars:
                ntp_server: ntp.atlanta.example.com
                ansible_labsh_key: teacher
                motd: |
                  two
                  lines
            raleigh:
              hosts: {same: , www05.example.com: ~}
              vars:
                ansible_group_priority: 10
                ntp_server: ntp.raleigh.example.com
                <<: *common
          vars:
            ntp_server: never
            ansible_labsh_plain: no
            ansible_labsh_port: !!str 7100
        web:
          hosts: "db-[a:f].example.com"
          children: empty
      vars:
        country: 'usa'
        ansible_host: "{{ inventory_hostname }}.usa"
empty:
"#;

#[test]
fn edge_cases_of_the_yaml_form_are_read_as_ansible_reads_them() {
    let Some(tool) = tool() else { return };
    compare(YAML, ansible_yaml::parse(YAML, Path::new("hosts.yaml")), listed(&tool, YAML, "yaml"));
}

#[test]
fn an_inventory_that_ansible_exports_is_read_with_the_same_values() {
    let Some(tool) = tool() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (ini, yaml) = (directory.path().join("hosts.ini"), directory.path().join("hosts.yaml"));
    fs::write(&ini, INI).unwrap();
    let mut command = tools::program(tool);
    command.args(["--list", "--yaml", "--export", "-i"]).arg(&ini).arg("--output").arg(&yaml);
    output(&mut command, directory.path());
    let (ini, yaml) = (ansible_ini::read(&ini).unwrap(), ansible_yaml::read(&yaml).unwrap());
    assert_eq!(ours(&yaml).hosts, ours(&ini).hosts);
}

#[test]
fn errors_in_the_yaml_form_have_their_line() {
    let deep = "a: ".to_owned() + &"[".repeat(100_000);
    let nested = format!("a: {}1", "\n x:".repeat(3));
    for (text, line, part) in [
        ("", 0, "there is nothing in it"),
        ("# nothing\n", 0, "there is nothing in it"),
        ("- lab1\n", 1, "a table of groups"),
        ("all:\n  hosts:\n    lab1:\n\tlab2:\n", 4, "that is not YAML"),
        ("all:\n  hosts:\n    lab1: [\n", 3, "that is not YAML"),
        ("all:\n  hosts: [lab1]\n", 2, "must be a table"),
        ("all:\n  host:\n    lab1:\n", 2, "\"host\" is not part of a group"),
        ("all:\n  hosts:\n    lab1: yes\n", 3, "a host's variables must be a table"),
        ("all: lab1\n", 1, "a group must be a table"),
        ("plugin: aws_ec2\n", 1, "only Ansible can"),
        ("all:\n  hosts:\n    lab1:\n  hosts:\n    lab2:\n", 4, "\"hosts\" is in line 2 already"),
        ("all:\n  hosts:\n    lab[1:1000000000]:\n", 3, "too many hosts"),
        ("a:\n  children:\n    b:\n      children:\n        a:\n", 3, "form a cycle: a ← b ← a"),
        ("all:\n  hosts:\n    lab1:\n      ansible_host: [10.0.0.1]\n", 4, "is not a single value"),
        ("all: {}\n---\nall: {}\n", 2, "a second document"),
        ("a: &a\n  children: {b: *a}\n", 2, "refers to a node that contains it"),
        ("a:\n  vars:\n    <<: 1\n", 3, "<< takes a table"),
        ("a:\n  vars:\n    ? [x]\n    : 1\n", 3, "needs a name"),
        (&deep, 1, ""),
        (&nested, 4, "that is not YAML"),
    ] {
        let diagnostic = ansible_yaml::parse(text, Path::new("hosts.yml")).unwrap_err();
        assert_eq!(diagnostic.origin.line.unwrap_or(0), line, "{text:?}: {diagnostic}");
        assert!(diagnostic.reason.contains(part), "{text:?}: {diagnostic}");
    }
}

/// Returns the unusable settings of an inventory: hosts, setting, line, and the variable to set
/// instead.
fn unusable(source: &Source) -> Vec<(String, Setting, usize, &str)> {
    let mut all = Vec::new();
    for table in &source.tables {
        for (setting, reason) in &table.settings.unusable {
            let remedy =
                reason.rsplit_once("; set ").unwrap().1.strip_suffix(" to a plain value").unwrap();
            all.push((table.hosts.to_string(), *setting, table.origin.line.unwrap(), remedy));
        }
    }
    all
}

#[test]
fn a_value_that_only_ansible_can_evaluate_affects_only_its_hosts() {
    let ini = "lab1 ansible_host={{address}}\nlab2 ansible_connection=labsh ansible_port={{port}}\n\
               [a]\nlab3\nlab4 ansible_labsh_user=bob\n[a:vars]\nansible_user={{ boss }}\n";
    let source = ansible_ini::parse(ini, Path::new("hosts.ini")).unwrap();
    let expected = [
        ("lab1".to_owned(), Setting::Address, 1, "ansible_labsh_target"),
        ("lab2".to_owned(), Setting::Port, 2, "ansible_labsh_port"),
        ("lab3".to_owned(), Setting::User, 7, "ansible_labsh_user"),
    ];
    assert_eq!(unusable(&source), expected);
    let yaml =
        "all:\n  vars:\n    ansible_user: !vault |\n      $ANSIBLE_VAULT;1.1\n  hosts: lab1\n";
    let source = ansible_yaml::parse(yaml, Path::new("hosts.yml")).unwrap();
    assert_eq!(unusable(&source), [("lab1".to_owned(), Setting::User, 3, "ansible_labsh_user")]);
}

#[test]
fn an_address_with_a_zone_is_a_host() {
    let source = ansible_ini::parse("fe80::1%eth0\n", Path::new("hosts.ini")).unwrap();
    assert_eq!(source.groups["all"].members, "@ungrouped");
    assert_eq!(source.groups["ungrouped"].members, "fe80::1%eth0");
}

#[test]
fn nested_aliases_are_bounded() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let again = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(laughs, "a{level}: &a{level} [{again}]");
    }
    let diagnostic = ansible_yaml::parse(&laughs, Path::new("hosts.yml")).unwrap_err();
    assert!(diagnostic.reason.contains("split the file"), "{diagnostic}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let diagnostic = ansible_ini::read(&directory.path().join("none")).unwrap_err();
    assert!(diagnostic.reason.starts_with("there is no such file"), "{diagnostic}");
    let diagnostic = ansible_ini::read(directory.path()).unwrap_err();
    assert!(diagnostic.reason.starts_with("cannot read it: "), "{diagnostic}");
    let latin = directory.path().join("latin");
    fs::write(&latin, b"lab1\nl\xe4b2\n").unwrap();
    let diagnostic = ansible_ini::read(&latin).unwrap_err();
    assert_eq!(
        (diagnostic.origin.line, diagnostic.reason.contains("UTF-8")),
        (Some(2), true),
        "{diagnostic}"
    );
    let diagnostic = ansible_ini::read(Path::new("/dev/zero")).unwrap_err();
    assert!(diagnostic.reason.contains("it is a device"), "{diagnostic}");
    let large = directory.path().join("large");
    fs::File::create(&large).unwrap().set_len((16 << 20) + 1).unwrap();
    let diagnostic = ansible_ini::read(&large).unwrap_err();
    assert!(diagnostic.reason.contains("larger than 16 MiB"), "{diagnostic}");
}

/// Files of a few megabytes with billions of hosts, or with a long chain or cycle of groups.
#[test]
fn large_inventories_are_refused_with_a_short_message() {
    let many_ranges = "lab[1:100000]\n".repeat(1000);
    let mut nested = "[g0]\nlab[1:10000]\n".to_owned();
    for group in 1..20_000 {
        let _ = write!(nested, "[g{group}:children]\ng{}\n", group - 1);
    }
    let mut cycle = "[g0:children]\ng99999\n".to_owned();
    for group in 1..100_000 {
        let _ = write!(cycle, "[g{group}:children]\ng{}\n", group - 1);
    }
    let long = format!("{}[1:100000]\n", "x".repeat(1 << 20));
    for text in [many_ranges, nested, cycle, long] {
        let diagnostic = ansible_ini::parse(&text, Path::new("hosts.ini")).unwrap_err();
        assert!(diagnostic.reason.len() < 200, "{diagnostic}");
    }
}

proptest! {
    #[test]
    fn no_yaml_text_causes_a_panic(
        text in "([a-c\\[\\]:{}, &*#\"'\\\\|>!?-]|\n|\n  |\\PC|: |hosts:|vars:|children:|<<: |&a \
            |\\*a){0,60}"
    ) {
        let _ = ansible_yaml::parse(&text, Path::new("hosts.yml"));
        let _ = ansible_yaml::parse(&format!("all:\n  hosts:\n    {text}"), Path::new("hosts.yml"));
    }

    #[test]
    fn no_ini_text_causes_a_panic(text in "([a-c\\[\\]:= \
        #\"'\\\\{}@,0-9\n]|\\PC|\\[a\\]\n|:vars\\]\n|:children\\]\n){0,60}") {
        let _ = ansible_ini::parse(&text, Path::new("hosts.ini"));
    }
}
