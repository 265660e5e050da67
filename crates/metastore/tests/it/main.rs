//! The suite of the catalogue: plain functions over a database, run on each that we support.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

/// Makes a test of each function, on each database.
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::Db::sqlite()).await;
                }
            )+
        }

        mod postgres {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::Db::postgres()).await;
                }
            )+
        }

        mod pgbouncer {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::Db::pgbouncer()).await;
                }
            )+
        }
    };
}

/// Makes a test of each function over connections that are cut: those that together write every kind
/// of job.
macro_rules! on_cut_connections {
    ($($name:ident),+ $(,)?) => {
        mod cut {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::Db::cut().await).await;
                }
            )+
        }
    };
}

/// Makes a test of each function, which is about the files of SQLite.
macro_rules! on_files {
    ($($name:ident),+ $(,)?) => {
        mod files {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::Db::sqlite()).await;
                }
            )+
        }
    };
}

mod backup;
mod batches;
mod buckets;
mod cleanup;
mod faults;
mod instances;
mod intents;
mod listing;
mod migration;
mod model;
mod multipart;
mod objects;
mod opening;
mod overview;
mod overwrites;
mod proxy;
mod support;
mod tls;
mod usage;
