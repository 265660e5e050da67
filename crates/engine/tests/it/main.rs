//! The engine against real backends and a real catalogue.

mod model;
mod multipart;
mod recovery;
mod verbs;
mod world;
