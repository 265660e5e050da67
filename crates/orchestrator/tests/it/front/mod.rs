//! The HTTP front over real sockets, with a real engine behind it.

mod auth;
mod broken;
mod errors;
mod framing;
mod lifecycle;
mod listing;
mod multipart;
mod objects;
mod pages;
mod support;
mod trail;
