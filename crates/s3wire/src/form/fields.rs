//! What the fields of a form mean.

use base::{BucketName, KEY_BYTES_MAX, ObjectKey, Tags};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::name::key_error;
use crate::xml::parse_tagging;
use crate::{Error, ErrorCode};

/// Fields that stand for the header of the same name.
const HEADERS: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
];

/// Fields of the signature and of the policy itself, which no condition has to name.
const UNCONDITIONED: [&str; 4] = ["x-amz-signature", "policy", "awsaccesskeyid", "signature"];

/// A field that no condition has to name begins so.
const IGNORED_PREFIX: &str = "x-ignore-";

/// Fields whose header makes another operation of a PUT, or speaks of how its body comes: a form does
/// neither, and has a field of its own for tags.
const NOT_OF_FORMS: [&str; 6] = [
    "x-amz-copy-source",
    "x-amz-decoded-content-length",
    "x-amz-metadata-directive",
    "x-amz-tagging",
    "x-amz-tagging-directive",
    "x-amz-trailer",
];

/// What stands for the name of the file in the field `key`.
const FILE_NAME: &str = "${filename}";

/// What the client gets when its file is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SuccessAction {
    /// 204, the default.
    NoContent,
    /// 200 without a body.
    Ok,
    /// 201 with a document.
    Created,
    /// 303 to this address, which gets bucket, key and entity tag as parameters.
    Redirect(String),
}

/// The fields of a form.
#[derive(Debug)]
pub struct Form<'a> {
    fields: &'a [(String, String)],
    file_name: &'a str,
    bucket: &'a BucketName,
}

impl<'a> Form<'a> {
    /// The fields before the file, with names in lower case, of a form that was posted to this bucket.
    ///
    /// # Errors
    /// InvalidArgument where a field is there twice: which of them counts would be a guess.
    pub fn new(
        fields: &'a [(String, String)],
        file_name: &'a str,
        bucket: &'a BucketName,
    ) -> Result<Self, Error> {
        for (place, (name, _)) in fields.iter().enumerate() {
            if fields[..place].iter().any(|(before, _)| before == name) {
                let message = format!("The form field {name} is given more than once.");
                return Err(Error::argument(message));
            }
        }
        Ok(Self {
            fields,
            file_name,
            bucket,
        })
    }

    /// The value of a field as it came.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value that conditions are compared with: the bucket is the request's, and the key is the
    /// one that the file gets.
    pub(super) fn conditioned(&self, name: &str) -> Option<String> {
        match name {
            "bucket" => Some(self.bucket.as_str().to_owned()),
            "key" => self.key_text(),
            _ => self.get(name).map(str::to_owned),
        }
    }

    /// The fields that a policy must name.
    pub(super) fn to_be_conditioned(&self) -> impl Iterator<Item = &'a str> {
        let names = self.fields.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !UNCONDITIONED.contains(name) && !name.starts_with(IGNORED_PREFIX))
    }

    fn key_text(&self) -> Option<String> {
        let key = self.get("key")?;
        Some(key.replace(FILE_NAME, self.file_name))
    }

    /// The key, with `${filename}` replaced by the name of the file.
    pub fn key(&self) -> Result<ObjectKey, Error> {
        // Before it is made: a field of placeholders and a long name would make megabytes.
        let places = self
            .get("key")
            .map_or(0, |key| key.matches(FILE_NAME).count());
        if places * self.file_name.len() > KEY_BYTES_MAX {
            return Err(ErrorCode::KeyTooLong.into());
        }
        let key = self.key_text().filter(|key| !key.is_empty());
        let key = key.ok_or(ErrorCode::UserKeyMustBeSpecified)?;
        key.parse().map_err(key_error)
    }

    /// The fields that are headers of a PUT, as such.
    ///
    /// # Errors
    /// NotImplemented where a field asks for what a form does not do; ignoring it would store something
    /// else than the client means.
    pub fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.fields {
            if is_not_of_forms(name) {
                return Err(Error::not_implemented(&format!("The form field {name}")));
            }
            let name = match name.as_str() {
                "acl" => "x-amz-acl",
                name if HEADERS.contains(&name) => name,
                name if is_header(name) => name,
                _ => continue,
            };
            let pair = HeaderName::try_from(name)
                .ok()
                .zip(HeaderValue::from_bytes(value.as_bytes()).ok());
            let (name, value) = pair.ok_or_else(|| {
                Error::argument(format!("The form field {name} cannot stand for a header."))
            })?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// The tags in the field `tagging`, an XML document.
    pub fn tags(&self) -> Result<Tags, Error> {
        match self.get("tagging").filter(|text| !text.is_empty()) {
            None => Ok(Tags::default()),
            Some(text) => parse_tagging(text.as_bytes()),
        }
    }

    /// What the client wants to be told. An address that is none counts as no address, as in S3.
    pub fn success_action(&self) -> SuccessAction {
        let address = self
            .get("success_action_redirect")
            .or_else(|| self.get("redirect"))
            .filter(|text| text.starts_with("http://") || text.starts_with("https://"))
            .filter(|text| HeaderValue::try_from(*text).is_ok());
        match (address, self.get("success_action_status")) {
            (Some(address), _) => SuccessAction::Redirect(address.to_owned()),
            (None, Some("200")) => SuccessAction::Ok,
            (None, Some("201")) => SuccessAction::Created,
            (None, _) => SuccessAction::NoContent,
        }
    }
}

fn is_not_of_forms(name: &str) -> bool {
    NOT_OF_FORMS.contains(&name) || name.starts_with("x-amz-copy-source-")
}

/// Whether a field of this name is an `x-amz-*` header of a PUT, and not one of the signature.
fn is_header(name: &str) -> bool {
    const SIGNATURE: [&str; 5] = [
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-security-token",
        "x-amz-signature",
    ];
    name.starts_with("x-amz-") && !SIGNATURE.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(pair).collect()
    }

    #[test]
    fn fields_become_key_headers_tags_and_an_answer() {
        let fields = owned(&[
            ("key", "up/${filename}"),
            ("acl", "private"),
            ("content-type", "text/plain"),
            ("x-amz-meta-a", "b"),
            ("x-amz-date", "20130524T000000Z"),
            (
                "tagging",
                "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
            ),
            ("success_action_status", "201"),
            ("note", "ours"),
        ]);
        let bucket = "b".parse().unwrap();
        let form = Form::new(&fields, "cat.jpg", &bucket).unwrap();
        assert_eq!(form.key().unwrap().as_str(), "up/cat.jpg");
        let headers = form.headers().unwrap();
        assert_eq!(headers["x-amz-acl"], "private");
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers["x-amz-meta-a"], "b");
        assert_eq!(headers.len(), 3);
        assert_eq!(form.tags().unwrap().len(), 1);
        assert_eq!(form.success_action(), SuccessAction::Created);
    }

    #[test]
    fn what_is_missing_doubled_or_no_header_is_refused() {
        let bucket = "b".parse().unwrap();
        let code = |fields: &[(&str, &str)], file: &str| {
            let fields = owned(fields);
            let form = Form::new(&fields, file, &bucket).map_err(|error| error.code)?;
            form.headers().map_err(|error| error.code)?;
            form.key().map(|_| ()).map_err(|error| error.code)
        };
        assert_eq!(code(&[("key", "k")], ""), Ok(()));
        let unnamed = Err(ErrorCode::UserKeyMustBeSpecified);
        assert_eq!(code(&[], "f"), unnamed);
        assert_eq!(code(&[("key", "${filename}")], ""), unnamed);
        assert_eq!(
            code(&[("key", "a"), ("key", "b")], ""),
            Err(ErrorCode::InvalidArgument)
        );
        assert_eq!(
            code(&[("key", "k"), ("expires", "a\nb")], ""),
            Err(ErrorCode::InvalidArgument)
        );
        let many = "${filename}".repeat(1000);
        assert_eq!(
            code(&[("key", &many)], &"f".repeat(9000)),
            Err(ErrorCode::KeyTooLong)
        );
        assert_eq!(
            code(&[("key", "a\0b")], ""),
            Err(ErrorCode::InvalidArgument)
        );
    }

    #[test]
    fn only_a_web_address_is_gone_to() {
        let bucket = "b".parse().unwrap();
        let action = |fields: &[(&str, &str)]| {
            let fields = owned(fields);
            let form = Form::new(&fields, "", &bucket).unwrap();
            form.success_action()
        };
        let to = "https://example.com/done";
        let redirect = SuccessAction::Redirect(to.to_owned());
        assert_eq!(
            action(&[
                ("success_action_redirect", to),
                ("success_action_status", "200")
            ]),
            redirect
        );
        assert_eq!(action(&[("redirect", to)]), redirect);
        assert_eq!(
            action(&[("redirect", "javascript:x")]),
            SuccessAction::NoContent
        );
        assert_eq!(
            action(&[("redirect", "http://a\r\nb: c")]),
            SuccessAction::NoContent
        );
        assert_eq!(
            action(&[("success_action_status", "200")]),
            SuccessAction::Ok
        );
        assert_eq!(
            action(&[("success_action_status", "404")]),
            SuccessAction::NoContent
        );
    }
}
