//! Candidates for hosts and sets of hosts: names, groups, and what follows `@last`.

use labsh_client::config::Config;
use labsh_client::keys::key_store::KeyStore;
use labsh_nodeset::Groups;

use super::{Candidate, paths};
use crate::fleet::hosts::evaluate;
use crate::fleet::last_run::OUTCOMES;

/// The operators of sets, outside brackets.
const OPERATORS: [char; 5] = [',', '!', '&', '^', ' '];

/// Returns the hosts that are known: those of the configuration, and those that a key of the user
/// was enrolled for.
pub(super) fn hosts(config: Option<&Config>) -> Vec<Candidate> {
    let known = config.and_then(|config| evaluate("@*", config.inventory()).ok());
    let mut names: Vec<String> = known.unwrap_or_default().iter().map(str::to_owned).collect();
    let keys = KeyStore::open().and_then(|store| store.list()).unwrap_or_default();
    names.extend(keys.iter().flat_map(|key| &key.hosts).map(|host| host.as_str().to_owned()));
    names.into_iter().map(Candidate::new).collect()
}

/// Returns candidates for a set, of which the last host or group is completed.
pub(super) fn sets(config: Option<&Config>, current: &str) -> Vec<Candidate> {
    let (before, last) = current.split_at(last_operand(current));
    let found = match last.chars().next() {
        Some('@') => groups(config),
        Some('^') => paths::local(&last[1..], false)
            .into_iter()
            .map(|candidate| candidate.after("^"))
            .collect(),
        _ => hosts(config),
    };
    found.into_iter().map(|candidate| candidate.after(before)).collect()
}

fn groups(config: Option<&Config>) -> Vec<Candidate> {
    let names = config.map(|config| config.inventory().names()).unwrap_or_default();
    let last = ["last".to_owned(), "last:failed".to_owned()];
    let outcomes = OUTCOMES.iter().map(|outcome| format!("last:{outcome}"));
    let all = names.into_iter().chain(last).chain(outcomes);
    all.map(|name| Candidate::new(format!("@{name}"))).collect()
}

/// Returns where the last operand of a set begins. A `^` at its start names a file.
fn last_operand(set: &str) -> usize {
    let (mut depth, mut start) = (0_usize, 0);
    for (at, character) in set.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '^' if at == start => {}
            operator if depth == 0 && OPERATORS.contains(&operator) => {
                start = at + operator.len_utf8();
            }
            _ => {}
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_operand_of_a_set_is_completed() {
        for (set, operand) in [
            ("lab", "lab"),
            ("lab01,la", "la"),
            ("lab[01-02,05]!@g", "@g"),
            ("@a&lab", "lab"),
            ("lab01^", ""),
            ("^fi", "^fi"),
            ("lab01,^fi", "^fi"),
            ("lab01, la", "la"),
            ("lab[01,", "lab[01,"),
        ] {
            assert_eq!(&set[last_operand(set)..], operand, "{set}");
        }
    }
}
