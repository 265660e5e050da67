//! What is asked of every contender.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::ETag;
use hdrhistogram::Histogram;
use http::Method;
use s3wire::xml::{CompletePart, UploadStarted, print_complete};
use testbed::content::{Content, PIECE_BYTES_MAX};
use tokio::task::JoinSet;

use crate::load::{Connection, Load, Pace, Run, Until, fire};
use crate::target::{Cover, Shot, Target, Wanted};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Objects that are read, of each size: not more than fit into a page cache, and more than one.
const READ_BYTES_MAX: u64 = 512 * MIB;
const READ_KEYS_MAX: u64 = 1000;
/// Fresh keys of one turn; more of them would be overwritten.
const FRESH_KEYS_PER_SECOND: u64 = 16_000;
/// Of an upload in parts.
const PART_BYTES: u64 = 64 * MIB;
const PARTS_IN_FLIGHT: usize = 8;
const PARTS_KEY: &str = "parts";
/// So many keys of a size have all its contents among them, very nearly.
const CONTENT_KEYS: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Get(u64),
    /// Some bytes out of the middle of a larger object.
    Range {
        size: u64,
        bytes: u64,
    },
    Head(u64),
    Put(u64, Cover),
    /// Deletes what `Put` of the same size wrote in the same turn.
    Delete(u64),
    /// Seven reads, three writes.
    Mixed(u64),
    Multipart,
}

/// Who is compared, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Everybody, in plain text.
    Plain,
    /// The same over TLS from the load to whom it asks.
    Tls,
    /// A web server that stores files, alone and behind nginx: what the backend of the others is
    /// measured against.
    WebDav,
}

/// One row of the comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) field: Field,
    pub(crate) work: Work,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
}

pub(crate) fn size_text(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(GIB) => format!("{} GiB", bytes / GIB),
        _ if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes / KIB),
    }
}

impl Workload {
    pub(crate) fn name(&self) -> String {
        let what = match self.work {
            Work::Get(size) => format!("GET {}", size_text(size)),
            Work::Range { size, bytes } => {
                format!("GET {} out of {}", size_text(bytes), size_text(size))
            }
            Work::Head(size) => format!("HEAD {}", size_text(size)),
            Work::Put(size, Cover::Nothing) => format!("PUT {}", size_text(size)),
            Work::Put(size, Cover::Trailer) => {
                format!("PUT {} with a checksum trailer", size_text(size))
            }
            Work::Delete(size) => format!("DELETE {}", size_text(size)),
            Work::Mixed(size) => format!("70 % GET, 30 % PUT, {}", size_text(size)),
            Work::Multipart => format!("multipart upload of {}", size_text(GIB)),
        };
        let connections = match (self.work, self.connections) {
            (Work::Multipart, _) => format!("{PARTS_IN_FLIGHT} parts in flight"),
            (_, 1) => "1 connection".to_owned(),
            (_, many) => format!("{many} connections"),
        };
        let over = match self.field {
            Field::Plain => "",
            Field::Tls => ", TLS",
            Field::WebDav => ", WebDAV",
        };
        match self.pace {
            Pace::Closed => format!("{what}, {connections}{over}"),
            Pace::Open(rate) => {
                format!("{what}, {rate} requests a second, {connections}{over}")
            }
        }
    }

    /// Whether bytes per second say more than requests do.
    pub(crate) fn is_large(&self) -> bool {
        match self.work {
            Work::Get(size) | Work::Put(size, _) => size >= 16 * MIB,
            Work::Multipart => true,
            Work::Range { .. } | Work::Head(_) | Work::Delete(_) | Work::Mixed(_) => false,
        }
    }

    /// CPU per request in microseconds; where bytes say more, per gigabyte in milliseconds.
    pub(crate) fn share(&self, used: Duration, run: &Run) -> f64 {
        match self.is_large() {
            true => used.as_secs_f64() * 1e3 / (run.bytes as f64 / 1e9),
            false => used.as_secs_f64() * 1e6 / run.requests as f64,
        }
    }

    /// Whether it is there for the memory that it takes.
    pub(crate) fn is_about_memory(&self) -> bool {
        matches!(self.work, Work::Get(GIB) | Work::Put(GIB, _))
    }

    /// The sizes that have to be there before it is measured.
    fn read_size(&self) -> Option<u64> {
        match self.work {
            Work::Get(size) | Work::Head(size) | Work::Mixed(size) => Some(size),
            Work::Range { size, .. } => Some(size),
            Work::Put(..) | Work::Delete(_) | Work::Multipart => None,
        }
    }

    /// The size of the large objects that it writes.
    fn write_size(&self) -> Option<u64> {
        match self.work {
            Work::Put(size, _) | Work::Delete(size) | Work::Mixed(size) => {
                Some(size).filter(|size| *size > PIECE_BYTES_MAX)
            }
            Work::Get(_) | Work::Head(_) | Work::Range { .. } | Work::Multipart => None,
        }
    }
}

fn read_keys(size: u64) -> u64 {
    (READ_BYTES_MAX / size).clamp(4, READ_KEYS_MAX)
}

fn read_key(size: u64, n: u64) -> String {
    format!("read-{size}-{n}")
}

async fn write_once(target: &Target, shots: Vec<Shot>) -> Result<()> {
    let load = Load {
        connections: 4,
        pace: Pace::Closed,
        until: Until::Once,
    };
    fire(target, shots.into(), load).await?;
    Ok(())
}

/// Sends the provider every large content that the workloads write: it hashes each when it comes for the
/// first time, which is no part of what is measured.
pub(crate) async fn acquaint(provider: &Target, workloads: &[Workload]) -> Result<()> {
    let mut sizes: Vec<u64> = workloads.iter().filter_map(Workload::write_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let mut keys: Vec<String> = (0..CONTENT_KEYS).map(|n| format!("content-{n}")).collect();
        keys.sort_unstable_by_key(|key| Content::one_of_few(key, size));
        keys.dedup_by_key(|key| Content::one_of_few(key, size));
        let shots = keys
            .iter()
            .map(|key| provider.put(key, size, Cover::Nothing));
        let shots: Vec<Shot> = shots.collect::<Result<_>>()?;
        write_once(provider, shots).await?;
    }
    if workloads
        .iter()
        .any(|workload| workload.work == Work::Multipart)
    {
        multipart(provider, PARTS_KEY, GIB / PART_BYTES, PART_BYTES).await?;
    }
    Ok(())
}

/// Writes what the workloads read.
pub(crate) async fn prepare(target: &Target, workloads: &[Workload]) -> Result<()> {
    let mut sizes: Vec<u64> = workloads.iter().filter_map(Workload::read_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let shots =
            (0..read_keys(size)).map(|n| target.put(&read_key(size, n), size, Cover::Nothing));
        let shots: Vec<Shot> = shots.collect::<Result<_>>()?;
        write_once(target, shots).await?;
    }
    Ok(())
}

/// One turn of a workload at one contender. `turn` sets fresh keys apart.
pub(crate) async fn measure(
    target: &Target,
    workload: &Workload,
    turn: &str,
    time: Duration,
) -> Result<Run> {
    ready(target, workload, turn, time).await?.go().await
}

/// A turn before which everything is done that has to be done before.
pub(crate) enum Ready<'a> {
    Shots(&'a Target, Arc<[Shot]>, Load),
    /// The upload in parts, by its key.
    Parts(&'a Target, String),
}

impl Ready<'_> {
    pub(crate) async fn go(self) -> Result<Run> {
        match self {
            Self::Shots(target, shots, load) => fire(target, shots, load).await,
            Self::Parts(target, key) => multipart(target, &key, GIB / PART_BYTES, PART_BYTES).await,
        }
    }
}

/// Signs what is sent in a turn, and writes what is deleted in it.
pub(crate) async fn ready<'a>(
    target: &'a Target,
    workload: &Workload,
    turn: &str,
    time: Duration,
) -> Result<Ready<'a>> {
    let fresh = |size: u64, n: u64| format!("fresh-{turn}-{size}-{n}");
    let fresh_keys = |size: u64| {
        let most = (8 * GIB / size).max(1);
        (FRESH_KEYS_PER_SECOND * time.as_secs().max(1)).min(most)
    };
    let mut until = Until::Elapsed(time);
    let shots: Vec<Shot> = match workload.work {
        Work::Get(size) => (0..read_keys(size))
            .map(|n| target.get(&read_key(size, n), size))
            .collect::<Result<_>>()?,
        Work::Range { size, bytes } => (0..READ_KEYS_MAX)
            .map(|n| {
                let from = (n * 7919 * KIB) % (size - bytes);
                target.get_range(&read_key(size, n % read_keys(size)), size, from, bytes)
            })
            .collect::<Result<_>>()?,
        Work::Head(size) => (0..read_keys(size))
            .map(|n| target.head_object(&read_key(size, n), size))
            .collect::<Result<_>>()?,
        Work::Put(size, cover) => (0..fresh_keys(size))
            .map(|n| target.put(&fresh(size, n), size, cover))
            .collect::<Result<_>>()?,
        Work::Delete(size) => {
            until = Until::Once;
            let keys = fresh_keys(size).min(5_000 * time.as_secs().max(1));
            let there: Vec<Shot> = (0..keys)
                .map(|n| target.put(&fresh(size, n), size, Cover::Nothing))
                .collect::<Result<_>>()?;
            let load = Load {
                connections: 32,
                pace: Pace::Closed,
                until: Until::Once,
            };
            fire(target, there.into(), load).await?;
            (0..keys)
                .map(|n| target.delete(&fresh(size, n)))
                .collect::<Result<_>>()?
        }
        Work::Mixed(size) => (0..fresh_keys(size))
            .map(|n| match n % 10 {
                0 | 3 | 6 => target.put(&fresh(size, n), size, Cover::Nothing),
                _ => target.get(&read_key(size, n % read_keys(size)), size),
            })
            .collect::<Result<_>>()?,
        Work::Multipart => {
            // A key of its own, so that nothing is displaced, with a content that the provider knows.
            let content = |key: &str| Content::one_of_few(key, GIB);
            let key = (0u32..)
                .map(|n| format!("{PARTS_KEY}-{turn}-{n}"))
                .find(|key| content(key) == content(PARTS_KEY))
                .expect("there are few contents");
            return Ok(Ready::Parts(target, key));
        }
    };
    let load = Load {
        connections: workload.connections,
        pace: workload.pace,
        until,
    };
    Ok(Ready::Shots(target, shots.into(), load))
}

/// One upload in parts, from its beginning to its completion.
pub(crate) async fn multipart(
    target: &Target,
    key: &str,
    parts: u64,
    part_bytes: u64,
) -> Result<Run> {
    let begun = Instant::now();
    let mut first = Connection::open(target).await?;
    let begin = target.bodyless(&Method::POST, key, "uploads=", &[], Wanted::Status(200))?;
    first.ask(&begin).await?;
    let started = UploadStarted::from_xml(&first.document).context("reading the upload's id")?;
    let id = started.upload_id;
    let whole = Content::one_of_few(key, parts * part_bytes);
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut shots = Vec::new();
    for n in 0..parts {
        let query = format!("partNumber={}&uploadId={id}", n + 1);
        let content = whole.part(n * part_bytes, part_bytes);
        shots.push(target.upload(key, &query, content, Cover::Nothing)?);
    }
    let shots: Arc<[Shot]> = shots.into();
    let mut running = JoinSet::new();
    for _ in 0..PARTS_IN_FLIGHT {
        let (shots, next) = (Arc::clone(&shots), Arc::clone(&next));
        let mut connection = Connection::open(target).await?;
        running.spawn(async move {
            let mut done = Vec::new();
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(shot) = shots.get(usize::try_from(n)?) else {
                    return anyhow::Ok(done);
                };
                connection.ask(shot).await?;
                let etag = connection.etag.clone();
                done.push((n, etag.context("a part without an entity tag")?));
            }
        });
    }
    let mut tags = Vec::new();
    while let Some(ended) = running.join_next().await {
        tags.extend(ended.context("a connection panicked")??);
    }
    tags.sort();
    let list = tags.iter().map(|(n, etag)| {
        let part = (n + 1).try_into().ok().context("a part's number")?;
        let etag = ETag::new(etag.trim_matches('"'));
        Ok(CompletePart {
            part,
            etag,
            checksum: None,
        })
    });
    let list: Vec<CompletePart> = list.collect::<Result<_>>()?;
    let complete = target.post(key, &format!("uploadId={id}"), &print_complete(&list))?;
    first.ask(&complete).await?;
    let answer = String::from_utf8_lossy(&first.document);
    if !answer.contains("CompleteMultipartUploadResult") {
        bail!("the upload was not completed: {answer}");
    }
    let took = begun.elapsed();
    let mut latencies = Histogram::new(3)?;
    latencies.record(u64::try_from(took.as_nanos())?)?;
    Ok(Run {
        requests: 1,
        bytes: whole.length,
        seconds: took.as_secs_f64(),
        latencies,
    })
}
