//! `labsh key enroll --out`: a file for each host of a set, ready to be taken there.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use labsh_client::config::Config;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::config::target::{Host, Target};
use labsh_client::terminal_text::shell_word;
use labsh_nodeset::NodeSet;
use labsh_proto::key::{HostKey, Key, KeyId};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::console::note;

/// What is to be written for one host.
struct Enrolment {
    name: String,
    file: PathBuf,
    key: HostKey,
}

/// Writes them, and says how to take them to their hosts.
///
/// Each file has mode 0600 and appears whole or not at all; the directory is made with mode 0700
/// where it is missing.
///
/// # Errors
///
/// Where files are there already and not to be replaced, or everybody may write in the directory,
/// and nothing was written; or which could not be written.
pub(crate) fn write(
    config: &Config,
    id: Option<KeyId>,
    names: &NodeSet,
    flags: &ConnectionOverrides,
    directory: &Path,
    force: bool,
) -> anyhow::Result<()> {
    let store = config.store();
    let id = id.map_or_else(|| store.only(), Ok)?;
    let key = store.load(&id)?;
    let enrolments = plan(config, &key, names, flags, directory)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let about = fs::metadata(directory)
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    // What they put there would be taken to the hosts as well, and let their key in.
    if about.mode() & 0o002 != 0 {
        bail!(
            "everybody may put files into {}, so nothing was written; name a directory of your \
             own, or one that is not \
             there yet",
            directory.display()
        );
    }
    let there: NodeSet = enrolments
        .iter()
        .filter(|enrolment| enrolment.file.symlink_metadata().is_ok())
        .map(|enrolment| enrolment.name.as_str())
        .collect();
    if !there.is_empty() && !force {
        bail!(
            "there are files for {there} in {} already, so nothing was written; replace them with \
             --force, or name \
             another directory",
            directory.display()
        );
    }
    // Before any line leaves: a host that `revoke` does not know of is worse than one too many.
    store.remember_hosts(&id, enrolments.iter().map(|enrolment| enrolment.key.host_id()))?;
    let mut failed: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for enrolment in &enrolments {
        if let Err(error) = enrolment.write(directory, force) {
            failed.entry(error.to_string()).or_default().push(&enrolment.name);
        }
    }
    if !failed.is_empty() {
        let why = |(error, names): (String, Vec<&str>)| format!("{}: {error}", NodeSet::of(names));
        let failed: Vec<String> = failed.into_iter().map(why).collect();
        bail!("not written to {}: {}; all others were", directory.display(), failed.join("; "));
    }
    let path = directory.to_string_lossy();
    let path = shell_word(&path);
    note(&format!(
        "wrote {} {} to {path}, for {names}: each is a secret, for its host alone; take them \
         there and delete them with: \
         for file in {path}/*.enroll; do ssh \"$(basename \"$file\" .enroll)\" sudo labshd key \
         add --user USER \
         < \"$file\" && rm \"$file\"; done",
        enrolments.len(),
        if enrolments.len() == 1 { "file" } else { "files" },
    ));
    Ok(())
}

fn plan(
    config: &Config,
    key: &Key,
    names: &NodeSet,
    flags: &ConnectionOverrides,
    directory: &Path,
) -> anyhow::Result<Vec<Enrolment>> {
    let mut files: BTreeMap<PathBuf, &str> = BTreeMap::new();
    let mut enrolments = Vec::with_capacity(names.len());
    for name in names {
        let target: Target = name.parse().with_context(|| format!("{name:?}"))?;
        let stem = match &target.host {
            Host::Name(name) if !name.contains('/') && !name.starts_with('.') => name.as_str(),
            Host::Name(name) => {
                bail!("{name:?} cannot be the name of a file; enrol it alone, without --out")
            }
            Host::Unix(_) => target.default_host_id().as_str(),
        };
        let file = directory.join(format!("{stem}.enroll"));
        if let Some(other) = files.insert(file.clone(), name) {
            bail!(
                "{other} and {name} would be the same file, {}; name one of them",
                file.display()
            );
        }
        let host_id = config.host_id(&target, flags)?;
        enrolments.push(Enrolment { name: name.to_owned(), file, key: key.for_host(&host_id) });
    }
    Ok(enrolments)
}

impl Enrolment {
    fn write(&self, directory: &Path, force: bool) -> io::Result<()> {
        // Made with mode 0600, under a name that nobody can foresee.
        let mut file = NamedTempFile::new_in(directory)?;
        let line = Zeroizing::new(self.key.to_line() + "\n");
        file.write_all(line.as_bytes())?;
        file.as_file().sync_all()?;
        let named =
            if force { file.persist(&self.file) } else { file.persist_noclobber(&self.file) };
        named.map(drop).map_err(|error| error.error)
    }
}
