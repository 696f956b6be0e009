//! The whole system in one process, on the embedded broker and store; and what the binary itself promises.

mod configuration;
mod health;
#[cfg(target_os = "linux")]
mod load;
#[path = "../scenarios/mod.rs"]
mod scenarios;

scenarios::all_scenarios!(support::Shape::Embedded);
