//! The HTTP front over real sockets, with a real engine behind it.

mod admin;
mod attributes;
mod auth;
mod broken;
mod buckets;
mod codes;
mod conditions;
mod cors;
mod errors;
mod forms;
mod framing;
mod hosts;
mod lifecycle;
mod listing;
mod multipart;
mod objects;
mod pages;
mod probes;
mod rights;
mod scopes;
mod sources;
mod support;
mod tags;
mod trail;
mod usage;
mod walks;
