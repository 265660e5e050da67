//! Values that are more than numbers and words.

use std::fmt;
use std::str::FromStr;

/// Where to listen: `host:port`, `[::1]:9000`, or `:9000` for every address of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    host: String,
    port: u16,
}

/// The text is not a listen address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddrError {
    /// No colon, or nothing behind it.
    #[error("the port is missing")]
    NoPort,
    /// Not a number up to 65535.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// An IPv6 address without brackets, or characters that no host name has.
    #[error("the host is not a name, an IPv4 address or an IPv6 address in brackets")]
    BadHost,
}

impl ListenAddr {
    /// A host, empty for all addresses, and a port, 0 for any free one.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// The host without brackets; empty means all addresses of the machine, IPv6 and IPv4.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 means any free one.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, ListenAddrError> {
        let (host, port) = text.rsplit_once(':').ok_or(ListenAddrError::NoPort)?;
        if port.is_empty() {
            return Err(ListenAddrError::NoPort);
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ListenAddrError::BadPort);
        }
        let port = port.parse().map_err(|_| ListenAddrError::BadPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(ListenAddrError::BadHost)?;
                inner
                    .parse::<std::net::Ipv6Addr>()
                    .map_err(|_| ListenAddrError::BadHost)?;
                inner
            }
            None => host,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !host.contains(':') && !host.chars().all(plain)
            || host.contains(':') && !text.starts_with('[')
        {
            return Err(ListenAddrError::BadHost);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_read_and_print_alike() {
        for text in [
            ":9000",
            "127.0.0.1:9000",
            "localhost:0",
            "[::]:9000",
            "[::1]:65535",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        for (text, error) in [
            ("9000", ListenAddrError::NoPort),
            ("localhost:", ListenAddrError::NoPort),
            ("localhost:http", ListenAddrError::BadPort),
            ("localhost:65536", ListenAddrError::BadPort),
            ("localhost:+80", ListenAddrError::BadPort),
            ("::1:9000", ListenAddrError::BadHost),
            ("[::1:9000", ListenAddrError::BadHost),
            ("http://host:80", ListenAddrError::BadHost),
            ("a b:80", ListenAddrError::BadHost),
        ] {
            assert_eq!(text.parse::<ListenAddr>(), Err(error), "{text}");
        }
    }
}
