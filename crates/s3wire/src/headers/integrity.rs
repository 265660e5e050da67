//! What clients claim about bodies: `Content-MD5`, `x-amz-checksum-*`, trailers, lengths.

use base::{Checksum, ChecksumAlgorithm, ChecksumKind, Md5};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::single;
use crate::{Error, ErrorCode};

/// Algorithms of Amazon S3 that are not compared here, and so are refused wherever one is named.
pub(crate) const NOT_BUILT: [&str; 5] = ["MD5", "SHA512", "XXHASH3", "XXHASH64", "XXHASH128"];

/// What the request says about its body; all of it is to be verified before anything is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BodyClaims {
    /// `Content-MD5`
    pub md5: Option<Md5>,
    /// `x-amz-checksum-*`
    pub checksum: Option<Checksum>,
    /// The algorithm of the checksum that `x-amz-trailer` announces.
    pub trailer: Option<ChecksumAlgorithm>,
    /// `x-amz-decoded-content-length`: bytes of the body without its chunk framing.
    pub decoded_length: Option<u64>,
}

/// The checksum of an object as headers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectChecksum {
    /// The value.
    pub checksum: Checksum,
    /// For the checksum of a multipart object's checksums, the number of its parts (`-N`).
    pub parts: Option<u32>,
}

/// Which checksum an upload in parts is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadChecksum {
    /// The algorithm that parts are sent with.
    pub algorithm: ChecksumAlgorithm,
    /// What the object's checksum is over.
    pub kind: ChecksumKind,
}

/// Whether a read wants checksums in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumMode {
    /// They are left out.
    #[default]
    Omit,
    /// `x-amz-checksum-mode: ENABLED`
    Include,
}

/// Parses what the request says about its body.
///
/// Like S3, one checksum only, either as a header or as a trailer, and of the algorithm that
/// `x-amz-sdk-checksum-algorithm` names where that header is there.
pub fn body_claims(headers: &HeaderMap) -> Result<BodyClaims, Error> {
    let md5 = match single(headers, "content-md5")? {
        None => None,
        Some(text) => Some(Md5::from_base64(text).ok_or(ErrorCode::InvalidDigest)?),
    };
    let decoded_length = match single(headers, "x-amz-decoded-content-length")? {
        None => None,
        Some(text) => Some(length(text).ok_or_else(|| {
            Error::argument("x-amz-decoded-content-length is not a number of bytes.")
        })?),
    };
    let mut checksum = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let Some(text) = single(headers, algorithm.header())? else {
            continue;
        };
        let value = Checksum::from_base64(algorithm, text).map_err(|_| {
            Error::request(format!(
                "Value for {} header is invalid.",
                algorithm.header()
            ))
        })?;
        if checksum.replace(value).is_some() {
            return Err(Error::request(
                "Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed.",
            ));
        }
    }
    let trailer = trailer(headers)?;
    if checksum.is_some() && trailer.is_some() {
        return Err(Error::request(
            "A checksum is either a header or a trailer, not both.",
        ));
    }
    let claims = BodyClaims {
        md5,
        checksum,
        trailer,
        decoded_length,
    };
    check_sdk_algorithm(headers, &claims)?;
    Ok(claims)
}

fn check_sdk_algorithm(headers: &HeaderMap, claims: &BodyClaims) -> Result<(), Error> {
    let Some(name) = single(headers, "x-amz-sdk-checksum-algorithm")? else {
        return Ok(());
    };
    let named = algorithm(name, "x-amz-sdk-checksum-algorithm")?;
    match claims
        .checksum
        .map(|checksum| checksum.algorithm())
        .or(claims.trailer)
    {
        Some(sent) if sent == named => Ok(()),
        Some(_) => Err(Error::request(
            "Value for x-amz-sdk-checksum-algorithm header is invalid.",
        )),
        None => Err(Error::request(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
        )),
    }
}

fn trailer(headers: &HeaderMap) -> Result<Option<ChecksumAlgorithm>, Error> {
    let Some(text) = single(headers, "x-amz-trailer")? else {
        return Ok(None);
    };
    let lower = text.to_ascii_lowercase();
    let Some(name) = lower.strip_prefix("x-amz-checksum-") else {
        return Err(unsupported_trailer());
    };
    match algorithm(name, "x-amz-trailer") {
        Ok(algorithm) => Ok(Some(algorithm)),
        Err(error) if error.code == ErrorCode::NotImplemented => Err(error),
        Err(_) => Err(unsupported_trailer()),
    }
}

fn unsupported_trailer() -> Error {
    Error::request("The value specified in the x-amz-trailer header is not supported")
}

fn algorithm(name: &str, header: &str) -> Result<ChecksumAlgorithm, Error> {
    if let Some(algorithm) = ChecksumAlgorithm::from_name(name) {
        return Ok(algorithm);
    }
    match NOT_BUILT
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
    {
        Some(known) => Err(not_built(known)),
        None => Err(Error::request(format!(
            "Checksum algorithm provided in {header} is unsupported."
        ))),
    }
}

/// What a client is told that believes its bytes are compared with such a checksum.
pub(crate) fn not_built(algorithm: &str) -> Error {
    Error::not_implemented(&format!("The checksum algorithm {algorithm}"))
}

fn length(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// `x-amz-checksum-algorithm` and `-type` of CreateMultipartUpload; `None` where neither is there.
pub fn upload_checksum(headers: &HeaderMap) -> Result<Option<UploadChecksum>, Error> {
    let kind = checksum_kind(headers)?;
    let Some(name) = single(headers, "x-amz-checksum-algorithm")? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(Error::request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = algorithm(name, "x-amz-checksum-algorithm")?;
    let kind = kind.unwrap_or(algorithm.default_kind());
    match algorithm.allows(kind) {
        true => Ok(Some(UploadChecksum { algorithm, kind })),
        false => Err(Error::request(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            kind.as_str(),
            algorithm.as_str()
        ))),
    }
}

/// `x-amz-checksum-algorithm` of CopyObject: the checksum that the copy is to have.
pub fn copy_checksum(headers: &HeaderMap) -> Result<Option<ChecksumAlgorithm>, Error> {
    single(headers, "x-amz-checksum-algorithm")?
        .map(|name| algorithm(name, "x-amz-checksum-algorithm"))
        .transpose()
}

fn checksum_kind(headers: &HeaderMap) -> Result<Option<ChecksumKind>, Error> {
    match single(headers, "x-amz-checksum-type")? {
        None => Ok(None),
        Some(name) => ChecksumKind::from_name(&name.to_ascii_uppercase())
            .map(Some)
            .ok_or_else(|| Error::request("Value for x-amz-checksum-type header is invalid.")),
    }
}

/// The checksum of the whole object that CompleteMultipartUpload claims, with its kind where
/// `x-amz-checksum-type` names one.
pub fn complete_claim(
    headers: &HeaderMap,
) -> Result<(Option<ObjectChecksum>, Option<ChecksumKind>), Error> {
    let mut claimed = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let Some(text) = single(headers, algorithm.header())? else {
            continue;
        };
        let value = parse_object_checksum(algorithm, text).ok_or_else(|| {
            Error::request(format!(
                "Value for {} header is invalid.",
                algorithm.header()
            ))
        })?;
        if claimed.replace(value).is_some() {
            return Err(Error::request(
                "Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed.",
            ));
        }
    }
    Ok((claimed, checksum_kind(headers)?))
}

/// The checksums that a backend returned with an object; unreadable ones are left out.
pub fn object_checksums(headers: &HeaderMap) -> Vec<ObjectChecksum> {
    ChecksumAlgorithm::ALL
        .into_iter()
        .filter_map(|algorithm| {
            let text = headers.get(algorithm.header())?.to_str().ok()?;
            parse_object_checksum(algorithm, text.trim())
        })
        .collect()
}

/// Prints a checksum under its header's name.
pub fn insert_checksum(headers: &mut HeaderMap, value: &ObjectChecksum) {
    let name = HeaderName::from_static(value.checksum.algorithm().header());
    let text = value.to_text();
    headers.insert(
        name,
        HeaderValue::try_from(text).expect("base64 is a header value"),
    );
}

impl ObjectChecksum {
    /// The text in headers and XML: base64, and `-N` for the checksum of N checksums.
    pub fn to_text(&self) -> String {
        match self.parts {
            None => self.checksum.to_base64(),
            Some(parts) => format!("{}-{parts}", self.checksum.to_base64()),
        }
    }
}

pub(crate) fn parse_object_checksum(
    algorithm: ChecksumAlgorithm,
    text: &str,
) -> Option<ObjectChecksum> {
    // The standard base64 alphabet has no dash.
    let (value, parts) = match text.split_once('-') {
        Some((value, parts)) => (value, Some(u32::try_from(length(parts)?).ok()?)),
        None => (text, None),
    };
    let checksum = Checksum::from_base64(algorithm, value).ok()?;
    Some(ObjectChecksum { checksum, parts })
}

/// `x-amz-checksum-mode`
pub fn checksum_mode(headers: &HeaderMap) -> Result<ChecksumMode, Error> {
    match single(headers, "x-amz-checksum-mode")? {
        None => Ok(ChecksumMode::Omit),
        Some(mode) if mode.eq_ignore_ascii_case("enabled") => Ok(ChecksumMode::Include),
        Some(_) => Err(Error::argument(
            "Value for x-amz-checksum-mode header is invalid.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn code(pairs: &[(&'static str, &str)]) -> ErrorCode {
        body_claims(&map(pairs)).unwrap_err().code
    }

    const CRC32: (&str, &str) = ("x-amz-checksum-crc32", "AAAAAA==");

    #[test]
    fn claims_are_read_and_contradictions_refused() {
        let claims = body_claims(&map(&[
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
            CRC32,
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ("x-amz-decoded-content-length", "12"),
        ]))
        .unwrap();
        assert_eq!(claims.md5, Some(Md5::of(b"")));
        assert_eq!(
            claims.checksum.unwrap().algorithm(),
            ChecksumAlgorithm::Crc32
        );
        assert_eq!(claims.decoded_length, Some(12));
        let trailer = body_claims(&map(&[("x-amz-trailer", "x-amz-checksum-crc64nvme")])).unwrap();
        assert_eq!(trailer.trailer, Some(ChecksumAlgorithm::Crc64Nvme));

        assert_eq!(code(&[("content-md5", "AAAA")]), ErrorCode::InvalidDigest);
        assert_eq!(
            code(&[("x-amz-checksum-crc32", "AAAA")]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&[CRC32, ("x-amz-checksum-crc32c", "AAAAAA==")]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&[("x-amz-sdk-checksum-algorithm", "CRC32")]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&[CRC32, ("x-amz-sdk-checksum-algorithm", "SHA1")]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&[CRC32, ("x-amz-trailer", "x-amz-checksum-crc32")]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&[("x-amz-trailer", "x-amz-meta-a")]),
            ErrorCode::InvalidRequest
        );
        for length in ["", "-1", "x", "99999999999999999999"] {
            let refused = [("x-amz-decoded-content-length", length)];
            // An empty value is no number either, but reads as zero digits.
            assert_eq!(code(&refused), ErrorCode::InvalidArgument, "{length}");
        }
    }

    #[test]
    fn uploads_name_an_algorithm_and_a_kind_that_fit() {
        let parse = |pairs: &[(&'static str, &str)]| upload_checksum(&map(pairs));
        assert_eq!(parse(&[]), Ok(None));
        let crc32 = ("x-amz-checksum-algorithm", "CRC32");
        let found = parse(&[crc32]).unwrap().unwrap();
        assert_eq!(found.kind, ChecksumKind::Composite);
        let full = ("x-amz-checksum-type", "FULL_OBJECT");
        assert_eq!(
            parse(&[crc32, full]).unwrap().unwrap().kind,
            ChecksumKind::FullObject
        );
        assert!(parse(&[("x-amz-checksum-algorithm", "SHA1"), full]).is_err());
        assert!(parse(&[full]).is_err());
        assert!(parse(&[("x-amz-checksum-algorithm", "MD4")]).is_err());
    }

    #[test]
    fn checksums_that_are_not_built_are_refused_by_name_wherever_they_stand() {
        for name in NOT_BUILT {
            let header = format!("x-amz-checksum-{}", name.to_ascii_lowercase());
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                let refused = [
                    body_claims(&map(&[CRC32, ("x-amz-sdk-checksum-algorithm", &name)])).err(),
                    body_claims(&map(&[("x-amz-trailer", &header)])).err(),
                    upload_checksum(&map(&[("x-amz-checksum-algorithm", &name)])).err(),
                    copy_checksum(&map(&[("x-amz-checksum-algorithm", &name)])).err(),
                ];
                for error in refused {
                    let error = error.expect("it is refused");
                    assert_eq!(error.code, ErrorCode::NotImplemented, "{error:?}");
                    assert!(error.to_string().contains(&name.to_ascii_uppercase()));
                }
            }
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::try_from(&header).unwrap(),
                "AAAA".parse().unwrap(),
            );
            assert_eq!(crate::headers::unsupported(&headers), Some(header.as_str()));
        }
    }

    #[test]
    fn the_type_of_a_checksum_has_no_case() {
        for kind in ["full_object", "Full_Object", "FULL_OBJECT"] {
            let found = upload_checksum(&map(&[
                ("x-amz-checksum-algorithm", "crc32"),
                ("x-amz-checksum-type", kind),
            ]));
            assert_eq!(found.unwrap().unwrap().kind, ChecksumKind::FullObject);
            let claim = complete_claim(&map(&[("x-amz-checksum-type", kind)])).unwrap();
            assert_eq!(claim.1, Some(ChecksumKind::FullObject));
        }
        let wrong = upload_checksum(&map(&[
            ("x-amz-checksum-algorithm", "crc32"),
            ("x-amz-checksum-type", "half"),
        ]));
        assert_eq!(wrong.unwrap_err().code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn composite_checksums_carry_their_number_of_parts() {
        let headers = map(&[("x-amz-checksum-crc32", "AAAAAA==-3")]);
        let found = object_checksums(&headers);
        assert_eq!(found[0].parts, Some(3));
        let mut back = HeaderMap::new();
        insert_checksum(&mut back, &found[0]);
        assert_eq!(back, headers);
        assert_eq!(complete_claim(&headers).unwrap().0, Some(found[0]));
        assert!(object_checksums(&map(&[("x-amz-checksum-crc32", "AAAAAA==-x")])).is_empty());
        assert_eq!(
            checksum_mode(&map(&[("x-amz-checksum-mode", "ENABLED")])),
            Ok(ChecksumMode::Include)
        );
    }
}
