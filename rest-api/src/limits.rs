//! How many requests an API instance takes: from one client address, for one token, for one API key.
//!
//! Each has a rate and may be ahead of it by [`BURST`]; what is more is refused with 429 and `Retry-After`. Wrong credentials
//! cost an address as much as [`COST_OF_WRONG_CREDENTIALS`] requests. What is remembered is bounded ([`crate::rates`]).
//!
//! | whose | by |
//! |---|---|
//! | address | the address itself, of IPv6 its /64, which is what one subscriber has ([`crate::address`]) |
//! | token | the participant that it stands for, however many tokens it has; a link for everybody by its signature |
//! | key | its id, for requests with its secret; its clients' requests count for their tokens |

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use common::model::{ParticipantId, SessionId};

use crate::address::{Network, client_address, network};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::metrics;
use crate::rates::Debts;
use crate::state::ApiState;

/// How far somebody may be ahead of its rate.
pub const BURST: Duration = Duration::from_secs(5);
/// Requests.
pub const COST_OF_WRONG_CREDENTIALS: u32 = 10;

/// Requests a second; 0: as many as come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRates {
    pub per_address: u32,
    pub per_token: u32,
    pub per_key: u32,
}

impl Default for RequestRates {
    fn default() -> Self {
        Self { per_address: 5_000, per_token: 500, per_key: 2_000 }
    }
}

/// Who asks with good credentials.
#[derive(PartialEq, Eq, Hash)]
enum Who {
    Key(String),
    Participant(Option<SessionId>, ParticipantId),
    /// By a hash of the token that nobody outside can predict.
    Link(u64),
}

/// What everybody has asked lately.
pub struct Limits {
    rates: RequestRates,
    addresses: Debts<Network>,
    callers: Debts<Who>,
    random: RandomState,
}

impl Limits {
    pub fn new(rates: RequestRates) -> Self {
        Self { rates, addresses: Debts::default(), callers: Debts::default(), random: RandomState::new() }
    }

    /// Counts so many requests of an address.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub fn take_address(&self, address: IpAddr, requests: u32) -> ApiResult<()> {
        let Some(cost) = cost(self.rates.per_address) else { return Ok(()) };
        let taken = self.addresses.take(network(address), cost * requests, BURST);
        taken.map_err(|wait| too_many("address", wait))
    }

    /// Counts a request with these credentials. `token`: as it came, when they are one.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub fn take_caller(&self, caller: &Caller, token: &[u8]) -> ApiResult<()> {
        let (rate, kind, who) = match caller {
            Caller::Backend { key_id } => (self.rates.per_key, "key", Who::Key(key_id.clone())),
            Caller::Client { claims } | Caller::Operator { claims } => {
                let who = match claims.sub {
                    Some(participant) => Who::Participant(claims.video.room, participant),
                    None => Who::Link(self.random.hash_one(token)),
                };
                (self.rates.per_token, "token", who)
            }
        };
        let Some(cost) = cost(rate) else { return Ok(()) };
        self.callers.take(who, cost, BURST).map_err(|wait| too_many(kind, wait))
    }
}

fn cost(per_second: u32) -> Option<Duration> {
    (per_second > 0).then(|| Duration::from_secs(1) / per_second)
}

fn too_many(whose: &'static str, wait: Duration) -> ApiError {
    metrics::limited(whose);
    let detail = format!("too many requests from this {whose}: try again later");
    ApiError { retry_after: Some(wait), ..ApiError::new(Code::TooManyRequests, detail) }
}

/// Refuses a request of an address that sends too many. Without a connection (in tests) there is no address to count.
///
/// # Errors
/// `too_many_requests`.
pub fn limit_address(state: &ApiState, request: &Request) -> ApiResult<()> {
    match client_address(request.headers(), request.extensions()) {
        Some(address) => state.limits.take_address(address, 1),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use common::token::{Claims, VideoGrants};

    use super::*;

    fn at_once(mut take: impl FnMut() -> ApiResult<()>) -> usize {
        std::iter::repeat_with(|| take().is_ok()).take(10_000).filter(|it| *it).count()
    }

    fn client(sub: Option<ParticipantId>, session: SessionId) -> Caller {
        let claims = Claims::expiring_in("key1", Duration::from_secs(60), VideoGrants::join(session));
        Caller::Client { claims: Box::new(Claims { sub, ..claims }) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_a_token_and_a_key_have_rates_of_their_own() {
        let limits = Limits::new(RequestRates { per_address: 10, per_token: 20, per_key: 40 });
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(at_once(|| limits.take_address(address("192.0.2.1"), 1)), 51);
        assert_eq!(at_once(|| limits.take_address(address("192.0.2.2"), COST_OF_WRONG_CREDENTIALS)), 6);
        assert_eq!(at_once(|| limits.take_address(address("2001:db8:0:1::1"), 1)), 51);
        assert_eq!(at_once(|| limits.take_address(address("2001:db8:0:1:2::1"), 1)), 0, "the same /64");
        assert_eq!(at_once(|| limits.take_address(address("2001:db8:0:2::1"), 1)), 51);

        let (session, elsewhere, ada) = (SessionId::new(), SessionId::new(), ParticipantId::new());
        assert_eq!(at_once(|| limits.take_caller(&client(Some(ada), session), b"one")), 101);
        assert_eq!(at_once(|| limits.take_caller(&client(Some(ada), session), b"refreshed")), 0);
        assert_eq!(at_once(|| limits.take_caller(&client(Some(ada), elsewhere), b"one")), 101);
        assert_eq!(at_once(|| limits.take_caller(&client(None, session), b"link")), 101);
        assert_eq!(at_once(|| limits.take_caller(&client(None, session), b"other")), 101);
        let backend = |key: &str| Caller::Backend { key_id: key.to_owned() };
        assert_eq!(at_once(|| limits.take_caller(&backend("key1"), b"")), 201);
        let refused = limits.take_caller(&backend("key1"), b"").unwrap_err();
        assert_eq!(refused.code, Code::TooManyRequests);
        tokio::time::advance(refused.retry_after.unwrap()).await;
        assert!(limits.take_caller(&backend("key1"), b"").is_ok());
        assert!(limits.take_caller(&backend("key2"), b"").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_zero_is_no_limit() {
        let limits = Limits::new(RequestRates { per_address: 0, per_token: 0, per_key: 0 });
        assert_eq!(at_once(|| limits.take_address([192, 0, 2, 1].into(), 1)), 10_000);
        assert_eq!(at_once(|| limits.take_caller(&client(None, SessionId::new()), b"")), 10_000);
    }
}
