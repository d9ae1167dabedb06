//! Qualifies the groups that a source names: each `@group` becomes `@source:group`.

use crate::Source;

impl Source {
    /// Returns the source with members that can be evaluated beside the groups of other sources.
    /// The keys of [`Source::groups`] do not change: the caller knows the groups as `source:group`,
    /// and this source's `@*` as `source:*`.
    #[must_use]
    pub fn qualified(mut self, source: &str) -> Self {
        for group in self.groups.values_mut() {
            group.members = qualified(&group.members, source);
        }
        self
    }
}

/// Qualifies the groups in expressions, one a line.
fn qualified(members: &str, source: &str) -> String {
    let mut text = String::with_capacity(members.len());
    let mut at_start = true;
    let mut in_brackets = false;
    for (at, c) in members.char_indices() {
        text.push(c);
        if c == '@' && at_start {
            let is_end = |c: char| c.is_whitespace() || ",!&^:".contains(c);
            // The search stops at the end of the name, so that the whole loop takes linear time.
            // Commas in brackets are part of the name.
            let mut in_brackets = false;
            let end_of_name = members[at + 1..].chars().find(|c| {
                in_brackets = *c == '[' || (in_brackets && *c != ']');
                !in_brackets && is_end(*c)
            });
            let qualified = end_of_name == Some(':');
            if !qualified {
                text.push_str(source);
                text.push(':');
            }
        }
        in_brackets = c == '[' || (in_brackets && c != ']');
        at_start = !in_brackets && (c.is_whitespace() || ",!&^".contains(c));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unqualified_groups_get_the_name_of_their_source() {
        for (written, expected) in [
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
            assert_eq!(qualified(written, "racks"), expected, "{written}");
        }
    }
}
