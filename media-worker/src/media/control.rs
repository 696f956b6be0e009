//! [`MediaControl`]: the media plane as the control plane needs it, so that another one can stand in.
//!
//! [`MediaPlane`] is the one that moves packets. The simulation (`tests/simulation`) runs the same control plane over
//! one that only keeps the books, in virtual time. Only signalling passes here, a few calls for each join; the packet
//! path does not.

use std::net::SocketAddr;

use async_trait::async_trait;
use common::message::{Answer, Candidate, EndpointStats, IceFragment, IfMatch, Offer, Wish};
use common::model::{EndpointId, PipelineId, SessionSettings, Track, TrackId};

use super::{IceOutcome, MediaError, MediaPlane, MediaStats, Negotiated, OpenEndpoint};

/// The calls of [`MediaPlane`]; each has its meaning, errors and idempotence there.
#[async_trait]
pub trait MediaControl: Send + Sync + 'static {
    /// See [`MediaPlane::announced`].
    fn announced(&self) -> &[SocketAddr];
    /// See [`MediaPlane::open_endpoint`].
    async fn open_endpoint(&self, open: OpenEndpoint) -> Result<(), MediaError>;
    /// See [`MediaPlane::offer`].
    async fn offer(&self, endpoint_id: EndpointId, offer: Offer) -> Result<Negotiated, MediaError>;
    /// See [`MediaPlane::answer`].
    async fn answer(&self, endpoint_id: EndpointId, answer: Answer) -> Result<(), MediaError>;
    /// See [`MediaPlane::candidates`].
    async fn candidates(&self, endpoint_id: EndpointId, candidates: Vec<Candidate>)
    -> Result<(), MediaError>;
    /// See [`MediaPlane::ice`]. `Unavailable` from a media plane without ICE.
    async fn ice(
        &self,
        _endpoint_id: EndpointId,
        _fragment: IceFragment,
        _if_match: IfMatch,
    ) -> Result<IceOutcome, MediaError> {
        Err(MediaError::Unavailable)
    }
    /// See [`MediaPlane::set_muted`].
    async fn set_muted(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        muted: bool,
    ) -> Result<Track, MediaError>;
    /// See [`MediaPlane::set_wish`].
    async fn set_wish(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        wish: Wish,
    ) -> Result<(), MediaError>;
    /// See [`MediaPlane::set_settings`].
    async fn set_settings(&self, pipeline_id: PipelineId, settings: &SessionSettings);
    /// See [`MediaPlane::endpoint_stats`].
    async fn endpoint_stats(&self, endpoint_id: EndpointId) -> Result<EndpointStats, MediaError>;
    /// See [`MediaPlane::close_endpoint`].
    async fn close_endpoint(&self, endpoint_id: EndpointId) -> Result<(), MediaError>;
    /// See [`MediaPlane::close_pipeline`].
    async fn close_pipeline(&self, pipeline_id: PipelineId);
    /// See [`MediaPlane::stats`].
    async fn stats(&self) -> Result<MediaStats, MediaError>;
    /// See [`MediaPlane::full`].
    fn full(&self) -> Option<&'static str> {
        None
    }
    /// See [`MediaPlane::shutdown`].
    async fn shutdown(&self);
}

#[async_trait]
impl MediaControl for MediaPlane {
    fn announced(&self) -> &[SocketAddr] {
        self.announced()
    }

    async fn open_endpoint(&self, open: OpenEndpoint) -> Result<(), MediaError> {
        self.open_endpoint(open).await
    }

    async fn offer(&self, endpoint_id: EndpointId, offer: Offer) -> Result<Negotiated, MediaError> {
        self.offer(endpoint_id, offer).await
    }

    async fn answer(&self, endpoint_id: EndpointId, answer: Answer) -> Result<(), MediaError> {
        self.answer(endpoint_id, answer).await
    }

    async fn candidates(
        &self,
        endpoint_id: EndpointId,
        candidates: Vec<Candidate>,
    ) -> Result<(), MediaError> {
        self.candidates(endpoint_id, candidates).await
    }

    async fn ice(
        &self,
        endpoint_id: EndpointId,
        fragment: IceFragment,
        if_match: IfMatch,
    ) -> Result<IceOutcome, MediaError> {
        self.ice(endpoint_id, fragment, if_match).await
    }

    async fn set_muted(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        muted: bool,
    ) -> Result<Track, MediaError> {
        self.set_muted(endpoint_id, track_id, muted).await
    }

    async fn set_wish(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        wish: Wish,
    ) -> Result<(), MediaError> {
        self.set_wish(endpoint_id, track_id, wish).await
    }

    async fn set_settings(&self, pipeline_id: PipelineId, settings: &SessionSettings) {
        self.set_settings(pipeline_id, settings).await;
    }

    async fn endpoint_stats(&self, endpoint_id: EndpointId) -> Result<EndpointStats, MediaError> {
        self.endpoint_stats(endpoint_id).await
    }

    async fn close_endpoint(&self, endpoint_id: EndpointId) -> Result<(), MediaError> {
        self.close_endpoint(endpoint_id).await
    }

    async fn close_pipeline(&self, pipeline_id: PipelineId) {
        self.close_pipeline(pipeline_id).await;
    }

    async fn stats(&self) -> Result<MediaStats, MediaError> {
        self.stats().await
    }

    fn full(&self) -> Option<&'static str> {
        self.full()
    }

    async fn shutdown(&self) {
        self.shutdown().await;
    }
}
