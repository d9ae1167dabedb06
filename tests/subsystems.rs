//! Subsystems, programs that clients request by name: which exist, and the refusal of others.

use bytes::Bytes;
use labsh_client::{CommandError, Stdio};
use labsh_proto::message::{Refuse, RefuseCode};
use tokio::io::AsyncReadExt;

use crate::support::{LABSHD, Labshd, TEST_TIMEOUT, program, run, text, tools};

async fn output(labshd: &Labshd, name: &str) -> Result<labsh_client::Output, CommandError> {
    labshd.session().await.subsystem(name).output().await
}

async fn refused(labshd: &Labshd, name: &str) -> Refuse {
    match output(labshd, name).await {
        Err(CommandError::Refused(refuse)) => refuse,
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_subsystem_gets_exact_words_stdin_and_stdout() {
    let labshd =
        Labshd::with("subsystems.echo = ['/bin/sh', '-c', 'echo \"$1\"; cat', 'sh', 'a  b *']");
    let session = labshd.session().await;
    let mut child = session.subsystem("echo").stdin(Stdio::Piped).spawn().await.unwrap();
    child.stdin.as_mut().unwrap().send(Bytes::from_static(b"typed\n")).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(text(&output.stdout), "a  b *\ntyped\n");
    labshd.log().wait_for("subsystem echo");
}

#[tokio::test]
async fn an_unknown_subsystem_is_refused_with_the_known_ones() {
    let labshd =
        Labshd::with("subsystems.alpha = '/bin/true'\nsubsystems.gone = '/no/such/program'");
    assert!(output(&labshd, "alpha").await.unwrap().status.success());
    for name in ["beta", "../alpha", "alph\u{1b}", &"x".repeat(100_000)] {
        let refuse = refused(&labshd, name).await;
        assert_eq!(refuse.code, RefuseCode::SUBSYSTEM);
        assert!(refuse.reason.contains("alpha, gone"), "{refuse:?}");
        assert!(refuse.remedy.contains("[subsystems] in labshd.toml"), "{refuse:?}");
    }
    assert_eq!(refused(&labshd, "gone").await.code, RefuseCode::NOT_FOUND);
}

#[tokio::test]
async fn a_reload_changes_the_subsystems() {
    let labshd = Labshd::with("subsystems.one = '/bin/true'");
    assert!(output(&labshd, "one").await.is_ok());
    labshd.configure("subsystems.two = '/bin/true'");
    labshd.reload();
    assert!(output(&labshd, "two").await.is_ok());
    assert_eq!(refused(&labshd, "one").await.code, RefuseCode::SUBSYSTEM);
    // An error is reported with its line, and the old configuration stays.
    labshd.configure("# first\nsubsystems.one = 'true'");
    labshd.reload();
    let file = labshd.file("labshd.toml");
    labshd.log().wait_for(&format!("{file}:2: subsystems: one: "));
    assert!(output(&labshd, "two").await.is_ok());
}

#[tokio::test]
async fn check_lists_the_subsystems() {
    let labshd =
        Labshd::with("subsystems.one = ['/bin/true', 'word']\nsubsystems.two = '/no/such/program'");
    let mut check = program(LABSHD);
    let stdout = text(
        &run(check.arg("--config").arg(labshd.path().join("labshd.toml")).arg("check")).stdout,
    );
    assert!(stdout.contains("one: /bin/true word\n"), "{stdout}");
    assert!(stdout.contains("two: /no/such/program  (this program does not exist)\n"), "{stdout}");
}

#[tokio::test]
async fn sftp_exists_where_its_server_is_installed() {
    let labshd = Labshd::start();
    if tools::need("/usr/lib/openssh/sftp-server", "apt-get install openssh-sftp-server").is_none()
    {
        return;
    }
    // SSH_FXP_INIT with version 3, and SSH_FXP_VERSION in answer (draft-ietf-secsh-filexfer-02).
    let session = labshd.session().await;
    let mut child = session.subsystem("sftp").stdin(Stdio::Piped).spawn().await.unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .send(Bytes::from_static(&[0, 0, 0, 5, 1, 0, 0, 0, 3]))
        .await
        .unwrap();
    let mut answer = [0; 9];
    let answered = child.stdout.as_mut().unwrap().read_exact(&mut answer);
    tokio::time::timeout(TEST_TIMEOUT, answered).await.unwrap().unwrap();
    assert_eq!(answer[4..], [2, 0, 0, 0, 3]);
}
