//! Groups of a named source, beside those of other sources: each `@group` in them becomes
//! `@source:group`.

use crate::Source;

impl Source {
    /// The same groups, with members that mean the same wherever groups of other sources are known
    /// too. The groups' own names stay as they are: the caller knows them as `source:group`, and by
    /// `source:*` what `@*` is in this source.
    #[must_use]
    pub fn qualified(mut self, source: &str) -> Self {
        for group in self.groups.values_mut() {
            group.members = qualified(&group.members, source);
        }
        self
    }
}

/// An expression, or one in each line, whose groups name their source.
fn qualified(members: &str, source: &str) -> String {
    let mut text = String::with_capacity(members.len());
    let mut begins = true;
    let mut inside = false;
    for (at, sign) in members.char_indices() {
        text.push(sign);
        if sign == '@' && begins {
            let end = |sign: char| sign.is_whitespace() || ",!&^:".contains(sign);
            // Not further than to the end of this name: there may be very many of them. What is in
            // brackets may have commas.
            let mut open = false;
            let end_of_name = members[at + 1..].chars().find(|sign| {
                open = *sign == '[' || (open && *sign != ']');
                !open && end(*sign)
            });
            let named = end_of_name == Some(':');
            if !named {
                text.push_str(source);
                text.push(':');
            }
        }
        inside = sign == '[' || (inside && sign != ']');
        begins = !inside && (sign.is_whitespace() || ",!&^".contains(sign));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_get_the_name_of_their_source() {
        for (written, meant) in [
            ("", ""),
            ("lab[01-40]", "lab[01-40]"),
            ("@a", "@racks:a"),
            ("@a,@b!@c&@d^@e", "@racks:a,@racks:b!@racks:c&@racks:d^@racks:e"),
            ("lab1 @a\n@b", "lab1 @racks:a\n@racks:b"),
            ("@other:a,@b", "@other:a,@racks:b"),
            ("@*", "@racks:*"),
            ("@r[1,3]n[1-2],@x:r[1,2]", "@racks:r[1,3]n[1-2],@x:r[1,2]"),
            ("@r[1,2]:x", "@r[1,2]:x"),
            ("@r[1:2],x:y", "@racks:r[1:2],x:y"),
            ("@a,[::1]", "@racks:a,[::1]"),
            ("root@lab1", "root@lab1"),
        ] {
            assert_eq!(qualified(written, "racks"), meant, "{written}");
        }
    }
}
