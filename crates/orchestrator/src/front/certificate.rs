//! Reads one fact from an X.509 certificate: when it ends.
//!
//! A whole parser for one date would be a large dependency. This one walks the outer fields of
//! RFC 5280 section 4.1 and gives up on everything unexpected; it decides nothing but a warning.

use base::Timestamp;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `version`, explicitly tagged; absent in version 1.
const VERSION: u8 = 0xa0;

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    /// The last moment.
    pub(super) not_after: Timestamp,
}

/// The validity of a certificate in DER; `None` where it has an unexpected shape.
pub(super) fn validity(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (body, _) = element(certificate, SEQUENCE)?;
    let mut rest = body;
    if rest.first() == Some(&VERSION) {
        rest = skip(rest)?;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        rest = skip(rest)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let not_after = skip(validity)?;
    Some(Validity {
        not_after: time(not_after)?,
    })
}

/// Tag, content and what follows.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, behind) = rest.split_at_checked(count)?;
        length = digits
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

fn element(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    any(der)
        .filter(|(tag, _, _)| *tag == wanted)
        .map(|(_, content, rest)| (content, rest))
}

fn skip(der: &[u8]) -> Option<&[u8]> {
    any(der).map(|(_, _, rest)| rest)
}

fn time(der: &[u8]) -> Option<Timestamp> {
    let (tag, content, _) = any(der)?;
    let text = std::str::from_utf8(content).ok()?;
    let full = match tag {
        // RFC 5280 section 4.1.2.5.1: two digits of 50 and above belong to the 20th century.
        UTC_TIME if text.get(..2)? >= "50" => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let digits = full.strip_suffix('Z').filter(|digits| digits.len() == 14)?;
    let part = |from: usize, to: usize| digits.get(from..to);
    let iso = format!(
        "{}-{}-{}T{}:{}:{}.000Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
    );
    s3wire::parse_iso8601(&iso)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_real_certificate_is_read() {
        for year in [2031, 2071] {
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 5, 6);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let found = validity(certificate.der()).unwrap().not_after;
            assert_eq!(
                s3wire::iso8601(found),
                format!("{year}-05-06T00:00:00.000Z")
            );
        }
    }

    #[test]
    fn nonsense_yields_nothing_and_no_panic() {
        for der in [
            &b""[..],
            b"0",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x03\x30\x01\x00",
            &[0; 99],
        ] {
            assert_eq!(validity(der), None);
        }
    }
}
