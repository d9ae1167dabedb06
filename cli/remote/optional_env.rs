//! Variables that a command is to have only where its host lets them in.

use labsh_client::Child;
use labsh_client::Command;
use labsh_client::CommandError;
use labsh_proto::message::{RefuseCode, Variable};

/// After so many refusals none is asked for any more: each costs a round trip.
const PATIENCE: usize = 8;

/// Opens a command with these variables besides its own, which win; where the host refuses some,
/// without those that it names. The command is known to have started when this returns.
pub(crate) async fn open(
    command: &Command,
    mut wishes: Vec<Variable>,
) -> Result<Child, CommandError> {
    let mut refusals = 0;
    loop {
        let mut wishful = command.clone();
        wishful.environment_before(&wishes);
        let child = wishful.open().await?;
        match child.started().await {
            Ok(_) => return Ok(child),
            // Nothing was started.
            Err(CommandError::Refused(refuse))
                if refuse.code == RefuseCode::ENVIRONMENT && !wishes.is_empty() =>
            {
                refusals += 1;
                wishes = if refusals < PATIENCE {
                    without_named(wishes, &refuse.reason)
                } else {
                    Vec::new()
                };
            }
            Err(error) => return Err(error),
        }
    }
}

/// Those that are not named in a refusal; none where it names none of them: what is refused then is
/// not known.
fn without_named(wishes: Vec<Variable>, reason: &str) -> Vec<Variable> {
    let is_named = |(name, _): &Variable| reason.split(' ').any(|word| word.as_bytes() == name);
    let (named, others): (Vec<_>, Vec<_>) = wishes.into_iter().partition(is_named);
    if named.is_empty() { Vec::new() } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_names_is_left_out_and_all_of_it_where_it_names_nothing() {
        let wishes =
            |names: &[&str]| names.iter().map(|name| (name.as_bytes().to_vec(), vec![])).collect();
        let reason = "the environment variable LC_ALL may not be set: no";
        let left: Vec<Variable> = without_named(wishes(&["LANG", "LC_ALL", "LC"]), reason);
        assert_eq!(left, wishes(&["LANG", "LC"]));
        assert!(without_named(wishes(&["LANG"]), reason).is_empty());
    }
}
