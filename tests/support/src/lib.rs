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
//! | [`mover`] | [`mover::Mover`]: a participant that follows its session to another worker |
//! | [`network`] | a network of a test's own, and nodes with addresses of their own |
//! | [`previous`] | the binary of the commit before this one |
//! | [`flow`] | how steadily media arrives, over reconnections too |
//! | [`receiver`] | a receiver of webhooks |
//! | [`collector`] | a collector of traces |
//! | [`scrape`] | [`Scrape`]: what processes show on `/metrics` |
//! | [`seed`] | chance that can be replayed |
//! | [`relay`] | a network path that can be cut |
//! | [`whip`] | a client of WHIP or WHEP |
//! | [`mod@eventually`] | bounded patience |

pub mod channels;
pub mod collector;
pub mod deployment;
pub mod eventually;
pub mod flow;
pub mod http;
pub mod inspect;
pub mod media;
pub mod mover;
pub mod network;
pub mod own_services;
pub mod peer;
pub mod polling;
pub mod previous;
pub mod process;
pub mod receiver;
pub mod relay;
pub mod scrape;
pub mod sdp;
pub mod seed;
pub mod services;
pub mod whip;

pub use deployment::{Deployment, Room, Shape};
pub use eventually::{eventually, patience};
pub use flow::Flow;
pub use http::{Http, Response};
pub use own_services::OwnServices;
pub use polling::{JoinOptions, PollingClient};
pub use scrape::Scrape;
pub use seed::Chance;
pub use whip::OneOffer;
