//! The answer to bytes that are no request.
//!
//! The HTTP library finds them out, and its own answer has no document. What it writes while no
//! request is under way is held back (`front/io.rs`), and this is sent instead.

use http::StatusCode;
use s3wire::ErrorCode;
use s3wire::xml::ErrorDocument;

use super::{HOST_ID, REQUEST_ID};
use crate::front::request_id::{HostId, RequestId};

/// Head and body of an answer, after which the connection ends.
pub(in crate::front) fn unreadable(large: bool, id: &RequestId, host: &HostId) -> String {
    let (code, message) = match large {
        true => {
            let code = ErrorCode::RequestHeaderSectionTooLarge;
            (code, code.message())
        }
        false => (
            ErrorCode::BadRequest,
            "An error occurred when parsing the HTTP request.",
        ),
    };
    let document = ErrorDocument {
        code: code.as_str().to_owned(),
        message: message.to_owned(),
        details: Vec::new(),
        resource: "/".to_owned(),
        request_id: id.as_str().to_owned(),
        host_id: host.as_str().to_owned(),
    };
    let document = document.to_xml();
    let status = StatusCode::from_u16(code.status()).expect("every code has a valid status");
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/xml\r\n\
         content-length: {}\r\n{REQUEST_ID}: {}\r\n{HOST_ID}: {}\r\n\r\n{document}",
        document.len(),
        id.as_str(),
        host.as_str(),
    )
}
