//! One pipeline: what the worker hosts for one session, as the media thread keeps it.

use common::model::PipelineId;
use sfu::{PublicationId, Session, SubscriptionId};

use super::endpoint::SourceTrack;

/// An endpoint's place in the media thread's table.
pub type EndpointKey = usize;

/// Where a subscription's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub subscription: SubscriptionId,
    pub endpoint: EndpointKey,
    pub line: usize,
}

/// A published track and its publisher.
pub struct Source {
    pub publisher: EndpointKey,
    pub track: SourceTrack,
}

pub struct Pipeline {
    pub id: PipelineId,
    pub session: Session,
    pub members: Vec<EndpointKey>,
    pub sources: Vec<Source>,
    /// By the subscription's index; entries of ended subscriptions stay until their place is reused.
    routes: Vec<Option<Route>>,
}

impl Pipeline {
    pub fn new(id: PipelineId) -> Self {
        Self { id, session: Session::new(), members: Vec::new(), sources: Vec::new(), routes: Vec::new() }
    }

    /// The tracks that an endpoint can subscribe to: everyone else's.
    pub fn wanted_by(&self, endpoint: EndpointKey) -> Vec<SourceTrack> {
        self.sources
            .iter()
            .filter(|source| source.publisher != endpoint)
            .map(|source| source.track.clone())
            .collect()
    }

    pub fn set_route(&mut self, route: Route) {
        let index = route.subscription.index();
        if self.routes.len() <= index {
            self.routes.resize(index + 1, None);
        }
        self.routes[index] = Some(route);
    }

    pub fn route(&self, subscription: SubscriptionId) -> Option<Route> {
        self.routes
            .get(subscription.index())
            .copied()
            .flatten()
            .filter(|route| route.subscription == subscription)
    }

    /// All routes of one publication's live subscriptions are found through the session; this is who
    /// publishes it.
    pub fn publisher(&self, publication: PublicationId) -> Option<EndpointKey> {
        self.sources
            .iter()
            .find(|source| source.track.publication == publication)
            .map(|source| source.publisher)
    }

    /// The routes whose m-lines carry a publication.
    pub fn routes_of(&self, publication: PublicationId) -> impl Iterator<Item = Route> {
        self.session.subscriptions_of(publication).iter().filter_map(|subscription| self.route(*subscription))
    }
}
