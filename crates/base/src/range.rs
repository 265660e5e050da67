//! Byte ranges.

/// What a `Range` header asks for, before the size of the object is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=FIRST-` or `bytes=FIRST-LAST`, both inclusive.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte; open where absent.
        last: Option<u64>,
    },
    /// `bytes=-LENGTH`: so many bytes at the end.
    Suffix {
        /// Number of bytes.
        length: u64,
    },
}

/// No byte of the object lies in the range; RFC 9110 section 14.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside the object's {size} bytes")]
pub struct RangeError {
    /// Size of the object in bytes.
    pub size: u64,
}

/// Bytes of an object: `length` of them from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Number of bytes; never zero in a range that a client asked for.
    pub length: u64,
}

impl ByteRange {
    /// All of `size` bytes.
    pub const fn whole(size: u64) -> Self {
        Self {
            start: 0,
            length: size,
        }
    }

    /// Offset behind the last byte.
    pub const fn end(self) -> u64 {
        self.start + self.length
    }

    /// The part of this range that lies in `other`.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Self {
            start,
            length: end - start,
        })
    }
}

impl RangeSpec {
    /// The bytes that this range means in an object of `size` bytes.
    pub fn resolve(self, size: u64) -> Result<ByteRange, RangeError> {
        let (start, end) = match self {
            Self::From { first, last } => (
                first,
                last.map_or(size, |last| last.saturating_add(1).min(size)),
            ),
            Self::Suffix { length } => (size.saturating_sub(length), size),
        };
        match start < end {
            true => Ok(ByteRange {
                start,
                length: end - start,
            }),
            false => Err(RangeError { size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_resolve_as_rfc_9110_says() {
        let from = |first, last| RangeSpec::From { first, last };
        let suffix = |length| RangeSpec::Suffix { length };
        assert_eq!(
            from(0, Some(0)).resolve(10),
            Ok(ByteRange {
                start: 0,
                length: 1
            })
        );
        assert_eq!(
            from(5, None).resolve(10),
            Ok(ByteRange {
                start: 5,
                length: 5
            })
        );
        assert_eq!(
            from(5, Some(99)).resolve(10),
            Ok(ByteRange {
                start: 5,
                length: 5
            })
        );
        assert_eq!(
            from(0, Some(u64::MAX)).resolve(10),
            Ok(ByteRange::whole(10))
        );
        assert_eq!(from(10, None).resolve(10), Err(RangeError { size: 10 }));
        assert_eq!(from(5, Some(4)).resolve(10), Err(RangeError { size: 10 }));
        assert_eq!(
            suffix(3).resolve(10),
            Ok(ByteRange {
                start: 7,
                length: 3
            })
        );
        assert_eq!(suffix(30).resolve(10), Ok(ByteRange::whole(10)));
        assert_eq!(suffix(0).resolve(10), Err(RangeError { size: 10 }));
        assert_eq!(suffix(1).resolve(0), Err(RangeError { size: 0 }));
    }
}
