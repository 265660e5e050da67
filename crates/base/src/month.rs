//! Calendar months, UTC: the periods that providers bill by.

use std::fmt;
use std::str::FromStr;

use crate::{Civil, Timestamp};

const MONTHS_PER_YEAR: i32 = 12;

/// A month of the proleptic Gregorian calendar in UTC, written `2026-02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// Months since January of the year 0.
    index: i32,
}

/// The text is not a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a month: write YYYY-MM")]
pub struct MonthError;

impl Month {
    /// The month that a moment lies in.
    pub fn of(moment: Timestamp) -> Self {
        let Civil { year, month, .. } = Civil::of(moment);
        let months = year * i64::from(MONTHS_PER_YEAR) + month - 1;
        let index = i32::try_from(months).unwrap_or(match months < 0 {
            true => i32::MIN,
            false => i32::MAX,
        });
        Self { index }
    }

    fn year(self) -> i32 {
        self.index.div_euclid(MONTHS_PER_YEAR)
    }

    fn number(self) -> i32 {
        self.index.rem_euclid(MONTHS_PER_YEAR) + 1
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.number())
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let (year, number) = text.split_once('-').ok_or(MonthError)?;
        let digits = |text: &str, length: usize| -> Option<i32> {
            let plain = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten()
        };
        let year = digits(year, 4).ok_or(MonthError)?;
        let number = digits(number, 2).ok_or(MonthError)?;
        if !(1..=MONTHS_PER_YEAR).contains(&number) {
            return Err(MonthError);
        }
        Ok(Self {
            index: year * MONTHS_PER_YEAR + number - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_at_midnight_utc() {
        // Source: date -u -d @N +%Y-%m
        let known = [
            (0, "1970-01"),
            (-1, "1969-12"),
            (1_709_164_800_000, "2024-02"), // 2024-02-29, a leap day
            (1_709_251_199_999, "2024-02"),
            (1_709_251_200_000, "2024-03"),
            (951_782_400_000, "2000-02"), // 2000-02-29
            (1_735_689_599_999, "2024-12"),
            (1_735_689_600_000, "2025-01"),
            (1_764_192_000_000, "2025-11"),
        ];
        for (millis, text) in known {
            let month = Month::of(Timestamp::from_millis(millis));
            assert_eq!(month.to_string(), text);
            assert_eq!(text.parse(), Ok(month));
        }
        assert!("2024-12".parse::<Month>().unwrap() < "2025-01".parse().unwrap());
    }

    #[test]
    fn other_shapes_are_no_months() {
        for text in [
            "", "2024", "2024-0", "2024-00", "2024-13", "24-01", "2024-1a", "+024-01",
        ] {
            assert_eq!(text.parse::<Month>(), Err(MonthError), "{text}");
        }
    }
}
