//! The same scenarios with 2 API and 2 worker processes over RabbitMQ and MongoDB.
//!
//! They need `SWITCHYARD_TEST_BROKER`, `SWITCHYARD_TEST_BROKER_ADMIN` and `SWITCHYARD_TEST_STORE`, and fail without:
//! `tests/run cluster` starts both servers.

mod rolling;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod spread;
mod trace;

scenarios::all_scenarios!(support::Shape::Cluster { apis: 2, workers: 2 });
