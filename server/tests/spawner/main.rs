//! Tests the spawner with real processes.
//!
//! The spawner must be launched while the process has one thread, but the test harness starts
//! several before it calls a test. So this is a `main` of its own, which launches first and then
//! runs its cases in order. It supports the harness's `--list` and filters by name.
#![allow(clippy::unwrap_used, missing_docs)]

mod life;
mod start;
mod terminal;

use std::cell::RefCell;
use std::fs::{self, File};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use labsh_server::spawner::{
    Ended, SpawnError, SpawnRequest, Spawned, Spawner, SpawnerProcess, Streams, launch,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;

type Case = fn(&World);

/// Names and functions of the cases, in the order in which they run.
macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name as Case)),*]
    };
}

const CASES: &[(&str, Case)] = cases![
    start::exit_codes_are_reported,
    start::signals_are_reported_with_the_core_flag,
    start::stdin_reaches_the_command_and_ends,
    start::a_missing_program_is_not_found,
    start::a_file_that_is_not_executable_is_reported,
    start::a_missing_directory_is_an_error_or_replaced_by_the_root,
    start::arguments_up_to_the_kernels_limit_are_accepted,
    start::invalid_arguments_are_refused,
    start::the_commands_own_path_is_searched,
    start::a_script_without_an_interpreter_line_runs,
    start::program_and_first_word_may_differ,
    start::the_environment_is_exactly_the_requested_one,
    start::only_three_descriptors_are_open,
    start::the_command_leads_its_own_session,
    start::no_signal_is_ignored_or_blocked,
    start::limits_and_umask_are_those_at_launch,
    start::two_hundred_commands_run_at_once,
    life::large_requests_are_served_at_once,
    life::usage_is_measured,
    life::peak_memory_excludes_labshd_and_the_spawner,
    life::a_command_can_run_as_another_user,
    life::a_background_process_receives_signals,
    life::invalid_signal_numbers_are_ignored,
    life::the_leader_stays_a_zombie_until_it_is_dropped,
    life::dropping_a_process_kills_its_session,
    life::a_command_is_ended_whatever_the_groups_of_its_processes,
    life::a_command_is_vacant_only_once_its_last_process_has_ended,
    life::what_a_command_leaves_that_ended_by_itself_is_not_signalled,
    life::a_dropped_spawn_leaves_no_process,
    life::the_exit_can_be_awaited_again,
    life::a_spawner_without_free_descriptors_reports_it,
    life::a_receiver_without_free_descriptors_reports_it,
    life::launching_with_threads_is_refused,
    life::the_spawner_has_its_own_session_and_few_descriptors,
    life::commands_end_with_labshd,
    life::a_killed_spawner_is_detected,
    life::the_spawner_exits_with_its_last_handle,
    terminal::it_is_the_controlling_terminal_and_the_only_open_file,
    terminal::it_has_its_size_from_the_start,
    terminal::it_belongs_to_the_user,
    terminal::a_signal_goes_to_the_foreground,
    terminal::a_flood_of_signals_reaches_only_its_session_and_ends_with_the_last_one,
    terminal::several_sessions_are_hung_up_together,
    terminal::a_hang_up_reaches_every_group_of_the_session,
    terminal::later_signals_spare_background_jobs,
    terminal::a_time_limit_spares_no_background_job,
    terminal::dropping_a_process_ends_its_session,
    terminal::sessions_end_with_labshd,
];

struct World {
    runtime: Runtime,
    spawner: Spawner,
    /// Spawners for the cases that end their spawner.
    disposable: RefCell<Vec<SpawnerProcess>>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(*filter));
    let cases: Vec<_> = CASES.iter().filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|word| word == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }

    let process = launch().unwrap();
    let disposable = (0..4).map(|_| launch().unwrap()).collect::<Vec<_>>().into();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.block_on(async { Spawner::attach(process) }).unwrap();
    let world = World { runtime, spawner, disposable };

    println!("\nrunning {} tests", cases.len());
    let mut failed = 0;
    for (name, case) in &cases {
        let passed = catch_unwind(AssertUnwindSafe(|| case(&world))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let passed = cases.len() - failed;
    let filtered = CASES.len() - cases.len();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         {filtered} filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl World {
    fn run<T>(&self, case: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), case).await })
            .unwrap()
    }

    fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        self.run(self.spawner.spawn(request))
    }

    fn refusal(&self, request: SpawnRequest) -> SpawnError {
        self.spawn(request).unwrap_err()
    }

    fn output(&self, request: SpawnRequest) -> Output {
        self.run(output(&self.spawner, request))
    }

    /// Returns what a shell script prints.
    fn stdout_of(&self, script: &str) -> String {
        self.output(sh(script)).stdout
    }
}

struct Output {
    ended: Ended,
    stdout: String,
    stderr: String,
}

async fn output(spawner: &Spawner, request: SpawnRequest) -> Output {
    let mut spawned = spawner.spawn(request).await.unwrap();
    let [stdin, stdout, stderr] = pipes(spawned.streams);
    drop(stdin);
    let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
    Output { ended: spawned.process.ended().await.unwrap(), stdout, stderr }
}

/// Returns stdin, stdout and stderr.
fn pipes(streams: Streams) -> [OwnedFd; 3] {
    match streams {
        Streams::Pipes { stdin, stdout, stderr } => [stdin, stdout, stderr],
        Streams::Terminal(_) => panic!("no terminal was requested"),
    }
}

async fn read(end: OwnedFd) -> String {
    let mut text = String::new();
    pipe::Receiver::from_owned_fd(end).unwrap().read_to_string(&mut text).await.unwrap();
    text
}

async fn line(end: &mut pipe::Receiver) -> String {
    let mut text = Vec::new();
    while text.last() != Some(&b'\n') {
        text.push(end.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap().trim().to_owned()
}

fn words(words: &[&str]) -> SpawnRequest {
    SpawnRequest {
        argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        cwd: b"/".to_vec(),
        ..SpawnRequest::default()
    }
}

fn sh(script: &str) -> SpawnRequest {
    words(&["sh", "-c", script])
}

/// Creates an executable file in a directory that is removed when it is dropped.
fn script(text: &str, mode: u32) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// Returns the fields of /proc/PID/stat from the third on (state, parent, …); `None` if there is no
/// such process.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|fields| fields[1] == parent.to_string())).collect()
}

/// Waits until the condition holds, and fails after 20 seconds.
fn eventually(description: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "did not happen: {description}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
