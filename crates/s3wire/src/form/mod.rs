//! Uploads by an HTML form: POST on a bucket, with everything that a PUT has in its headers in fields
//! of `multipart/form-data`, and the signature over a policy instead of the request.
//!
//! [`FormDecoder`] takes the body apart as it arrives, [`Form`] gives the fields their meaning,
//! [`Policy`] says what the signer permitted. Source: Amazon S3 API reference, "Browser-based uploads
//! using POST (AWS Signature Version 4)".

mod decoder;
mod fields;
mod policy;

pub use decoder::{ENCLOSURE, FormDecoder, boundary};
pub use fields::{Form, SuccessAction};
pub use policy::Policy;
