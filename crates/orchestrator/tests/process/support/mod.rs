//! What every test here needs: content that is known by its seed, a place for a catalogue and its
//! backends, the process, and requests that no proper client would send.

pub(crate) mod content;
pub(crate) mod home;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod server;
