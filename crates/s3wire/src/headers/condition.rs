//! `If-*` on reads, on copy sources and on writes.
//!
//! Dates that cannot be parsed are ignored (RFC 9110 section 13.1.3); a list of entity tags is read
//! over all lines of the header.

use base::{Conditions, ETag, ETagCondition, Precondition, Timestamp};
use http::{HeaderMap, Method};

use crate::Error;
use crate::date::parse_http_date;

/// The most entity tags in one condition.
const TAGS_MAX: usize = 64;

/// The conditions of a GET or HEAD.
pub fn conditions(headers: &HeaderMap) -> Result<Conditions, Error> {
    Ok(Conditions {
        if_match: tags(headers, "if-match")?,
        if_none_match: tags(headers, "if-none-match")?,
        if_modified_since: date(headers, "if-modified-since"),
        if_unmodified_since: date(headers, "if-unmodified-since"),
    })
}

/// The conditions on the source of a copy.
pub fn copy_conditions(headers: &HeaderMap) -> Result<Conditions, Error> {
    Ok(Conditions {
        if_match: tags(headers, "x-amz-copy-source-if-match")?,
        if_none_match: tags(headers, "x-amz-copy-source-if-none-match")?,
        if_modified_since: date(headers, "x-amz-copy-source-if-modified-since"),
        if_unmodified_since: date(headers, "x-amz-copy-source-if-unmodified-since"),
    })
}

/// What must hold of the key for a PUT, a copy, a Complete or a DELETE to happen.
///
/// Like S3, only `If-None-Match: *` and `If-Match` exist on writes, and only one of them at once;
/// a date is refused and not ignored, for ignoring it would overwrite what it protects.
pub fn write_precondition(headers: &HeaderMap) -> Result<Precondition, Error> {
    if headers.contains_key("if-unmodified-since") {
        return Err(Error::not_implemented("If-Unmodified-Since on a write"));
    }
    match (tags(headers, "if-match")?, tags(headers, "if-none-match")?) {
        (None, None) => Ok(Precondition::None),
        (Some(wanted), None) => Ok(Precondition::Match(wanted)),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (_, Some(ETagCondition::Tags(_))) => Err(Error::not_implemented(
            "If-None-Match with an entity tag on a write",
        )),
        (Some(_), Some(ETagCondition::Any)) => Err(Error::not_implemented(
            "If-Match together with If-None-Match",
        )),
    }
}

/// Conditions as error documents name them, each with the one in front of it that, where it is there,
/// alone counts (RFC 9110 section 13.2.2).
const CONDITIONS: [(&str, Option<&str>); 7] = [
    ("If-Match", None),
    ("If-None-Match", None),
    ("If-Unmodified-Since", Some("if-match")),
    ("x-amz-copy-source-If-Match", None),
    ("x-amz-copy-source-If-None-Match", None),
    (
        "x-amz-copy-source-If-Modified-Since",
        Some("x-amz-copy-source-if-none-match"),
    ),
    (
        "x-amz-copy-source-If-Unmodified-Since",
        Some("x-amz-copy-source-if-match"),
    ),
];

/// By which condition a request fails with PreconditionFailed, should it do so; `None` where there is
/// more than one that it can fail by.
pub fn condition_on_trial(method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let mut found = CONDITIONS.into_iter().filter(|(name, first)| {
        let not_modified = reads && *name == "If-None-Match";
        let passed_over = first.is_some_and(|first| headers.contains_key(first));
        headers.contains_key(*name) && !passed_over && !not_modified
    });
    match (found.next(), found.next()) {
        (Some((name, _)), None) => Some(name),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

fn date(headers: &HeaderMap, name: &str) -> Option<Timestamp> {
    parse_http_date(headers.get(name)?.to_str().ok()?)
}

fn tags(headers: &HeaderMap, name: &str) -> Result<Option<ETagCondition>, Error> {
    let malformed = || Error::argument(format!("The header {name} is not a list of entity tags."));
    let mut found: Option<Vec<ETag>> = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| malformed())?.trim();
        if text == "*" {
            return Ok(Some(ETagCondition::Any));
        }
        let tags = found.get_or_insert_default();
        for tag in split(text) {
            if tags.len() == TAGS_MAX {
                return Err(malformed());
            }
            tags.push(ETag::new(tag));
        }
    }
    match found {
        Some(tags) if tags.is_empty() => Err(malformed()),
        found => Ok(found.map(ETagCondition::Tags)),
    }
}

/// Splits at commas outside quotes. Clients also send tags without quotes; S3 takes them.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .map(str::trim)
    .filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn of(tags: &[&str]) -> Option<ETagCondition> {
        Some(ETagCondition::Tags(
            tags.iter().map(|tag| ETag::new(tag)).collect(),
        ))
    }

    #[test]
    fn conditions_read_lists_stars_and_dates() {
        let read = |text: &str| conditions(&map(&[("if-match", text)])).unwrap().if_match;
        assert_eq!(read("\"a\""), of(&["a"]));
        assert_eq!(read("\"a\", W/\"b\",\"c,d\""), of(&["a", "b", "c,d"]));
        assert_eq!(read("bare"), of(&["bare"]));
        assert_eq!(read("*"), Some(ETagCondition::Any));
        let lines = conditions(&map(&[
            ("if-none-match", "\"a\""),
            ("if-none-match", "\"b\""),
        ]));
        assert_eq!(lines.unwrap().if_none_match, of(&["a", "b"]));
        assert!(conditions(&map(&[("if-match", " , ")])).is_err());
        assert!(conditions(&map(&[("if-match", &"a,".repeat(65))])).is_err());

        let date = "Fri, 24 May 2013 00:00:00 GMT";
        let both = [
            ("if-modified-since", date),
            ("if-unmodified-since", "24 May"),
        ];
        let dates = conditions(&map(&both)).unwrap();
        assert_eq!(
            dates.if_modified_since,
            Some(Timestamp::from_millis(1_369_353_600_000))
        );
        assert_eq!(dates.if_unmodified_since, None);
        let copy = copy_conditions(&map(&[("x-amz-copy-source-if-match", "\"a\"")])).unwrap();
        assert_eq!(copy.if_match, of(&["a"]));
    }

    #[test]
    fn the_condition_that_a_request_fails_by_is_named_where_it_can_be_told() {
        let put = |pairs: &[(&'static str, &str)]| condition_on_trial(&Method::PUT, &map(pairs));
        let get = |pairs: &[(&'static str, &str)]| condition_on_trial(&Method::GET, &map(pairs));
        assert_eq!(put(&[]), None);
        assert_eq!(put(&[("if-none-match", "*")]), Some("If-None-Match"));
        // A read fails otherwise by the second.
        let both = [("if-match", "a"), ("if-none-match", "b")];
        assert_eq!((put(&both), get(&both)), (None, Some("If-Match")));
        let date = "Fri, 24 May 2013 00:00:00 GMT";
        let dated = [("if-match", "a"), ("if-unmodified-since", date)];
        assert_eq!(get(&dated), Some("If-Match"));
        assert_eq!(get(&dated[1..]), Some("If-Unmodified-Since"));
        let source = ("x-amz-copy-source-if-modified-since", date);
        assert_eq!(put(&[source]), Some("x-amz-copy-source-If-Modified-Since"));
        assert_eq!(put(&[source, ("if-match", "a")]), None);
    }

    #[test]
    fn writes_know_two_conditions_and_refuse_the_others() {
        let write = |pairs: &[(&'static str, &str)]| write_precondition(&map(pairs));
        assert_eq!(write(&[]), Ok(Precondition::None));
        assert_eq!(write(&[("if-none-match", "*")]), Ok(Precondition::Absent));
        let wanted = of(&["a"]).unwrap();
        assert_eq!(
            write(&[("if-match", "\"a\"")]),
            Ok(Precondition::Match(wanted))
        );
        for refused in [
            &[("if-none-match", "\"a\"")][..],
            &[("if-match", "\"a\""), ("if-none-match", "*")],
            &[("if-unmodified-since", "Fri, 24 May 2013 00:00:00 GMT")],
        ] {
            assert_eq!(write(refused).unwrap_err().code, ErrorCode::NotImplemented);
        }
        // RFC 9110 section 13.1.3: only GET and HEAD know it.
        let since = [("if-modified-since", "Fri, 24 May 2013 00:00:00 GMT")];
        assert_eq!(write(&since), Ok(Precondition::None));
    }
}
