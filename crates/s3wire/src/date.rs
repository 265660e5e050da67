//! Dates as HTTP, XML and signatures write them.
//!
//! All are UTC and Gregorian. Years outside 1970 to 9999 have no text form in these formats: such
//! moments are printed as the nearest one that has, and such texts are refused.

use base::{Civil, Timestamp};

const DAY_MS: i64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z
const LAST_MS: i64 = 253_402_300_799_999;

/// `Sun, 06 Nov 1994 08:49:37 GMT`; RFC 9110 section 5.6.7.
pub fn http_date(time: Timestamp) -> String {
    httpdate::fmt_http_date(printable(time).to_system())
}

/// Parses the three forms of RFC 9110 section 5.6.7.
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(text.trim())
        .ok()
        .map(Timestamp::from_system)
}

/// `2009-10-12T17:50:30.000Z`, as XML answers carry it.
pub fn iso8601(time: Timestamp) -> String {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let millis = fill(&mut text, [0, 5, 8, 11, 14, 17], time);
    put(&mut text[20..23], millis);
    std::str::from_utf8(&text).expect("digits are ASCII").into()
}

/// Parses `2009-10-12T17:50:30Z` with any number of digits for the fraction of a second; digits
/// beyond the millisecond are dropped.
pub fn parse_iso8601(text: &str) -> Option<Timestamp> {
    let text = text.trim().strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let bytes = whole.as_bytes();
    let shape = bytes.len() == 19
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|(at, mark)| bytes[*at] == *mark);
    if !shape || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let field = |from: usize, to: usize| digits(&bytes[from..to]);
    let millis = fraction
        .bytes()
        .chain(*b"00")
        .take(3)
        .fold(0, |millis, digit| millis * 10 + i64::from(digit - b'0'));
    let time = [field(11, 13)?, field(14, 16)?, field(17, 19)?];
    moment([field(0, 4)?, field(5, 7)?, field(8, 10)?], time, millis)
}

/// `20130524T000000Z`, the form that signatures use.
pub(crate) fn amz_date(time: Timestamp) -> [u8; 16] {
    let mut text = *b"00000000T000000Z";
    fill(&mut text, [0, 4, 6, 9, 11, 13], time);
    text
}

/// Puts year, month, day, hour, minute and second where these places begin; the milliseconds beyond.
fn fill(text: &mut [u8], places: [usize; 6], time: Timestamp) -> i64 {
    let Civil {
        year,
        month,
        day,
        millis,
    } = Civil::of(printable(time));
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let [at_year, at_month, at_day, at_hour, at_minute, at_second] = places;
    put(&mut text[at_year..][..4], year);
    for (at, value) in [
        (at_month, month),
        (at_day, day),
        (at_hour, seconds / 3600),
        (at_minute, seconds / 60 % 60),
        (at_second, seconds % 60),
    ] {
        put(&mut text[at..][..2], value);
    }
    millis
}

/// The last digits of a number that is not negative, as many as there are places.
fn put(places: &mut [u8], mut value: i64) {
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).expect("a digit");
        value /= 10;
    }
}

/// Parses [`amz_date`]'s form and nothing else.
pub(crate) fn parse_amz_date(text: &[u8]) -> Option<Timestamp> {
    if text.len() != 16 || text[8] != b'T' || text[15] != b'Z' {
        return None;
    }
    let field = |from: usize, to: usize| digits(&text[from..to]);
    let date = [field(0, 4)?, field(4, 6)?, field(6, 8)?];
    moment(date, [field(9, 11)?, field(11, 13)?, field(13, 15)?], 0)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + i64::from(digit - b'0'))
    })
}

fn printable(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis().clamp(0, LAST_MS))
}

fn moment(date: [i64; 3], time: [i64; 3], millis: i64) -> Option<Timestamp> {
    let [year, month, day] = date;
    let [hour, minute, second] = time;
    // A leap second is the second after it, as POSIX time has it.
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !valid {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let midnight = Timestamp::from_millis(days * DAY_MS);
    let read_back = Civil::of(midnight);
    if (read_back.month, read_back.day) != (month, day) {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_millis(
        midnight.millis() + seconds * 1000 + millis,
    ))
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn known_moments_print_in_all_three_forms() {
        let time = Timestamp::from_millis(1_369_353_600_007);
        assert_eq!(iso8601(time), "2013-05-24T00:00:00.007Z");
        assert_eq!(http_date(time), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(&amz_date(time), b"20130524T000000Z");
        assert_eq!(
            iso8601(Timestamp::from_millis(951_782_400_000)),
            "2000-02-29T00:00:00.000Z"
        );
        assert_eq!(
            iso8601(Timestamp::from_millis(i64::MAX)),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            iso8601(Timestamp::from_millis(-1)),
            "1970-01-01T00:00:00.000Z"
        );
        assert!(http_date(Timestamp::from_millis(i64::MAX)).contains("9999"));
    }

    #[test]
    fn days_that_do_not_exist_and_other_shapes_are_refused() {
        for text in [
            "",
            "20130230T000000Z",
            "20130524T240000Z",
            "20130524T000000",
            "20130524t000000Z",
            "2013052+T000000Z",
            "20131324T000000Z",
        ] {
            assert_eq!(parse_amz_date(text.as_bytes()), None, "{text}");
        }
        for text in [
            "2013-05-24",
            "2013-05-24T00:00:00",
            "2013-05-24T00:00:00.Z",
            "x",
        ] {
            assert_eq!(parse_iso8601(text), None, "{text}");
        }
        let short = parse_iso8601("2013-05-24T00:00:00.5Z").unwrap();
        assert_eq!(iso8601(short), "2013-05-24T00:00:00.500Z");
        let long = parse_iso8601("2013-05-24T00:00:00.123456789Z").unwrap();
        assert_eq!(iso8601(long), "2013-05-24T00:00:00.123Z");
        assert_eq!(parse_http_date("yesterday"), None);
    }

    proptest! {
        #[test]
        fn every_printed_moment_reads_back(millis in 0..=LAST_MS) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(parse_iso8601(&iso8601(time)), Some(time));
            let second = Timestamp::from_millis(millis - millis % 1000);
            prop_assert_eq!(parse_amz_date(&amz_date(time)), Some(second));
            prop_assert_eq!(parse_http_date(&http_date(time)), Some(second));
        }
    }
}
