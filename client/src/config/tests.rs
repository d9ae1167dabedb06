//! Tests which source of a setting wins.

use std::fs;

use labsh_proto::key::KeyId;
use tempfile::TempDir;

use super::*;

struct Fixture {
    directory: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Fixture {
    fn new(own: &str, system: &str, environment: &[(&'static str, &'static str)]) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("own"), own).unwrap();
        fs::write(directory.path().join("system"), system).unwrap();
        let fixture = Self { directory, environment: environment.to_vec() };
        fixture.store().create(&KeyId::new("alice").unwrap()).unwrap();
        fixture
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

    fn resolve(&self, target: &str, flags: &ConnectionOverrides) -> Result<Resolved, ConfigError> {
        self.config()?.resolve(&target.parse().unwrap(), flags)
    }
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.to_owned(), port }
}

#[test]
fn a_name_and_the_only_key_are_enough() {
    let fixture = Fixture::new("", "", &[]);
    let resolved = fixture.resolve("Lab07", &ConnectionOverrides::default()).unwrap();
    assert_eq!(resolved.route.address, tcp("lab07", 5274));
    assert_eq!(resolved.route.host_id.as_str(), "lab07");
    assert!(resolved.key.ends_with("keys/alice.key"));
    assert!(!resolved.route.plain);
    assert_eq!(resolved.route.connect_timeout, Duration::from_secs(10));
}

#[test]
fn flags_win_over_the_environment_over_the_users_file_over_the_systems() {
    let mut fixture = Fixture::new(
        "[defaults]\nport = 3\n",
        "[defaults]\nport = 4\nconnect_timeout = \"4s\"\n[hosts.lab07]\naddress = \
         \"10.0.0.7\"\n",
        &[("LABSH_PORT", "2"), ("LABSH_HOST_ID", "Shared"), ("LABSH_KEY", "")],
    );
    let flags = ConnectionOverrides { port: Some(1), ..ConnectionOverrides::default() };
    assert_eq!(fixture.resolve("lab07", &flags).unwrap().route.address, tcp("10.0.0.7", 1));
    assert_eq!(
        fixture.resolve("lab07:9", &ConnectionOverrides::default()).unwrap().route.address,
        tcp("10.0.0.7", 9)
    );
    let resolved = fixture.resolve("lab07", &ConnectionOverrides::default()).unwrap();
    assert_eq!(resolved.route.address, tcp("10.0.0.7", 2));
    assert_eq!(resolved.route.host_id.as_str(), "shared");
    assert_eq!(resolved.route.connect_timeout, Duration::from_secs(4));
    fixture.environment.clear();
    assert_eq!(
        fixture.resolve("lab07", &ConnectionOverrides::default()).unwrap().route.address,
        tcp("10.0.0.7", 3)
    );
    fs::write(fixture.directory.path().join("own"), "").unwrap();
    assert_eq!(
        fixture.resolve("lab07", &ConnectionOverrides::default()).unwrap().route.address,
        tcp("10.0.0.7", 4)
    );
}

#[test]
fn host_tables_win_over_the_inventory_over_defaults_in_whatever_file_they_are() {
    let fixture = Fixture::new(
        "[defaults]\nport = 1\nkey = \"own\"\n[hosts.lab07]\nhost_id = \"seven\"\n",
        "[defaults]\nconnect_timeout = \"4s\"\n[hosts.lab08]\nport = \
         4\n[hosts.\"bob@lab09\"]\nkey = \"bob\"\n",
        &[],
    );
    let hosts = "[hosts.\"lab[01-40]\"]\naddress = \"{host}.example\"\nport = 3\nhost_id = \
        \"room\"\n\
                 [hosts.lab09]\nuser = \"bob\"\nvariables = { a = 1 }\n";
    fs::write(fixture.directory.path().join("hosts.toml"), hosts).unwrap();
    let inventory = Inventory::load(fixture.directory.path(), Path::new("/nowhere")).unwrap();
    let config = fixture.config().unwrap().with_inventory(inventory);
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

    // The inventory names the user, and the table of that user counts.
    let nine: Target = "lab09".parse().unwrap();
    assert_eq!(route("lab09").user.as_deref(), Some("bob"));
    let bob = merged(&config.layers(&nine, &ConnectionOverrides::default()).unwrap());
    assert_eq!(bob.key, Some("bob".parse().unwrap()));
    let carol =
        ConnectionOverrides { user: Some("carol".into()), ..ConnectionOverrides::default() };
    assert_eq!(config.route(&nine, &carol).unwrap().user.as_deref(), Some("carol"));
    assert_eq!(merged(&config.layers(&nine, &carol).unwrap()).key, Some("own".parse().unwrap()));

    let layers = config.layers(&nine, &ConnectionOverrides::default()).unwrap();
    let source = |is_set: &dyn Fn(&Layer) -> bool| match &layers
        .iter()
        .find(|layer| is_set(layer))
        .unwrap()
        .source
    {
        Source::File(Origin { path, line }) => {
            format!("{}:{}", path.file_name().unwrap().to_string_lossy(), line.unwrap())
        }
        source => format!("{source:?}"),
    };
    assert_eq!(source(&|layer| layer.overrides.key.is_some()), "system:5");
    assert_eq!(source(&|layer| layer.overrides.port.is_some()), "hosts.toml:3");
    assert_eq!(source(&|layer| layer.overrides.user.is_some()), "hosts.toml:6");
    assert_eq!(source(&|layer| layer.overrides.connect_timeout.is_some()), "system:1");
    assert_eq!(source(&|layer| layer.variables.contains_key("a")), "hosts.toml:7");
}

#[test]
fn the_host_that_labsh_itself_runs_on_is_not_taken_for_the_target() {
    let variables =
        [("LABSH_HOST_ID", "gateway"), ("LABSH_COMMAND_ID", "00112233445566778899aabbccddeeff")];
    let fixture = Fixture::new("", "", &variables);
    let resolved = fixture.resolve("lab07", &ConnectionOverrides::default()).unwrap();
    assert_eq!(resolved.route.host_id.as_str(), "lab07");
}

#[test]
fn plain_mode_is_used_over_tcp_only_when_it_is_set() {
    let fixture = Fixture::new(
        "[hosts.bare]\nplain = true\n[hosts.here]\naddress = \"unix:/run/s\"\n",
        "",
        &[],
    );
    let plain =
        |target, flags: &ConnectionOverrides| fixture.resolve(target, flags).unwrap().route.plain;
    assert!(!plain("lab07", &ConnectionOverrides::default()));
    assert!(plain(
        "lab07",
        &ConnectionOverrides { plain: Some(true), ..ConnectionOverrides::default() }
    ));
    assert!(plain("bare", &ConnectionOverrides::default()));
    assert!(plain("unix:/run/s", &ConnectionOverrides::default()));
    assert!(plain("here", &ConnectionOverrides::default()));
    assert_eq!(
        fixture.resolve("here", &ConnectionOverrides::default()).unwrap().route.host_id.as_str(),
        "here"
    );
    assert_eq!(
        fixture
            .resolve("unix:/run/s", &ConnectionOverrides::default())
            .unwrap()
            .route
            .host_id
            .as_str(),
        "localhost"
    );
}

#[test]
fn contradictory_ports_and_ports_of_sockets_are_refused() {
    let fixture = Fixture::new(
        "[hosts.here]\naddress = \"unix:/run/s\"\nport = 5\n",
        "",
        &[("LABSH_PORT", "2")],
    );
    let flags = ConnectionOverrides { port: Some(1), ..ConnectionOverrides::default() };
    assert!(matches!(
        fixture.resolve("lab07:2", &flags),
        Err(ConfigError::TwoPorts { target: 2, flag: 1 })
    ));
    assert!(fixture.resolve("lab07:1", &flags).is_ok());
    for (target, flags) in
        [("unix:/s", &flags), ("here", &flags), ("here:1", &ConnectionOverrides::default())]
    {
        assert!(
            matches!(fixture.resolve(target, flags), Err(ConfigError::SocketPort { .. })),
            "{target}"
        );
    }
    assert!(fixture.resolve("here", &ConnectionOverrides::default()).is_ok());
}

#[test]
fn without_a_key_or_with_too_many_the_message_says_what_to_do() {
    let fixture = Fixture::new("", "", &[]);
    fixture.store().create(&KeyId::new("bob").unwrap()).unwrap();
    let text = fixture.resolve("lab07", &ConnectionOverrides::default()).unwrap_err().to_string();
    assert!(text.contains("alice, bob") && text.contains("--key"), "{text}");
    let flags =
        ConnectionOverrides { key: Some("bob".parse().unwrap()), ..ConnectionOverrides::default() };
    assert!(fixture.resolve("lab07", &flags).unwrap().key.ends_with("bob.key"));
    for key in ["alice", "bob"] {
        fixture.store().delete(&KeyId::new(key).unwrap()).unwrap();
    }
    let text = fixture.resolve("lab07", &ConnectionOverrides::default()).unwrap_err().to_string();
    assert!(text.contains("labsh key new"), "{text}");
}

#[test]
fn errors_name_the_file_and_the_line_or_the_variable() {
    let text = Fixture::new("", "\nprot = 1\n", &[]).config().unwrap_err().to_string();
    assert!(text.contains("/system:2: unknown field `prot`"), "{text}");
    for (name, value) in
        [("LABSH_PORT", "ssh"), ("LABSH_CONNECT_TIMEOUT", "10"), ("LABSH_KEY", "a b")]
    {
        let text = Fixture::new("", "", &[(name, value)]).config().unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(value) && text.contains("unset it"), "{text}");
    }
}
