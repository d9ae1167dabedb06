//! The versions of labshd that hosts report, and what labsh shows while it waits for hosts.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread::JoinHandle;

use labsh_proto::frame::Kind;
use labsh_proto::message::{Body, Ping, Pong};
use serde_json::Value;

use crate::peer::fake_server::{Victim, welcome_from};
use crate::peer::message;
use crate::support::screen::Screen;
use crate::support::{HOST, Labshd, labsh_in, temp_dir, text};

/// A table of `hosts.toml`.
fn table(name: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "[hosts.{name}]\naddress = \"{ip}\"\nport = {port}\nplain = true\nhost_id = \
         \"{HOST}\"\nkey = \"test\"\n"
    )
}

/// Answers one ping.
fn serve(victim: &Victim, version: Option<&'static str>) -> (SocketAddr, JoinHandle<()>) {
    victim.serve(move |mut peer, key| {
        welcome_from(&mut peer, &key, 8, version);
        while let Some(frame) = peer.next().filter(|frame| frame.kind != Kind::Goodbye) {
            let Ping { token } = Ping::from_frame(&frame).unwrap();
            peer.send(&message(&Pong { token }, 0));
        }
    })
}

/// Runs `labsh hosts check` on servers of these versions, `h1` and so on.
fn check(versions: &[Option<&'static str>], options: &[&str]) -> Output {
    let victim = Victim::new();
    let (mut hosts, mut servers) = (String::new(), Vec::new());
    for (version, number) in versions.iter().zip(1..) {
        let (address, server) = serve(&victim, *version);
        hosts += &table(&format!("h{number}"), address);
        servers.push(server);
    }
    fs::write(victim.dir.path().join("config/labsh/hosts.toml"), hosts).unwrap();
    let output =
        labsh_in(victim.dir.path()).args(["hosts", "check"]).args(options).output().unwrap();
    servers.into_iter().for_each(|server| server.join().unwrap());
    output
}

/// Stderr after its first line, which counts the hosts that answered.
fn summary(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let stderr = text(&output.stderr);
    let (first, rest) = stderr.split_once('\n').unwrap();
    assert!(first.starts_with("labsh: ") && first.contains(" answered in "), "{stderr}");
    rest.lines().map(str::to_owned).collect()
}

#[test]
fn several_versions_are_listed_with_their_hosts() {
    let (old, new) = (Some("labshd 0.9.0"), Some("labshd 1.0.0"));
    let output = check(&[new, old, new, None, new], &[]);
    assert_eq!(
        summary(&output),
        [
            "labsh: labshd 1.0.0 (3): h[1,3,5]",
            "labsh: version not said (1): h4",
            "labsh: labshd 0.9.0 (1): h2"
        ]
    );
    let lines = text(&output.stdout);
    let of = |host: &str| lines.lines().find(|line| line.starts_with(host)).unwrap().to_owned();
    assert!(
        of("h2 ").ends_with(" ms, labshd 0.9.0") && of("h5 ").ends_with(" ms, labshd 1.0.0"),
        "{lines}"
    );
    assert!(of("h4 ").ends_with(" ms"), "{lines}");
}

#[test]
fn a_single_version_is_not_repeated_in_the_summary() {
    assert_eq!(summary(&check(&[Some("labshd 1.0.0"); 2], &[])), [""; 0]);
    assert_eq!(summary(&check(&[None; 2], &[])), [""; 0]);
}

#[test]
fn json_has_the_version_in_each_line() {
    let output = check(&[Some("labshd 1.0.0"), None], &["--json"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut versions: Vec<(String, Value)> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| (line["host"].as_str().unwrap().to_owned(), line["version"].clone()))
        .collect();
    versions.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(versions, [("h1".into(), "labshd 1.0.0".into()), ("h2".into(), Value::Null)]);
}

#[tokio::test]
async fn the_library_reports_the_version_over_tls() {
    let labshd = Labshd::start();
    let version = labshd.session().await.server_version().await.unwrap();
    assert_eq!(version.as_deref(), Some(concat!("labshd ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_hanging_host_is_named_while_labsh_waits() {
    let labshd = Labshd::start();
    // The kernel accepts connections, which no program answers.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = table("up", labshd.plain) + &table("hung", hung.local_addr().unwrap());
    fs::write(labshd.file("config/labsh/hosts.toml"), hosts).unwrap();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line("checked labsh hosts check --connect-timeout 1h hung,up");
    let shown = screen.wait_for("1 of 2 answered in ");
    assert!(shown.contains("waiting for "), "{shown}");
    let shown = screen
        .wait_until("only the one that hangs", |shown| shown.contains(", waiting for hung\n"));
    assert!(shown.lines().any(|line| line.starts_with("up ")), "{shown}");

    // This ends the connection.
    drop(hung);
    let shown = screen.wait_for("the terminal is as before");
    assert!(shown.contains("status 255") && !shown.contains("waiting for"), "{shown}");
    assert!(shown.contains("labsh: 1 of 2 answered in "), "{shown}");
    assert!(
        shown.lines().any(|line| line.starts_with("labsh: ") && line.contains(": hung: ")),
        "{shown}"
    );
}

#[test]
fn ping_has_no_option_without_effect() {
    let directory = temp_dir();
    let help = text(&labsh_in(directory.path()).args(["ping", "--help"]).output().unwrap().stdout);
    assert!(help.contains("--connect-timeout") && !help.contains("--keep"), "{help}");
}
