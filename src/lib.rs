//! The one binary: all in one, or one of its parts.
//!
//! ```text
//!   switchyard          API + one worker + embedded broker and store, in one process
//!   switchyard api      REST API only; meets the workers in RabbitMQ and MongoDB
//!   switchyard worker   media worker only
//!   switchyard doctor   looks at what a part needs, and says what to do about it
//!   switchyard health   asks a running part whether it lives
//! ```

pub mod admin;
pub mod config;
pub mod descriptors;
pub mod doctor;
pub mod health;
pub mod key_file;
pub mod otlp;
pub mod process;
pub mod run;
pub mod telemetry;
