//! The headers of GetObjectAttributes.

use http::HeaderMap;

use super::single;
use crate::op::{self, LIST_ENTRIES_MAX};
use crate::{Error, ErrorCode};

/// What GetObjectAttributes is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributesRequest {
    /// `ETag`
    pub etag: bool,
    /// `Checksum`
    pub checksum: bool,
    /// `ObjectParts`
    pub parts: bool,
    /// `StorageClass`
    pub storage_class: bool,
    /// `ObjectSize`
    pub size: bool,
    /// Only parts with higher numbers: `x-amz-part-number-marker`.
    pub marker: u32,
    /// 0 to 1,000: `x-amz-max-parts`.
    pub max_parts: u32,
}

/// Reads `x-amz-object-attributes` (all lines of it), `x-amz-max-parts` and
/// `x-amz-part-number-marker`.
pub fn attributes_request(headers: &HeaderMap) -> Result<AttributesRequest, Error> {
    let mut request = AttributesRequest {
        etag: false,
        checksum: false,
        parts: false,
        storage_class: false,
        size: false,
        marker: number(headers, "x-amz-part-number-marker")?.unwrap_or(0),
        max_parts: number(headers, "x-amz-max-parts")?
            .unwrap_or(LIST_ENTRIES_MAX)
            .min(LIST_ENTRIES_MAX),
    };
    let mut any = false;
    for value in headers.get_all("x-amz-object-attributes") {
        let text = value.to_str().map_err(|_| invalid())?;
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let wanted = match name {
                "ETag" => &mut request.etag,
                "Checksum" => &mut request.checksum,
                "ObjectParts" => &mut request.parts,
                "StorageClass" => &mut request.storage_class,
                "ObjectSize" => &mut request.size,
                _ => return Err(invalid()),
            };
            *wanted = true;
            any = true;
        }
    }
    match any {
        true => Ok(request),
        false => Err(invalid()),
    }
}

fn invalid() -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        "Invalid attribute name specified.",
    )
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u32>, Error> {
    let Some(text) = single(headers, name)? else {
        return Ok(None);
    };
    op::number(name, text).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&'static str, &str)]) -> Result<AttributesRequest, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        attributes_request(&headers)
    }

    #[test]
    fn names_are_a_closed_list_over_all_lines() {
        let name = "x-amz-object-attributes";
        let found = parse(&[(name, "ETag, ObjectParts"), (name, "ObjectSize")]).unwrap();
        assert!(found.etag && found.parts && found.size);
        assert!(!found.checksum && !found.storage_class);
        assert_eq!((found.marker, found.max_parts), (0, 1000));
        let paged = [
            (name, "ETag"),
            ("x-amz-max-parts", "5000"),
            ("x-amz-part-number-marker", "3"),
        ];
        let found = parse(&paged).unwrap();
        assert_eq!((found.marker, found.max_parts), (3, 1000));
        for wrong in [
            &[][..],
            &[(name, "")],
            &[(name, "etag")],
            &[(name, "ETag"), ("x-amz-max-parts", "-1")],
        ] {
            assert_eq!(parse(wrong).unwrap_err().code, ErrorCode::InvalidArgument);
        }
    }
}
