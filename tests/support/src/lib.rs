//! What the whole-system tests share. Nothing in here is a mock: deployments are processes of the real binary,
//! services are real servers, clients speak HTTP and WebRTC over the loopback interface.
//!
//! | module | gives |
//! |---|---|
//! | [`deployment`] | [`Deployment`]: the binary as one process, or as several over RabbitMQ and MongoDB |
//! | [`process`] | one process: ports read from its output, its log kept, ended by process id when dropped |
//! | [`services`] | where the tests' RabbitMQ and MongoDB are, and a virtual host and database of one's own |
//! | [`own_services`] | [`OwnServices`]: servers of one test's own, which it may kill and start again |
//! | [`inspect`] | what RabbitMQ holds |
//! | [`http`] | [`Http`]: requests that alternate between API instances, and problem bodies |
//! | [`polling`] | [`PollingClient`]: a participant that uses plain HTTP and long polls, with real media both ways |
//! | [`peer`] | its WebRTC connection: generated VP8 and Opus out, packets counted in |
//! | [`flow`] | how steadily media arrives, over reconnections too |
//! | [`seed`] | chance that can be replayed |
//! | [`relay`] | a network path that can be cut |
//! | [`mod@eventually`] | bounded patience |

pub mod deployment;
pub mod eventually;
pub mod flow;
pub mod http;
pub mod inspect;
pub mod media;
pub mod own_services;
pub mod peer;
pub mod polling;
pub mod process;
pub mod relay;
pub mod sdp;
pub mod seed;
pub mod services;

pub use deployment::{Deployment, Room, Shape};
pub use eventually::{eventually, patience};
pub use flow::Flow;
pub use http::{Http, Response};
pub use own_services::OwnServices;
pub use polling::{JoinOptions, PollingClient};
pub use seed::Chance;
