//! Log lines: one JSON object, or one line for people, per event.
//!
//! A line is written whole, so lines of several threads are never mixed. It is written at once, but on a
//! thread that serves connections, which holds its lines until it has nothing else to do: [`hold`]. A
//! process that is killed loses what such a thread holds. Fields of the spans around an event (the request
//! id) are part of its line.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Clock;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use crate::config::{LogFormat, LogLevel};

/// Crates that explain their every step; their warnings are enough.
const CHATTY: [&str; 5] = ["hyper", "hyper_util", "rustls", "tokio_rustls", "mio"];

/// Names of buckets and objects, and addresses of clients, are nobody else's business.
const FILE_MODE: u32 = 0o600;

/// A thread that holds lines lets them go when there are so many.
const HELD_BYTES_MAX: usize = 16 << 10;

type Out = Arc<Mutex<Box<dyn Write + Send>>>;

/// Lines of this thread that have not gone out.
#[derive(Default)]
struct HeldLines {
    holds: bool,
    lines: Vec<u8>,
    out: Option<Out>,
    /// Kept for its capacity.
    scratch: Fields,
}

thread_local! {
    static HELD: RefCell<HeldLines> = RefCell::default();
}

/// From now on this thread holds its lines until [`let_go`], which it calls before it goes to sleep.
pub fn hold() {
    HELD.with_borrow_mut(|held| held.holds = true);
}

/// Lines that this thread holds go out.
pub fn let_go() {
    HELD.with_borrow_mut(HeldLines::let_go);
}

impl HeldLines {
    fn let_go(&mut self) {
        if let Some(out) = self.out.take() {
            // A log that cannot be written must not stop the service.
            let _ = out.lock().write_all(&self.lines);
            self.lines.clear();
        }
    }

    fn take(&mut self, out: &Out, line: impl FnOnce(&mut Vec<u8>)) {
        if self
            .out
            .as_ref()
            .is_some_and(|held| !Arc::ptr_eq(held, out))
        {
            self.let_go();
        }
        line(&mut self.lines);
        self.out.get_or_insert_with(|| Arc::clone(out));
        if !self.holds || self.lines.len() >= HELD_BYTES_MAX {
            self.let_go();
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, to whose end lines are added.
    File(PathBuf),
}

/// How to log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// The form of lines.
    pub format: LogFormat,
    /// Where they go.
    pub destination: Destination,
}

/// The log file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("opening the log file {path}")]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// A log that was set up but not yet made the process's own.
pub struct Log {
    control: LogControl,
    dispatch: tracing::Dispatch,
}

/// Changes the log while the process runs; cheap to clone.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    level: Arc<Mutex<LogLevel>>,
    out: Out,
}

impl Log {
    /// Opens the destination.
    pub fn open(options: &LogOptions, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let out: Box<dyn Write + Send> = match &options.destination {
            Destination::Stdout => Box::new(io::stdout()),
            Destination::File(path) => Box::new(append(path)?),
        };
        Ok(Self::to(out, options.level, options.format, clock))
    }

    /// A log that writes here.
    pub fn to(
        out: Box<dyn Write + Send>,
        level: LogLevel,
        format: LogFormat,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let out = Arc::new(Mutex::new(out));
        let (filter, handle) = reload::Layer::new(targets(level));
        let lines = LineLayer {
            out: Arc::clone(&out),
            format,
            clock,
        };
        let dispatch = tracing::Dispatch::new(Registry::default().with(filter).with(lines));
        Self {
            control: LogControl {
                filter: handle,
                level: Arc::new(Mutex::new(level)),
                out,
            },
            dispatch,
        }
    }

    /// Makes it the log of the whole process. A process has one log: a second attempt changes
    /// nothing and is told so by the `false`.
    pub fn install(self) -> (LogControl, bool) {
        let first = tracing::dispatcher::set_global_default(self.dispatch).is_ok();
        (self.control, first)
    }

    /// Makes it the log of this thread until the guard is dropped.
    pub fn install_here(self) -> (LogControl, tracing::dispatcher::DefaultGuard) {
        (
            self.control,
            tracing::dispatcher::set_default(&self.dispatch),
        )
    }
}

impl LogControl {
    /// The least severe level that is logged.
    pub fn level(&self) -> LogLevel {
        *self.level.lock()
    }

    /// Changes the least severe level that is logged.
    pub fn set_level(&self, level: LogLevel) {
        // Held over both, so that two changes at once leave the level of which they tell.
        let mut current = self.level.lock();
        // An error means that the subscriber is gone, and every line with it.
        let _ = self.filter.reload(targets(level));
        *current = level;
    }

    /// Hands everything to the operating system.
    pub fn flush(&self) {
        // There is no log left to complain to.
        let _ = self.out.lock().flush();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

fn append(path: &Path) -> Result<File, LogError> {
    let mut options = OpenOptions::new();
    let opened = options
        .create(true)
        .append(true)
        .mode(FILE_MODE)
        .open(path)
        .inspect(|file| {
            // One of an earlier version has the mode that its umask left; somebody else's stays.
            let _ = file.set_permissions(Permissions::from_mode(FILE_MODE));
        });
    opened.map_err(|source| LogError {
        path: path.to_owned(),
        source,
    })
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let quiet = level.min(LevelFilter::WARN);
    Targets::new()
        .with_default(level)
        .with_targets(CHATTY.map(|name| (name, quiet)))
}

/// Turns events into lines.
struct LineLayer {
    out: Out,
    format: LogFormat,
    clock: Arc<dyn Clock>,
}

/// Fields of an event or a span: their values one behind the other in one text.
#[derive(Debug, Default)]
struct Fields {
    text: String,
    message: Range<usize>,
    others: Vec<(&'static str, FieldValue)>,
}

#[derive(Debug, Clone)]
struct FieldValue {
    /// Stands without quotes in JSON.
    bare: bool,
    place: Range<usize>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // What is logged while the thread ends goes nowhere; nothing is.
        let mut fields = HELD
            .try_with(|held| std::mem::take(&mut held.borrow_mut().scratch))
            .unwrap_or_default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        let time = s3wire::iso8601(self.clock.now());
        let metadata = event.metadata();
        let (level, target) = (*metadata.level(), metadata.target());
        let write = |lines: &mut Vec<u8>| match self.format {
            LogFormat::Json => json(lines, &time, level, target, &fields),
            LogFormat::Text => plain(lines, &time, level, target, &fields),
        };
        let _ = HELD.try_with(|held| held.borrow_mut().take(&self.out, write));
        fields.clear();
        if fields.text.capacity() <= HELD_BYTES_MAX {
            let _ = HELD.try_with(|held| held.borrow_mut().scratch = fields);
        }
    }
}

impl Fields {
    fn clear(&mut self) {
        self.text.clear();
        self.message = 0..0;
        self.others.clear();
    }

    fn push(&mut self, field: &Field, bare: bool, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let place = start..self.text.len();
        match field.name() {
            "message" => self.message = place,
            name => self.others.push((name, FieldValue { bare, place })),
        }
    }

    /// Takes what a span around has and this does not.
    fn inherit(&mut self, outer: &Self) {
        for (name, FieldValue { bare, place }) in &outer.others {
            if self.others.iter().any(|(known, _)| known == name) {
                continue;
            }
            let start = self.text.len();
            self.text.push_str(&outer.text[place.clone()]);
            let place = start..self.text.len();
            self.others.push((name, FieldValue { bare: *bare, place }));
        }
    }

    fn message(&self) -> &str {
        &self.text[self.message.clone()]
    }

    /// Name, whether the value is bare, value.
    fn others(&self) -> impl Iterator<Item = (&'static str, bool, &str)> {
        let others = self.others.iter();
        others.map(|(name, value)| (*name, value.bare, &self.text[value.place.clone()]))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, false, |text| {
            append_to(text, format_args!("{value:?}"))
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, false, |text| text.push_str(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, true, |text| append_to(text, format_args!("{value}")));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, true, |text| append_to(text, format_args!("{value}")));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, true, |text| {
            text.push_str(if value { "true" } else { "false" })
        });
    }
}

fn append_to(text: &mut String, arguments: fmt::Arguments<'_>) {
    // An error is the value's own; what it has said until then stays.
    let _ = fmt::Write::write_fmt(text, arguments);
}

fn json(line: &mut Vec<u8>, time: &str, level: Level, target: &str, fields: &Fields) {
    for text in [
        "{\"time\":\"",
        time,
        "\",\"level\":\"",
        level.as_str(),
        "\",\"msg\":",
    ] {
        line.extend_from_slice(text.as_bytes());
    }
    quote(line, fields.message());
    line.extend_from_slice(b",\"component\":");
    quote(line, target);
    for (name, bare, value) in fields.others() {
        // The names of fields are Rust's, and need no escapes.
        for text in [",\"", name, "\":"] {
            line.extend_from_slice(text.as_bytes());
        }
        match bare {
            true => line.extend_from_slice(value.as_bytes()),
            false => quote(line, value),
        }
    }
    line.extend_from_slice(b"}\n");
}

fn quote(line: &mut Vec<u8>, text: &str) {
    // Text is always JSON, and memory takes it.
    let _ = serde_json::to_writer(line, text);
}

fn plain(line: &mut Vec<u8>, time: &str, level: Level, target: &str, fields: &Fields) {
    let _ = write!(
        line,
        "{time} {level:<5} {} component={target}",
        escape(fields.message())
    );
    for (name, bare, value) in fields.others() {
        let _ = match bare {
            true => write!(line, " {name}={value}"),
            false if value.is_empty() || value.contains([' ', '"', '=']) => {
                write!(line, " {name}={value:?}")
            }
            false => write!(line, " {name}={}", escape(value)),
        };
    }
    line.push(b'\n');
}

/// A key may hold line breaks and terminal codes; a line stays a line.
fn escape(text: &str) -> String {
    match text.chars().any(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use base::ManualClock;
    use tracing::{debug, info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn log(&self, format: LogFormat) -> Log {
            let clock = Arc::new(ManualClock::at(1_700_000_000_123));
            Log::to(Box::new(self.clone()), LogLevel::Info, format, clock)
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    #[test]
    fn a_log_file_is_its_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        let (new, old) = (home.path().join("new"), home.path().join("old"));
        std::fs::write(&old, "line\n").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        for path in [new, old] {
            let file = append(&path).unwrap();
            assert_eq!(
                file.metadata().unwrap().permissions().mode() & 0o7777,
                0o600
            );
        }
    }

    #[test]
    fn a_line_is_one_json_object_with_the_fields_of_its_spans() {
        let page = Page::default();
        let (_control, _guard) = page.log(LogFormat::Json).install_here();
        let span = info_span!("request", request_id = "ab12");
        let _entered = span.enter();
        info!(
            key = "a\n\"b\"",
            size = 5u64,
            ok = true,
            nothing = Option::<&str>::None,
            "done"
        );
        let line: serde_json::Value = serde_json::from_str(&page.text()).unwrap();
        assert_eq!(line["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["msg"], "done");
        assert_eq!(line["request_id"], "ab12");
        assert_eq!(line["key"], "a\n\"b\"");
        assert_eq!(line["size"], 5);
        assert_eq!(line["ok"], true);
        assert!(line.get("nothing").is_none());
    }

    #[test]
    fn a_thread_that_holds_its_lines_lets_them_go_before_it_sleeps_or_when_they_are_many() {
        let page = Page::default();
        let log = page.log(LogFormat::Text);
        let held = std::thread::spawn({
            let page = page.clone();
            move || {
                let (_control, _guard) = log.install_here();
                hold();
                info!("first");
                assert_eq!(page.text(), "");
                let_go();
                assert_eq!(page.text().lines().count(), 1);
                let long = "x".repeat(HELD_BYTES_MAX);
                info!(long, "second");
                assert_eq!(page.text().lines().count(), 2);
            }
        });
        held.join().unwrap();
    }

    #[test]
    fn a_text_line_stays_one_line() {
        let page = Page::default();
        let (_control, _guard) = page.log(LogFormat::Text).install_here();
        info!(key = "a\nb", name = "c d", "done");
        let text = page.text();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.starts_with("2023-11-14T22:13:20.123Z INFO  done "),
            "{text}"
        );
        assert!(
            text.contains("key=a\\nb") && text.contains("name=\"c d\""),
            "{text}"
        );
    }

    #[test]
    fn the_level_changes_while_the_process_runs() {
        let page = Page::default();
        let (control, _guard) = page.log(LogFormat::Text).install_here();
        debug!("first");
        control.set_level(LogLevel::Debug);
        debug!("second");
        assert_eq!(control.level(), LogLevel::Debug);
        control.set_level(LogLevel::Error);
        info!("third");
        assert!(!page.text().contains("first") && !page.text().contains("third"));
        assert!(page.text().contains("second"));
    }
}
