//! Converts Ansible's variables to settings of labsh.

use super::{Definition, Value};
use crate::{Setting, Settings};

/// The variables that hold each setting, highest precedence first: those of labsh's connection
/// plugin come before those for ssh.
pub(super) const VARIABLES: [(Setting, &[&str]); 6] = [
    (Setting::Address, &["ansible_labsh_target", "ansible_host", "ansible_ssh_host"]),
    (Setting::Port, &["ansible_labsh_port", "ansible_port"]),
    (Setting::HostId, &["ansible_labsh_host_id"]),
    (Setting::Key, &["ansible_labsh_key"]),
    (Setting::User, &["ansible_labsh_user", "ansible_user", "ansible_ssh_user"]),
    (Setting::Plain, &["ansible_labsh_plain"]),
];

impl Setting {
    /// Stores the value of a definition; one that only Ansible can evaluate makes the setting
    /// unusable.
    pub(super) fn set(
        self,
        settings: &mut Settings,
        definition: &Definition,
    ) -> Result<(), String> {
        let variable = &definition.variable;
        let override_variable = match self {
            Self::Address => "ansible_labsh_target",
            Self::Port => "ansible_labsh_port",
            Self::User => "ansible_labsh_user",
            Self::HostId | Self::Key | Self::Plain => variable,
        };
        let mut mark_unusable = |reason: &str| {
            let text = format!("{variable} is {reason}; set {override_variable} to a plain value");
            settings.unusable.insert(self, text);
        };
        let text = match &definition.value {
            Value::Text(text) => text,
            Value::Null => return Ok(()),
            Value::Structure(_) => {
                return Err(format!("{variable} is not a single value; write one after it"));
            }
            Value::Encrypted => {
                mark_unusable("encrypted, and labsh has no key to it");
                return Ok(());
            }
        };
        if text.is_empty() {
            return Ok(());
        }
        let with_host =
            matches!(self, Self::Address | Self::HostId).then(|| fill_in_host(text)).flatten();
        let text = with_host.unwrap_or_else(|| text.clone());
        if ["{{", "{%", "{#"].iter().any(|template| text.contains(template)) {
            mark_unusable("a template, which only Ansible can fill in");
            return Ok(());
        }
        match self {
            Self::Address => settings.address = Some(text),
            Self::HostId => settings.host_id = Some(text),
            Self::Key => settings.key = Some(text),
            Self::User => settings.user = Some(text),
            Self::Port => match text.parse().ok().filter(|port| *port > 0) {
                Some(port) => settings.port = Some(port),
                None => {
                    return Err(format!("{variable} is a port; write a number from 1 to 65535"));
                }
            },
            Self::Plain => match boolean(&text) {
                Some(plain) => settings.plain = Some(plain),
                None => return Err(format!("{variable} is true or false; write one of them")),
            },
        }
        Ok(())
    }
}

/// Parses a boolean as Ansible does.
fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "y" | "yes" | "on" | "1" | "true" | "t" => Some(true),
        "n" | "no" | "off" | "0" | "false" | "f" => Some(false),
        _ => None,
    }
}

/// Replaces `{{ inventory_hostname }}`, the one template that labsh can fill in, by `{host}`.
fn fill_in_host(text: &str) -> Option<String> {
    let (before, rest) = text.split_once("{{")?;
    let (inside, after) = rest.split_once("}}")?;
    (inside.trim() == "inventory_hostname").then(|| format!("{before}{{host}}{after}"))
}
