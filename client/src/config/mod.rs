//! The settings for a connection, merged from flags, environment variables, configuration files and
//! the inventory.

mod config_file;
mod host_list;
mod host_table;
pub mod inventory;
pub mod overrides;
pub mod target;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcetera::base_strategy::{BaseStrategy, Xdg};
use labsh_diagnostics::{Diagnostic, Origin, text_file};
use labsh_proto::key::HostId;
use labsh_transport::socket::AddressFamily;
use nix::errno::Errno;

use crate::config::config_file::{ConfigFile, Table};
use crate::config::inventory::{Inventory, TableEntry};
use crate::config::overrides::{ConnectionOverrides, parse_duration, parse_keep};
use crate::config::target::{DEFAULT_PORT, Host, Target, parse_port};
use crate::connect::Address;
use crate::keys::key_file::KeyFileError;
use crate::keys::key_store::KeyStore;

/// The default time limit for connecting and authentication.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the agent keeps a connection by default in a login session.
pub const DEFAULT_KEEP: Duration = Duration::from_secs(300);

const CONFIG_FILE: &str = "config.toml";
const SYSTEM_DIRECTORY: &str = "/etc/labsh";

/// Why there are no settings for a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file exists but cannot be read.
    #[error("cannot read the configuration {}: {cause}; check the file and its permissions",
        path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// A configuration file, or one of the inventory, is invalid.
    #[error(transparent)]
    File(#[from] Diagnostic),
    /// An environment variable is invalid.
    #[error("the environment variable {name} is {value:?}: {reason}; correct or unset it")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
        /// What is wrong with it.
        reason: String,
    },
    /// The target and a flag name different ports.
    #[error("the target names port {target}, --port names {flag}; name the port once")]
    TwoPorts {
        /// The target's.
        target: u16,
        /// The flag's.
        flag: u16,
    },
    /// A unix socket has no port.
    #[error("{path} is a unix socket and has no port; leave the port out", path = path.display())]
    SocketPort {
        /// The socket.
        path: PathBuf,
    },
    /// There is no key to use, or several.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// How to connect to a host, and how to recognize it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The address.
    pub address: Address,
    /// The host id that the key is enrolled for.
    pub host_id: HostId,
    /// Whether to use plain mode: always on a unix socket, over TCP only if a setting says so.
    pub plain: bool,
    /// The time limit for connecting and authentication.
    pub connect_timeout: Duration,
    /// Which of the host's addresses to try.
    pub family: AddressFamily,
    /// How long the agent keeps the connection for the next command; 0 is not at all, and `None` is
    /// not set.
    pub keep: Option<Duration>,
    /// The user that commands are expected to run as; the host refuses to run them as another.
    pub user: Option<String>,
}

/// The source of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag,
    /// The target itself.
    Target,
    /// An environment variable.
    Environment,
    /// A table of a file.
    File(Origin),
}

/// The settings for a target from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The source.
    pub source: Source,
    /// The settings for connections.
    pub overrides: ConnectionOverrides,
    /// Other variables of the host.
    pub variables: BTreeMap<String, String>,
}

/// What one connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// How to connect to the host.
    pub route: Route,
    /// The key's file, not read yet.
    pub key: PathBuf,
}

/// All sources of settings except flags: the environment, the configuration files, the inventory
/// and the key store.
#[derive(Debug, Clone)]
pub struct Config {
    environment: ConnectionOverrides,
    /// In descending order of precedence.
    files: Vec<(Arc<Path>, ConfigFile)>,
    inventory: Inventory,
    store: KeyStore,
    only_key: OnceLock<PathBuf>,
}

impl Config {
    /// Reads `LABSH_*`, and `config.toml` and `hosts.toml` in `$XDG_CONFIG_HOME/labsh` and in
    /// `/etc/labsh`; files may be missing.
    pub fn load() -> Result<Self, ConfigError> {
        let own = Xdg::new().map_err(|_| KeyFileError::NoHome)?.config_dir().join("labsh");
        let files = [&own.join(CONFIG_FILE), &Path::new(SYSTEM_DIRECTORY).join(CONFIG_FILE)];
        let config = Self::from_sources(
            |name| std::env::var_os(name),
            &files.map(PathBuf::as_path),
            KeyStore::open()?,
        )?;
        Ok(config.with_inventory(Inventory::load(&own, Path::new(SYSTEM_DIRECTORY))?))
    }

    /// Reads `LABSH_*` and only this file, which must exist; no file at all if the path is empty.
    ///
    /// The inventory is empty: a tool that has its own configuration expects nothing else.
    pub fn load_only(file: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::from_sources(|name| std::env::var_os(name), &[], KeyStore::open()?)?;
        if !file.as_os_str().is_empty() {
            let missing = || ConfigError::Read { path: file.into(), cause: Errno::ENOENT.into() };
            config.files.push(read(file)?.ok_or_else(missing)?);
        }
        Ok(config)
    }

    /// Reads the given environment and files, in descending order of precedence, and uses the given
    /// store.
    pub fn from_sources(
        environment: impl Fn(&str) -> Option<OsString>,
        files: &[&Path],
        store: KeyStore,
    ) -> Result<Self, ConfigError> {
        let files =
            files.iter().filter_map(|path| read(path).transpose()).collect::<Result<_, _>>()?;
        Ok(Self {
            environment: from_environment(environment)?,
            files,
            inventory: Inventory::default(),
            store,
            only_key: OnceLock::new(),
        })
    }

    /// Adds an inventory of hosts and groups.
    fn with_inventory(mut self, mut inventory: Inventory) -> Self {
        let tables = self.files.iter().flat_map(|(_, file)| file.hosts());
        // A socket is another way to connect to a host, not one more host.
        inventory.add_hosts(
            tables.filter(|host| matches!(host, Host::Name(_))).map(ToString::to_string),
        );
        self.inventory = inventory;
        self
    }

    /// Returns the inventory of hosts and groups.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Returns the user's key store.
    pub fn store(&self) -> &KeyStore {
        &self.store
    }

    /// Returns the host id that keys are enrolled for on this target.
    pub fn host_id(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<HostId, ConfigError> {
        let host_id = merged(&self.layers(target, flags)?).host_id;
        Ok(host_id.unwrap_or_else(|| target.default_host_id().clone()))
    }

    /// Returns the settings for a connection to this target.
    pub fn resolve(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<Resolved, ConfigError> {
        let layers = self.layers(target, flags)?;
        let key = layers.iter().find_map(|layer| layer.overrides.key.as_ref());
        let key = match key {
            Some(_) => self.store.resolve(key),
            None => self.only_key(),
        };
        Ok(Resolved { route: route(target, flags, &layers)?, key: key? })
    }

    /// Returns the file of the only key, which is searched for once and not for each host.
    fn only_key(&self) -> Result<PathBuf, KeyFileError> {
        if let Some(path) = self.only_key.get() {
            return Ok(path.clone());
        }
        let path = self.store.resolve(None)?;
        Ok(self.only_key.get_or_init(|| path).clone())
    }

    /// Returns the same settings without the key, which need not exist.
    pub fn route(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<Route, ConfigError> {
        route(target, flags, &self.layers(target, flags)?)
    }

    /// Returns the settings for a target by source, in descending order of precedence: flags, the
    /// target's own port, the environment, tables of configuration files for this host, the
    /// inventory, and the defaults of configuration files.
    pub fn layers(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<Vec<Layer>, ConfigError> {
        if let Some(diagnostic) = self.inventory.unusable(&target.host) {
            return Err(diagnostic.into());
        }
        let entries = self.inventory.entries(&target.host)?;
        // The inventory may name the user whose table in a configuration file counts.
        let user = flags
            .user
            .as_ref()
            .or_else(|| entries.iter().find_map(|entry| entry.overrides.user.as_ref()));
        let layer = |source, overrides| Layer { source, overrides, variables: BTreeMap::new() };
        let from_table = |path: &Arc<Path>, table: &Table| {
            let origin = Origin { path: path.clone(), line: Some(table.line) };
            layer(Source::File(origin), table.overrides.clone())
        };
        let from_target =
            ConnectionOverrides { port: target.port, ..ConnectionOverrides::default() };
        let mut layers = vec![
            layer(Source::Flag, flags.clone()),
            layer(Source::Target, from_target),
            layer(Source::Environment, self.environment.clone()),
        ];
        for (path, file) in &self.files {
            let users = user.and_then(|user| file.table(Some(user), &target.host));
            let tables = users.into_iter().chain(file.table(None, &target.host));
            layers.extend(tables.map(|table| from_table(path, table)));
        }
        layers.extend(entries.into_iter().map(|TableEntry { origin, overrides, variables }| {
            Layer { source: Source::File(origin), overrides, variables }
        }));
        layers.extend(self.files.iter().map(|(path, file)| from_table(path, file.defaults())));
        Ok(layers)
    }
}

/// Returns the settings of all sources together.
fn merged(layers: &[Layer]) -> ConnectionOverrides {
    let all = layers.iter().map(|layer| layer.overrides.clone());
    all.fold(ConnectionOverrides::default(), ConnectionOverrides::or)
}

/// Returns the route that follows from all settings, in descending order of precedence.
pub fn route(
    target: &Target,
    flags: &ConnectionOverrides,
    layers: &[Layer],
) -> Result<Route, ConfigError> {
    let overrides = merged(layers);
    if let (Some(target), Some(flag)) = (target.port, flags.port)
        && target != flag
    {
        return Err(ConfigError::TwoPorts { target, flag });
    }
    let address = match overrides.address.unwrap_or_else(|| target.host.clone()) {
        // A configured port may be meant for other hosts; one that was typed was meant for this
        // socket, and that is an error.
        Host::Unix(path) if flags.port.or(target.port).is_some() => {
            return Err(ConfigError::SocketPort { path });
        }
        Host::Unix(path) => Address::Unix(path),
        Host::Name(host) => Address::Tcp { host, port: overrides.port.unwrap_or(DEFAULT_PORT) },
    };
    Ok(Route {
        plain: overrides.plain == Some(true) || matches!(address, Address::Unix(_)),
        address,
        host_id: overrides.host_id.unwrap_or_else(|| target.default_host_id().clone()),
        connect_timeout: overrides.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        family: overrides.family.unwrap_or_default(),
        keep: overrides.keep,
        user: overrides.user,
    })
}

fn read(path: &Path) -> Result<Option<(Arc<Path>, ConfigFile)>, ConfigError> {
    let path = path.to_owned();
    match text_file::read_text(&path) {
        Ok(text) => {
            let file = ConfigFile::parse(&text, &path)?;
            Ok(Some((path.into(), file)))
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(ConfigError::Read { path, cause }),
    }
}

fn from_environment(
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<ConnectionOverrides, ConfigError> {
    // In a command that labshd runs, LABSH_HOST_ID names the host that it runs on, and not the next
    // host that it connects to.
    let is_in_command = lookup("LABSH_COMMAND_ID").is_some();
    Ok(ConnectionOverrides {
        key: variable(&lookup, "LABSH_KEY", str::parse)?,
        host_id: if is_in_command {
            None
        } else {
            variable(&lookup, "LABSH_HOST_ID", HostId::new)?
        },
        port: variable(&lookup, "LABSH_PORT", parse_port)?,
        connect_timeout: variable(&lookup, "LABSH_CONNECT_TIMEOUT", parse_duration)?,
        keep: variable(&lookup, "LABSH_KEEP", parse_keep)?,
        ..ConnectionOverrides::default()
    })
}

/// Reads an environment variable; an empty one is not set.
fn variable<T, E: ToString>(
    lookup: impl Fn(&str) -> Option<OsString>,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = lookup(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parsed = match value.to_str() {
        Some(text) => parse(text).map_err(|error| error.to_string()),
        None => Err("it is not UTF-8".to_owned()),
    };
    parsed.map(Some).map_err(|reason| ConfigError::Environment { name, value, reason })
}

#[cfg(test)]
mod tests;
