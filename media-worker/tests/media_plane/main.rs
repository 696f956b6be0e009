//! The media plane against clients of another implementation, over real loopback sockets.
//!
//! No test waits a fixed time for what must happen: clients and test are driven together until it has.

mod bandwidth;
mod client;
mod data;
mod large_rooms;
mod life;
mod negotiation;
mod refusals;
mod repair;
mod room;
mod settings;
mod slots;
mod stats;
mod tcp;
mod world;
