//! `-G`: prints the settings that would be used, a keyword and a value a line, as tools parse them.

use labsh_client::Address;
use labsh_client::config::Config;
use labsh_client::config::target::Target;
use labsh_transport::socket::AddressFamily;

use crate::console::{self, Level};
use crate::rsh::settings::{RequestTty, Settings};

/// Prints the settings. No key is needed, because a tool only inspects them.
pub(crate) fn print(target: &Target, settings: &Settings, config: &Config) -> anyhow::Result<()> {
    let route = config.route(target, &settings.overrides)?;
    let mut lines = vec![format!("host {}", target.host)];
    // ssh falls back on the local user's name; here the key's entry on the host decides.
    lines.extend(route.user.as_ref().map(|user| format!("user {user}")));
    match &route.address {
        Address::Tcp { host, port } => {
            lines.extend([format!("hostname {host}"), format!("port {port}")])
        }
        Address::Unix(_) => lines.push(format!("hostname {}", route.address)),
    }
    let family = match route.family {
        AddressFamily::Any => "any",
        AddressFamily::Inet => "inet",
        AddressFamily::Inet6 => "inet6",
    };
    let tty = match settings.request_tty.unwrap_or(RequestTty::Auto) {
        RequestTty::No => "false",
        RequestTty::Auto => "auto",
        RequestTty::Yes => "true",
        RequestTty::Force => "force",
    };
    let yes = |whether: bool| if whether { "yes" } else { "no" };
    lines.extend([
        format!("hostkeyalias {}", route.host_id),
        format!("addressfamily {family}"),
        "batchmode yes".to_owned(),
        format!("connecttimeout {}", route.connect_timeout.as_secs_f64().ceil()),
        format!("requesttty {tty}"),
        format!("stdinnull {}", yes(settings.stdin_null == Some(true))),
        format!(
            "sessiontype {}",
            if settings.subsystem == Some(true) { "subsystem" } else { "default" }
        ),
        format!(
            "loglevel {}",
            match settings.level.unwrap_or(Level::Errors) {
                Level::Nothing => "QUIET",
                Level::Errors => "INFO",
                Level::Everything => "VERBOSE",
            }
        ),
        format!(
            "escapechar {}",
            match settings.escape.unwrap_or_default().0 {
                None => "none".to_owned(),
                Some(control @ ..0x20) => format!("^{}", char::from(control | 0x40)),
                Some(character) => char::from(character).to_string(),
            }
        ),
    ]);
    // The key is known only if there is one.
    let key = config.resolve(target, &settings.overrides).ok();
    lines.extend(key.map(|resolved| format!("identityfile {}", resolved.key.display())));
    lines.extend(settings.send_env.iter().map(|pattern| format!("sendenv {pattern}")));
    let mut text = lines.join("\n").into_bytes();
    for (name, value) in &settings.set_env {
        text.extend([b"\nsetenv ", &name[..], b"=", value].concat());
    }
    if let Some(command) = settings.remote_command.clone().flatten() {
        text.extend([b"\nremotecommand ", command.as_bytes()].concat());
    }
    text.push(b'\n');
    console::print(&text)
}
