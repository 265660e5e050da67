//! Moments as dates of the proleptic Gregorian calendar in UTC.

use crate::Timestamp;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// A moment split into its date and the milliseconds since midnight, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// The year; before year 1 come 0 and the negative ones.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// Since midnight, 0 to 86,399,999.
    pub millis: i64,
}

impl Civil {
    /// The date of a moment, and its time of day.
    ///
    /// Days are counted from 0000-03-01, so that the leap day is the last of its year. Source: Howard
    /// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    pub fn of(time: Timestamp) -> Self {
        let days = time.millis().div_euclid(DAY_MS) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        let january_or_february = i64::from(month <= 2);
        Self {
            year: era * 400 + year_of_era + january_or_february,
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            millis: time.millis().rem_euclid(DAY_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_dates() {
        // Source: date -u -d @N
        for (millis, date) in [
            (0, (1970, 1, 1, 0)),
            (-1, (1969, 12, 31, DAY_MS - 1)),
            (951_782_400_007, (2000, 2, 29, 7)),
            (1_709_251_199_999, (2024, 2, 29, DAY_MS - 1)),
            (1_709_251_200_000, (2024, 3, 1, 0)),
            (1_735_689_600_000, (2025, 1, 1, 0)),
        ] {
            let civil = Civil::of(Timestamp::from_millis(millis));
            let found = (civil.year, civil.month, civil.day, civil.millis);
            assert_eq!(found, date, "{millis}");
        }
    }
}
