//! The policy of a form: what its signer permits.

use base::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fields::Form;
use crate::date::parse_iso8601;
use crate::{Error, ErrorCode};

/// The most conditions of one policy.
const CONDITIONS_MAX: usize = 200;

/// What a form may say, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    expiration: Timestamp,
    conditions: Vec<PolicyCondition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PolicyCondition {
    /// The field has exactly this value.
    Equal { field: String, value: String },
    /// The field's value begins so.
    Begin { field: String, with: String },
    /// The file has so many bytes, both ends inclusive.
    Length { min: u64, max: u64 },
}

impl Policy {
    /// Reads the field `policy`: JSON in base64.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // Some makers of forms break the lines of their base64.
        let text: String = text.split_ascii_whitespace().collect();
        let document = STANDARD
            .decode(text)
            .map_err(|_| invalid("it is not base64"))?;
        let document: Value =
            serde_json::from_slice(&document).map_err(|_| invalid("it is not JSON"))?;
        let expiration = document
            .get("expiration")
            .and_then(Value::as_str)
            .and_then(parse_iso8601)
            .ok_or_else(|| invalid("it has no expiration"))?;
        let conditions = document
            .get("conditions")
            .and_then(Value::as_array)
            .ok_or_else(|| invalid("it has no list of conditions"))?;
        let mut known = Vec::new();
        for condition in conditions {
            known.extend(parse_condition(condition)?);
            if known.len() > CONDITIONS_MAX {
                return Err(invalid("it has too many conditions"));
            }
        }
        Ok(Self {
            expiration,
            conditions: known,
        })
    }

    /// Checks a form whose file has so many bytes.
    ///
    /// # Errors
    /// AccessDenied where the policy has expired, a condition does not hold, or a field is not named by
    /// any, or none names the bucket; EntityTooSmall and EntityTooLarge where the file is outside `content-length-range`.
    pub fn check(&self, form: &Form<'_>, length: u64, now: Timestamp) -> Result<(), Error> {
        if now > self.expiration {
            return Err(denied("Policy expired."));
        }
        for condition in &self.conditions {
            match condition {
                PolicyCondition::Length { min, .. } if length < *min => {
                    return Err(ErrorCode::EntityTooSmall.into());
                }
                PolicyCondition::Length { max, .. } if length > *max => {
                    return Err(ErrorCode::EntityTooLarge.into());
                }
                PolicyCondition::Length { .. } => {}
                PolicyCondition::Equal { field, value } => {
                    let holds = form.conditioned(field).as_deref() == Some(value);
                    holds_or(holds, "eq", field)?;
                }
                PolicyCondition::Begin { field, with } => {
                    let found = form.conditioned(field);
                    let holds = found.is_some_and(|found| begins(field, &found, with));
                    holds_or(holds, "starts-with", field)?;
                }
            }
        }
        let named = |name: &str| {
            self.conditions.iter().any(|condition| match condition {
                PolicyCondition::Equal { field, .. } | PolicyCondition::Begin { field, .. } => {
                    field == name
                }
                PolicyCondition::Length { .. } => false,
            })
        };
        // Nothing else that is signed says which bucket is meant.
        if !named("bucket") {
            return Err(denied("Extra input fields: bucket"));
        }
        match form.to_be_conditioned().find(|name| !named(name)) {
            None => Ok(()),
            Some(extra) => Err(denied(&format!("Extra input fields: {extra}"))),
        }
    }
}

/// An object of exact values, or a list `[operator, field, value]`.
fn parse_condition(condition: &Value) -> Result<Vec<PolicyCondition>, Error> {
    if let Value::Object(exact) = condition {
        let equal = |(field, value): (&String, &Value)| {
            let value = value
                .as_str()
                .ok_or_else(|| invalid("a value is not a text"))?;
            Ok(PolicyCondition::Equal {
                field: field.to_ascii_lowercase(),
                value: value.to_owned(),
            })
        };
        return exact.iter().map(equal).collect();
    }
    let list = condition.as_array().map(Vec::as_slice);
    let Some([operator, first, second]) = list else {
        return Err(invalid(
            "a condition is neither an object nor a list of three",
        ));
    };
    let operator = operator.as_str().map(str::to_ascii_lowercase);
    if operator.as_deref() == Some("content-length-range") {
        let (min, max) = (bound(first), bound(second));
        let (Some(min), Some(max)) = (min, max) else {
            return Err(invalid("content-length-range needs two numbers"));
        };
        return Ok(vec![PolicyCondition::Length { min, max }]);
    }
    let field = first.as_str().and_then(|field| field.strip_prefix('$'));
    let (Some(field), Some(text)) = (field, second.as_str()) else {
        return Err(invalid("a condition needs a $field and a text"));
    };
    let (field, text) = (field.to_ascii_lowercase(), text.to_owned());
    match operator.as_deref() {
        Some("eq") => Ok(vec![PolicyCondition::Equal { field, value: text }]),
        Some("starts-with") => Ok(vec![PolicyCondition::Begin { field, with: text }]),
        _ => Err(invalid("a condition has an unknown operator")),
    }
}

/// Numbers come as such or as text.
fn bound(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

/// Whether a value begins as a condition wants. Content types with commas are lists, of which each must:
/// what is behind the first comma is in the answer's header as well. Source: Amazon S3 API reference,
/// "POST policy", condition matching.
fn begins(field: &str, found: &str, with: &str) -> bool {
    match field {
        "content-type" => found
            .split(',')
            .all(|one| one.trim_start().starts_with(with)),
        _ => found.starts_with(with),
    }
}

fn holds_or(holds: bool, operator: &str, field: &str) -> Result<(), Error> {
    match holds {
        true => Ok(()),
        false => Err(denied(&format!(
            "Policy Condition failed: [\"{operator}\", \"${field}\"]"
        ))),
    }
}

fn denied(why: &str) -> Error {
    Error::new(
        ErrorCode::AccessDenied,
        format!("Invalid according to Policy: {why}"),
    )
}

fn invalid(why: &str) -> Error {
    Error::new(
        ErrorCode::InvalidPolicyDocument,
        format!("The policy of the form is not a policy document: {why}."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2013-05-24T12:00:00.000Z";

    fn policy(conditions: &str) -> Result<Policy, ErrorCode> {
        let document = format!("{{\"expiration\":\"{NOON}\",\"conditions\":[{conditions}]}}");
        Policy::parse(&STANDARD.encode(document)).map_err(|error| error.code)
    }

    fn check(conditions: &str, fields: &[(&str, &str)], length: u64) -> Result<(), ErrorCode> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let fields: Vec<_> = fields.iter().map(pair).collect();
        let bucket = "b".parse().unwrap();
        let form = Form::new(&fields, "cat.jpg", &bucket).unwrap();
        let now = parse_iso8601(NOON).unwrap();
        policy(conditions)?
            .check(&form, length, now)
            .map_err(|error| error.code)
    }

    #[test]
    fn conditions_hold_for_every_field_that_counts() {
        let conditions = "{\"bucket\":\"b\"},[\"starts-with\",\"$key\",\"up/\"],{\"ACL\":\"private\"},\
                          [\"eq\",\"$Content-Type\",\"a/b\"],[\"content-length-range\",1,\"10\"]";
        let good = [
            ("key", "up/${filename}"),
            ("acl", "private"),
            ("content-type", "a/b"),
            ("policy", "p"),
            ("x-amz-signature", "s"),
            ("x-ignore-me", "i"),
        ];
        assert_eq!(check(conditions, &good, 10), Ok(()));
        assert_eq!(check(conditions, &good, 0), Err(ErrorCode::EntityTooSmall));
        assert_eq!(check(conditions, &good, 11), Err(ErrorCode::EntityTooLarge));
        let denied = Err(ErrorCode::AccessDenied);
        assert_eq!(check(conditions, &good[1..], 1), denied);
        for (place, value) in [(0, "down/x"), (1, "public-read"), (2, "a/c")] {
            let mut other = good;
            other[place].1 = value;
            assert_eq!(check(conditions, &other, 1), denied, "{value}");
        }
        let extra = [&good[..], &[("x-amz-meta-a", "b")]].concat();
        assert_eq!(check(conditions, &extra, 1), denied);
        assert_eq!(check("{\"bucket\":\"c\"}", &[], 1), denied);
        assert_eq!(check("", &[], 1), denied, "a policy for any bucket");
    }

    #[test]
    fn of_a_list_of_content_types_each_must_begin_so() {
        let conditions = "{\"bucket\":\"b\"},[\"starts-with\",\"$Content-Type\",\"image/\"],[\"starts-with\",\"$x-amz-meta-a\",\"image/\"]";
        for (kind, expected) in [
            ("image/png", Ok(())),
            ("image/png,image/gif", Ok(())),
            ("image/png, image/gif", Ok(())),
            ("image/png, text/html", Err(ErrorCode::AccessDenied)),
            ("image/png,", Err(ErrorCode::AccessDenied)),
            (",image/png", Err(ErrorCode::AccessDenied)),
            ("text/html", Err(ErrorCode::AccessDenied)),
        ] {
            // Other values are one text, with commas or not.
            let fields = [("content-type", kind), ("x-amz-meta-a", "image/, b")];
            assert_eq!(check(conditions, &fields, 1), expected, "{kind}");
        }
        let any = "{\"bucket\":\"b\"},[\"starts-with\",\"$Content-Type\",\"\"]";
        assert_eq!(check(any, &[("content-type", "a/b, c/d,")], 1), Ok(()));
    }

    #[test]
    fn a_policy_ends_when_it_says() {
        let policy = policy("{\"bucket\":\"b\"}").unwrap();
        let bucket = "b".parse().unwrap();
        let form = Form::new(&[], "", &bucket).unwrap();
        let end = parse_iso8601(NOON).unwrap();
        let late = end.after(std::time::Duration::from_millis(1));
        assert!(policy.check(&form, 1, end).is_ok());
        assert_eq!(
            policy.check(&form, 1, late).unwrap_err().code,
            ErrorCode::AccessDenied
        );
    }

    #[test]
    fn documents_that_are_none_are_refused() {
        let refused = Err(ErrorCode::InvalidPolicyDocument);
        for conditions in [
            "1",
            "[\"eq\",\"$a\"]",
            "[\"eq\",\"a\",\"b\"]",
            "[\"like\",\"$a\",\"b\"]",
            "{\"a\":1}",
            "[\"content-length-range\",\"x\",2]",
            "[\"content-length-range\",-1,2]",
        ] {
            assert_eq!(policy(conditions), refused, "{conditions}");
        }
        assert_eq!(policy(&vec!["{\"a\":\"b\"}"; 201].join(",")), refused);
        let parse = |text: &str| Policy::parse(text).map_err(|error| error.code);
        for document in [
            "",
            "[]",
            "{}",
            "{\"expiration\":\"soon\",\"conditions\":[]}",
        ] {
            assert_eq!(parse(&STANDARD.encode(document)), refused, "{document}");
        }
        assert_eq!(parse("%"), refused);
    }
}
