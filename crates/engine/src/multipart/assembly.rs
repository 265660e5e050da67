//! What a list of parts makes: pure functions over rows.

use backend::PartFact;
use base::{
    ByteSize, Checksum, ChecksumAlgorithm, ChecksumKind, CopyId, Crc64, ETag, Md5Hasher, composite,
    full_object,
};
use metastore::model::{Extent, NewCopy, ObjectPart, PartRow, StoredChecksum, UploadRecord};

use super::complete::CompleteRequest;
use crate::{Error, Result};

/// The object that a list of parts makes.
pub(super) struct Assembly {
    pub(super) parts: Vec<PartRow>,
    pub(super) size: u64,
    pub(super) etag: ETag,
    pub(super) checksum: Option<StoredChecksum>,
}

/// Compares the client's list with the parts that are there.
pub(super) fn check_list(
    record: &UploadRecord,
    stored: Vec<PartRow>,
    request: &CompleteRequest,
    part_size_min: ByteSize,
) -> Result<Assembly> {
    if request
        .parts
        .windows(2)
        .any(|pair| pair[0].number >= pair[1].number)
    {
        return Err(Error::InvalidPartOrder);
    }
    if let Some((algorithm, ChecksumKind::Composite)) = record.checksum
        && let Some(part) = request.parts.iter().find(|part| part.checksum.is_none())
    {
        return Err(Error::PartWithoutChecksum {
            algorithm,
            number: part.number,
        });
    }
    let mut parts = Vec::with_capacity(request.parts.len());
    for listed in &request.parts {
        let number = listed.number;
        let place = stored.binary_search_by_key(&number, |part| part.number);
        let part = place
            .map_err(|_| Error::InvalidPart { number })
            .map(|place| &stored[place])?;
        let checksum = listed.checksum.is_none() || listed.checksum == part.checksum;
        if part.etag != listed.etag || !checksum {
            return Err(Error::InvalidPart { number });
        }
        parts.push(part.clone());
    }
    let last = parts.len().saturating_sub(1);
    if let Some(part) = parts[..last]
        .iter()
        .find(|part| part.size < part_size_min.0)
    {
        return Err(Error::PartTooSmall {
            number: part.number,
            size: part.size,
        });
    }
    let assembly = assemble_parts(record, parts)?;
    if request.size.is_some_and(|size| size != assembly.size) {
        return Err(Error::WrongObjectSize {
            size: assembly.size,
        });
    }
    if let Some(expected) = &request.checksum {
        let same_algorithm = |sum: &Checksum| sum.algorithm() == expected.algorithm();
        let announced = assembly
            .checksum
            .map(|stored| stored.checksum)
            .filter(same_algorithm);
        let ours = || {
            sum_of(&assembly.parts)
                .map(Crc64::to_checksum)
                .filter(same_algorithm)
        };
        match announced.or_else(ours) {
            Some(found) if found == *expected => {}
            Some(_) => {
                return Err(Error::BadDigest {
                    digest: expected.algorithm().header(),
                });
            }
            None => return Err(Error::ChecksumMismatch),
        }
    }
    Ok(assembly)
}

pub(super) fn assemble_parts(record: &UploadRecord, parts: Vec<PartRow>) -> Result<Assembly> {
    if let Some(part) = parts.iter().find(|part| part.etag.as_md5().is_none()) {
        return Err(Error::InvalidPart {
            number: part.number,
        });
    }
    let etag = tag_of_tags(parts.iter().map(|part| &part.etag));
    let size = parts.iter().map(|part| part.size).sum();
    let checksum = match record.checksum {
        Some((algorithm, kind)) => checksum_of(algorithm, kind, &parts),
        // As on Amazon S3, an object without a checksum of the client's has ours.
        None => sum_of(&parts).map(|sum| StoredChecksum::full_object(sum.to_checksum())),
    };
    Ok(Assembly {
        parts,
        size,
        etag,
        checksum,
    })
}

pub(super) fn checksum_of(
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    parts: &[PartRow],
) -> Option<StoredChecksum> {
    let sums: Vec<&Checksum> = parts
        .iter()
        .map(|part| part.checksum.as_ref())
        .collect::<Option<_>>()?;
    let checksum = match kind {
        ChecksumKind::Composite => composite(algorithm, sums),
        ChecksumKind::FullObject => full_object(
            algorithm,
            sums.into_iter().zip(parts.iter().map(|part| part.size)),
        )?,
    };
    Some(StoredChecksum { checksum, kind })
}

/// Our sum over parts, where it is known of each.
pub(super) fn sum_of<'a>(parts: impl IntoIterator<Item = &'a PartRow>) -> Option<Crc64> {
    parts.into_iter().try_fold(Crc64::EMPTY, |sum, part| {
        Some(sum.then(part.crc64?, part.size))
    })
}

/// Whether what a backend said of an assembled object fits these parts.
pub(super) fn made_of(copy: &NewCopy, parts: &[&PartRow]) -> bool {
    copy.etag.as_ref() == Some(&tag_of(parts))
        || (copy.crc64.is_some() && copy.crc64 == sum_of(parts.iter().copied()))
}

/// The entity tag that S3 gives the object that a backend assembles of these parts.
pub(super) fn tag_of(parts: &[&PartRow]) -> ETag {
    tag_of_tags(parts.iter().map(|part| &part.backend_etag))
}

/// The entity tag of an object whose parts have these; a tag that is no MD5 makes it another one.
pub(super) fn tag_of_tags<'a>(tags: impl ExactSizeIterator<Item = &'a ETag>) -> ETag {
    let parts = tags.len();
    let mut md5 = Md5Hasher::new();
    for tag in tags.filter_map(ETag::as_md5) {
        md5.update(&tag.0);
    }
    ETag::of_parts(md5.finish(), parts)
}

pub(super) fn fact(part: &PartRow) -> PartFact {
    PartFact {
        number: part.number,
        etag: part.backend_etag.clone(),
        crc64: part.backend_crc64,
    }
}

/// The parts as the object remembers them: only an upload with an algorithm has checksums of parts.
pub(super) fn object_parts(record: &UploadRecord, parts: &[PartRow]) -> Vec<ObjectPart> {
    let told = |part: &PartRow| part.checksum.filter(|_| record.checksum.is_some());
    parts
        .iter()
        .map(|part| ObjectPart {
            number: part.number,
            size: part.size,
            checksum: told(part),
        })
        .collect()
}

/// The object in order: runs of parts that lie side by side in one leg become one extent.
pub(super) fn extents(record: &UploadRecord, parts: &[PartRow]) -> Vec<Extent> {
    let mut ends: Vec<(CopyId, u64)> = record.legs.iter().map(|leg| (leg.copy, 0)).collect();
    let mut extents: Vec<Extent> = Vec::new();
    for part in parts {
        let Some(leg) = record.legs.iter().find(|leg| leg.copy == part.leg) else {
            continue;
        };
        let Some((_, end)) = ends.iter_mut().find(|(copy, _)| *copy == part.leg) else {
            continue;
        };
        let (offset, length) = (*end, part.size);
        *end += length;
        match extents.last_mut() {
            Some(last) if last.blob == leg.blob && last.offset + last.length == offset => {
                last.length += length;
            }
            _ => extents.push(Extent {
                blob: leg.blob,
                offset,
                length,
            }),
        }
    }
    extents
}
