//! Part numbers of multipart uploads.

use std::fmt;
use std::str::FromStr;

/// The highest part number.
///
/// Source: Amazon S3 user guide, "Amazon S3 multipart upload limits".
pub const PART_NUMBER_MAX: u16 = 10_000;

/// The number is not one of 1 to [`PART_NUMBER_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part number is an integer between 1 and {PART_NUMBER_MAX}")]
pub struct PartNumberError;

/// The place of a part in its multipart upload: 1 to [`PART_NUMBER_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u16);

impl PartNumber {
    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for PartNumber {
    type Error = PartNumberError;

    fn try_from(number: u64) -> Result<Self, PartNumberError> {
        match u16::try_from(number) {
            Ok(number @ 1..=PART_NUMBER_MAX) => Ok(Self(number)),
            Ok(_) | Err(_) => Err(PartNumberError),
        }
    }
}

impl FromStr for PartNumber {
    type Err = PartNumberError;

    fn from_str(text: &str) -> Result<Self, PartNumberError> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PartNumberError);
        }
        text.parse::<u64>().map_err(|_| PartNumberError)?.try_into()
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_numbers_run_from_one_to_ten_thousand() {
        assert_eq!("1".parse::<PartNumber>().map(PartNumber::get), Ok(1));
        assert_eq!(
            "10000".parse::<PartNumber>().map(PartNumber::get),
            Ok(10_000)
        );
        for text in ["", "0", "10001", "-1", "+1", "1 ", "99999999999999999999"] {
            assert_eq!(text.parse::<PartNumber>(), Err(PartNumberError), "{text}");
        }
    }
}
