//! The inventory: hosts are listed with the origin of each value, checked, reached and enrolled.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::fleet::sorted_lines;
use crate::support::{
    HOST, LABSHD, Labshd, am_root, labsh_in, own_account, program, run, temp_dir, text, tools,
};

/// The version that labshd reports.
const VERSION: &str = concat!("labshd ", env!("CARGO_PKG_VERSION"));

/// A configuration directory with these two files.
fn world(config: &str, hosts: &str) -> TempDir {
    let directory = temp_dir();
    let files = directory.path().join("config/labsh");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("config.toml"), config).unwrap();
    fs::write(files.join("hosts.toml"), hosts).unwrap();
    directory
}

fn labsh(path: &Path, words: &[&str]) -> Output {
    labsh_in(path).args(words).output().unwrap()
}

fn stdout(path: &Path, words: &[&str]) -> String {
    let output = labsh(path, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    text(&output.stdout)
}

/// The error that a command line is refused with.
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
fn hosts_are_listed_with_their_settings() {
    let world = world(
        "[hosts.lab02]\naddress = \"10.0.0.2\"\nplain = true\n[hosts.\"bob@lab03\"]\nkey = \
         \"bobs\"\n",
        ROOMS,
    );
    let path = world.path();
    run(labsh_in(path).args(["key", "new", "alice"]));
    let listed = stdout(path, &["hosts"]);
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split("  ").collect::<Vec<_>>()).collect();
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
    // Several sets are a union: the exclusion applies to its own set only.
    let two = stdout(path, &["hosts", "lab02", "@cs!lab02"]);
    assert_eq!(two.lines().count(), 5, "{two}");

    let groups = stdout(path, &["hosts", "--groups"]);
    assert_eq!(
        groups,
        "GROUP  COUNT  HOSTS\ncs     4      lab[01-04]\nlab-a  4      lab[01-04]\nsome   3      \
         lab[01-03]\n"
    );
    let of_one: Vec<Value> = stdout(path, &["hosts", "--groups", "--json", "lab04"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        of_one.iter().map(|group| group["group"].as_str().unwrap()).collect::<Vec<_>>(),
        ["cs", "lab-a"]
    );
    assert_eq!(of_one[0]["names"], serde_json::json!(["lab04"]));
}

#[test]
fn every_value_is_shown_with_the_line_that_sets_it() {
    let world =
        world("[defaults]\nconnect_timeout = \"3s\"\n\n[hosts.lab03]\nkey = \"alice\"\n", ROOMS);
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
fn a_group_of_many_lines_shows_the_first_ones() {
    let tables: String =
        (1..=5).map(|host| format!("[hosts.lab{host}]\ngroups = [\"cs\"]\n")).collect();
    let world = world("", &tables);
    let shown = stdout(world.path(), &["hosts", "--origin", "lab4"]);
    let file = world.path().join("config/labsh/hosts.toml");
    let file = file.display();
    let origins = format!(" {file}:2, {file}:4, {file}:6, and 2 more lines\n");
    assert!(shown.contains(&origins), "{shown}");
}

#[test]
fn large_sets_and_files_are_read_whole() {
    const HOSTS: usize = 20_000;
    let tables: String =
        (1..=HOSTS).map(|host| format!("[hosts.n{host:05}]\ngroups = [\"cs\"]\n")).collect();
    let world = world("", &tables);
    let path = world.path();
    let count = |words: &[&str]| {
        let shown = stdout(path, &[&["hosts", "--groups", "--json"], words].concat());
        serde_json::from_str::<Value>(&shown).unwrap()["count"].as_u64().unwrap() as usize
    };
    assert_eq!(count(&[]), HOSTS);
    let odd: Vec<String> = (1..=HOSTS).step_by(2).map(|host| format!("n{host:05}")).collect();
    let excluded: Vec<&str> = odd.iter().flat_map(|name| ["-x", name]).collect();
    assert_eq!(count(&excluded), HOSTS / 2);
    let names: Vec<&str> = odd.iter().map(String::as_str).collect();
    assert_eq!(count(&names), HOSTS / 2);
    let differences = format!("@cs!{}", odd[..HOSTS / 4].join("!"));
    assert_eq!(count(&[&differences]), HOSTS - HOSTS / 4);
    let toggled = format!("@cs^{}", odd[..HOSTS / 4].join("^"));
    assert_eq!(count(&[&toggled]), HOSTS - HOSTS / 4);
    assert_eq!(count(&["@cs&n[00001-20000/2]&@*"]), HOSTS / 2);
}

#[test]
fn an_error_is_reported_with_file_and_line_and_similar_groups() {
    let world = world("", ROOMS);
    let path = world.path();
    let file = path.join("config/labsh/hosts.toml");
    let error = refusal(path, &["hosts", "@lab-aa"]);
    assert!(
        error.contains("there is no group \"lab-aa\"; perhaps @lab-a; there are: cs, lab-a, some"),
        "{error}"
    );
    assert!(refusal(path, &["run", "@som", "true"]).contains("perhaps @some"));
    assert!(refusal(path, &["hosts", "lab01!lab01"]).contains("is no host at all"));
    assert!(refusal(path, &["hosts", "lab[0-999999999]"]).contains("is there a digit too many?"));
    let list = path.join("list");
    fs::write(&list, "lab01 # the first\nlab[02-\n").unwrap();
    let error = refusal(path, &["hosts", &format!("^{}", list.display())]);
    assert!(
        error.contains(&format!("labsh: {}:2: \"lab[02-\": the bracket", list.display())),
        "{error}"
    );
    assert!(
        refusal(path, &["hosts", "^/dev/zero"])
            .contains("larger than 16 MiB; is it a list of hosts?")
    );
    for (hosts, error) in [
        ("[groups]\na = \"@b\"\nb = \"@a\"\n", ":2: the groups form a cycle: @a → @b → @a"),
        ("[groups]\na = \"@nowhere\"\n", ":2: there is no group \"nowhere\""),
        ("[groups]\na = \"lab[01-\"\n", ":2: \"lab[01-\": the bracket at position 4 is unmatched"),
        ("[hosts.\"lab[0-999999999]\"]\n", ":1: \"lab[0-999999999]\" is more than 100000 hosts"),
        ("[groups]\na = \"lab*\"\n", ":2: \"lab*\": wildcards cannot be used here"),
        ("[hosts.\"lab?\"]\n", ":1: \"lab?\": wildcards cannot be used here"),
        ("\n[hosts.a]\nprot = 1\n", ":3: unknown field `prot`"),
        ("[hosts.\"a!a\"]\n", ":1: \"a!a\" is an empty set"),
        (
            "[hosts.\"a,b\"]\nport = 1\n[hosts.\"b,c\"]\nport = 2\n",
            ":4: the port of b is \"2\" here and \"1\" in line 2, and both tables are for 2 hosts",
        ),
    ] {
        fs::write(&file, hosts).unwrap();
        let expected = format!("labsh: {}{error}", file.display());
        let refused = refusal(path, &["hosts"]);
        assert!(refused.contains(&expected), "{expected}\n{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    fs::write(&file, "[hosts.\"lab[01-02]\"]\naddress = \"{hots}.example\"\n").unwrap();
    let expected =
        format!("{}:2: \"{{hots}}.example\": {{host}} is the only placeholder", file.display());
    assert!(refusal(path, &["hosts"]).contains(&expected));
    fs::write(&file, "").unwrap();
    assert!(
        refusal(path, &["hosts"])
            .contains("no hosts are known; write them into ~/.config/labsh/hosts.toml")
    );
}

/// Hosts h01 to h04 on a labshd with an address for each; `dead` and `dead2`, which refuse
/// connections; and `stranger`, on which the key is not enrolled.
struct Lab {
    labshd: Labshd,
    _dead: Socket,
}

impl Lab {
    fn new(more: &str) -> Self {
        let address = |host: u8| Ipv4Addr::new(127, 1, 9, host);
        let labshd = Labshd::launch("", |command| {
            let file = PathBuf::from(command.get_args().last().unwrap());
            let addresses: String =
                (1..=4).map(|host| format!("'{}:0', ", address(host))).collect();
            let configuration = fs::read_to_string(&file).unwrap();
            fs::write(
                &file,
                configuration.replace("listen = [", &format!("listen = [{addresses}")),
            )
            .unwrap();
        });
        let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        dead.bind(&SocketAddrV4::new(address(5), 0).into()).unwrap();
        let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();
        let mut hosts = format!(
            "[hosts.\"h[01-04],dead,dead2\"]\nhost_id = \"{HOST}\"\nkey = \"test\"\n{more}\n"
        );
        let mut table = |name: &str, address: &str, port: u16| {
            hosts += &format!("[hosts.{name}]\naddress = \"{address}\"\nport = {port}\n");
        };
        for host in 1..=4 {
            let line = labshd.log().wait_for(&format!("listening address={}:", address(host)));
            let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
            table(&format!("h{host:02}"), &address(host).to_string(), port);
        }
        for name in ["dead", "dead2"] {
            table(name, &address(5).to_string(), dead_port);
        }
        table("stranger", &labshd.tls.ip().to_string(), labshd.tls.port());
        fs::write(labshd.file("config/labsh/hosts.toml"), hosts).unwrap();
        Self { labshd, _dead: dead }
    }

    fn path(&self) -> &Path {
        self.labshd.path()
    }
}

#[test]
fn hosts_check_reports_times_and_reasons() {
    let lab = Lab::new("");
    let good = labsh(lab.path(), &["hosts", "check", "h[01-04]"]);
    assert!(good.status.success(), "{good:?}");
    let lines = sorted_lines(&good.stdout);
    assert_eq!(lines.len(), 4);
    for (line, host) in lines.iter().zip(1..) {
        assert!(line.starts_with(&format!("h{host:02}  127.1.9.{host}:")), "{line}");
        let (_, times) = line.split_once("  authenticated in ").unwrap();
        let times: Vec<f64> = times
            .strip_suffix(&format!(" ms, {VERSION}"))
            .unwrap()
            .split(" ms, round trip ")
            .map(|time| time.parse().unwrap())
            .collect();
        assert!(times.len() == 2 && times.iter().all(|time| *time > 0.0), "{line}");
    }
    let stderr = text(&good.stderr);
    assert!(
        stderr.starts_with("labsh: 4 of 4 answered in ") && stderr.contains("slowest h0"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "all are of one version: {stderr}");
    assert_eq!(lab.labshd.log().count("command started"), 0, "nothing is run");

    // All known hosts.
    let bad = labsh(lab.path(), &["hosts", "check", "-x", "h04"]);
    assert_eq!(bad.status.code(), Some(255), "{bad:?}");
    let lines = sorted_lines(&bad.stdout);
    assert_eq!(lines.len(), 6);
    assert!(lines[0].starts_with("dead ") && lines[0].ends_with("  unreachable"), "{lines:?}");
    assert!(lines[5].starts_with("stranger  ") && lines[5].ends_with("  refused"), "{lines:?}");
    let stderr = text(&bad.stderr);
    assert!(stderr.contains("dead,dead2 have one address, 127.1.9.5:"), "{stderr}");
    assert!(stderr.contains("labsh: 3 of 6 answered in "), "{stderr}");
    assert!(
        stderr.contains("labsh: unreachable (2): dead,dead2: cannot connect to HOST"),
        "{stderr}"
    );
    assert!(
        stderr.contains("labsh: refused: stranger: ") && stderr.contains("labsh key enroll test"),
        "{stderr}"
    );

    let json = labsh(lab.path(), &["hosts", "check", "--json", "h01,stranger"]);
    assert_eq!(json.status.code(), Some(125), "{json:?}");
    assert!(json.stderr.is_empty(), "{json:?}");
    let mut lines: Vec<Value> =
        text(&json.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["host"].to_string());
    assert_eq!((&lines[0]["outcome"], &lines[0]["version"]), (&"ok".into(), &VERSION.into()));
    assert!(
        lines[0]["authenticated_ms"].as_f64().unwrap() > 0.0 && lines[0]["round_trip_ms"].is_f64()
    );
    assert_eq!(lines[1]["outcome"], "refused");
    assert!(
        lines[1]["error"]["reason"].as_str().unwrap().contains("is not the host stranger"),
        "{json:?}"
    );
}

#[test]
fn commands_run_as_the_user_that_the_inventory_names() {
    let me = own_account(0);
    let lab = Lab::new(&format!("user = \"{me}\"\n[hosts.\"h[02-03]\"]\nuser = \"another-user\""));
    let many = labsh(lab.path(), &["run", "-n", "h[01-04]", "id -un"]);
    assert_eq!(many.status.code(), Some(125), "{many:?}");
    assert_eq!(sorted_lines(&many.stdout), [format!("h01: {me}"), format!("h04: {me}")]);
    assert!(text(&many.stderr).contains("labsh: refused (2): h[02-03]: "), "{many:?}");
    for words in [&["run", "-n", "h02", "id -un"][..], &["rsh", "-n", "h02", "id -un"]] {
        let refused = labsh(lab.path(), words);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
        assert!(text(&refused.stderr).contains("another-user"), "{refused:?}");
    }
    // The command line overrides the inventory.
    assert_eq!(
        stdout(lab.path(), &["run", "-n", "--user", &me, "h02", "id -un"]),
        format!("{me}\n")
    );
    assert_eq!(stdout(lab.path(), &["rsh", "-n", "-l", &me, "h02", "id -un"]), format!("{me}\n"));
    assert!(stdout(lab.path(), &["rsh", "-G", "h02"]).contains("\nuser another-user\n"));
    let dry = stdout(lab.path(), &["run", "--dry-run", "h[01-02]", "true"]);
    assert!(dry.contains(", user another-user\n"), "{dry}");
    // With -F the other files are not read.
    let alone = labsh(lab.path(), &["rsh", "-G", "-F", "none", "h02"]);
    assert!(alone.status.success() && !text(&alone.stdout).contains("another-user"), "{alone:?}");
}

#[test]
fn enrolling_a_set_writes_a_file_for_each_host_and_prints_how_to_add_them() {
    let labshd = Labshd::start();
    let path = labshd.path();
    let hosts = format!(
        "[hosts.\"lab[01-03]\"]\naddress = \"{}\"\nport = {}\nhost_id = \"id-of-{{host}}\"\n",
        labshd.tls.ip(),
        labshd.tls.port()
    );
    fs::write(labshd.file("config/labsh/hosts.toml"), hosts).unwrap();
    let (set, out) = ("lab[01-03]", labshd.file("to go"));
    let error = refusal(path, &["key", "enroll", "--host", set]);
    assert!(error.contains("lab[01-03] are 3 hosts") && error.contains("--out DIR"), "{error}");
    let error = refusal(path, &["key", "enroll", "--host", set, "--out", &out, "--host-id", "x"]);
    assert!(error.contains("write host_id into hosts.toml"), "{error}");

    let enroll = ["key", "enroll", "test", "--host", set, "--out", &out];
    let enrolled = labsh(path, &enroll);
    assert!(enrolled.status.success() && enrolled.stdout.is_empty(), "{enrolled:?}");
    let mode = |file: &str| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&out), 0o700);
    for host in ["lab01", "lab02", "lab03"] {
        let file = format!("{out}/{host}.enroll");
        assert_eq!(mode(&file), 0o600);
        let line = fs::read_to_string(&file).unwrap();
        assert!(
            line.starts_with(&format!("labsh-host-1 test id-of-{host} "))
                && line.lines().count() == 1
        );
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 3);

    // Existing files are not replaced unless that is requested, and then no file is written.
    fs::remove_file(format!("{out}/lab03.enroll")).unwrap();
    let error = refusal(path, &enroll);
    assert!(
        error.contains("there are files for lab[01-02] in ") && error.contains("--force"),
        "{error}"
    );
    assert!(!Path::new(&format!("{out}/lab03.enroll")).exists());
    run(labsh_in(path).args(enroll).arg("--force"));

    // Runs the command of the note, with an ssh that runs it locally.
    let bin = labshd.file("bin");
    fs::create_dir(&bin).unwrap();
    let ssh = format!(
        "#!/bin/sh\nshift 3\nexec '{LABSHD}' --config '{}' \"$@\"\n",
        labshd.file("labshd.toml")
    );
    fs::write(format!("{bin}/ssh"), ssh).unwrap();
    fs::set_permissions(format!("{bin}/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let note = text(&enrolled.stderr);
    assert_eq!(note.lines().count(), 1, "{note}");
    let line = &note[note.find("for file in ").unwrap()..];
    let line = line.replace("--user USER", if am_root() { "--user root" } else { "" });
    let search_path = tools::search_path_after(&[Path::new(&bin)]);
    run(program("sh").args(["-c", &line]).env("PATH", search_path));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "what has arrived is deleted");
    labshd.reload();
    let answers = stdout(path, &["run", "--key", "test", set, "echo here"]);
    let mut answers: Vec<&str> = answers.lines().collect();
    answers.sort_unstable();
    assert_eq!(answers, ["lab01: here", "lab02: here", "lab03: here"]);

    let revoked = stdout(path, &["key", "revoke", "test"]);
    for host in ["lab01", "lab02", "lab03"] {
        assert!(
            revoked.contains(&format!("labshd key remove test --host id-of-{host} ")),
            "{revoked}"
        );
    }
}

#[test]
fn enrolment_files_are_not_written_where_others_can_add_files() {
    let world = world("", "");
    let path = world.path();
    run(labsh_in(path).args(["key", "new", "alice"]));
    let out = path.join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o1777)).unwrap();
    let error =
        refusal(path, &["key", "enroll", "--host", "lab[01-03]", "--out", out.to_str().unwrap()]);
    assert!(error.contains("everybody may put files into"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn enrolment_files_that_cannot_be_written_are_named() {
    let world = world("", "");
    let path = world.path();
    run(labsh_in(path).args(["key", "new", "alice"]));
    let out = path.join("out");
    fs::create_dir_all(out.join("lab02.enroll/full")).unwrap();
    let out = out.display().to_string();
    let error = refusal(path, &["key", "enroll", "--host", "lab[01-03]", "--out", &out, "--force"]);
    assert!(
        error.contains(&format!("not written to {out}: lab02: "))
            && error.contains("all others were"),
        "{error}"
    );
    assert!(
        Path::new(&format!("{out}/lab01.enroll")).exists()
            && Path::new(&format!("{out}/lab03.enroll")).exists()
    );
    let error =
        refusal(path, &["key", "enroll", "--host", "lab01:1,lab01:2", "--out", &out, "--force"]);
    assert!(error.contains("lab01:1 and lab01:2 would be the same file"), "{error}");
    // A set of one host is treated like a host.
    assert!(
        stdout(path, &["key", "enroll", "--host", "lab01,lab01"])
            .starts_with("labsh-host-1 alice lab01 ")
    );
}
