//! Bugs that tests plant beneath the code, to see that their checks would notice them.
//!
//! Triggers in the database make the program misbehave without a hook in the program.

use std::path::Path;

use rusqlite::Connection;

use crate::sqlite::intents;

/// A way in which the catalogue could fail its promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// Intents are announced and never become durable.
    SkipIntents,
    /// What a newer version displaces is forgotten instead of queued.
    ForgetDisplaced,
    /// A copy that is committed is counted twice.
    SettleTwice,
    /// A copy that is committed is queued for deletion.
    CleanLiveCopies,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::SkipIntents,
        Self::ForgetDisplaced,
        Self::SettleTwice,
        Self::CleanLiveCopies,
    ];

    const fn trigger(self) -> &'static str {
        match self {
            Self::SkipIntents => {
                "CREATE TRIGGER planted BEFORE INSERT ON write_intents
                 BEGIN SELECT RAISE(IGNORE); END"
            }
            Self::ForgetDisplaced => {
                "CREATE TRIGGER planted BEFORE INSERT ON cleanup_queue
                 WHEN NEW.reason = 'overwrite_displaced'
                 BEGIN SELECT RAISE(IGNORE); END"
            }
            Self::SettleTwice => {
                "CREATE TRIGGER planted AFTER INSERT ON object_locations
                 BEGIN
                     UPDATE backend_slots SET used = used + NEW.stored_bytes
                     WHERE backend_id = NEW.backend_id;
                 END"
            }
            Self::CleanLiveCopies => {
                "CREATE TRIGGER planted AFTER INSERT ON object_locations
                 BEGIN
                     INSERT INTO cleanup_queue (copy_id, kind, backend_id, backend_key, size,
                                                reason, unsettled, created, not_before)
                     VALUES (NEW.copy_id, 'object', NEW.backend_id, NEW.backend_key, 0,
                             'object_deleted', 0, 0, 0);
                 END"
            }
        }
    }

    /// Plants the bug into a catalogue that is not in use.
    ///
    /// # Panics
    /// If the catalogue cannot be opened, or has the bug already.
    pub fn plant(self, catalogue: &Path) {
        let file = match self {
            Self::SkipIntents => intents::path_of(catalogue),
            Self::ForgetDisplaced | Self::SettleTwice | Self::CleanLiveCopies => {
                catalogue.to_owned()
            }
        };
        let database = Connection::open(file).expect("a test's catalogue opens");
        database
            .execute_batch(self.trigger())
            .expect("a test's catalogue takes a trigger");
    }
}
