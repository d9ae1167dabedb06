//! Loads the configuration and the keys, at the start and at every reload.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcetera::BaseStrategy;
use labsh_diagnostics::{Diagnostic, Diagnostics};

use crate::account::RunsAs;
use crate::config::Config;
use crate::keyring::Keyring;

/// The configuration and the keys of one load.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration.
    pub config: Arc<Config>,
    pub(crate) keyring: Arc<Keyring>,
}

/// The file that the settings are loaded from; it names the directory of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsSource {
    /// Absolute.
    pub(crate) config_path: PathBuf,
    /// Whether the user named the file. Otherwise it may be missing, and the defaults apply.
    pub(crate) explicit: bool,
}

impl Settings {
    pub(crate) fn new(config: Config, keyring: Keyring) -> Self {
        Self { config: Arc::new(config), keyring: Arc::new(keyring) }
    }
}

impl SettingsSource {
    /// Uses the named configuration file or the default one: `/etc/labsh/labshd.toml` for root, and
    /// `labshd/labshd.toml` in the XDG configuration directory for other users.
    ///
    /// # Errors
    ///
    /// When the home directory or the working directory is unknown.
    pub fn new(named: Option<PathBuf>) -> anyhow::Result<Self> {
        let explicit = named.is_some();
        let path = match (named, RunsAs::current()) {
            (Some(path), _) => path,
            (None, RunsAs::Root) => PathBuf::from("/etc/labsh/labshd.toml"),
            (None, RunsAs::User(_)) => {
                let base = etcetera::base_strategy::Xdg::new().map_err(|error| {
                    anyhow::anyhow!("{error}; name a configuration file with --config")
                })?;
                base.config_dir().join("labshd/labshd.toml")
            }
        };
        // Absolute, so that a reload finds the file after a change of the working directory.
        Ok(Self { config_path: std::path::absolute(path)?, explicit })
    }

    /// Loads the configuration and all keys.
    ///
    /// # Errors
    ///
    /// All errors in all files.
    pub fn load(&self) -> Result<Settings, Diagnostics> {
        let (config, mut diagnostics) = self.read_config();
        match Keyring::load(&config.keys_dir, &RunsAs::current()) {
            Ok(keyring) if diagnostics.is_empty() => return Ok(Settings::new(config, keyring)),
            Ok(_) => {}
            Err(more) => diagnostics.extend(more.0),
        }
        Err(Diagnostics(diagnostics))
    }

    /// Reads the configuration, with defaults in place of wrong values, and all errors in it.
    pub fn read_config(&self) -> (Config, Vec<Diagnostic>) {
        if !self.explicit && is_missing(&self.config_path) {
            return (Config::beside(&self.config_path), Vec::new());
        }
        Config::read(&self.config_path)
    }
}

fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file;

    #[test]
    fn only_a_file_that_was_named_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let config_path = dir.path().join("labshd.toml");
        let source = |explicit| SettingsSource { config_path: config_path.clone(), explicit };
        let Settings { config, keyring } = source(false).load().unwrap();
        assert_eq!(config.keys_dir, dir.path().join("keys.d"));
        assert_eq!(keyring.entries().len(), 0);
        assert!(source(true).load().unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn errors_in_all_files_are_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let source = SettingsSource { config_path: dir.path().join("labshd.toml"), explicit: true };
        let keys = dir.path().join("elsewhere");
        private_file::create_directory(&keys).unwrap();
        private_file::create(&keys.join("a.toml"), "key = 'x'").unwrap();
        private_file::create(&source.config_path, "backlog = 0\nkeys_dir = 'elsewhere'").unwrap();
        let text = source.load().unwrap_err().to_string();
        assert!(
            text.contains("labshd.toml:1: backlog") && text.contains("a.toml:1: key"),
            "{text}"
        );
    }
}
