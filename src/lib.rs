//! The one binary: all in one, or one of its parts.
//!
//! ```text
//!   switchyard          API + one worker + embedded broker and store, in one process
//!   switchyard api      REST API only; meets the workers in RabbitMQ and MongoDB
//!   switchyard worker   media worker only
//!   switchyard health   asks a running part whether it lives
//! ```

pub mod admin;
pub mod config;
pub mod health;
pub mod run;
pub mod telemetry;
