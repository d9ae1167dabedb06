//! Opens a command with variables that the host may refuse; it then runs without those.

use std::collections::HashSet;

use labsh_client::{Child, Command, CommandError};
use labsh_proto::message::{RefuseCode, Variable};

use crate::console::note;

/// After this many refusals no optional variable is sent any more: each refusal costs a round trip,
/// and one names as many variables as fit into its text.
const MAX_REFUSALS: usize = 8;

/// Opens the command with the optional variables besides its own, which take precedence. Leaves out
/// those that the host refuses. Returns once the command has started.
pub(crate) async fn open(
    command: &Command,
    mut optional: Vec<Variable>,
) -> Result<Child, CommandError> {
    let mut refusals = 0;
    loop {
        let mut attempt = command.clone();
        attempt.env_defaults(&optional);
        let child = attempt.open().await?;
        match child.started().await {
            Ok(_) => return Ok(child),
            // A refused command was not started, so the next attempt cannot run it twice.
            Err(CommandError::Refused(refuse))
                if refuse.code == RefuseCode::ENVIRONMENT && !optional.is_empty() =>
            {
                refusals += 1;
                optional = if refusals < MAX_REFUSALS {
                    without_named(optional, &refuse.reason)
                } else {
                    note("the host refuses too many variables; none is passed on");
                    Vec::new()
                };
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns the variables that the reason of a refusal does not name; none if it names none of them,
/// because then it is unknown which are refused.
fn without_named(variables: Vec<Variable>, reason: &str) -> Vec<Variable> {
    // labshd writes names, separated by blanks, and why they may not be set.
    let reason = reason.trim_start_matches("the environment variable").trim_start_matches('s');
    let parts = reason.split("; ").filter_map(|part| part.split_once(" may not be set"));
    let names: HashSet<&[u8]> =
        parts.flat_map(|(names, _)| names.split(' ')).map(str::as_bytes).collect();
    let (named, others): (Vec<_>, Vec<_>) =
        variables.into_iter().partition(|(name, _)| names.contains(&name[..]));
    if named.is_empty() { Vec::new() } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_a_refusal_names_are_left_out_and_all_if_it_names_none() {
        let variables =
            |names: &[&str]| names.iter().map(|name| (name.as_bytes().to_vec(), vec![])).collect();
        let reason = "the environment variable LC_ALL may not be set: no, and it may not";
        let left: Vec<Variable> = without_named(variables(&["LANG", "LC_ALL", "LC", "it"]), reason);
        assert_eq!(left, variables(&["LANG", "LC", "it"]));
        assert!(without_named(variables(&["LANG"]), reason).is_empty());
        let reason = "the environment variables A B may not be set: no; C may not be set: never";
        assert_eq!(without_named(variables(&["A", "B", "C", "D"]), reason), variables(&["D"]));
    }
}
