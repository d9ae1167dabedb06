//! Pictures of known flows.

use super::*;
use crate::flow::Flow;

const PLAIN: OutputFormat = OutputFormat { width: 60, color: false };

fn english(flow: &Flow, format: OutputFormat) -> Vec<String> {
    draw(&flow.record(), Language::English, format)
}

/// Returns a flow with one write for each message.
fn messages(sizes: &[usize]) -> Flow {
    let flow = Flow::new("client → server");
    for (index, size) in sizes.iter().enumerate() {
        flow.message(format!("PING {index}"));
        flow.wrote(&vec![b'x'; *size]);
    }
    flow
}

#[test]
fn glued_messages_share_a_block() {
    let flow = messages(&[6, 6]);
    flow.read(&[b'x'; 12]);
    assert_eq!(
        english(&flow, PLAIN),
        [
            "client → server  12 bytes, 2 writes, 1 read",
            "                    6                         6",
            "written [AAAAAAAA PING 0 AAAAAAAA][BBBBBBBB PING 1 BBBBBBBB]",
            "read    [AAAAAAAA PING 0 AAAAAAAAA|BBBBBBBB PING 1 BBBBBBBB]",
            "                                 12",
            "byte    0                         6",
            "A PING 0 (6 bytes)   B PING 1 (6 bytes)",
        ]
    );
}

#[test]
fn a_split_message_is_read_in_part() {
    let flow = messages(&[1000]);
    flow.read(&[b'x'; 600]);
    let drawn = english(&flow, PLAIN);
    assert_eq!(drawn[2], "written [AAAAAAAAAAAAAAAAAAAAA PING 0 AAAAAAAAAAAAAAAAAAAAA]");
    assert_eq!(drawn[3], "read    [AAAAAAAAAA PING 0 AAAAAAAAAAA]·····················");
    assert!(drawn.iter().any(|line| line.contains("was never read")), "{drawn:#?}");
}

#[test]
fn late_truncated_and_lost_datagrams_are_below_their_writes() {
    let flow = messages(&[8, 8, 8]);
    flow.received(2, b"xxxxxxxx");
    flow.received(0, b"xxx");
    let drawn = english(&flow, PLAIN);
    assert_eq!(drawn[3], "read    [AAAAA]····························[CCC PING 2 CCCC]");
    let sizes: Vec<&str> = drawn[4].split_whitespace().collect();
    assert_eq!(sizes, ["#2:", "3", "#1:", "8"]);
}

#[test]
fn empty_reads_are_counted_in_one_block() {
    let flow = messages(&[4]);
    flow.read(b"xxxx");
    (0..1000).for_each(|_| flow.read(b""));
    let drawn = english(&flow, PLAIN);
    assert!(drawn[3].ends_with("]") && drawn[4].trim_end().ends_with("0×1000"), "{drawn:#?}");
    assert!(drawn[0].ends_with("4 bytes, 1 write, 1001 reads"));
}

#[test]
fn a_proxy_has_messages_and_pieces() {
    let flow = Flow::over(Carrier::Proxy, "a → b");
    for label in ["one", "two"] {
        flow.message(label);
        flow.wrote(b"xxxx");
    }
    flow.read(b"xxxxxxxx");
    let drawn = english(&flow, PLAIN);
    assert_eq!(drawn[0], "a → b  8 bytes, 2 messages, 1 piece");
    assert!(
        drawn[2].starts_with("arrived   [") && drawn[3].starts_with("forwarded ["),
        "{drawn:#?}"
    );
}

#[test]
fn calls_that_are_not_drawn_are_counted() {
    let flow = messages(&[300]);
    (0..300).for_each(|_| flow.read(b"x"));
    let drawn = english(&flow, PLAIN).join("\n");
    let blocks = drawn.matches("[A").count() - 1;
    assert!(
        drawn.contains(&format!(
            "not drawn: 0 writes, {} reads, from byte {blocks} on",
            300 - blocks
        )),
        "{drawn}"
    );
}

#[test]
fn no_line_is_wider_than_the_format_allows() {
    let flow = Flow::new("客户端 → 服务器".repeat(9));
    for size in [1, 12, 0, 5000, 3, 700, 700] {
        flow.message("第一条很长很长的消息\u{1b}[2J".repeat(size % 3));
        flow.wrote(&vec![b'x'; size]);
    }
    flow.read(&[b'x'; 100]);
    flow.received(3, b"abc");
    (0..90).for_each(|_| flow.read(b"xx"));
    for columns in 40..200 {
        for (language, color) in [(Language::English, false), (Language::Chinese, true)] {
            for line in draw(&flow.record(), language, OutputFormat { width: columns, color }) {
                assert_eq!(line.contains('\x1b'), color && line.contains('\x1b'));
                assert!(width(&without_color(&line)) <= columns, "{columns}: {line}");
            }
        }
    }
}

#[test]
fn colours_do_not_change_the_columns() {
    let flow = messages(&[6, 60, 6]);
    flow.read(&[b'x'; 40]);
    flow.read(&[b'x'; 32]);
    let plain = english(&flow, PLAIN);
    let colored: Vec<String> = english(&flow, OutputFormat { color: true, ..PLAIN })
        .iter()
        .map(|line| without_color(line))
        .collect();
    assert_eq!(plain[1], colored[1]);
    assert_eq!(plain[4], colored[4]);
    let ends = |line: &str, mark: char| -> Vec<usize> {
        line.chars().enumerate().filter(|(_, c)| *c == mark).map(|(at, _)| at).collect()
    };
    assert_eq!(ends(&plain[3], ']'), ends(&colored[3], '▌'));
    assert_eq!(ends(&plain[3], '|'), ends(&colored[3], '│'));
    // Messages also differ by their letters.
    assert!(colored[3].contains("B PING 1") && colored[3].contains("C ▌"), "{colored:#?}");
}

#[test]
fn a_flow_without_calls_is_a_heading() {
    assert_eq!(english(&Flow::new("a → b"), PLAIN), ["a → b  0 bytes, 0 writes, 0 reads"]);
}

fn without_color(line: &str) -> String {
    let mut text = String::new();
    let mut parts = line.split('\x1b');
    text.push_str(parts.next().unwrap());
    for part in parts {
        text.push_str(part.split_once('m').unwrap().1);
    }
    text
}
