//! The HTTP API: stateless instances between clients and the broker.
//!
//! ```text
//! client ──HTTP──▶ routes ──▶ service ──command──▶ broker ──▶ workers
//!    ▲                                   replies ◀──reply──────┘  │
//!    └── poll, SSE, WebSocket ◀── delivery ◀── user queue ◀──events┘
//! ```
//!
//! | part | does |
//! |---|---|
//! | [`routes`] | one file per resource: JSON to domain types and back, and the OpenAPI document |
//! | [`service`] | use cases without HTTP types: permission, command, reply |
//! | [`delivery`] | user queues to clients, one reader at a time across all instances |
//! | [`auth`] | API keys and tokens to a [`auth::Caller`], and what it may do |
//! | [`replies`] | this instance's reply queue |
//! | [`webhooks`] | what happens in sessions, told to the application's servers |
//! | [`error`] | every refusal as a problem body with a stable code |
//! | [`server`], [`tls`] | connections and their limits |
//! | [`limits`] | how many requests are taken |
//! | [`address`] | who is at the other end, behind trusted proxies |
//!
//! `docs/API.md` is the contract. Any instance answers any request; what an instance holds (user queues between two
//! polls) another one gets by asking.

pub mod address;
pub mod auth;
pub mod config;
pub mod delivery;
pub mod error;
mod extract;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod headers;
pub mod limits;
pub mod metrics;
mod observe;
mod origin;
pub mod outgoing;
mod protocols;
pub mod rates;
pub mod replies;
pub mod routes;
pub mod server;
pub mod service;
pub mod state;
pub mod tls;
mod trace;
pub mod view;
pub mod webhooks;

pub use address::{ForwardingHeaders, TrustedProxies};
pub use common::token::ApiKeys;
pub use config::{ApiConfig, IceServer, RenderMetrics, Timings, Turn};
pub use routes::{openapi, router};
pub use server::{ServeError, serve};
pub use state::ApiState;
pub use tls::{Tls, TlsError, TlsFiles};
