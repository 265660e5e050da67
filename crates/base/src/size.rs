//! Sizes in bytes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number, or an unknown unit behind it.
    #[error("not a size: write bytes, or a number with KiB, MiB, GiB, TiB or PiB")]
    Malformed,
    /// More than 2^63 - 1 bytes.
    #[error("the size does not fit into 63 bits")]
    TooLarge,
}

const UNITS: [(&str, u32); 16] = [
    ("pib", 50),
    ("tib", 40),
    ("gib", 30),
    ("mib", 20),
    ("kib", 10),
    ("pb", 50),
    ("tb", 40),
    ("gb", 30),
    ("mb", 20),
    ("kb", 10),
    ("p", 50),
    ("t", 40),
    ("g", 30),
    ("m", 20),
    ("k", 10),
    ("b", 0),
];

impl ByteSize {
    /// Bytes as the catalogue's signed integers hold them.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// Accepts `1048576`, `20GiB`, `1.5 TiB`. KB, MB and GB mean the same binary multiples, as they
    /// always did in this configuration format.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let lower = text.trim().to_ascii_lowercase();
        let (number, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| lower.strip_suffix(unit).map(|number| (number, *shift)))
            .unwrap_or((&lower, 0));
        let number = number.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(SizeError::Malformed);
        }
        let whole: u128 = whole.parse().map_err(|_| SizeError::TooLarge)?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).expect("at most nine digits"));
        let fraction: u128 = fraction.parse().map_err(|_| SizeError::Malformed)?;
        let bytes = whole
            .checked_shl(shift)
            .filter(|shifted| shifted >> shift == whole)
            .map(|shifted| shifted + (fraction << shift) / scale)
            .ok_or(SizeError::TooLarge)?;
        match i64::try_from(bytes) {
            Ok(bytes) => Ok(Self(bytes.unsigned_abs())),
            Err(_) => Err(SizeError::TooLarge),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [
            ("PiB", 50),
            ("TiB", 40),
            ("GiB", 30),
            ("MiB", 20),
            ("KiB", 10),
        ] {
            let one = 1u64 << shift;
            if self.0 >= one {
                let tenths = (u128::from(self.0) * 10 / u128::from(one)) % 10;
                return match tenths {
                    0 => write!(f, "{} {unit}", self.0 / one),
                    _ => write!(f, "{}.{tenths} {unit}", self.0 / one),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("20GiB", 20 << 30),
            ("20 GB", 20 << 30),
            ("1.5KiB", 1536),
            ("10B", 10),
            ("2m", 2 << 20),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1x", "1..5", "1e3", "."] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(SizeError::Malformed),
                "{text}"
            );
        }
        assert_eq!("9000PiB".parse::<ByteSize>(), Err(SizeError::TooLarge));
        assert_eq!(
            "99999999999999999999".parse::<ByteSize>(),
            Err(SizeError::TooLarge)
        );
    }

    #[test]
    fn sizes_print_in_the_largest_fitting_unit() {
        assert_eq!(ByteSize(0).to_string(), "0 B");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(10 << 30).to_string(), "10 GiB");
    }
}
