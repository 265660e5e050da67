//! The program: command line, configuration, HTTP front, start and stop.

pub mod admin;
pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod front;
pub mod telemetry;
