//! The closed list of S3 error codes, and the error that every parser of this crate returns.
//!
//! Status and default message belong to the code, so that the one renderer of the front end has
//! nothing to decide. Source of names, statuses and meanings: Amazon S3 API reference, "Error
//! responses". Codes for features that do not exist here are left out.
//!
//! Libraries look for words in the messages, so each is word for word what Amazon S3 sends, its slips
//! included, and not what the reference paraphrases. Only codes that Amazon S3 lacks have words of ours.

use std::borrow::Cow;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $message:literal;)+) => {
        /// An error code that this program can answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The text of the `Code` element.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The HTTP status that goes with the code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The text of the `Message` element where nothing more precise is known.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }

            /// The code with this name, as a backend sent it.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }
        }
    };
}

codes! {
    /// The bucket's CORS rules do not allow the request.
    AccessForbidden = "AccessForbidden", 403,
        "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.";
    /// Not granted, expired, or without credentials.
    AccessDenied = "AccessDenied", 403, "Access Denied";
    /// The `Authorization` header cannot be parsed.
    AuthorizationHeaderMalformed = "AuthorizationHeaderMalformed", 400,
        "The authorization header is malformed";
    /// The query of a presigned URL cannot be parsed.
    AuthorizationQueryParametersError = "AuthorizationQueryParametersError", 400,
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.";
    /// The request breaks a rule about tags that has no code of its own.
    BadRequest = "BadRequest", 400, "Bad Request";
    /// `Content-MD5` or a declared checksum differs from that of the body.
    BadDigest = "BadDigest", 400, "The Content-MD5 you specified did not match what we received.";
    /// The bucket exists and belongs to somebody else.
    BucketAlreadyExists = "BucketAlreadyExists", 409,
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.";
    /// The bucket exists and belongs to the caller.
    BucketAlreadyOwnedByYou = "BucketAlreadyOwnedByYou", 409,
        "Your previous request to create the named bucket succeeded and you already own it.";
    /// The bucket still holds objects.
    BucketNotEmpty = "BucketNotEmpty", 409, "The bucket you tried to delete is not empty";
    /// A conditional write met another write of the same key; the client may try again.
    ConditionalRequestConflict = "ConditionalRequestConflict", 409,
        "The conditional request cannot succeed due to a conflicting operation against this resource.";
    /// The body is larger than any object may be.
    EntityTooLarge = "EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size";
    /// A part that is not the last is smaller than 5 MiB.
    EntityTooSmall = "EntityTooSmall", 400,
        "Your proposed upload is smaller than the minimum allowed size";
    /// The body ended early, or its length differs from what was declared.
    IncompleteBody = "IncompleteBody", 400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header";
    /// No backend has room.
    InsufficientStorage = "InsufficientStorage", 507, "There is not enough room for the object.";
    /// The fault is on this side.
    InternalError = "InternalError", 500, "We encountered an internal error. Please try again.";
    /// A parameter or header has a value that it cannot have.
    InvalidArgument = "InvalidArgument", 400, "Invalid Argument";
    /// The bucket name breaks the rules.
    InvalidBucketName = "InvalidBucketName", 400, "The specified bucket is not valid.";
    /// `Content-MD5` is not an MD5 sum.
    InvalidDigest = "InvalidDigest", 400, "The Content-MD5 you specified was invalid.";
    /// A part of the list was never uploaded, or has another entity tag.
    InvalidPart = "InvalidPart", 400,
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    /// The object has no part of this number.
    InvalidPartNumber = "InvalidPartNumber", 416,
        "The requested partnumber is not satisfiable";
    /// The part list is not in ascending order.
    InvalidPartOrder = "InvalidPartOrder", 400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.";
    /// No byte of the object lies in the range.
    InvalidRange = "InvalidRange", 416, "The requested range is not satisfiable";
    /// The policy of a form is no policy.
    InvalidPolicyDocument = "InvalidPolicyDocument", 400,
        "The policy of the form is not a policy document.";
    /// The request contradicts itself or breaks a rule that has no code of its own.
    InvalidRequest = "InvalidRequest", 400, "Invalid Request";
    /// The tags are not valid.
    InvalidTag = "InvalidTag", 400, "The tag provided was not a valid tag.";
    /// The request target cannot be parsed.
    InvalidUri = "InvalidURI", 400, "Couldn't parse the specified URI.";
    /// The key has more than 1024 bytes.
    KeyTooLong = "KeyTooLongError", 400, "Your key is too long";
    /// The body of a form is not `multipart/form-data`.
    MalformedPostRequest = "MalformedPOSTRequest", 400,
        "The body of your POST request is not well-formed multipart/form-data.";
    /// The trailer of a body is cut, malformed, or not the announced one.
    MalformedTrailer = "MalformedTrailerError", 400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    /// The XML is not well-formed or not what the operation expects.
    MalformedXml = "MalformedXML", 400,
        "The XML you provided was not well-formed or did not validate against our published schema";
    /// The fields before the file of a form are larger than 20 KiB.
    MaxPostPreDataLengthExceeded = "MaxPostPreDataLengthExceededError", 400,
        "Your POST request fields preceding the upload file were too large.";
    /// A body that is parsed as a whole is larger than its limit.
    MaxMessageLengthExceeded = "MaxMessageLengthExceeded", 400, "Your request was too big.";
    /// The user metadata exceeds 2 KiB.
    MetadataTooLarge = "MetadataTooLarge", 400,
        "Your metadata headers exceed the maximum allowed metadata size";
    /// The resource has no such method.
    MethodNotAllowed = "MethodNotAllowed", 405,
        "The specified method is not allowed against this resource.";
    /// The body's length was not declared.
    MissingContentLength = "MissingContentLength", 411,
        "You must provide the Content-Length HTTP header.";
    /// A header that the request needs is missing.
    MissingSecurityHeader = "MissingSecurityHeader", 400,
        "Your request was missing a required header";
    /// The bucket does not exist.
    NoSuchBucket = "NoSuchBucket", 404, "The specified bucket does not exist";
    /// The bucket has no CORS rules.
    NoSuchCorsConfiguration = "NoSuchCORSConfiguration", 404,
        "The CORS configuration does not exist";
    /// The key does not exist.
    NoSuchKey = "NoSuchKey", 404, "The specified key does not exist.";
    /// The upload does not exist any more, or never did.
    NoSuchUpload = "NoSuchUpload", 404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    /// The version does not exist.
    NoSuchVersion = "NoSuchVersion", 404, "The specified version does not exist.";
    /// Asks for something that is not built.
    NotImplemented = "NotImplemented", 501,
        "A header you provided implies functionality that is not implemented";
    /// The client's copy is current; the answer has no body.
    NotModified = "NotModified", 304, "Not Modified";
    /// Another operation on the same resource is under way.
    OperationAborted = "OperationAborted", 409,
        "A conflicting conditional operation is currently in progress against this resource. Please try again.";
    /// A condition of the request does not hold.
    PreconditionFailed = "PreconditionFailed", 412,
        "At least one of the pre-conditions you specified did not hold";
    /// The head of the request is larger than the server reads.
    RequestHeaderSectionTooLarge = "RequestHeaderSectionTooLarge", 400,
        "Your request header section exceeds the maximum allowed request header section size.";
    /// The client sent nothing for too long.
    RequestTimeout = "RequestTimeout", 400,
        "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.";
    /// The client's clock differs from ours by more than 15 minutes.
    RequestTimeTooSkewed = "RequestTimeTooSkewed", 403,
        "The difference between the request time and the current time is too large.";
    /// Try again later.
    ServiceUnavailable = "ServiceUnavailable", 503, "Service is unable to handle request.";
    /// Wrong signature, or an access key that is not known: nobody can tell which.
    SignatureDoesNotMatch = "SignatureDoesNotMatch", 403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    /// Too many requests.
    SlowDown = "SlowDown", 503, "Please reduce your request rate.";
    /// A form without a key.
    UserKeyMustBeSpecified = "UserKeyMustBeSpecified", 400,
        "The bucket POST must contain the specified field name. If it is specified, check the order of the fields.";
    /// The body's SHA-256 differs from `x-amz-content-sha256`.
    XAmzContentSha256Mismatch = "XAmzContentSHA256Mismatch", 400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

/// Why a request was refused: a code, and a message for the client.
///
/// The message names the header or parameter at fault and never repeats a secret or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Error {
    /// The code.
    pub code: ErrorCode,
    /// The text of the `Message` element.
    pub message: Cow<'static, str>,
}

impl Error {
    /// An error with a message of its own.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    pub(crate) fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(
            ErrorCode::NotImplemented,
            format!("{what} is not implemented."),
        )
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: Cow::Borrowed(code.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name_and_has_an_error_status() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(*code));
            assert!((300..600).contains(&code.status()), "{code:?}");
            assert!(!code.message().is_empty());
        }
        assert_eq!(ErrorCode::from_name("accessdenied"), None);
    }

    #[test]
    fn messages_have_the_words_that_libraries_look_for() {
        for (code, words) in [
            // s3fs for Python, and with it dvc, pandas and dask.
            (ErrorCode::PreconditionFailed, "pre-conditions"),
            (
                ErrorCode::PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold",
            ),
            (ErrorCode::BucketAlreadyOwnedByYou, "you already own it"),
            (
                ErrorCode::BucketNotEmpty,
                "The bucket you tried to delete is not empty",
            ),
            (
                ErrorCode::NoSuchUpload,
                "The specified upload does not exist",
            ),
            (ErrorCode::NoSuchKey, "The specified key does not exist."),
            (
                ErrorCode::NoSuchBucket,
                "The specified bucket does not exist",
            ),
            (
                ErrorCode::EntityTooSmall,
                "smaller than the minimum allowed size",
            ),
            (
                ErrorCode::EntityTooLarge,
                "exceeds the maximum allowed size",
            ),
            (
                ErrorCode::MalformedXml,
                "The XML you provided was not well-formed",
            ),
            (
                ErrorCode::SignatureDoesNotMatch,
                "The request signature we calculated does not match",
            ),
            (
                ErrorCode::RequestTimeTooSkewed,
                "The difference between the request time and the current time is too large.",
            ),
            (
                ErrorCode::AuthorizationHeaderMalformed,
                "The authorization header is malformed",
            ),
            (
                ErrorCode::InvalidRange,
                "The requested range is not satisfiable",
            ),
            (ErrorCode::OperationAborted, "Please try again."),
            (
                ErrorCode::RequestTimeout,
                "Idle connections will be closed.",
            ),
            (
                ErrorCode::InternalError,
                "We encountered an internal error.",
            ),
            (ErrorCode::SlowDown, "Please reduce your request rate."),
            (
                ErrorCode::BadDigest,
                "The Content-MD5 you specified did not match what we received.",
            ),
        ] {
            let message = code.message();
            assert!(message.contains(words), "{code:?}: {message}");
        }
    }
}
