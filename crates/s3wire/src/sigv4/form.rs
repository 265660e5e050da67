//! The signature of a form, which covers its policy and nothing else.

use subtle::ConstantTimeEq as _;

use super::key::SigningSecret;
use super::verify::{Scope, malformed_query, parse_signature, signature_2, split_credential};
use super::{ALGORITHM, Hex, hex};
use crate::date::{amz_date, parse_amz_date};
use crate::{Error, ErrorCode};

/// What a form claims about who signed its policy; nothing of it is proven.
#[derive(Debug)]
pub struct FormClaim<'a> {
    access_key_id: &'a str,
    scope: Scope<'a>,
    signature: Hex,
    policy: &'a str,
}

impl<'a> FormClaim<'a> {
    /// Reads the claim from the fields, which `field` finds by their names in lower case.
    ///
    /// # Errors
    /// AccessDenied where the form is not signed at all.
    pub fn parse(field: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Error> {
        if field("awsaccesskeyid").is_some() {
            return Err(signature_2());
        }
        let policy = field("policy").ok_or(ErrorCode::AccessDenied)?;
        let need = |name: &str| {
            field(name).ok_or_else(|| {
                Error::argument(format!("Bucket POST must contain a field named '{name}'."))
            })
        };
        if need("x-amz-algorithm")? != ALGORITHM {
            return Err(malformed_query("x-amz-algorithm must be AWS4-HMAC-SHA256"));
        }
        let date = parse_amz_date(need("x-amz-date")?.as_bytes())
            .ok_or_else(|| malformed_query("x-amz-date must be of the form yyyyMMddTHHmmssZ"))?;
        let (access_key_id, scope) = split_credential(need("x-amz-credential")?, &amz_date(date))
            .map_err(malformed_query)?;
        Ok(Self {
            access_key_id,
            scope: scope.into(),
            // As Amazon S3 answers: what is no signature does not match, and is not malformed.
            signature: parse_signature(need("x-amz-signature")?)
                .map_err(|_| ErrorCode::SignatureDoesNotMatch)?,
            policy,
        })
    }

    /// The access key that the form names.
    pub fn access_key_id(&self) -> &str {
        self.access_key_id
    }

    /// Proves the claim. How long it holds is the policy's to say.
    pub fn verify(&self, secret: &SigningSecret) -> Result<(), Error> {
        let Scope { date, region } = &self.scope;
        // A form is rare: its key is derived each time, known or not, and takes the same time.
        let key = secret.derive(date, region);
        let expected = hex(&key.sign(&[self.policy.as_bytes()]));
        match bool::from(expected.ct_eq(&self.signature) & secret.is_known()) {
            true => Ok(()),
            false => Err(ErrorCode::SignatureDoesNotMatch.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Secret;

    use super::*;

    /// Signed by hand from its parts, as the documentation describes it.
    fn fields(secret: &str, policy: &str) -> Vec<(String, String)> {
        let key =
            SigningSecret::new(Secret::new(secret.to_owned())).derive(b"20151229", "us-east-1");
        let signature = hex(&key.sign(&[policy.as_bytes()]));
        let signature = String::from_utf8(signature.to_vec()).unwrap();
        [
            ("policy", policy),
            ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
            (
                "x-amz-credential",
                "AKID/20151229/us-east-1/s3/aws4_request",
            ),
            ("x-amz-date", "20151229T000000Z"),
            ("x-amz-signature", &signature),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn verdict(fields: &[(String, String)], secret: &SigningSecret) -> Result<(), ErrorCode> {
        let field = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        FormClaim::parse(field)
            .and_then(|claim| claim.verify(secret))
            .map_err(|error| error.code)
    }

    #[test]
    fn the_policy_is_covered_and_unknown_keys_look_like_wrong_ones() {
        let ours = SigningSecret::new(Secret::new("s".to_owned()));
        let good = fields("s", "cG9saWN5");
        assert_eq!(verdict(&good, &ours), Ok(()));
        let wrong = Err(ErrorCode::SignatureDoesNotMatch);
        assert_eq!(verdict(&good, &SigningSecret::unknown()), wrong);
        let mut other = good.clone();
        other[0].1 = "cG9saWN6".to_owned();
        assert_eq!(verdict(&other, &ours), wrong);
        assert_eq!(verdict(&fields("t", "cG9saWN5"), &ours), wrong);
    }

    #[test]
    fn every_field_of_a_signature_must_be_there_and_right() {
        let ours = SigningSecret::new(Secret::new("s".to_owned()));
        let good = fields("s", "cG9saWN5");
        assert_eq!(verdict(&good[1..], &ours), Err(ErrorCode::AccessDenied));
        for place in 1..good.len() {
            let mut short = good.clone();
            let (name, _) = short.remove(place);
            assert_eq!(
                verdict(&short, &ours),
                Err(ErrorCode::InvalidArgument),
                "{name}"
            );
            let mut wrong = good.clone();
            wrong[place].1 = "x".to_owned();
            let refused = match name.as_str() {
                "x-amz-signature" => ErrorCode::SignatureDoesNotMatch,
                _ => ErrorCode::AuthorizationQueryParametersError,
            };
            assert_eq!(verdict(&wrong, &ours), Err(refused), "{name}");
        }
        let mut no_hex = good.clone();
        no_hex[4].1 = "z".repeat(64);
        let refused = Err(ErrorCode::SignatureDoesNotMatch);
        assert_eq!(verdict(&no_hex, &ours), refused);
        let mut old = good;
        old.push(("awsaccesskeyid".to_owned(), "AKID".to_owned()));
        assert_eq!(verdict(&old, &ours), Err(ErrorCode::InvalidRequest));
    }
}
