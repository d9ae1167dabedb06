//! Builds the spawn request for an `open`: arguments, environment, directory, identity, terminal.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::SystemTime;

use labsh_proto::limits::MAX_TEXT;
use labsh_proto::message::{Open, Program, Refuse, RefuseCode, Terminal, Variable};

use crate::config::Config;
use crate::entry::Entry;
use crate::key_share::KeyShare;
use crate::spawner::{self, Identity, SpawnRequest};
use crate::terminal::window_size;
use crate::users::User;

/// The client of a session: its key, its user, its addresses, and the features in effect.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// As it was looked up for the session, or for its command.
    pub(crate) user: User,
    /// Whether commands change to that user, because labshd runs as root.
    pub(crate) changes_user: bool,
    pub(crate) entry: Arc<Entry>,
    pub(crate) share: Arc<KeyShare>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// Whether the feature TERMINAL is in effect.
    pub(crate) terminals: bool,
    /// Whether the feature EXPLAIN is in effect.
    pub(crate) explains: bool,
}

/// Builds the request, or the refusal of an `open` that is invalid or not permitted. Explanations
/// call it as well: a check that is placed here applies to both.
pub(crate) fn prepare(
    open: &Open,
    origin: &Origin,
    config: &Config,
) -> Result<SpawnRequest, Refuse> {
    check_permitted(open, origin)?;
    if open.linger != 0 {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "this labshd does not support commands that outlive their connection",
            "request only features that its welcome announced",
        ));
    }
    let terminal =
        open.terminal.as_ref().map(|terminal| spawn_terminal(terminal, origin)).transpose()?;
    let user = &origin.user;
    let shell = user.shell.as_os_str().as_bytes().to_vec();
    let shell_name = user.shell.file_name().unwrap_or(OsStr::new("sh")).as_bytes().to_vec();
    let (argv, program) = match &open.program {
        Program::Argv(words) => (words.clone(), None),
        Program::Shell(line) => (vec![shell_name, b"-c".to_vec(), shell_script(line)], Some(shell)),
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

/// Checks that the command is valid, and that the key may run it now as the expected user.
fn check_permitted(open: &Open, origin: &Origin) -> Result<(), Refuse> {
    open.check()
        .map_err(|error| Refuse::new(RefuseCode::BAD_COMMAND, error.to_string(), error.remedy()))?;
    // Checked again for each command, as the key may expire during a session.
    let source = origin.peer.map(|peer| peer.ip());
    let permitted = origin.entry.permits(source, SystemTime::now());
    permitted
        .map_err(|why| Refuse::new(RefuseCode::NOT_PERMITTED, why.to_string(), why.remedy()))?;
    let user = &origin.user.name;
    match open.user.as_ref().filter(|expected| **expected != *user.as_bytes()) {
        None => Ok(()),
        Some(expected) => Err(Refuse::new(
            RefuseCode::USER,
            format!(
                "with this key, commands run as {user}, not as {}",
                String::from_utf8_lossy(expected)
            ),
            "use a key whose entry on the host names that user, or request no user",
        )),
    }
}

/// Returns a line as the argument of a shell's `-c`. If it begins like an option, a blank is put
/// before it: not every shell accepts `--` there, and all ignore a leading blank.
fn shell_script(line: &[u8]) -> Vec<u8> {
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
        "ask its administrator to add a program under [subsystems] in labshd.toml",
    ))
}

/// Limit on the name of a terminal, in bytes. The names in terminfo(5) are far shorter.
const MAX_TERMINAL_NAME: usize = 64;

/// Checks a requested terminal and converts it to the spawner's type.
fn spawn_terminal(terminal: &Terminal, origin: &Origin) -> Result<spawner::Terminal, Refuse> {
    if !origin.terminals {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "the client requests a terminal without having announced that feature",
            "use a client of this version, or request no terminal",
        ));
    }
    // Programs use the name as part of a path (terminfo(5)), so it must not contain a directory.
    let name = terminal.name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'/';
    if name.is_empty()
        || name.len() > MAX_TERMINAL_NAME
        || name[0] == b'.'
        || !name.iter().all(plain)
    {
        return Err(Refuse::new(
            RefuseCode::BAD_COMMAND,
            format!(
                "{:?} is not a terminal name",
                terminal.name.chars().take(MAX_TERMINAL_NAME).collect::<String>()
            ),
            "set TERM to a name such as xterm-256color: at most 64 ASCII characters, without \
             blanks and /, and not beginning with .",
        ));
    }
    Ok(spawner::Terminal { size: window_size(terminal.size), group: origin.user.terminal_group })
}

/// The most bytes of names in a refusal of variables, which has to fit into [`MAX_TEXT`] bytes.
const MAX_REFUSED_NAMES: usize = MAX_TEXT - 512;

/// Checks that the client may set all of the variables. The refusal names each that it may not set,
/// with blanks between the names, so that a client can leave out all of them at once.
fn check_variables(variables: &[Variable], config: &Config) -> Result<(), Refuse> {
    let mut refused: BTreeMap<&'static str, Vec<Cow<'_, str>>> = BTreeMap::new();
    let (mut seen, mut left) = (HashSet::new(), MAX_REFUSED_NAMES);
    for (name, _) in variables {
        let Err(why) = config.check_variable(name) else { continue };
        let names = refused.entry(why).or_default();
        if seen.insert(name) && (names.is_empty() || name.len() < left) {
            left = left.saturating_sub(name.len() + 1);
            names.push(String::from_utf8_lossy(name));
        }
    }
    let count: usize = refused.values().map(Vec::len).sum();
    let reasons =
        refused.iter().map(|(why, names)| format!("{} may not be set: {why}", names.join(" ")));
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    match count {
        0 => Ok(()),
        1 => Err(Refuse::new(
            RefuseCode::ENVIRONMENT,
            format!("the environment variable {reasons}"),
            "leave it out, or set it inside the command",
        )),
        _ => Err(Refuse::new(
            RefuseCode::ENVIRONMENT,
            format!("the environment variables {reasons}"),
            "leave them out, or set them inside the command",
        )),
    }
}

/// Builds the complete environment of a command.
fn environment(open: &Open, origin: &Origin, config: &Config) -> Result<Vec<Variable>, Refuse> {
    let user = &origin.user;
    let mut environment: Vec<Variable> = Vec::new();
    // A client may send tens of thousands of variables, which a linear search would make slow.
    let mut indices: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut set = |name: &[u8], value: &[u8]| match indices.get(name) {
        Some(&index) => environment[index].1 = value.to_vec(),
        None => {
            indices.insert(name.to_vec(), environment.len());
            environment.push((name.to_vec(), value.to_vec()));
        }
    };
    set(b"PATH", config.command_path(user.uid == 0).as_bytes());
    if let Some(language) = std::env::var_os("LANG") {
        set(b"LANG", language.as_bytes());
    }
    check_variables(&open.environment, config)?;
    for (name, value) in &open.environment {
        set(name, value);
    }
    if let Some(terminal) = &open.terminal {
        // Takes precedence over a TERM among the variables, as it describes this terminal.
        set(b"TERM", terminal.name.as_bytes());
    }
    set(b"HOME", user.home.as_os_str().as_bytes());
    set(b"USER", user.name.as_bytes());
    set(b"LOGNAME", user.name.as_bytes());
    set(b"SHELL", user.shell.as_os_str().as_bytes());
    set(b"LABSH_KEY_ID", origin.entry.key.key_id().as_str().as_bytes());
    set(b"LABSH_HOST_ID", origin.entry.key.host_id().as_str().as_bytes());
    set(b"LABSH_COMMAND_ID", open.command.to_string().as_bytes());
    // A unix socket has no addresses.
    if let (Some(peer), Some(local)) = (origin.peer, origin.local) {
        // An IPv4 client of an IPv6 socket is shown as such.
        let (client, server) = (peer.ip().to_canonical(), local.ip().to_canonical());
        let addresses = format!("{client} {} {server} {}", peer.port(), local.port());
        set(b"LABSH_CONNECTION", addresses.as_bytes());
        // What programs look for that adapt to a remote session: prompts, byobu, mosh-server.
        set(b"SSH_CONNECTION", addresses.as_bytes());
        if open.terminal.is_some() || config.set_ssh_client {
            let addresses = format!("{client} {} {}", peer.port(), local.port());
            set(b"SSH_CLIENT", addresses.as_bytes());
        }
    }
    Ok(environment)
}
