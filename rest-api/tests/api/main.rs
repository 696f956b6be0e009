//! The API as its clients meet it: real HTTP servers on loopback, the embedded broker and store, and the worker's side
//! of the protocol. Every response is held against the OpenAPI document (`support/client.rs`).
//!
//! | file | behaviour proved |
//! |---|---|
//! | `access.rs` | who may do what: credentials, grants, other keys, other sessions, other participants |
//! | `bodies.rs` | malformed, unknown, oversized, slow and misplaced input |
//! | `sessions.rs` | create, list, read, close, links |
//! | `participants.rs` | join, rejoin, leave, participant tokens |
//! | `endpoints.rs` | offer, answer, candidates, mute; destinations and their look-ups |
//! | `commands.rs` | deadlines, 202 and `command.completed`, idempotency, outages |
//! | `polling.rs` | long poll: cursor, limit, waiting, the end of a stream |
//! | `streams.rs` | SSE and WebSocket: resuming, acknowledging, hostile clients, ends |
//! | `takeover.rs` | one reader across instances: no loss, no reorder, supersede, lapse |
//! | `workers.rs` | operators: workers and draining; timelines |
//! | `surface.rs` | OpenAPI against the routes, web assets, CORS, health, demo links, development mode |

mod access;
mod bodies;
mod commands;
mod endpoints;
mod participants;
mod polling;
mod sessions;
mod streams;
mod support;
mod surface;
mod takeover;
mod workers;
