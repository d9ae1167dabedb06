//! Inventories of labsh and of other tools from any text: each is parsed, or its error is one line.
#![no_main]

use std::path::Path;

use labsh_inventory::{ansible_ini, ansible_yaml, clustershell, hosts_toml, ssh_config};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte selects the format, so that a mutation of the text stays within it.
    let Some((format, text)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let path = Path::new("hosts");
    let diagnostic = match format % 6 {
        0 => hosts_toml::parse(text, path).err(),
        1 => ansible_ini::parse(text, path).err(),
        2 => ansible_yaml::parse(text, path).err(),
        3 => clustershell::parse_yaml(text, path).err(),
        4 => clustershell::parse_flat(text, path).err(),
        _ => ssh_config::parse(text, path).err(),
    };
    assert!(diagnostic.is_none_or(|diagnostic| !diagnostic.to_string().contains('\n')));
});
