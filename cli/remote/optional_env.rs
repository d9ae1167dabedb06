//! Opens a command with variables that the host may refuse; it then runs without those.

use labsh_client::{Child, Command, CommandError};
use labsh_proto::message::{RefuseCode, Variable};

/// After this many refusals no optional variable is sent any more: each refusal costs a round trip.
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
    let is_named = |(name, _): &Variable| reason.split(' ').any(|word| word.as_bytes() == name);
    let (named, others): (Vec<_>, Vec<_>) = variables.into_iter().partition(is_named);
    if named.is_empty() { Vec::new() } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_a_refusal_names_are_left_out_and_all_if_it_names_none() {
        let variables =
            |names: &[&str]| names.iter().map(|name| (name.as_bytes().to_vec(), vec![])).collect();
        let reason = "the environment variable LC_ALL may not be set: no";
        let left: Vec<Variable> = without_named(variables(&["LANG", "LC_ALL", "LC"]), reason);
        assert_eq!(left, variables(&["LANG", "LC"]));
        assert!(without_named(variables(&["LANG"]), reason).is_empty());
    }
}
