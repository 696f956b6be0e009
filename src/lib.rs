//! The one binary: all in one, or one of its parts.
//!
//! ```text
//!   switchyard          API + one worker + embedded broker and store, in one process
//!   switchyard api      REST API only; meets the workers in RabbitMQ and MongoDB
//!   switchyard worker   media worker only
//! ```

pub mod admin;
pub mod config;
pub mod run;
pub mod telemetry;
