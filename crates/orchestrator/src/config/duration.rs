//! Durations in Go's syntax: `30s`, `5m`, `1h30m`, `250ms`.

use std::time::Duration;

/// The text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number, no unit, or an unknown unit.
    #[error("not a duration: write numbers with units, such as 30s, 5m, 1h30m or 250ms")]
    Malformed,
    /// A number without a unit.
    #[error("a duration needs a unit: write {0}s for seconds")]
    NoUnit(u64),
    /// Less than nothing.
    #[error("a duration cannot be negative")]
    Negative,
    /// More than about 292 years, Go's limit.
    #[error("the duration is too long")]
    TooLong,
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// More fractional digits say nothing about nanoseconds.
const FRACTION_DIGITS_MAX: usize = 15;

/// Reads a duration.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    let mut rest = match text.strip_prefix('-') {
        Some("0") => return Ok(Duration::ZERO),
        Some(_) => return Err(DurationError::Negative),
        None => text.strip_prefix('+').unwrap_or(text),
    };
    match rest.parse::<u64>() {
        Ok(0) => return Ok(Duration::ZERO),
        Ok(number) => return Err(DurationError::NoUnit(number)),
        Err(_) if rest.is_empty() => return Err(DurationError::Malformed),
        Err(_) => {}
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(DurationError::Malformed)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(DurationError::Malformed)?
            .1;
        nanos = nanos
            .checked_add(scaled(number, scale)?)
            .ok_or(DurationError::TooLong)?;
        rest = next;
    }
    match i64::try_from(nanos) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Err(_) => Err(DurationError::TooLong),
    }
}

/// `number`, which may have a fraction, times `scale`.
fn scaled(number: &str, scale: u64) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::Malformed);
    }
    let whole: u128 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| DurationError::TooLong)?,
    };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let parts: u128 = match fraction {
        "" => 0,
        digits => digits.parse().map_err(|_| DurationError::Malformed)?,
    };
    let places = u32::try_from(fraction.len()).expect("at most fifteen digits");
    let part = parts * u128::from(scale) / 10u128.pow(places);
    let whole = whole
        .checked_mul(u128::from(scale))
        .ok_or(DurationError::TooLong)?;
    whole.checked_add(part).ok_or(DurationError::TooLong)
}

/// Writes a duration so that [`parse_duration`] reads the same again: `1h30m`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    let mut text = String::new();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, scale)| u128::from(*scale))
            .expect("every unit here is in the table");
        if nanos >= scale {
            text.push_str(&format!("{}{unit}", nanos / scale));
            nanos %= scale;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, proptest};

    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("0", ms(0)),
            ("-0", ms(0)),
            ("0s", ms(0)),
            ("30s", ms(30_000)),
            ("5m", ms(300_000)),
            ("1h30m", ms(5_400_000)),
            ("250ms", ms(250)),
            ("1.5h", ms(5_400_000)),
            (".5s", ms(500)),
            ("1.s", ms(1_000)),
            ("+2s", ms(2_000)),
            ("100us", Duration::from_micros(100)),
            ("100µs", Duration::from_micros(100)),
            ("1m0.25s", ms(60_250)),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "s", "abc", "5d", "1..5s", ".", "s5", "5s3", "5 s", "1e3s", "5S",
        ] {
            assert_eq!(
                parse_duration(text),
                Err(DurationError::Malformed),
                "{text}"
            );
        }
        assert_eq!(parse_duration("30"), Err(DurationError::NoUnit(30)));
        assert_eq!(parse_duration("-5s"), Err(DurationError::Negative));
        assert_eq!(parse_duration("9999999h"), Err(DurationError::TooLong));
        assert_eq!(
            parse_duration(&format!("{}h", "9".repeat(60))),
            Err(DurationError::TooLong)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn what_is_written_reads_the_same_again(nanos in 0..=i64::MAX) {
            let duration = Duration::from_nanos(nanos.unsigned_abs());
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), number in "[0-9.]{0,40}[a-z]{0,3}") {
            let _ = parse_duration(&text);
            let _ = parse_duration(&number);
        }
    }
}
