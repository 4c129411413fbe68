//! Connection strings: `varve://HOST:PORT[,HOST:PORT...]/?ca=PATH`.
//!
//! Any node leads to all others, so one is enough; more help while some are down. `ca` is the certificate of the cluster's
//! authority, a PEM file.

use std::path::PathBuf;
use std::str::FromStr;

const SCHEME: &str = "varve://";

/// Where a cluster is and how to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionString {
    /// Nodes, each `host:port`; at least one.
    pub servers: Vec<String>,
    /// The certificate of the cluster's authority.
    pub ca: PathBuf,
}

/// What is wrong with a connection string. Every text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// Another scheme, or none.
    #[error(
        "`{text}` is no connection string: it starts with `{SCHEME}`, as in `varve://127.0.0.1:7101/?ca=ca.crt`"
    )]
    Scheme {
        /// As given.
        text: String,
    },
    /// No nodes.
    #[error("the connection string names no node: put `host:port` after `{SCHEME}`")]
    NoServers,
    /// Not `host:port`.
    #[error("`{server}` is no address of a node: `host:port` is, as in `127.0.0.1:7101`")]
    Server {
        /// As given.
        server: String,
    },
    /// An unknown parameter.
    #[error("`{parameter}` is no parameter of a connection string; there is only `ca=PATH`")]
    Parameter {
        /// As given.
        parameter: String,
    },
    /// No authority.
    #[error("the connection string names no authority: add `/?ca=PATH` with the cluster's `ca.crt`")]
    NoCa,
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| ConnectionStringError::Scheme { text: text.to_owned() })?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.is_empty() {
            return Err(ConnectionStringError::NoServers);
        }
        let servers: Vec<String> = authority.split(',').map(str::to_owned).collect();
        if let Some(server) = servers.iter().find(|server| !is_address(server)) {
            return Err(ConnectionStringError::Server { server: server.clone() });
        }
        let mut ca = None;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("ca", path)) if !path.is_empty() => ca = Some(PathBuf::from(path)),
                Some(_) | None => {
                    return Err(ConnectionStringError::Parameter { parameter: parameter.to_owned() });
                }
            }
        }
        Ok(Self { servers, ca: ca.ok_or(ConnectionStringError::NoCa)? })
    }
}

fn is_address(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_are_read() {
        let table = [
            ("varve://a:1/?ca=x.crt", vec!["a:1"], "x.crt"),
            ("varve://a:1?ca=x.crt", vec!["a:1"], "x.crt"),
            (
                "varve://10.0.0.1:7101,[::1]:7102,host:65535/?ca=/etc/ca.crt",
                vec!["10.0.0.1:7101", "[::1]:7102", "host:65535"],
                "/etc/ca.crt",
            ),
        ];
        for (text, servers, ca) in table {
            let read: ConnectionString = text.parse().expect(text);
            assert_eq!(
                (read.servers, read.ca),
                (servers.into_iter().map(str::to_owned).collect(), ca.into())
            );
        }
    }

    #[test]
    fn bad_ones_are_told_what_is_wrong() {
        let server = |server: &str| ConnectionStringError::Server { server: server.to_owned() };
        let parameter =
            |parameter: &str| ConnectionStringError::Parameter { parameter: parameter.to_owned() };
        let table = [
            ("", ConnectionStringError::Scheme { text: String::new() }),
            ("kafka://a:1", ConnectionStringError::Scheme { text: "kafka://a:1".to_owned() }),
            ("varve://", ConnectionStringError::NoServers),
            ("varve:///?ca=x", ConnectionStringError::NoServers),
            ("varve://a/?ca=x", server("a")),
            ("varve://a:1,/?ca=x", server("")),
            ("varve://a:0/?ca=x", server("a:0")),
            ("varve://a:70000/?ca=x", server("a:70000")),
            ("varve://:1/?ca=x", server(":1")),
            ("varve://a:1", ConnectionStringError::NoCa),
            ("varve://a:1/?ca=", parameter("ca=")),
            ("varve://a:1/?ca=x&tls=no", parameter("tls=no")),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<ConnectionString>(), Err(error), "{text}");
        }
    }
}
