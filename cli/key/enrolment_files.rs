//! `labsh key enroll --out`: writes a file for each host of a set, to be taken to that host.

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

/// The file to write for one host.
struct Enrolment {
    name: String,
    file: PathBuf,
    key: HostKey,
}

/// Writes the files, and prints how to take them to their hosts.
///
/// Each file has mode 0600 and is complete when it appears. A missing directory is created with
/// mode 0700.
///
/// # Errors
///
/// When a file exists and is not to be replaced, or every user may write to the directory: nothing
/// is written then. When a file cannot be written: the error names it.
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
    // A file that another user puts there would be taken to the hosts as well, and admit that
    // user's key.
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
    // Before any line leaves: a recorded host that has no key does less harm than an enrolled host
    // that `revoke` does not list.
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
        // NamedTempFile creates it with mode 0600 and an unpredictable name.
        let mut file = NamedTempFile::new_in(directory)?;
        let line = Zeroizing::new(self.key.to_line() + "\n");
        file.write_all(line.as_bytes())?;
        file.as_file().sync_all()?;
        let named =
            if force { file.persist(&self.file) } else { file.persist_noclobber(&self.file) };
        named.map(drop).map_err(|error| error.error)
    }
}
