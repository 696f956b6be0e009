//! The API as its clients meet it: real HTTP servers on loopback, the embedded broker and store, and the worker's side
//! of the protocol. Every response is held against the OpenAPI document (`support/client.rs`).
//!
//! | file | behaviour proved |
//! |---|---|
//! | `access.rs` | who may do what: credentials, grants, other keys, other sessions, other participants |
//! | `admin.rs` | operators' tokens: who gets one, what they open and what not; searching all sessions |
//! | `bodies.rs` | malformed, unknown, oversized, slow and misplaced input |
//! | `sessions.rs` | create, list, read, close, links |
//! | `participants.rs` | join, rejoin, leave, participant tokens |
//! | `endpoints.rs` | offer, answer, candidates, mute; destinations and their look-ups |
//! | `commands.rs` | deadlines, 202 and `command.completed`, idempotency, outages |
//! | `messages.rs` | messages by request: ids, who gets them, who does not |
//! | `polling.rs` | long poll: cursor, limit, waiting, the end of a stream |
//! | `streams.rs` | SSE and WebSocket: resuming, acknowledging, hostile clients, ends |
//! | `takeover.rs` | one reader across instances: no loss, no reorder, supersede, lapse |
//! | `workers.rs` | operators: workers and draining; timelines |
//! | `ratings.rs` | who may rate a call and read the ratings, and which worker is asked |
//! | `revocation.rs` | what a removal takes away and leaves; tokens in place of those that expire |
//! | `keys.rs` | API keys that change while the server runs |
//! | `limits.rs` | too many requests, too long bodies, too many connections, and silent ones |
//! | `surface.rs` | OpenAPI against the routes, web assets, CORS, health, demo links, development mode |

mod access;
mod admin;
mod bodies;
mod commands;
mod endpoints;
mod keys;
mod limits;
mod messages;
mod participants;
mod polling;
mod ratings;
mod revocation;
mod sessions;
mod settings;
mod streams;
mod support;
mod surface;
mod takeover;
mod whip;
mod workers;
