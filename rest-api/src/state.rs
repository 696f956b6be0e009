//! What every request shares.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use common::broker::{Broker, BrokerResult, RECONNECT_BOUND};
use common::model::{InstanceId, SessionId};
use common::store::Store;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;
use crate::delivery::Readers;
use crate::error::{ApiError, ApiResult};
use crate::limits::Limits;
use crate::rates::Rates;
use crate::replies::Replies;

/// Sessions whose owner is remembered; beyond it the memory starts anew.
const MAX_OWNERS: usize = 50_000;

/// The API's shared state; cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

pub struct Shared {
    pub config: ApiConfig,
    pub broker: Arc<dyn Broker>,
    pub store: Arc<dyn Store>,
    pub replies: Arc<Replies>,
    pub readers: Readers,
    /// Of messages by request.
    pub rates: Rates,
    /// Of requests.
    pub limits: Limits,
    /// Streams and long polls end when this is cancelled.
    pub shutdown: CancellationToken,
    owners: Mutex<HashMap<SessionId, Arc<str>>>,
    /// Since when there is a link to the broker; `None` while there is none, or only half of one.
    link_since: Arc<Mutex<Option<Instant>>>,
}

impl Deref for ApiState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl ApiState {
    /// Declares this instance's reply queue and starts reading it.
    ///
    /// # Errors
    /// When the broker is not there.
    pub async fn start(
        config: ApiConfig,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        shutdown: CancellationToken,
    ) -> BrokerResult<Self> {
        let instance = InstanceId::new();
        let replies = Arc::new(Replies::new(instance));
        let inbox = replies.open(&*broker).await?;
        let readers = Readers::new(
            instance,
            replies.queue(),
            broker.clone(),
            store.clone(),
            config.timings.clone(),
            shutdown.clone(),
        );
        let on_peer = readers.clone();
        common::ambient::spawn(replies.clone().read(
            broker.clone(),
            inbox,
            shutdown.clone(),
            move |message| {
                on_peer.handle_peer(message);
            },
        ));
        let owners = Mutex::default();
        let link_since = Arc::new(Mutex::new(Some(Instant::now())));
        common::ambient::spawn(watch_link(broker.connected(), link_since.clone()));
        let rates = Rates::default();
        let limits = Limits::new(config.request_rates);
        Ok(Self(Arc::new(Shared {
            config,
            broker,
            store,
            replies,
            readers,
            rates,
            limits,
            shutdown,
            owners,
            link_since,
        })))
    }

    /// Whether the link to the broker is so young that others may not have found their way back yet.
    pub fn link_is_young(&self) -> bool {
        let since = *self.link_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| since.elapsed() < RECONNECT_BOUND)
    }

    /// The API key that owns a session. Asks the store only the first time: the owner never changes.
    ///
    /// # Errors
    /// `session_not_found`, or `unavailable` when the store is.
    pub async fn owner(&self, session: SessionId) -> ApiResult<Arc<str>> {
        let known = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned();
        if let Some(owner) = known {
            return Ok(owner);
        }
        let found = self.store.session(session).await?.ok_or_else(ApiError::session_not_found)?;
        Ok(self.remember_owner(session, &found.key_id))
    }

    /// Notes the owner of a session that was just read anyway.
    pub fn remember_owner(&self, session: SessionId, key_id: &str) -> Arc<str> {
        let owner: Arc<str> = key_id.into();
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_OWNERS {
            owners.clear();
        }
        owners.insert(session, owner.clone());
        owner
    }
}

/// Ends with the broker.
async fn watch_link(mut connected: watch::Receiver<bool>, since: Arc<Mutex<Option<Instant>>>) {
    while connected.changed().await.is_ok() {
        let up = *connected.borrow_and_update();
        *since.lock().unwrap_or_else(PoisonError::into_inner) = up.then(Instant::now);
    }
}
