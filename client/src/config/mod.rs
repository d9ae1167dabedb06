//! Settings: of flags, environment and configuration files, which wins, and what follows for one
//! connection.

pub mod config_file;
pub mod inventory;
pub mod overrides;
pub mod target;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcetera::base_strategy::{BaseStrategy, Xdg};
use labsh_diagnostics::{Diagnostic, Origin};
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

/// How long connecting and authentication may take unless something else is said.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept where nothing was said of it and a login session is there.
pub const DEFAULT_KEEP: Duration = Duration::from_secs(300);

const FILE: &str = "config.toml";
const SYSTEM_DIRECTORY: &str = "/etc/labsh";

/// Why nothing can be concluded from what was said.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file is there but cannot be read.
    #[error("cannot read the configuration {}: {cause}; check the file and its permissions",
        path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A configuration file, or one of the inventory, holds an error.
    #[error(transparent)]
    File(#[from] Diagnostic),
    /// An environment variable says something that cannot be.
    #[error("the environment variable {name} is {value:?}: {reason}; correct or unset it")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
        /// What is wrong with it.
        reason: String,
    },
    /// The port was said twice, and not the same.
    #[error("the target names port {target}, --port says {flag}; say it once")]
    TwoPorts {
        /// The target's.
        target: u16,
        /// The flag's.
        flag: u16,
    },
    /// A unix socket was given a port.
    #[error("{path} is a unix socket and has no port; leave the port out", path = path.display())]
    SocketPort {
        /// The socket.
        path: PathBuf,
    },
    /// There is no key to use, or too many.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// How to get to a host, and how to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to connect to.
    pub address: Address,
    /// Under which name the key was enrolled there.
    pub host_id: HostId,
    /// Whether to go without TLS: on a unix socket by nature, over TCP only when that was said.
    pub plain: bool,
    /// How long connecting and authentication may take.
    pub connect_timeout: Duration,
    /// Which of the host's addresses are tried.
    pub family: AddressFamily,
    /// How long the connection is kept for the next command; 0: it is not; `None`: nothing was
    /// said.
    pub keep: Option<Duration>,
    /// The user as whom commands are expected to run there; a host refuses them for anybody else.
    pub user: Option<String>,
}

/// The place that something was said in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A flag.
    Flag,
    /// The target itself.
    Target,
    /// An environment variable.
    Environment,
    /// A table of a file.
    File(Origin),
}

/// What one place says of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it is said.
    pub place: Place,
    /// What is said of connections.
    pub overrides: ConnectionOverrides,
    /// What else is said of the host.
    pub variables: BTreeMap<String, String>,
}

/// Everything that is needed for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// How to get there.
    pub route: Route,
    /// The key's file, not read yet.
    pub key: PathBuf,
}

/// Everything but the flags: the environment, the configuration files, the inventory and the store
/// of keys.
#[derive(Debug, Clone)]
pub struct Config {
    environment: ConnectionOverrides,
    /// The first wins.
    files: Vec<(Arc<Path>, ConfigFile)>,
    inventory: Inventory,
    store: KeyStore,
}

impl Config {
    /// Reads `LABSH_*`, and `config.toml` and `hosts.toml` in `$XDG_CONFIG_HOME/labsh` and in
    /// `/etc/labsh`; files may be missing.
    pub fn load() -> Result<Self, ConfigError> {
        let own = Xdg::new().map_err(|_| KeyFileError::NoHome)?.config_dir().join("labsh");
        let files = [&own.join(FILE), &Path::new(SYSTEM_DIRECTORY).join(FILE)];
        let config = Self::from_sources(
            |name| std::env::var_os(name),
            &files.map(PathBuf::as_path),
            KeyStore::open()?,
        )?;
        Ok(config.with_inventory(Inventory::load(&own, Path::new(SYSTEM_DIRECTORY))?))
    }

    /// Reads `LABSH_*` and this file alone, which must be there; none at all if the path is empty.
    /// There is no inventory then: a tool that brings a configuration along means that and nothing
    /// else.
    pub fn load_only(file: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::from_sources(|name| std::env::var_os(name), &[], KeyStore::open()?)?;
        if !file.as_os_str().is_empty() {
            let missing = || ConfigError::Read { path: file.into(), cause: Errno::ENOENT.into() };
            config.files.push(read(file)?.ok_or_else(missing)?);
        }
        Ok(config)
    }

    /// Reads another environment, other files (the first wins) and another store.
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
        })
    }

    /// The same with what is known of hosts and groups.
    #[must_use]
    pub fn with_inventory(mut self, mut inventory: Inventory) -> Self {
        let tables = self.files.iter().flat_map(|(_, file)| file.hosts());
        // A socket is another way to a host, and not one more.
        inventory
            .know(tables.filter(|host| matches!(host, Host::Name(_))).map(ToString::to_string));
        self.inventory = inventory;
        self
    }

    /// What is known of hosts and groups.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The user's keys.
    pub fn store(&self) -> &KeyStore {
        &self.store
    }

    /// Under which name this target is known to its keys.
    pub fn host_id(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<HostId, ConfigError> {
        let said = self.overrides(target, flags)?.host_id;
        Ok(said.unwrap_or_else(|| target.default_host_id().clone()))
    }

    /// What follows for a connection to this target.
    pub fn resolve(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<Resolved, ConfigError> {
        let overrides = self.overrides(target, flags)?;
        let key = self.store.resolve(overrides.key.as_ref());
        Ok(Resolved { route: route(target, flags, overrides)?, key: key? })
    }

    /// The same, but for the key: there need not be one yet.
    pub fn route(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<Route, ConfigError> {
        route(target, flags, self.overrides(target, flags)?)
    }

    /// What is said of a target, the place that counts most first: flags, the target's own port,
    /// the environment, tables of configuration files for this very host, the inventory, and the
    /// defaults of configuration files.
    pub fn layers(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<Vec<Layer>, ConfigError> {
        if let Some(diagnostic) = self.inventory.unusable(&target.host) {
            return Err(diagnostic.into());
        }
        let entries = self.inventory.entries(&target.host)?;
        // The inventory may name the user whose table applies.
        let user = flags
            .user
            .as_ref()
            .or_else(|| entries.iter().find_map(|entry| entry.overrides.user.as_ref()));
        let said = |place, overrides| Layer { place, overrides, variables: BTreeMap::new() };
        let table = |(path, table): (&Arc<Path>, &Table)| {
            said(
                Place::File(Origin { path: path.clone(), line: Some(table.line) }),
                table.overrides.clone(),
            )
        };
        let mut layers = vec![
            said(Place::Flag, flags.clone()),
            said(
                Place::Target,
                ConnectionOverrides { port: target.port, ..ConnectionOverrides::default() },
            ),
            said(Place::Environment, self.environment.clone()),
        ];
        for (path, file) in &self.files {
            let users = user.and_then(|user| file.table(Some(user), &target.host));
            let tables = users.into_iter().chain(file.table(None, &target.host));
            layers.extend(tables.map(|found| table((path, found))));
        }
        layers.extend(entries.into_iter().map(|TableEntry { origin, overrides, variables }| {
            Layer { place: Place::File(origin), overrides, variables }
        }));
        layers.extend(self.files.iter().map(|(path, file)| table((path, file.defaults()))));
        Ok(layers)
    }

    fn overrides(
        &self,
        target: &Target,
        flags: &ConnectionOverrides,
    ) -> Result<ConnectionOverrides, ConfigError> {
        let layers = self.layers(target, flags)?;
        Ok(layers
            .into_iter()
            .fold(ConnectionOverrides::default(), |said, layer| said.or(layer.overrides)))
    }
}

/// What follows from everything that was said.
fn route(
    target: &Target,
    flags: &ConnectionOverrides,
    overrides: ConnectionOverrides,
) -> Result<Route, ConfigError> {
    if let (Some(target), Some(flag)) = (target.port, flags.port)
        && target != flag
    {
        return Err(ConfigError::TwoPorts { target, flag });
    }
    let address = match overrides.address.unwrap_or_else(|| target.host.clone()) {
        // A port that is only configured was not meant for a socket; one that was typed is a
        // mistake.
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
    match fs::read_to_string(&path) {
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
    // In a command that labshd runs, LABSH_HOST_ID names the machine it runs on, and not the one to
    // go on to from there.
    let by_labshd = lookup("LABSH_COMMAND_ID").is_some();
    Ok(ConnectionOverrides {
        key: variable(&lookup, "LABSH_KEY", str::parse)?,
        host_id: if by_labshd { None } else { variable(&lookup, "LABSH_HOST_ID", HostId::new)? },
        port: variable(&lookup, "LABSH_PORT", parse_port)?,
        connect_timeout: variable(&lookup, "LABSH_CONNECT_TIMEOUT", parse_duration)?,
        keep: variable(&lookup, "LABSH_KEEP", parse_keep)?,
        ..ConnectionOverrides::default()
    })
}

/// A variable's value; an empty one says nothing.
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
mod tests {
    use labsh_proto::key::KeyId;
    use tempfile::TempDir;

    use super::*;

    struct World {
        directory: TempDir,
        environment: Vec<(&'static str, &'static str)>,
    }

    impl World {
        fn new(own: &str, system: &str, environment: &[(&'static str, &'static str)]) -> Self {
            let directory = TempDir::new().unwrap();
            fs::write(directory.path().join("own"), own).unwrap();
            fs::write(directory.path().join("system"), system).unwrap();
            let world = Self { directory, environment: environment.to_vec() };
            world.store().create(&KeyId::new("alice").unwrap()).unwrap();
            world
        }

        fn store(&self) -> KeyStore {
            KeyStore::at(self.directory.path().join("keys"))
        }

        fn config(&self) -> Result<Config, ConfigError> {
            let find = |name: &str| self.environment.iter().find(|(known, _)| *known == name);
            let path = |name| self.directory.path().join(name);
            Config::from_sources(
                |name| find(name).map(|(_, value)| OsString::from(value)),
                &[&path("own"), &path("missing"), &path("system")],
                self.store(),
            )
        }

        fn resolve(
            &self,
            target: &str,
            flags: &ConnectionOverrides,
        ) -> Result<Resolved, ConfigError> {
            self.config()?.resolve(&target.parse().unwrap(), flags)
        }
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn with_nothing_said_a_name_and_the_only_key_are_enough() {
        let world = World::new("", "", &[]);
        let resolved = world.resolve("Lab07", &ConnectionOverrides::default()).unwrap();
        assert_eq!(resolved.route.address, tcp("lab07", 5274));
        assert_eq!(resolved.route.host_id.as_str(), "lab07");
        assert!(resolved.key.ends_with("keys/alice.key"));
        assert!(!resolved.route.plain);
        assert_eq!(resolved.route.connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn flags_win_over_the_environment_over_the_users_file_over_the_systems() {
        let mut world = World::new(
            "[defaults]\nport = 3\n",
            "[defaults]\nport = 4\nconnect_timeout = \"4s\"\n[hosts.lab07]\naddress = \
             \"10.0.0.7\"\n",
            &[("LABSH_PORT", "2"), ("LABSH_HOST_ID", "Shared"), ("LABSH_KEY", "")],
        );
        let flags = ConnectionOverrides { port: Some(1), ..ConnectionOverrides::default() };
        assert_eq!(world.resolve("lab07", &flags).unwrap().route.address, tcp("10.0.0.7", 1));
        assert_eq!(
            world.resolve("lab07:9", &ConnectionOverrides::default()).unwrap().route.address,
            tcp("10.0.0.7", 9)
        );
        let resolved = world.resolve("lab07", &ConnectionOverrides::default()).unwrap();
        assert_eq!(resolved.route.address, tcp("10.0.0.7", 2));
        assert_eq!(resolved.route.host_id.as_str(), "shared");
        assert_eq!(resolved.route.connect_timeout, Duration::from_secs(4));
        world.environment.clear();
        assert_eq!(
            world.resolve("lab07", &ConnectionOverrides::default()).unwrap().route.address,
            tcp("10.0.0.7", 3)
        );
        fs::write(world.directory.path().join("own"), "").unwrap();
        assert_eq!(
            world.resolve("lab07", &ConnectionOverrides::default()).unwrap().route.address,
            tcp("10.0.0.7", 4)
        );
    }

    #[test]
    fn the_configuration_wins_over_the_inventory_and_both_over_defaults_in_any_file() {
        let world = World::new(
            "[defaults]\nport = 1\nkey = \"own\"\n[hosts.lab07]\nhost_id = \"seven\"\n",
            "[defaults]\nconnect_timeout = \"4s\"\n[hosts.lab08]\nport = \
             4\n[hosts.\"bob@lab09\"]\nkey = \"bob\"\n",
            &[],
        );
        let hosts = "[hosts.\"lab[01-40]\"]\naddress = \"{host}.example\"\nport = 3\nhost_id = \
            \"room\"\n\
                     [hosts.lab09]\nuser = \"bob\"\nvariables = { a = 1 }\n";
        fs::write(world.directory.path().join("hosts.toml"), hosts).unwrap();
        let inventory = Inventory::load(world.directory.path(), Path::new("/nowhere")).unwrap();
        let config = world.config().unwrap().with_inventory(inventory);
        let route = |target: &str| {
            config.route(&target.parse().unwrap(), &ConnectionOverrides::default()).unwrap()
        };
        let seven = route("lab07");
        assert_eq!((seven.address, seven.host_id.as_str()), (tcp("lab07.example", 3), "seven"));
        assert_eq!(seven.connect_timeout, Duration::from_secs(4));
        let eight = route("lab08");
        assert_eq!((eight.address, eight.host_id.as_str()), (tcp("lab08.example", 4), "room"));
        assert_eq!(route("lab07:9").address, tcp("lab07.example", 9));
        assert_eq!(route("elsewhere").address, tcp("elsewhere", 1));

        // The table for the user that the inventory names applies.
        let nine: Target = "lab09".parse().unwrap();
        assert_eq!(route("lab09").user.as_deref(), Some("bob"));
        let bob = config.overrides(&nine, &ConnectionOverrides::default()).unwrap();
        assert_eq!(bob.key, Some("bob".parse().unwrap()));
        let carol =
            ConnectionOverrides { user: Some("carol".into()), ..ConnectionOverrides::default() };
        assert_eq!(config.route(&nine, &carol).unwrap().user.as_deref(), Some("carol"));
        assert_eq!(config.overrides(&nine, &carol).unwrap().key, Some("own".parse().unwrap()));

        let layers = config.layers(&nine, &ConnectionOverrides::default()).unwrap();
        let said = |say: &dyn Fn(&Layer) -> bool| match &layers
            .iter()
            .find(|layer| say(layer))
            .unwrap()
            .place
        {
            Place::File(origin) => {
                format!(
                    "{}:{}",
                    origin.path.file_name().unwrap().to_string_lossy(),
                    origin.line.unwrap()
                )
            }
            place => format!("{place:?}"),
        };
        assert_eq!(said(&|layer| layer.overrides.key.is_some()), "system:5");
        assert_eq!(said(&|layer| layer.overrides.port.is_some()), "hosts.toml:3");
        assert_eq!(said(&|layer| layer.overrides.user.is_some()), "hosts.toml:6");
        assert_eq!(said(&|layer| layer.overrides.connect_timeout.is_some()), "system:1");
        assert_eq!(said(&|layer| layer.variables.contains_key("a")), "hosts.toml:7");
    }

    #[test]
    fn the_host_that_labsh_itself_runs_on_is_not_taken_for_the_next_one() {
        let variables = [
            ("LABSH_HOST_ID", "gateway"),
            ("LABSH_COMMAND_ID", "00112233445566778899aabbccddeeff"),
        ];
        let world = World::new("", "", &variables);
        let resolved = world.resolve("lab07", &ConnectionOverrides::default()).unwrap();
        assert_eq!(resolved.route.host_id.as_str(), "lab07");
    }

    #[test]
    fn plain_mode_is_used_over_tcp_only_when_that_is_said() {
        let world = World::new(
            "[hosts.bare]\nplain = true\n[hosts.here]\naddress = \"unix:/run/s\"\n",
            "",
            &[],
        );
        let plain =
            |target, flags: &ConnectionOverrides| world.resolve(target, flags).unwrap().route.plain;
        assert!(!plain("lab07", &ConnectionOverrides::default()));
        assert!(plain(
            "lab07",
            &ConnectionOverrides { plain: Some(true), ..ConnectionOverrides::default() }
        ));
        assert!(plain("bare", &ConnectionOverrides::default()));
        assert!(plain("unix:/run/s", &ConnectionOverrides::default()));
        assert!(plain("here", &ConnectionOverrides::default()));
        assert_eq!(
            world.resolve("here", &ConnectionOverrides::default()).unwrap().route.host_id.as_str(),
            "here"
        );
        assert_eq!(
            world
                .resolve("unix:/run/s", &ConnectionOverrides::default())
                .unwrap()
                .route
                .host_id
                .as_str(),
            "localhost"
        );
    }

    #[test]
    fn a_port_that_cannot_be_meant_is_refused() {
        let world = World::new(
            "[hosts.here]\naddress = \"unix:/run/s\"\nport = 5\n",
            "",
            &[("LABSH_PORT", "2")],
        );
        let flags = ConnectionOverrides { port: Some(1), ..ConnectionOverrides::default() };
        assert!(matches!(
            world.resolve("lab07:2", &flags),
            Err(ConfigError::TwoPorts { target: 2, flag: 1 })
        ));
        assert!(world.resolve("lab07:1", &flags).is_ok());
        for (target, flags) in
            [("unix:/s", &flags), ("here", &flags), ("here:1", &ConnectionOverrides::default())]
        {
            assert!(
                matches!(world.resolve(target, flags), Err(ConfigError::SocketPort { .. })),
                "{target}"
            );
        }
        assert!(world.resolve("here", &ConnectionOverrides::default()).is_ok());
    }

    #[test]
    fn without_a_key_or_with_too_many_the_message_says_what_to_do() {
        let world = World::new("", "", &[]);
        world.store().create(&KeyId::new("bob").unwrap()).unwrap();
        let text = world.resolve("lab07", &ConnectionOverrides::default()).unwrap_err().to_string();
        assert!(text.contains("alice, bob") && text.contains("--key"), "{text}");
        let flags = ConnectionOverrides {
            key: Some("bob".parse().unwrap()),
            ..ConnectionOverrides::default()
        };
        assert!(world.resolve("lab07", &flags).unwrap().key.ends_with("bob.key"));
        for key in ["alice", "bob"] {
            world.store().delete(&KeyId::new(key).unwrap()).unwrap();
        }
        let text = world.resolve("lab07", &ConnectionOverrides::default()).unwrap_err().to_string();
        assert!(text.contains("labsh key new"), "{text}");
    }

    #[test]
    fn mistakes_name_the_file_and_the_line_or_the_variable() {
        let text = World::new("", "\nprot = 1\n", &[]).config().unwrap_err().to_string();
        assert!(text.contains("/system:2: unknown field `prot`"), "{text}");
        for (name, value) in
            [("LABSH_PORT", "ssh"), ("LABSH_CONNECT_TIMEOUT", "10"), ("LABSH_KEY", "a b")]
        {
            let text = World::new("", "", &[(name, value)]).config().unwrap_err().to_string();
            assert!(
                text.contains(name) && text.contains(value) && text.contains("unset it"),
                "{text}"
            );
        }
    }
}
