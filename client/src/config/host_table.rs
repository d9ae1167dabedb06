//! The settings of one table of hosts in the inventory: checks, and overrides for connections.

use std::borrow::Cow;
use std::fmt;

use labsh_diagnostics::Diagnostic;
use labsh_inventory::{HostTable, Setting, Settings};
use labsh_proto::key::HostId;

use crate::config::overrides::ConnectionOverrides;
use crate::config::target::Target;
use crate::keys::key_store::key_in_file;

/// Returns a host's name in the form in which [`super::target::Host`] displays it.
pub(super) fn normalize(name: &str) -> String {
    match name.contains(':').then(|| name.parse::<Target>()) {
        Some(Ok(target)) => target.host.to_string(),
        _ => name.to_ascii_lowercase(),
    }
}

/// Returns the settings for connections that a table sets.
pub(super) fn settings_in(settings: &Settings) -> impl Iterator<Item = Setting> {
    let Settings { address, port, host_id, key, user, plain, .. } = settings;
    [
        address.as_ref().map(|_| Setting::Address),
        port.map(|_| Setting::Port),
        host_id.as_ref().map(|_| Setting::HostId),
        key.as_ref().map(|_| Setting::Key),
        user.as_ref().map(|_| Setting::User),
        plain.map(|_| Setting::Plain),
    ]
    .into_iter()
    .flatten()
}

/// What a value of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ValueName<'a> {
    Setting(&'static str),
    Variable(&'a str),
}

impl fmt::Display for ValueName<'_> {
    /// Writes the name as messages have it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(name) => formatter.write_str(name),
            Self::Variable(name) => write!(formatter, "variable {name}"),
        }
    }
}

/// Returns everything that a table sets, with its name.
pub(super) fn values(settings: &Settings) -> impl Iterator<Item = (ValueName<'_>, Cow<'_, str>)> {
    let Settings { address, port, host_id, key, user, plain, unusable: _, variables } = settings;
    fn text(value: &Option<String>) -> Option<Cow<'_, str>> {
        value.as_deref().map(Cow::Borrowed)
    }
    let named = [
        ("address", text(address)),
        ("port", port.map(|port| port.to_string().into())),
        ("host id", text(host_id)),
        ("key", text(key)),
        ("user", text(user)),
        ("mode (plain)", plain.map(|plain| plain.to_string().into())),
    ];
    let named =
        named.into_iter().filter_map(|(name, value)| Some((ValueName::Setting(name), value?)));
    let variables = variables.iter();
    named.chain(variables.map(|(name, value)| (ValueName::Variable(name), value.into())))
}

/// Finds invalid names and settings of a table before one of its hosts is used.
pub(super) fn check(table: &HostTable) -> Result<(), Diagnostic> {
    let diagnostic = |reason: String| Diagnostic { origin: table.origin.clone(), reason };
    if table.settings != Settings::default() {
        return table
            .hosts
            .iter()
            .take(1)
            .try_for_each(|name| overrides(table, &normalize(name)).map(drop));
    }
    for name in &table.hosts {
        let target: Target =
            name.parse().map_err(|error| diagnostic(format!("{name:?} is not a host: {error}")))?;
        if let Some(port) = target.port {
            let reason = format!("{name:?} names a port; write it inside the table: port = {port}");
            return Err(diagnostic(reason));
        }
    }
    Ok(())
}

/// Returns what a table means for connections to one of its hosts.
pub(super) fn overrides(table: &HostTable, host: &str) -> Result<ConnectionOverrides, Diagnostic> {
    let Settings { address, port, host_id, key, user, plain, unusable: _, variables: _ } =
        &table.settings;
    let diagnostic = |reason: String| Diagnostic { origin: table.origin.clone(), reason };
    let fill_in = |text: &String| {
        let filled = text.replace("{host}", host);
        match filled.contains(['{', '}']) {
            true => Err(diagnostic(format!("{text:?}: {{host}} is the only placeholder"))),
            false => Ok(filled),
        }
    };
    let address = address
        .as_ref()
        .map(fill_in)
        .transpose()?
        .map(|text| text.parse::<Target>())
        .transpose()
        .map_err(|error| diagnostic(format!("the address is invalid: {error}")))?;
    let host_id = host_id
        .as_ref()
        .map(fill_in)
        .transpose()?
        .map(|text| HostId::new(&text))
        .transpose()
        .map_err(|error| diagnostic(format!("the host id is invalid: {error}")))?;
    if user.as_deref().is_some_and(str::is_empty) {
        return Err(diagnostic("the user is empty; name one, or delete the line".to_owned()));
    }
    let (address, address_port) = address.map(|target| (target.host, target.port)).unzip();
    Ok(ConnectionOverrides {
        address,
        port: port.or(address_port.flatten()),
        host_id,
        key: key.as_deref().map(key_in_file).transpose().map_err(diagnostic)?,
        user: user.clone(),
        plain: *plain,
        ..ConnectionOverrides::default()
    })
}
