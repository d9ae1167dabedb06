//! Where the configuration and the keys come from, at the start and at every reload.

use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use labsh_diagnostics::{Diagnostic, Diagnostics};

use crate::config::Config;
use crate::keyring::{Keyring, RunsAs};

/// The place of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Absolute.
    pub config_path: PathBuf,
    /// Whether somebody named it. Then it must exist; otherwise defaults hold where it does not.
    pub explicit: bool,
}

impl Source {
    /// The named file, or the default one: `/etc/labsh/labshd.toml` for root, `labshd/labshd.toml`
    /// in the user's XDG configuration directory for anyone else.
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
        // A reload must find it wherever the process has moved to.
        Ok(Self { config_path: std::path::absolute(path)?, explicit })
    }

    /// Reads the configuration and all keys; every mistake in any of the files is told.
    pub fn load(&self) -> Result<(Config, Keyring), Diagnostics> {
        let (config, mut diagnostics) = self.read();
        match Keyring::load(&config.keys_dir, &RunsAs::current()) {
            Ok(keyring) if diagnostics.is_empty() => return Ok((config, keyring)),
            Ok(_) => {}
            Err(more) => diagnostics.extend(more.0),
        }
        Err(Diagnostics(diagnostics))
    }

    /// The configuration, as far as it can be understood, and the mistakes in it.
    pub fn read(&self) -> (Config, Vec<Diagnostic>) {
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
        let source = |explicit| Source { config_path: config_path.clone(), explicit };
        let (config, keyring) = source(false).load().unwrap();
        assert_eq!((config.keys_dir, keyring.entries().len()), (dir.path().join("keys.d"), 0));
        assert!(source(true).load().unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn mistakes_in_all_files_are_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source { config_path: dir.path().join("labshd.toml"), explicit: true };
        let keys = dir.path().join("elsewhere");
        private_file::create_directory(&keys).unwrap();
        private_file::create(&keys.join("a.toml"), "key = 'x'").unwrap();
        private_file::create(&source.config_path, "backlog = 0\nkeys_dir = 'elsewhere'").unwrap();
        let told = source.load().unwrap_err().to_string();
        assert!(
            told.contains("labshd.toml:1: backlog") && told.contains("a.toml:1: key"),
            "{told}"
        );
    }
}
