//! Recognises clients of other protocols, and describes why a TLS handshake failed, for the log.

use std::fmt;
use std::io;
use std::time::Duration;

use labsh_transport::socket::Socket;
use labsh_transport::tls::{Rejection, rejection};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Timeout for sending the answer to a client of another protocol.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The methods of HTTP (RFC 9110, section 9; RFC 5789), and the start of HTTP/2 (RFC 9113).
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * HTTP/",
];

/// A protocol that a client speaks instead of labsh, in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForeignProtocol {
    Http,
    Ssh,
}

impl fmt::Display for ForeignProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http => "an HTTP client",
            Self::Ssh => "an ssh client",
        })
    }
}

impl ForeignProtocol {
    /// Recognises a protocol by its first bytes.
    pub(crate) fn of(first_bytes: &[u8]) -> Option<Self> {
        if HTTP_METHODS.iter().any(|method| first_bytes.starts_with(method)) {
            return Some(Self::Http);
        }
        first_bytes.starts_with(b"SSH-").then_some(Self::Ssh)
    }

    /// Answers in the client's own protocol, before the connection is closed.
    pub(crate) async fn answer(self, socket: &mut Socket) {
        let body = "This port speaks labsh, not HTTP.\n";
        let text = match self {
            Self::Http => format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            ),
            // A server may send other lines before its version (RFC 4253, section 4.2).
            Self::Ssh => "This port speaks labsh, not ssh.\r\n".to_owned(),
        };
        let answered = async {
            socket.write_all(text.as_bytes()).await?;
            socket.shutdown().await?;
            labsh_transport::framing::drain(socket).await
        };
        // The client may be gone, or not read.
        let _ = timeout(ANSWER_TIMEOUT, answered).await;
    }
}

/// Describes the client of a failed TLS handshake.
pub(crate) fn describe_tls(error: &io::Error) -> String {
    match rejection(error) {
        Rejection::WrongKey => "the client holds another key for this host: it rejected the \
            identity of the name that it asked for"
            .to_owned(),
        Rejection::Foreign => format!("a TLS client that does not speak labsh: {error}"),
        Rejection::Closed => "closed during the TLS handshake".to_owned(),
        Rejection::Other => format!("TLS failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_recognised_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(ForeignProtocol::Http)),
            (b"POST /", Some(ForeignProtocol::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(ForeignProtocol::Http)),
            (b"SSH-2.0-OpenSSH", Some(ForeignProtocol::Ssh)),
            (b"GETTY", None),
            (b"", None),
            (&[0, 0, 0, 8, 5], None),
        ] {
            assert_eq!(ForeignProtocol::of(bytes), expected, "{bytes:?}");
        }
    }
}
