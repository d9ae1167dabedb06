//! From what a client asks for to what the spawner is told: words, environment, directory,
//! identity.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use labsh_proto::message::{Open, Program, Refuse, RefuseCode, Terminal, Variable};

use crate::config::Config;
use crate::keyring::Entry;
use crate::spawner::{self, Identity, SpawnRequest};
use crate::terminal::window_size;
use crate::users::User;

/// Whose commands these are and where they come from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) user: User,
    /// Whether labshd must become that user first (it runs as root), or is it already.
    pub(crate) changes_user: bool,
    pub(crate) entry: std::sync::Arc<Entry>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// Whether the feature TERMINAL is in effect.
    pub(crate) terminals: bool,
    /// Whether the feature EXPLAIN is in effect.
    pub(crate) explains: bool,
}

/// What the spawner is to do, or why nothing must be started.
pub(crate) fn prepare(
    open: &Open,
    origin: &Origin,
    config: &Config,
) -> Result<SpawnRequest, Refuse> {
    open.check().map_err(|bad| {
        Refuse::new(RefuseCode::BAD_COMMAND, bad.to_string(), remedy_for_length())
    })?;
    if open.linger != 0 {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "this labshd does not offer commands that outlive their connection",
            "ask only for features that its welcome announced",
        ));
    }
    let terminal = open.terminal.as_ref().map(|terminal| wanted(terminal, origin)).transpose()?;
    let user = &origin.user;
    if let Some(expected) =
        open.user.as_ref().filter(|expected| **expected != *user.name.as_bytes())
    {
        return Err(Refuse::new(
            RefuseCode::USER,
            format!(
                "with this key commands run as {}, not as {}",
                user.name,
                String::from_utf8_lossy(expected)
            ),
            "use a key whose entry on the host names that user, or ask for no user",
        ));
    }
    let shell = user.shell.as_os_str().as_bytes().to_vec();
    let shell_name = user.shell.file_name().unwrap_or(OsStr::new("sh")).as_bytes().to_vec();
    let (argv, program) = match &open.program {
        Program::Argv(words) => (words.clone(), None),
        Program::Shell(line) => (vec![shell_name, b"-c".to_vec(), no_option(line)], Some(shell)),
        Program::LoginShell => (vec![[b"-", &*shell_name].concat()], Some(shell)),
        Program::Subsystem(name) => (subsystem(name, config)?, None),
    };
    let home = user.home.as_os_str().as_bytes();
    let cwd = match &open.directory {
        None => home.to_vec(),
        Some(directory) => {
            user.home.join(OsStr::from_bytes(directory)).into_os_string().into_encoded_bytes()
        }
    };
    Ok(SpawnRequest {
        argv,
        program,
        env: environment(open, origin, config)?,
        cwd,
        cwd_fallback_root: open.directory.is_none(),
        dry_run: false,
        identity: origin.changes_user.then(|| Identity {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
        }),
        terminal,
    })
}

/// A line as a shell takes it behind `-c`. One that begins as an option does would be taken for
/// that; not every shell knows `--` there, and to none does a blank in front of a line mean
/// anything.
fn no_option(line: &[u8]) -> Vec<u8> {
    let blank: &[u8] = if line.starts_with(b"-") || line.starts_with(b"+") { b" " } else { b"" };
    [blank, line].concat()
}

fn subsystem(name: &[u8], config: &Config) -> Result<Vec<Vec<u8>>, Refuse> {
    let known = std::str::from_utf8(name).ok().and_then(|name| config.subsystems.get(name));
    if let Some(words) = known {
        return Ok(words.iter().map(|word| word.clone().into_bytes()).collect());
    }
    let name: String = String::from_utf8_lossy(name).chars().take(64).collect();
    let names: Vec<&str> = config.subsystems.keys().map(String::as_str).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(Refuse::new(
        RefuseCode::SUBSYSTEM,
        format!("that host has no subsystem {name:?}; it has: {names}"),
        "ask its administrator to name a program for it under [subsystems] in labshd.toml",
    ))
}

/// The longest name of a terminal, in bytes; those that terminfo(5) knows are far shorter.
const TERMINAL_NAME: usize = 64;

fn wanted(terminal: &Terminal, origin: &Origin) -> Result<spawner::Terminal, Refuse> {
    if !origin.terminals {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "the client asks for a terminal without having announced that it can have one",
            "use a client of this version, or ask for no terminal",
        ));
    }
    // Programs make a file's name of it (terminfo(5)); there it must not lead anywhere else.
    let name = terminal.name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'/';
    if name.is_empty() || name.len() > TERMINAL_NAME || name[0] == b'.' || !name.iter().all(plain) {
        return Err(Refuse::new(
            RefuseCode::BAD_COMMAND,
            format!(
                "{:?} is no name of a terminal",
                terminal.name.chars().take(TERMINAL_NAME).collect::<String>()
            ),
            "set TERM to a name such as xterm-256color: at most 64 ASCII characters, no blank and \
             no /, no . in front",
        ));
    }
    Ok(spawner::Terminal { size: window_size(terminal.size), group: origin.user.terminal_group })
}

fn remedy_for_length() -> &'static str {
    "send long data on standard input, or in a file"
}

fn environment(open: &Open, origin: &Origin, config: &Config) -> Result<Vec<Variable>, Refuse> {
    let user = &origin.user;
    let mut environment: Vec<Variable> = Vec::new();
    // A client may send tens of thousands, so they are not searched one by one.
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut set = |name: &[u8], value: &[u8]| match places.get(name) {
        Some(&place) => environment[place].1 = value.to_vec(),
        None => {
            places.insert(name.to_vec(), environment.len());
            environment.push((name.to_vec(), value.to_vec()));
        }
    };
    set(b"PATH", config.command_path(user.uid == 0).as_bytes());
    if let Some(language) = std::env::var_os("LANG") {
        set(b"LANG", language.as_bytes());
    }
    for (name, value) in &open.environment {
        config.environment_verdict(name).map_err(|why| {
            let name = String::from_utf8_lossy(name);
            Refuse::new(
                RefuseCode::ENVIRONMENT,
                format!("the environment variable {name} may not be set: {why}"),
                "or leave it out",
            )
        })?;
        set(name, value);
    }
    if let Some(terminal) = &open.terminal {
        // It says what the terminal is, so it wins over a variable that the client set besides.
        set(b"TERM", terminal.name.as_bytes());
    }
    set(b"HOME", user.home.as_os_str().as_bytes());
    set(b"USER", user.name.as_bytes());
    set(b"LOGNAME", user.name.as_bytes());
    set(b"SHELL", user.shell.as_os_str().as_bytes());
    set(b"LABSH_KEY_ID", origin.entry.key.key_id().as_str().as_bytes());
    set(b"LABSH_HOST_ID", origin.entry.key.host_id().as_str().as_bytes());
    set(b"LABSH_COMMAND_ID", open.command.to_string().as_bytes());
    if let (Some(peer), Some(local)) = (origin.peer, origin.local) {
        let facts = format!("{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port());
        set(b"LABSH_CONNECTION", facts.as_bytes());
    }
    Ok(environment)
}
