//! Where a client believes us to be: what answers say about the places of objects begins there.

use base::{BucketName, ObjectKey};
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;
use s3wire::uri;

/// What a proxy in front of us says about the connection of its client.
const FORWARDED: &str = "x-forwarded-proto";

/// What the client's connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How a client addresses us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Site {
    scheme: Scheme,
    /// Absent for a client that named none.
    host: Option<HeaderValue>,
    style: Style,
}

/// What names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Style {
    /// The path.
    #[default]
    Path,
    /// The host.
    Host,
}

impl Site {
    /// What a request's head says. Nobody but the one who sent it sees what follows from it, so a
    /// scheme that is not true misleads nobody else. `named` is the bucket that the host names.
    pub(super) fn of(parts: &Parts, scheme: Scheme, named: Option<&str>) -> Self {
        let host = parts.headers.get(HOST).filter(|host| !host.is_empty());
        let scheme = match parts.headers.get(FORWARDED).map(|value| value.as_bytes()) {
            Some(b"https") => Scheme::Https,
            Some(b"http") => Scheme::Http,
            Some(_) | None => scheme,
        };
        let style = match named {
            Some(_) => Style::Host,
            None => Style::Path,
        };
        Self {
            scheme,
            host: host.cloned(),
            style,
        }
    }

    /// The address of an object.
    pub(super) fn locate(&self, bucket: &BucketName, key: &ObjectKey) -> String {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        let base = match host {
            Some(host) => format!("{}://{host}", self.scheme.as_str()),
            None => String::new(),
        };
        match self.style {
            Style::Host => format!("{base}/{}", uri::encode_path(key.as_str())),
            Style::Path => format!("{base}{}", uri::object_path(bucket, key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn an_object_is_where_the_client_asked_for_it() {
        let locate = |headers: &[(&str, &str)], scheme, named| {
            let mut request = Request::put("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let (bucket, key) = ("b u".parse().unwrap(), "a/ä?".parse().unwrap());
            Site::of(&parts, scheme, named).locate(&bucket, &key)
        };
        let host = ("host", "s3.test:9000");
        let behind = |scheme| ("x-forwarded-proto", scheme);
        for (headers, scheme, named, expected) in [
            (
                &[host][..],
                Scheme::Http,
                None,
                "http://s3.test:9000/b%20u/a/%C3%A4%3F",
            ),
            (
                &[host],
                Scheme::Https,
                None,
                "https://s3.test:9000/b%20u/a/%C3%A4%3F",
            ),
            (
                &[host],
                Scheme::Http,
                Some("b u"),
                "http://s3.test:9000/a/%C3%A4%3F",
            ),
            (
                &[host, behind("https")],
                Scheme::Http,
                None,
                "https://s3.test:9000/b%20u/a/%C3%A4%3F",
            ),
            (
                &[host, behind("javascript")],
                Scheme::Http,
                None,
                "http://s3.test:9000/b%20u/a/%C3%A4%3F",
            ),
            (&[], Scheme::Http, None, "/b%20u/a/%C3%A4%3F"),
        ] {
            assert_eq!(locate(headers, scheme, named), expected);
        }
    }
}
