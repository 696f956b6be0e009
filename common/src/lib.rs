//! Vocabulary and edges shared by both services; knows neither of them.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | ids and the stored documents: session, pipeline, participant, endpoint, track, worker |
//! | [`message`] | what travels through the broker: commands, replies, events and their envelope |
//! | [`broker`] | the broker's promises, and two implementations of them: RabbitMQ and embedded |
//! | [`store`] | the store's promises, and two implementations of them: MongoDB and embedded |
//! | [`ambient`] | where the wall clock, randomness and ids come from; a simulation steers them |
//! | [`keyring`] | the API keys that count now; they can change while the process runs |
//! | [`token`] | access tokens (JWT with `video` grants) and the signed `destination` |
//! | [`webhook`] | what receivers of webhooks are called, and signatures |
//! | [`catalogue`] | what a metric is, and the making known of it |
//! | [`turn`] | time-limited credentials for TURN servers |
//! | [`connect`] | URL scheme to implementation; the only place that names concrete back ends |

pub mod ambient;
pub mod broker;
pub mod catalogue;
#[cfg(feature = "servers")]
pub mod connect;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod keyring;
pub mod message;
pub mod model;
pub mod spans;
pub mod store;
pub mod time;
pub mod token;
pub mod turn;
pub mod webhook;
