//! The query of a request: decoded for its meaning, in wire form for its signature.
//!
//! A query that cannot be decoded is refused as a whole, and so is one with more than 128
//! parameters: no S3 operation has as many.

use std::borrow::Cow;

use base::ChecksumAlgorithm;
use http::{HeaderName, HeaderValue};

use crate::uri;
use crate::{Error, ErrorCode};

/// The largest number of parameters.
const PARAMETERS_MAX: usize = 128;

/// Parameters of a presigned URL that belong to the signature and are not headers in disguise.
const SIGNATURE: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
];

/// One parameter, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// The value; `None` where there is no `=` at all.
    pub value: Option<Cow<'a, str>>,
}

/// A query.
#[derive(Debug, Clone, Default)]
pub struct Query<'a> {
    wire: &'a str,
    parameters: Vec<Parameter<'a>>,
}

impl<'a> Query<'a> {
    /// Parses the part of a request target behind the `?`.
    pub fn parse(wire: &'a str) -> Result<Self, Error> {
        let mut parameters = Vec::new();
        for part in wire.split('&').filter(|part| !part.is_empty()) {
            if parameters.len() == PARAMETERS_MAX {
                return Err(Error::new(
                    ErrorCode::InvalidUri,
                    "The query has too many parameters.",
                ));
            }
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            parameters.push(Parameter {
                name: decode(name)?,
                value: value.map(decode).transpose()?,
            });
        }
        Ok(Self { wire, parameters })
    }

    /// The query as it came over the wire.
    pub fn wire(&self) -> &'a str {
        self.wire
    }

    /// All parameters in their order.
    pub fn parameters(&self) -> &[Parameter<'a>] {
        &self.parameters
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.parameters
            .iter()
            .any(|parameter| parameter.name == name)
    }

    /// The value of a parameter that stands for a header, whose name has no case.
    pub(crate) fn value_of_header(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut found = self.parameters.iter().map(|parameter| &parameter.name);
        let first = found.find(|known| known.eq_ignore_ascii_case(name));
        if found.any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(doubled(name));
        }
        first.map_or(Ok(None), |known| self.value(known))
    }

    /// The value of a parameter, empty for a bare name.
    ///
    /// A parameter that is there twice is refused: which of the two counts differs between
    /// implementations, and a difference is what smuggling needs.
    pub fn value(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut found = self
            .parameters
            .iter()
            .filter(|parameter| parameter.name == name);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(parameter), None) => Ok(Some(parameter.value.as_deref().unwrap_or(""))),
            (Some(_), Some(_)) => Err(doubled(name)),
        }
    }

    /// Headers that a presigned URL carries as parameters (`x-amz-acl`, `x-amz-checksum-mode`,
    /// `x-amz-meta-*` and so on), with lower-case names; the signature's own are left out.
    ///
    /// So are checksums of a body: whoever makes a URL does not have the body yet, and the JavaScript
    /// SDK signs the checksum of an empty one into every URL for an upload. Amazon S3 does not compare
    /// it (aws-sdk-go-v2 issue 2610). A checksum in a header is always compared.
    ///
    /// The front end adds them to the request's headers after the signature is verified, so that
    /// none of them is silently ignored.
    pub fn hoisted(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
        let mut headers = Vec::new();
        for parameter in &self.parameters {
            let name = parameter.name.to_ascii_lowercase();
            let skipped = SIGNATURE.contains(&name.as_str()) || is_checksum_of_body(&name);
            if !name.starts_with("x-amz-") || skipped {
                continue;
            }
            let value = parameter.value.as_deref().unwrap_or("");
            let pair = HeaderName::try_from(&name)
                .ok()
                .zip(HeaderValue::try_from(value).ok());
            headers.push(pair.ok_or_else(|| {
                Error::argument(format!("The parameter {name:?} cannot stand for a header."))
            })?);
        }
        Ok(headers)
    }
}

fn doubled(name: &str) -> Error {
    Error::argument(format!("The parameter {name} is given more than once."))
}

fn is_checksum_of_body(name: &str) -> bool {
    name == "x-amz-sdk-checksum-algorithm"
        || ChecksumAlgorithm::ALL
            .iter()
            .any(|algorithm| algorithm.header() == name)
}

fn decode(wire: &str) -> Result<Cow<'_, str>, Error> {
    uri::decode_form(wire).map_err(|_| ErrorCode::InvalidUri.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_empty_values_and_absence_differ() {
        let query = Query::parse("uploads&prefix=&a=b%20c&&a%62=x+y").unwrap();
        assert_eq!(query.parameters()[0].value, None);
        assert_eq!(query.parameters()[1].value.as_deref(), Some(""));
        assert_eq!(query.value("a"), Ok(Some("b c")));
        assert_eq!(query.value("ab"), Ok(Some("x y")));
        assert_eq!(query.value("c"), Ok(None));
        assert!(query.has("uploads") && !query.has("UPLOADS"));
    }

    #[test]
    fn doubled_broken_and_endless_queries_are_refused() {
        let doubled = Query::parse("a=1&a=2").unwrap();
        assert_eq!(
            doubled.value("a").unwrap_err().code,
            ErrorCode::InvalidArgument
        );
        for wire in ["a=%", "%ff", "a=%zz"] {
            assert_eq!(
                Query::parse(wire).unwrap_err().code,
                ErrorCode::InvalidUri,
                "{wire}"
            );
        }
        assert_eq!(PARAMETERS_MAX, 128);
        assert!(Query::parse(&"a&".repeat(PARAMETERS_MAX)).is_ok());
        let endless = "a&".repeat(PARAMETERS_MAX + 1);
        assert_eq!(
            Query::parse(&endless).unwrap_err().code,
            ErrorCode::InvalidUri
        );
    }

    #[test]
    fn headers_in_a_presigned_url_are_found() {
        let query =
            Query::parse("X-Amz-Signature=ab&x-amz-acl=private&X-Amz-Checksum-Mode=ENABLED&p=1");
        let hoisted = query.unwrap().hoisted().unwrap();
        let names: Vec<_> = hoisted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-amz-acl", "x-amz-checksum-mode"]);
        let of_body =
            Query::parse("x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32");
        assert!(of_body.unwrap().hoisted().unwrap().is_empty());
        assert!(Query::parse("x-amz-acl=%0a").unwrap().hoisted().is_err());
    }
}
