//! PostObject: an upload by an HTML form.
//!
//! The form proves its sender by itself, so its fields are read first, within their limits; only then
//! the request takes a place, and the file is read. A PUT needs the length of its body beforehand, and
//! a form does not tell that of its file: it follows from the length of the request where the file is
//! the last field. A small form is read whole instead, so that fields may follow its file.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::{BucketName, ETag, ObjectKey};
use bytes::Bytes;
use engine::catalogue::{Bucket, StoredChecksum};
use engine::{BodyError, Declared, PutRequest};
use futures_util::stream::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use s3wire::form::{Form, FormDecoder, Policy, SuccessAction, boundary};
use s3wire::sigv4::{FormClaim, PayloadMode, payload_mode};
use s3wire::xml::PostResponse;
use s3wire::{Error, ErrorCode, headers, uri};
use tokio::time::timeout;

use super::super::Front;
use super::super::access::Rights;
use super::super::intake::{Cover, Intake, Reader};
use super::super::render::{Answer, Failure, Success};
use super::super::ticket::Ticket;
use super::write::{self, refused_early};
use super::{demand, refuse_unsupported};
use crate::config::Verb;
use crate::telemetry::audit::RequestEvent;

/// Forms up to this many bytes are read whole, so that fields may follow the file.
const FORM_BYTES_WHOLE_MAX: u64 = 1 << 20;

impl Front {
    /// Serves one form.
    pub(super) async fn post_object(
        &self,
        ticket: &mut Ticket,
        bucket: &BucketName,
        head: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Failure> {
        let unsigned = Cover {
            payload: PayloadMode::Unsigned,
            chain: None,
        };
        let state = Arc::clone(&ticket.body);
        let metrics = Arc::clone(&self.telemetry.metrics);
        let intake = Intake::new(body, unsigned, state, metrics, self.upload_pace);
        let boundary = boundary(head).inspect_err(|error| {
            if error.code == ErrorCode::PreconditionFailed {
                ticket.said.is_no_form();
            }
        })?;
        let decoder = FormDecoder::new(&boundary);
        let (length, reader) = intake.into_pieces()?;
        let mut file = FormFile::new(reader, decoder);
        // Nobody has proven anything yet: a form's fields have no more time than a request's head.
        let found = timeout(self.patience.head, file.find()).await;
        found.map_err(|_| ErrorCode::RequestTimeout)??;
        let fields = file.decoder.fields().to_vec();
        let name = file.decoder.file_name().to_owned();
        let form = Form::new(&fields, &name, bucket)?;
        let rights = self.authenticate_form(ticket, &form)?;
        ticket.event = RequestEvent::Operation("PostObject");
        let policy = Policy::parse(form.get("policy").unwrap_or_default())?;
        let found = self.engine.find_bucket(bucket).await?;
        let (request, declared) = self.form_request(ticket, &form, found, &rights)?;
        self.admit(ticket)?;
        let mut body = file.into_body(length).await?;
        body.declared = declared;
        policy.check(&form, body.length, self.engine.clock().now())?;
        let key = request.key.clone();
        let written = self.engine.put(request, body).await;
        let written = written.map_err(|error| match error {
            // Only the decoder refuses bytes here.
            engine::Error::Body(BodyError::Refused) => ErrorCode::MalformedPostRequest.into(),
            error => Failure::from(refused_early(&self.telemetry.metrics, error)),
        })?;
        let place = ticket.site.locate(bucket, &key);
        let stored = Stored {
            place,
            bucket,
            key: &key,
            etag: &written.etag,
            checksum: written.checksum.as_ref(),
        };
        Ok(answer(&form.success_action(), &stored))
    }

    fn authenticate_form(
        &self,
        ticket: &mut Ticket,
        form: &Form<'_>,
    ) -> Result<Arc<Rights>, Failure> {
        let rights = FormClaim::parse(|name| form.get(name)).and_then(|claim| {
            let access = self.access.load();
            access.authenticate_form(&claim, ticket.peer())
        });
        rights.map_err(|error| {
            ticket.event = RequestEvent::AuthFailure;
            error.into()
        })
    }

    /// The PUT that the form means, if its signer may do that.
    fn form_request(
        &self,
        ticket: &mut Ticket,
        form: &Form<'_>,
        found: Option<Arc<Bucket>>,
        rights: &Rights,
    ) -> Result<(PutRequest, Declared), Failure> {
        let key = form.key()?;
        ticket.key = Some(key.clone());
        let Some(found) = found else {
            self.engine.knows_absence()?;
            return Err(ErrorCode::NoSuchBucket.into());
        };
        let tags = form.tags()?;
        let may = |verb| rights.allow(verb, &found.name, key.as_str());
        if !may(Verb::Write) || !(tags.is_empty() || may(Verb::Tags)) {
            ticket.event = RequestEvent::BucketMismatch;
            demand::granted(false)?;
        }
        let headers = form.headers()?;
        refuse_unsupported(&headers)?;
        let claims = headers::body_claims(&headers)?;
        let declared = Declared {
            md5: claims.md5,
            checksum: claims.checksum,
            sha256: match payload_mode(&headers)?.unwrap_or(PayloadMode::Unsigned) {
                PayloadMode::Sha256(sum) => Some(sum),
                PayloadMode::Unsigned => None,
                PayloadMode::Streaming(_) => {
                    let message = "The file of a form does not come in signed chunks.";
                    return Err(Error::new(ErrorCode::InvalidArgument, message).into());
                }
            },
            ..Declared::default()
        };
        let request = PutRequest {
            bucket: found.id,
            headers: headers::object_headers(&headers)?,
            tags,
            key,
            precondition: headers::write_precondition(&headers)?,
        };
        Ok((request, declared))
    }
}

/// A file that was stored.
struct Stored<'a> {
    /// Its address.
    place: String,
    bucket: &'a BucketName,
    key: &'a ObjectKey,
    etag: &'a ETag,
    /// The one that it was sent with, or ours.
    checksum: Option<&'a StoredChecksum>,
}

/// What the client is told, as the form wants it.
fn answer(action: &SuccessAction, stored: &Stored<'_>) -> Answer {
    let Stored {
        place,
        bucket,
        key,
        etag,
        checksum,
    } = stored;
    let mut answer = match action {
        SuccessAction::NoContent => Answer::silent(),
        SuccessAction::Ok => Answer::empty(HeaderMap::new()),
        SuccessAction::Created => {
            let document = PostResponse {
                location: place.clone(),
                bucket: bucket.as_str().to_owned(),
                key: key.as_str().to_owned(),
                etag: (*etag).clone(),
            };
            let mut answer = Answer::xml(document.to_xml());
            answer.success = Success::Created;
            answer
        }
        SuccessAction::Redirect(_) => {
            let mut answer = Answer::empty(HeaderMap::new());
            answer.success = Success::SeeOther;
            answer
        }
    };
    let place = match action {
        SuccessAction::Redirect(address) => {
            let query = uri::encode_query([
                ("bucket", Some(bucket.as_str())),
                ("key", Some(key.as_str())),
                ("etag", Some(etag.quoted().as_str())),
            ]);
            let joint = if address.contains('?') { '&' } else { '?' };
            format!("{address}{joint}{query}")
        }
        SuccessAction::NoContent | SuccessAction::Ok | SuccessAction::Created => place.clone(),
    };
    answer.headers.extend(write::stored(etag, *checksum));
    // The address of the form may hold what no header can carry.
    if let Ok(place) = HeaderValue::try_from(place) {
        answer.headers.insert(LOCATION, place);
    }
    answer
}

/// The file of a form, as it comes.
struct FormFile {
    reader: Reader,
    decoder: FormDecoder,
    ready: VecDeque<Bytes>,
    closed: bool,
}

impl FormFile {
    fn new(reader: Reader, decoder: FormDecoder) -> Self {
        Self {
            reader,
            decoder,
            ready: VecDeque::new(),
            closed: false,
        }
    }

    /// Reads up to the file.
    async fn find(&mut self) -> Result<(), Failure> {
        while !self.decoder.is_in_file() {
            match self.reader.next().await {
                Some(piece) => self.accept(&piece.map_err(engine::Error::Body)?)?,
                None => {
                    self.decoder.finish()?;
                    return Err(ErrorCode::MalformedPostRequest.into());
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, piece: &Bytes) -> Result<(), Error> {
        let mut out = Vec::new();
        self.decoder.feed(piece, &mut out)?;
        self.ready.extend(out);
        Ok(())
    }

    /// The file as the body of a PUT, in a request of so many bytes.
    async fn into_body(mut self, request_bytes: u64) -> Result<engine::Incoming, Failure> {
        if request_bytes > FORM_BYTES_WHOLE_MAX {
            let length = self.decoder.file_length_if_last(request_bytes);
            return Ok(engine::Incoming {
                length: length.ok_or(ErrorCode::MalformedPostRequest)?,
                stream: Box::pin(self.map_err(engine::Error::Body)),
                declared: Declared::default(),
            });
        }
        while let Some(piece) = self.reader.next().await {
            self.accept(&piece.map_err(engine::Error::Body)?)?;
        }
        self.decoder.finish()?;
        let pieces: Vec<Bytes> = self.ready.into();
        Ok(engine::Incoming::from_bytes(pieces.concat().into()))
    }

    fn end(
        &mut self,
        item: Option<Result<Bytes, BodyError>>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.closed = true;
        Poll::Ready(item)
    }
}

impl Stream for FormFile {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.closed {
                return Poll::Ready(None);
            }
            if let Some(piece) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            match Pin::new(&mut this.reader).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => {
                    if this.accept(&piece).is_err() {
                        return this.end(Some(Err(BodyError::Refused)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return this.end(Some(Err(error))),
                // A file that turns out to have another length fails by that.
                Poll::Ready(None) if this.decoder.finish().is_ok() => return this.end(None),
                Poll::Ready(None) => return this.end(Some(Err(BodyError::Refused))),
            }
        }
    }
}
