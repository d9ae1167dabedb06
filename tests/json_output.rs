//! The JSON that the programs print: valid for the schemas in docs/schema, the only text on the
//! stream that carries it, and described in the guide.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::many_hosts::Lab;
use crate::support::json_schema::Schemas;
use crate::support::markdown;
use crate::support::{
    LABSHD, Labshd, Running, am_root, labsh_in, pipe_through, program, run, text,
};

/// Runs labsh with files of the lab, and an empty stdin.
fn labsh(lab: &Lab, words: &[&str]) -> Output {
    pipe_through(lab.labshd.labsh().args(words), b"")
}

/// The lines of a schema that a command prints on stdout; its stderr holds messages of the schema.
fn stdout(schemas: &Schemas, file: &str, output: &Output) -> Vec<Value> {
    schemas.lines(file, &text(&output.stderr));
    schemas.lines(file, &text(&output.stdout))
}

/// The values of a field, of the lines that have it.
fn all<'a>(lines: &'a [Value], field: &str) -> Vec<&'a Value> {
    lines.iter().filter_map(|line| line.get(field)).collect()
}

#[test]
fn one_host_and_many_have_the_same_line_for_an_outcome() {
    let (lab, schemas) = (Lab::new(), Schemas::load());
    for (host, words, outcome, status) in [
        ("h01", "echo a; echo bc >&2; exit 3", "exited", 3),
        ("h01", "true", "ok", 0),
        ("h01", "kill -9 $$", "signaled", 137),
        ("h01", "sleep 300", "timed-out", 124),
        ("dead", "true", "unreachable", 255),
        ("stranger", "true", "refused", 255),
    ] {
        let of_one = labsh(&lab, &["run", "--json", "--timeout", "200ms", host, words]);
        let script_stderr = if outcome == "exited" { "bc\n" } else { "" };
        let stderr = text(&of_one.stderr);
        let one = schemas.lines("run.json", stderr.strip_prefix(script_stderr).unwrap());
        assert_eq!(one.len(), 1, "{stderr}");

        let set = format!("{host},{host}");
        let of_many = labsh(&lab, &["run", "--json", "--timeout", "200ms", &set, words]);
        let many = stdout(&schemas, "run.json", &of_many);
        let over = many.iter().find(|line| line["event"] == "over").unwrap();
        let fields = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&one[0]), fields(over));
        for line in [&one[0], over] {
            assert_eq!((&line["outcome"], &line["exit_status"]), (&json!(outcome), &json!(status)));
            assert_eq!(line["host"], host);
        }
        let summary = many.last().unwrap();
        assert_eq!(summary["outcomes"], json!({ outcome: { "count": 1, "set": host } }));
        assert_eq!(summary["hosts"][host]["outcome"], outcome);
        assert_eq!(summary["exit_status"], of_many.status.code().unwrap());
        for field in fields(over).iter().filter(|name| !["event", "host"].contains(&&***name)) {
            assert_eq!(summary["hosts"][host][field], over[field], "{field}");
        }
    }
}

#[test]
fn events_of_many_hosts_follow_the_schema() {
    let (lab, schemas) = (Lab::new(), Schemas::load());
    let words = [
        "run",
        "--json",
        "--connect-timeout",
        "1s",
        "h[01-02],mute",
        r"printf a; printf '\377' >&2",
    ];
    let events = stdout(&schemas, "run.json", &labsh(&lab, &words));
    assert_eq!(all(&events, "text"), ["a", "a"]);
    assert_eq!(all(&events, "bytes"), [&json!([255]), &json!([255])]);
    let rolling = ["run", "--json=summary", "--rolling", "1", "dead,h[01-02]", "true"];
    let summary = stdout(&schemas, "run.json", &labsh(&lab, &rolling));
    assert_eq!(summary[0]["hosts"]["h01"]["outcome"], "not-begun");
    let highest = ["run", "--json=summary", "--max-status", "h[01-02]", "exit 7"];
    assert_eq!(stdout(&schemas, "run.json", &labsh(&lab, &highest))[0]["exit_status"], 7);

    let last = stdout(&schemas, "last.json", &labsh(&lab, &["last", "--json"]));
    assert_eq!((&last[0]["command"], &last[0]["exit_status"]), (&json!("exit 7"), &json!(7)));
    assert_eq!(last[0]["hosts"]["h02"]["code"], 7);
    assert!(last[0]["when"].is_string() && last[0]["outcomes"]["exited"]["set"] == "h[01-02]");
}

#[test]
fn copies_pings_checks_and_explanations_follow_their_schemas() {
    let (lab, schemas) = (Lab::new(), Schemas::load());
    let file = lab.labshd.file("notes");
    fs::write(&file, "12345").unwrap();
    let to = format!("h01,dead:{}", lab.labshd.file("copied"));
    let copied = labsh(&lab, &["cp", "--json", &file, &to]);
    let events = stdout(&schemas, "cp.json", &copied);
    assert_eq!(copied.status.code(), Some(255));
    let summary = events.last().unwrap();
    assert_eq!(summary["hosts"]["dead"]["outcome"], "unreachable");
    let files = json!({ "copied": 1, "unchanged": 0, "failed": 0, "bytes": 5 });
    assert_eq!(summary["files"], files);
    let last = stdout(&schemas, "last.json", &labsh(&lab, &["last", "--json"]));
    assert_eq!(last[0]["files"], summary["files"]);

    // One host has the same lines; a file that cannot be copied is a message.
    let missing = lab.labshd.file("missing");
    let one = labsh(&lab, &["cp", "--json", &missing, &format!("h01:{missing}")]);
    assert_eq!(one.status.code(), Some(1));
    let messages = schemas.lines("cp.json", &text(&one.stderr));
    assert!(all(&messages, "host").iter().all(|host| *host == "h01") && !messages.is_empty());
    let events = stdout(&schemas, "cp.json", &one);
    assert_eq!(all(&events, "event"), ["started", "over", "summary"]);
    assert_eq!(events[1]["outcome"], "exited");
    let summary = labsh(&lab, &["cp", "--json=summary", &file, &format!("h01:{file}2")]);
    assert_eq!(all(&stdout(&schemas, "cp.json", &summary), "event"), ["summary"]);

    let pinged = stdout(&schemas, "ping.json", &labsh(&lab, &["ping", "--json", "-c", "2", "h01"]));
    assert_eq!(all(&pinged, "event"), ["authenticated", "answer", "answer", "over"]);
    let dead = labsh(&lab, &["ping", "--json", "dead"]);
    assert_eq!(dead.status.code(), Some(255));
    assert_eq!(stdout(&schemas, "ping.json", &dead)[0]["error"]["code"], "unreachable");

    let check = labsh(&lab, &["hosts", "check", "--json", "h01,dead,stranger"]);
    let checked = stdout(&schemas, "hosts-check.json", &check);
    assert_eq!(checked.len(), 3);
    let explained = labsh(&lab, &["explain", "--json", "h01,dead,stranger", "true"]);
    let explained = stdout(&schemas, "explain.json", &explained);
    assert_eq!(all(&explained, "would_run"), [&Value::Null, &json!(true), &json!(false)]);
    // What is the same has the same name in both.
    for (one, other) in checked
        .iter()
        .map(|line| (line, explained.iter().find(|other| other["host"] == line["host"]).unwrap()))
    {
        for field in ["host", "address", "port", "outcome", "exit_status"] {
            assert_eq!(one[field], other[field], "{field}");
        }
        assert_eq!(one["error"]["code"], other["error"]["code"]);
    }
}

#[test]
fn a_command_that_labsh_leaves_has_a_reason_and_a_remedy() {
    let (lab, schemas) = (Lab::of(1), Schemas::load());
    let words = ["run", "--json", "h01", "echo $$; exec sleep 300"];
    let mut labsh = Running::start(lab.labshd.labsh().args(words));
    labsh.pid_line();
    labsh.signal(1);
    let lines = schemas.lines("run.json", &text(&labsh.finish().stderr));
    assert_eq!((&lines[0]["outcome"], lines.len()), (&json!("left"), 1), "{lines:?}");
    assert_eq!(lines[0]["error"]["reason"], "labsh left");
    assert_eq!(lines[0]["error"]["remedy"], "the host ends the command, if it still runs");
}

#[test]
fn hosts_and_keys_follow_their_schemas() {
    let (lab, schemas) = (Lab::new(), Schemas::load());
    let inventory = "[groups]\nall = 'h[01-12]'\n[hosts.h01]\nvariables = { rack = 'r1' }\n";
    fs::write(lab.labshd.file("config/labsh/hosts.toml"), inventory).unwrap();
    let hosts = stdout(&schemas, "hosts.json", &labsh(&lab, &["hosts", "--json"]));
    let h01 = hosts.iter().find(|line| line["host"] == "h01").unwrap();
    assert_eq!((&h01["variables"]["rack"], &h01["groups"]), (&json!("r1"), &json!(["all"])));
    let groups = stdout(&schemas, "hosts.json", &labsh(&lab, &["hosts", "--groups", "--json"]));
    assert_eq!((&groups[0]["set"], &groups[0]["names"][0]), (&json!("h[01-12]"), &json!("h01")));

    fs::write(lab.labshd.file("config/labsh/keys/broken.key"), "").unwrap();
    let keys = stdout(&schemas, "key-list.json", &labsh(&lab, &["key", "list", "--json"]));
    assert_eq!(all(&keys, "key"), ["broken", "test"]);
    assert_eq!(keys[0]["error"]["code"], "key");
    assert!(keys[1]["host_ids"].as_array().unwrap().contains(&json!("localhost")));

    let configuration = lab.labshd.file("labshd.toml");
    let list = |more: &[&str]| {
        let mut labshd = program(LABSHD);
        labshd.args(["--config", &configuration, "key", "list", "--json"]).args(more);
        labshd.output().unwrap()
    };
    let permitted = stdout(&schemas, "labshd-key-list.json", &list(&[]));
    assert!(permitted.iter().any(|line| line["host_id"] == "localhost"), "{permitted:?}");
    assert_eq!(permitted[0]["user"].is_null(), !am_root());
    fs::write(lab.labshd.file("keys.d/broken.toml"), "key = 1").unwrap();
    for (output, code) in [(list(&[]), "configuration"), (list(&["--nonsense"]), "usage")] {
        assert!(!output.status.success());
        let lines = schemas.lines("labshd-key-list.json", &text(&output.stderr));
        assert_eq!(lines[0]["error"]["code"], code, "{lines:?}");
        assert!(lines[0]["error"]["remedy"].is_string(), "{lines:?}");
    }
}

#[test]
fn an_error_before_anything_starts_is_json_and_nothing_else() {
    let (labshd, schemas) = (Labshd::start(), Schemas::load());
    let target = labshd.target();
    fs::write(labshd.file("config/labsh/hosts.toml"), "[groups]\nall = 'h[01-02]'\n").unwrap();
    for (words, code) in [
        (&["run", "--json", "@nosuch", "true"][..], "hosts"),
        (&["run", "--json", "--gather", "h[01-02]", "true"], "other"),
        (&["run", "--json", "-t", &target, "true"], "other"),
        (&["run", "--key", "nosuch", "--json", &target, "true"], "key"),
        (&["run", "--json", "--timeout", "soon", &target, "true"], "usage"),
        (&["run", "--timeout", "soon", "--json", &target, "true"], "usage"),
        (&["run", "-n", "--timeout=soon", "-p", "x", "--json=summary", &target], "usage"),
        (&["run", "--json=nonsense", &target, "true"], "usage"),
        (&["run", "--json"], "usage"),
        (&["shell", "--json", &target], "other"),
        (&["try", "--json", "--status-fd", "77", "true"], "other"),
        (&["cp", "--json", "a", "b"], "other"),
        (&["cp", "a", "--json"], "usage"),
        (&["ping", "--json", "-c", "0", &target], "usage"),
        (&["hosts", "--json", "@nosuch"], "hosts"),
        (&["hosts", "check", "--json", "@nosuch"], "hosts"),
        (&["hosts", "check", "--connecting", "x", "--json"], "usage"),
        (&["hosts", "--json", "--origin"], "usage"),
        (&["explain", "--json", "@nosuch", "true"], "hosts"),
        (&["last", "--json"], "other"),
        (&["key", "list", "--json", "more"], "usage"),
    ] {
        let output = pipe_through(labshd.labsh().args(words), b"");
        assert_eq!(output.status.code(), Some(125), "{words:?}: {output:?}");
        let lines = schemas.lines("run.json", &text(&output.stderr));
        assert_eq!(lines.len(), 1, "{words:?}: {lines:?}");
        assert_eq!((&lines[0]["event"], &lines[0]["exit_status"]), (&json!("error"), &json!(125)));
        assert_eq!(lines[0]["error"]["code"], code, "{words:?}: {lines:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    // A word of the command, or the value of another option, asks for nothing.
    for words in [
        &["run", "--timeout", "soon", &target, "echo", "--json"][..],
        &["run", "--timeout", "soon", "--cwd", "--json", &target, "true"],
        &["run", "--timeout", "soon", "--", "--json"],
    ] {
        let stderr = text(&pipe_through(labshd.labsh().args(words), b"").stderr);
        assert!(!stderr.starts_with('{'), "{words:?}: {stderr}");
    }
    // A broken file is named apart from its error.
    let file = labshd.file("config/labsh/hosts.toml");
    for wrong in ["\nnonsense = 1\n", "[groups]\na = '@nosuch'\n"] {
        fs::write(&file, wrong).unwrap();
        let output = labshd.labsh().args(["hosts", "--json"]).output().unwrap();
        let error = &schemas.lines("hosts.json", &text(&output.stderr))[0]["error"];
        assert_eq!((&error["file"], &error["line"]), (&json!(file), &json!(2)), "{error}");
    }
}

#[test]
fn messages_are_lines_of_json_where_json_is_asked_for() {
    let (lab, schemas) = (Lab::new(), Schemas::load());
    let verbose = labsh(&lab, &["run", "--json", "--verbose", "h01", "true"]);
    let lines = schemas.lines("run.json", &text(&verbose.stderr));
    assert_eq!(all(&lines, "event"), ["note", "over"]);

    // Two names of one address are worth a warning.
    let configuration = lab.labshd.file("config/labsh/config.toml");
    let mut hosts = fs::read_to_string(&configuration).unwrap();
    let h01 = hosts.split("[hosts.h02]").next().unwrap().split("[hosts.h01]").nth(1).unwrap();
    hosts += &format!("[hosts.twin]{h01}");
    fs::write(&configuration, hosts).unwrap();
    let copied = format!("h01,twin:{}", lab.labshd.file("copied"));
    for words in [
        &["run", "--json", "h01,twin", "true"][..],
        &["hosts", "check", "--json", "h01,twin"],
        &["cp", "--json", &lab.labshd.file("labshd.toml"), &copied],
    ] {
        let output = labsh(&lab, words);
        let notes = schemas.lines("run.json", &text(&output.stderr));
        assert!(notes[0]["text"].as_str().unwrap().contains("one address"), "{notes:?}");
    }

    let empty = lab.labshd.file("empty");
    let none = run(labsh_in(empty.as_ref()).args(["key", "list", "--json"]));
    let notes = schemas.lines("key-list.json", &text(&none.stderr));
    assert!(notes[0]["text"].as_str().unwrap().contains("labsh key new"), "{notes:?}");
}

#[test]
fn the_status_fd_gets_the_reason_why_nothing_was_started() {
    let (labshd, schemas) = (Labshd::start(), Schemas::load());
    let file = labshd.file("status");
    let script = format!("exec \"$@\" 7>'{file}'");
    for (host, words) in [
        ("@nosuch", ["--key", "test"]),
        ("localhost", ["--key", "nosuch"]),
        ("localhost", ["--timeout", "soon"]),
    ] {
        let mut command = labshd.labsh();
        command.args(["run", "--status-fd", "7"]).args(words).args([host, "true"]);
        let output = crate::support::in_shell(&script, &command).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(text(&output.stderr).starts_with("labsh: "), "{output:?}");
        let lines = schemas.lines("run.json", &fs::read_to_string(&file).unwrap());
        assert_eq!(lines[0]["event"], "error");
    }
}

#[test]
fn the_guide_names_every_field() {
    let schemas = Schemas::load();
    for folder in ["docs/guide", "docs/guide.zh-CN"] {
        let chapter = format!("{}/{folder}/json.md", env!("CARGO_MANIFEST_DIR"));
        let chapter = fs::read_to_string(chapter).unwrap();
        let spans = markdown::spans(&chapter);
        for file in schemas.files() {
            let link = format!("../schema/{file})");
            assert!(file == "common.json" || chapter.contains(&link), "{folder}: {file}");
            for name in schemas.properties(file) {
                assert!(spans.contains(&name), "{folder}: {name} of {file} is missing");
            }
        }
    }
}
