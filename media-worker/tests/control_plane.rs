//! The control plane's scenarios, each over the embedded broker and store and over RabbitMQ and MongoDB.
//!
//! The latter are those that `SWITCHYARD_TEST_BROKER` and `SWITCHYARD_TEST_STORE` name (`tests/run` starts both). Those tests
//! fail when these are missing; they are never skipped.

mod control;

mod embedded {
    crate::control::run_scenarios!(crate::control::System::embedded());
}

mod cluster {
    crate::control::run_scenarios!(crate::control::System::cluster());
}
