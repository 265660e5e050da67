//! `x-amz-tagging` and `x-amz-tagging-directive`.

use base::{TagError, Tags};
use http::HeaderMap;

use super::single;
use crate::uri::decode_form;
use crate::{Error, ErrorCode};

/// Whose tags a copy gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaggingDirective {
    /// The source's.
    #[default]
    Copy,
    /// The request's.
    Replace,
}

/// The tags that `x-amz-tagging` gives, written like a query; none where it is absent.
pub fn tagging(headers: &HeaderMap) -> Result<Tags, Error> {
    let Some(text) = single(headers, "x-amz-tagging")? else {
        return Ok(Tags::default());
    };
    let malformed = || {
        Error::argument(
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query \
             parameters without tag name duplicates.",
        )
    };
    let decode = |wire: &str| match decode_form(wire) {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(malformed()),
    };
    let mut pairs = Vec::new();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        pairs.push((decode(key)?, decode(value)?));
    }
    match Tags::new(pairs) {
        Ok(tags) => Ok(tags),
        Err(TagError::Twice) => Err(malformed()),
        Err(other) => Err(tag_error(other)),
    }
}

/// `x-amz-tagging-directive`
pub fn tagging_directive(headers: &HeaderMap) -> Result<TaggingDirective, Error> {
    match single(headers, "x-amz-tagging-directive")? {
        None | Some("COPY") => Ok(TaggingDirective::Copy),
        Some("REPLACE") => Ok(TaggingDirective::Replace),
        Some(_) => Err(Error::argument("Unknown tagging directive.")),
    }
}

/// What S3 says of tags that break a rule.
pub(crate) fn tag_error(refused: TagError) -> Error {
    let message = match refused {
        TagError::TooMany => {
            return Error::new(
                ErrorCode::BadRequest,
                "Object tags cannot be greater than 10",
            );
        }
        TagError::Key => "The TagKey you have provided is invalid",
        TagError::Value => "The TagValue you have provided is invalid",
        TagError::System => "System tags cannot be added/updated by requester",
        TagError::Twice => "Cannot provide multiple Tags with the same key",
    };
    Error::new(ErrorCode::InvalidTag, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(String, String)>, ErrorCode> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-tagging", text.parse().unwrap());
        match tagging(&headers) {
            Ok(tags) => Ok(tags.pairs().to_vec()),
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn tags_are_written_like_a_query() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("a=1&b"), Ok(vec![pair("a", "1"), pair("b", "")]));
        assert_eq!(parse("a%20b=c+d%3D"), Ok(vec![pair("a b", "c d=")]));
        assert_eq!(parse("a=b=c"), Ok(vec![pair("a", "b=c")]));
        assert_eq!(parse("a=1&a=2"), Err(ErrorCode::InvalidArgument));
        assert_eq!(parse("a=%zz"), Err(ErrorCode::InvalidArgument));
        assert_eq!(parse("=1"), Err(ErrorCode::InvalidTag));
        assert_eq!(parse("aws:x=1"), Err(ErrorCode::InvalidTag));
        let many: Vec<_> = (0..11).map(|n| format!("k{n}=v")).collect();
        assert_eq!(parse(&many.join("&")), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn directives_are_a_closed_list() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-tagging-directive", text.parse().unwrap());
            tagging_directive(&headers)
        };
        assert_eq!(parse("COPY"), Ok(TaggingDirective::Copy));
        assert_eq!(parse("REPLACE"), Ok(TaggingDirective::Replace));
        assert!(parse("replace").is_err());
    }
}
