//! Runs the recipes of docs/guide/in-place-of-ssh.md: git, rsync, scp and other tools over labsh.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::{
    LABSH, Labshd, eventually, kill, own_files, program, run, temp_dir, text, tools,
};

/// Where Debian installs OpenSSH's server for sftp, and labshd looks for it.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// A host called lab07, and a local and a remote directory in which recipes run.
struct Workspace {
    labshd: Labshd,
    dir: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let labshd = Labshd::start();
        let config = format!(
            "[hosts.lab07]\naddress = \"127.0.0.1\"\nport = {}\nhost_id = \"127.0.0.1\"\n",
            labshd.tls.port()
        );
        fs::write(labshd.file("config/labsh/config.toml"), config).unwrap();
        let dir = temp_dir();
        for part in ["here", "srv", "home"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        Self { labshd, dir }
    }

    fn local(&self, name: &str) -> PathBuf {
        self.dir.path().join("here").join(name)
    }

    fn remote(&self, name: &str) -> PathBuf {
        self.dir.path().join("srv").join(name)
    }

    /// A shell script in which `/srv` is replaced by the remote directory.
    fn shell(&self, script: &str) -> Command {
        let srv = self.dir.path().join("srv").display().to_string();
        let mut command = program("sh");
        command.arg("-e").arg("-c").arg(script.replace("/srv", &srv));
        self.furnish(&mut command);
        command
    }

    /// The environment of a user who has installed labsh.
    fn furnish(&self, command: &mut Command) {
        let path = tools::search_path_after(&[Path::new(LABSH).parent().unwrap()]);
        command.current_dir(self.dir.path().join("here"));
        command.env("PATH", path).env("HOME", self.dir.path().join("home"));
        own_files(command, self.labshd.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "A Student");
            command.env(format!("GIT_{role}_EMAIL"), "student@example.org");
        }
        command.stdin(Stdio::null());
    }

    fn recipe(&self, name: &str) -> Output {
        let output = self.shell(&recipe(name)).output().unwrap();
        assert!(
            output.status.success(),
            "the recipe {name}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        output
    }
}

/// The code block after this mark in docs/guide/in-place-of-ssh.md.
pub fn recipe(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/in-place-of-ssh.md");
    let document = fs::read_to_string(path).unwrap();
    let mark = format!("<!-- recipe: {name} -->\n```sh\n");
    let after = document.split_once(&mark).unwrap_or_else(|| panic!("no recipe {name}")).1;
    after.split_once("```").unwrap().0.to_owned()
}

/// The files below a directory, with their digests.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let digest = Sha256::digest(fs::read(&path).unwrap()).to_vec();
                found.push((path.strip_prefix(directory).unwrap().to_owned(), digest));
            }
        }
    }
    found.sort();
    found
}

/// Creates a tree of files that hold a million bytes together, with every byte value.
fn binary_tree(directory: &Path) {
    for folder in 0..10 {
        let folder = directory.join(format!("folder {folder}/deep"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..10_u32 {
            let bytes: Vec<u8> =
                (0..10_000_u32).map(|at| (at * 31 + file * 7 + at / 256) as u8).collect();
            fs::write(folder.join(format!("file-{file}.bin")), bytes).unwrap();
        }
    }
}

#[test]
fn git_clones_pushes_and_fetches() {
    if tools::need("git", "apt-get install git").is_none() {
        return;
    }
    let workspace = Workspace::new();
    run(&mut workspace.shell(
        // The user's configuration on the host may name other hooks.
        "git init -q --bare /srv/project.git && git -C /srv/project.git config core.hooksPath hooks
         git clone -q /srv/project.git first && cd first && echo hello > notes.txt && git add . && \
         git commit -q -m First && git push -q origin HEAD",
    ));
    workspace.recipe("git");
    let log = run(&mut workspace.shell("git -C /srv/project.git log --format=%s"));
    assert_eq!(text(&log.stdout), "Add a line\nFirst\n");
    let mut traced = workspace.shell("git -C project ls-remote");
    let traced = run(traced.env("GIT_SSH_COMMAND", "labsh rsh").env("GIT_TRACE_PACKET", "1"));
    assert!(text(&traced.stderr).contains("< version 2"), "{}", text(&traced.stderr));
}

#[test]
fn rsync_pushes_pulls_and_deletes() {
    if tools::need("rsync", "apt-get install rsync").is_none() {
        return;
    }
    let workspace = Workspace::new();
    binary_tree(&workspace.local("results"));
    fs::create_dir(workspace.remote("results")).unwrap();
    // Of another size and not newer than the file that replaces it.
    fs::write(workspace.remote("results/to be deleted"), "old").unwrap();
    workspace.recipe("rsync");
    let ours = contents(&workspace.local("results"));
    assert_eq!(ours.len(), 100);
    assert_eq!(contents(&workspace.remote("results")), ours);
    let mut copy = contents(&workspace.local("copy"));
    copy.retain(|(path, _)| path != Path::new("to be deleted"));
    assert_eq!(copy, ours);
}

#[test]
fn an_interrupted_rsync_leaves_no_process_and_resumes() {
    if tools::need("rsync", "apt-get install rsync").is_none() {
        return;
    }
    let workspace = Workspace::new();
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
    fs::write(workspace.local("big.bin"), &bytes).unwrap();
    let transfer = "exec rsync --partial --inplace -e 'labsh rsh' big.bin lab07:/srv/big.bin";
    // Slow enough to be interrupted halfway on any machine.
    let mut slow =
        workspace.shell(&transfer.replace("--partial", "--partial --bwlimit=300")).spawn().unwrap();
    let arrived = || fs::metadata(workspace.remote("big.bin")).map_or(0, |file| file.len());
    eventually("a part of the file is there", || arrived() > 200_000);
    assert!(arrived() < bytes.len() as u64, "it was not slow enough to be interrupted");
    kill(slow.id() as i32, 15);
    assert!(!slow.wait().unwrap().success());
    workspace.labshd.log().wait_for("command ended");
    let output = workspace
        .shell(&transfer.replace("--partial", "--partial --append-verify --stats"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read(workspace.remote("big.bin")).unwrap(), bytes);
    let stats = text(&output.stdout);
    let literal = stats.lines().find_map(|line| line.strip_prefix("Literal data: ")).unwrap();
    let literal: u64 = literal.replace(',', "").split(' ').next().unwrap().parse().unwrap();
    assert!(literal < bytes.len() as u64, "it began again from nothing: {stats}");
}

#[test]
fn a_failed_rsync_reports_the_reason() {
    if tools::need("rsync", "apt-get install rsync").is_none() {
        return;
    }
    let workspace = Workspace::new();
    fs::write(workspace.local("a"), "a").unwrap();
    let output =
        workspace.shell("rsync -e 'labsh rsh' a lab07:/srv/no/such/directory/").output().unwrap();
    assert_eq!(output.status.code(), Some(11), "{}", text(&output.stderr));
    let output = workspace.shell("rsync -e 'labsh rsh -p 1' a lab07:/srv/a").output().unwrap();
    // 12 or 255, depending on what rsync notices first.
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("cannot connect to 127.0.0.1:1"),
        "{}",
        text(&output.stderr)
    );
}

/// Whether this program of OpenSSH and the server for sftp are installed.
pub fn has_openssh(program: &str) -> bool {
    tools::need(program, "apt-get install openssh-client").is_some()
        && tools::need(SFTP_SERVER, "apt-get install openssh-sftp-server").is_some()
}

#[test]
fn sftp_puts_and_gets() {
    if !has_openssh("sftp") {
        return;
    }
    let workspace = Workspace::new();
    fs::write(workspace.local("results.csv"), "a,b\n1,2\n").unwrap();
    workspace.recipe("sftp");
    assert_eq!(fs::read(workspace.remote("results.csv")).unwrap(), b"a,b\n1,2\n");
    assert_eq!(fs::read(workspace.local("back.csv")).unwrap(), b"a,b\n1,2\n");
}

#[test]
fn scp_copies_files_and_folders_in_both_of_its_protocols() {
    if !has_openssh("scp") {
        return;
    }
    let workspace = Workspace::new();
    fs::write(workspace.local("results.csv"), "a,b\n1,2\n").unwrap();
    binary_tree(&workspace.remote("folder"));
    workspace.recipe("scp");
    assert_eq!(fs::read(workspace.remote("results.csv")).unwrap(), b"a,b\n1,2\n");
    assert_eq!(contents(&workspace.local("folder")), contents(&workspace.remote("folder")));
    run(&mut workspace.shell("scp -O -S labsh-rsh results.csv lab07:/srv/old.csv"));
    assert_eq!(fs::read(workspace.remote("old.csv")).unwrap(), b"a,b\n1,2\n");
}

#[test]
fn sshfs_mounts_a_directory_of_the_host() {
    let installed = tools::need("sshfs", "apt-get install sshfs").is_some()
        && tools::need(SFTP_SERVER, "apt-get install openssh-sftp-server").is_some();
    if !installed
        || !tools::usable("/dev/fuse", "sshfs needs FUSE, which this machine does not allow")
    {
        return;
    }
    let workspace = Workspace::new();
    fs::write(workspace.remote("results.csv"), "a,b\n").unwrap();
    let mounted = Unmount(workspace.local("mounted"));
    workspace.recipe("sshfs");
    drop(mounted);
    assert_eq!(fs::read(workspace.local("from-there.csv")).unwrap(), b"a,b\n");
    assert_eq!(fs::read(workspace.remote("done.txt")).unwrap(), b"done\n");
}

/// Unmounts a directory, also after a failed test.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = program("fusermount3").args(["-uzq"]).arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[test]
fn parallel_runs_jobs_on_the_host() {
    if tools::need("parallel", "apt-get install parallel").is_none() {
        return;
    }
    let workspace = Workspace::new();
    fs::create_dir_all(workspace.dir.path().join("home/.parallel")).unwrap();
    fs::write(workspace.dir.path().join("home/.parallel/will-cite"), "").unwrap();
    let output = workspace.recipe("parallel");
    let squares: String = (1..=10).map(|number| format!("{}\n", number * number)).collect();
    assert_eq!(text(&output.stdout), squares, "{}", text(&output.stderr));
}
