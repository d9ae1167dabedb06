//! Escapes text for a page, and hashes the page's script and style for its security policy.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::wrap::escape;

/// Escapes markup; the result is also safe in an attribute with double quotes.
pub(super) fn escape_html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

/// Makes the invisible characters of a label visible.
pub(super) fn visible(text: &str) -> String {
    escape(text.as_bytes())
}

/// Bounds of the received bytes that a page shows.
const MAX_LINES: usize = 60;
const MAX_BYTES: usize = 8192;

/// Returns received bytes, line by line, for `<pre>`, and how many bytes were left out.
pub(super) fn received(bytes: &[u8]) -> (String, usize) {
    let mut html = String::new();
    let mut shown = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n').take(MAX_LINES) {
        let line = &line[..line.len().min(MAX_BYTES - shown)];
        shown += line.len();
        match line.strip_suffix(b"\n") {
            Some(line) => {
                let _ = writeln!(html, "{}", escape_html(&escape(line)));
            }
            None => html.push_str(&escape_html(&escape(line))),
        }
        if shown == MAX_BYTES {
            break;
        }
    }
    (html, bytes.len() - shown)
}

/// Returns the source expression of a content security policy that allows exactly this script or
/// style (CSP Level 3, 2.3.1).
pub(super) fn hash_source(text: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(text.as_bytes())))
}

/// Encodes bytes in Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            if index <= chunk.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_are_escaped_and_visible() {
        let (html, left_out) = received(b"</pre><script>alert(\"1\")</script>\n\x1b[31m\xff&");
        assert_eq!(
            (html.as_str(), left_out),
            (
                "&lt;/pre&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;\n\
             \\x1b[31m\\xff&amp;",
                0
            )
        );
    }

    #[test]
    fn received_bytes_are_bounded_and_the_rest_is_counted() {
        assert_eq!(received(&b"x\n".repeat(1000)).1, 2000 - 2 * MAX_LINES);
        assert_eq!(received(&[b'x'; 3 * MAX_BYTES]).1, 2 * MAX_BYTES);
        assert_eq!(received(b""), (String::new(), 0));
    }

    #[test]
    fn base64_matches_the_vectors_of_the_rfc() {
        // RFC 4648, section 10.
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
