//! Uploads by forms: what comes out does not depend on how the bytes arrive, the file is never more
//! than the body, and no policy lets a form through that it does not name.
//!
//! Input: the body of a form whose boundary is `B`; its field `policy` is read too.

use base::Timestamp;
use bytes::Bytes;
use s3wire::ErrorCode;
use s3wire::form::{Form, FormDecoder, Policy};
use s3wire::sigv4::{FormClaim, SigningSecret};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Bodies above this many bytes are fed in a few ways only.
const EVERY_SPLIT_BYTES_MAX: usize = 512;

/// What a decoder made of a body.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    fields: Vec<(String, String)>,
    file_name: String,
    file: Vec<u8>,
}

/// Checks one body.
pub fn check(data: &[u8]) {
    let whole = decode(&[data]);
    if data.len() <= EVERY_SPLIT_BYTES_MAX {
        for at in 0..=data.len() {
            let (head, tail) = data.split_at(at);
            assert_eq!(whole, decode(&[head, tail]), "split at {at}");
        }
    }
    let single: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(whole, decode(&single), "byte by byte");
    let Ok(decoded) = whole else { return };
    assert!(
        decoded.file.len() < data.len(),
        "a file is less than its form"
    );
    meaning(&decoded);
}

fn decode(pieces: &[&[u8]]) -> Result<Decoded, ErrorCode> {
    let mut decoder = FormDecoder::new("B");
    let mut out = Vec::new();
    for piece in pieces {
        let piece = Bytes::copy_from_slice(piece);
        decoder.feed(&piece, &mut out).map_err(|error| error.code)?;
    }
    decoder.finish().map_err(|error| error.code)?;
    Ok(Decoded {
        fields: decoder.fields().to_vec(),
        file_name: decoder.file_name().to_owned(),
        file: out.concat(),
    })
}

fn meaning(decoded: &Decoded) {
    let bucket = "bucket".parse().expect("a bucket's name");
    let Ok(form) = Form::new(&decoded.fields, &decoded.file_name, &bucket) else {
        return;
    };
    if let Ok(claim) = FormClaim::parse(|name| form.get(name)) {
        let unknown = claim.verify(&SigningSecret::unknown());
        assert!(unknown.is_err(), "nobody was let in");
    }
    let _either_way = (
        form.key(),
        form.headers(),
        form.tags(),
        form.success_action(),
    );
    let Some(policy) = form.get("policy") else {
        return;
    };
    let Ok(policy) = Policy::parse(policy) else {
        return;
    };
    if policy.check(&form, decoded.file.len() as u64, NOW).is_ok() {
        let extra = [("x-amz-meta-never-named".to_owned(), String::new())];
        let fields = [&decoded.fields[..], &extra].concat();
        if let Ok(form) = Form::new(&fields, &decoded.file_name, &bucket) {
            let more = policy.check(&form, decoded.file.len() as u64, NOW);
            assert!(more.is_err(), "a field that no condition names");
        }
    }
}
