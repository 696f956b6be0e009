//! Vocabulary and edges shared by both services; knows neither of them.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | ids and the stored documents: session, pipeline, participant, endpoint, track, worker |
//! | [`message`] | what travels through the broker: commands, replies, events and their envelope |
//! | [`broker`] | the broker's promises, and two implementations of them: RabbitMQ and embedded |
//! | [`store`] | the store's promises, and two implementations of them: MongoDB and embedded |
//! | [`ambient`] | where the wall clock, randomness and ids come from; a simulation steers them |
//! | [`token`] | access tokens (JWT with `video` grants) and the signed `destination` |
//! | [`connect`] | URL scheme to implementation; the only place that names concrete back ends |

pub mod ambient;
pub mod broker;
pub mod connect;
pub mod message;
pub mod model;
pub mod store;
pub mod time;
pub mod token;
