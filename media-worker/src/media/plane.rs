//! [`MediaPlane`]: the handle through which the rest of the worker reaches the media threads.
//!
//! Each call becomes one [`Request`] with a reply slot; the media thread that the endpoint lives on is woken, does
//! it and replies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use common::message::{Answer, Candidate, EndpointStats, IceFragment, IfMatch, Offer, Wish};
use common::model::{EndpointId, PipelineId, SessionSettings, Track, TrackId};
use tokio::sync::{mpsc, oneshot};

use super::directory::{Directory, Together};
use super::limits::Limits;
use super::tcp::Counters;
use super::{
    IceOutcome, MAX_DEFAULT_THREADS, MAX_THREADS, MediaConfig, MediaError, MediaEvent, MediaStats,
    Negotiated, OpenEndpoint,
};

/// Requests that wait for the media thread; further callers wait in `await` (backpressure, no loss).
const REQUEST_QUEUE: usize = 1024;
/// Events the control plane has not taken yet, before the media thread starts keeping them itself.
const EVENT_QUEUE: usize = 4096;

pub(super) type Respond<T> = oneshot::Sender<T>;

/// One call on its way to the media thread.
pub(super) enum Request {
    Open(OpenEndpoint, Respond<Result<(), MediaError>>),
    Offer(EndpointId, Offer, Respond<Result<Negotiated, MediaError>>),
    Answer(EndpointId, Answer, Respond<Result<(), MediaError>>),
    Candidates(EndpointId, Vec<Candidate>, Respond<Result<(), MediaError>>),
    Ice(EndpointId, IceFragment, IfMatch, Respond<Result<IceOutcome, MediaError>>),
    SetMuted(EndpointId, TrackId, bool, Respond<Result<Track, MediaError>>),
    SetWish(EndpointId, TrackId, Wish, Respond<Result<(), MediaError>>),
    SetSettings(PipelineId, SessionSettings, Respond<()>),
    CloseEndpoint(EndpointId, Respond<Result<(), MediaError>>),
    ClosePipeline(PipelineId, Respond<()>),
    EndpointStats(EndpointId, Respond<Result<EndpointStats, MediaError>>),
    Stats(Respond<MediaStats>),
    Shutdown(Respond<()>),
    /// Makes the endpoint's next packet panic inside its own code, to prove that only it ends.
    InjectFault(EndpointId, Respond<Result<(), MediaError>>),
    /// Panics in the thread itself, to prove that it goes on.
    InjectThreadFault(Respond<Result<(), MediaError>>),
}

/// The way to one media thread.
struct Shard {
    requests: mpsc::Sender<Request>,
    waker: Arc<mio::Waker>,
}

struct Inner {
    shards: Vec<Shard>,
    directory: Arc<Directory>,
    limits: Limits,
    local_addr: SocketAddr,
    announced: Vec<SocketAddr>,
    tcp_port: Option<u16>,
    tcp: Arc<Counters>,
}

impl Shard {
    fn waiting(&self) -> u64 {
        (self.requests.max_capacity() - self.requests.capacity()) as u64
    }
}

/// The media plane of one worker. Clones share it; it ends with [`MediaPlane::shutdown`] or with the
/// last clone.
#[derive(Clone)]
pub struct MediaPlane {
    inner: Arc<Inner>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for Shard { requests, waker } in self.shards.drain(..) {
            // The thread sees the closed queue only when it looks.
            drop(requests);
            let _ = waker.wake();
        }
    }
}

/// Media threads on so many cores.
fn default_threads(cores: usize) -> usize {
    (cores / 2).clamp(1, MAX_DEFAULT_THREADS)
}

impl MediaPlane {
    /// Binds the media port and starts the media threads.
    ///
    /// # Errors
    /// What binding the sockets, listing the interfaces or starting the threads answered.
    pub fn start(config: MediaConfig) -> io::Result<(MediaPlane, mpsc::Receiver<MediaEvent>)> {
        let (events, event_rx) = mpsc::channel(EVENT_QUEUE);
        let threads = match config.threads {
            0 => default_threads(std::thread::available_parallelism().map_or(1, usize::from)),
            threads => threads.min(MAX_THREADS),
        };
        let together = Together { endpoints: config.endpoints_together, tracks: config.tracks_together };
        let directory = Arc::new(Directory::new(threads, config.max_endpoints, together));
        let limits = Limits::new(&config, threads);
        let (mut requests, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..threads {
            let (sender, receiver) = mpsc::channel(REQUEST_QUEUE);
            requests.push(sender);
            ends.push(receiver);
        }
        let mut started = super::thread::start(config, &directory, limits.sent(), ends, &events)?;
        let wakers = std::mem::take(&mut started.wakers);
        let shards =
            requests.into_iter().zip(wakers).map(|(requests, waker)| Shard { requests, waker }).collect();
        let super::thread::Started { local_addr, announced, tcp_port, tcp, .. } = started;
        let inner = Inner { shards, directory, limits, local_addr, announced, tcp_port, tcp };
        Ok((MediaPlane { inner: Arc::new(inner) }, event_rx))
    }

    /// The address the media socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// The addresses in the server's candidates.
    pub fn announced(&self) -> &[SocketAddr] {
        &self.inner.announced
    }

    /// The port over TCP, at the same addresses; `None` without one.
    pub fn tcp_port(&self) -> Option<u16> {
        self.inner.tcp_port
    }

    /// Makes an endpoint that waits for SDP.
    ///
    /// # Errors
    /// `Full` when the worker has no room for it; `Unavailable`. Idempotent: the same id again is `Ok`.
    pub async fn open_endpoint(&self, open: OpenEndpoint) -> Result<(), MediaError> {
        let (id, directory) = (open.endpoint_id, &self.inner.directory);
        if directory.shard_of(id).is_none()
            && let Some(limit) = self.inner.limits.reached(directory.tracks())
        {
            return Err(MediaError::Full(limit));
        }
        let shard = directory.place(id, open.pipeline_id).ok_or(MediaError::Full("endpoints"))?;
        let opened = self.call(shard, |respond| Request::Open(open, respond)).await;
        let opened = opened.and_then(|opened| opened);
        if opened.is_err() {
            directory.remove(id);
        }
        opened
    }

    /// Applies a client's offer. A refused offer leaves the endpoint as it was.
    ///
    /// # Errors
    /// `EndpointGone`, `OfferCollision` (the server's own offer is outstanding, or the revision is not
    /// the next one), `InvalidSdp`, `LimitExceeded`, `Forbidden`, `Full` (it would publish a track more than the
    /// worker takes), `Unavailable`.
    pub async fn offer(&self, endpoint_id: EndpointId, offer: Offer) -> Result<Negotiated, MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::Offer(endpoint_id, offer, respond)).await
    }

    /// Applies a client's answer to the outstanding server offer.
    ///
    /// # Errors
    /// `EndpointGone`, `NoOfferPending` (none outstanding, or another revision), `InvalidSdp`,
    /// `LimitExceeded`, `Unavailable`.
    pub async fn answer(&self, endpoint_id: EndpointId, answer: Answer) -> Result<(), MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::Answer(endpoint_id, answer, respond)).await
    }

    /// Takes trickled candidates (RFC 8838); before the first offer they are kept, bounded.
    ///
    /// # Errors
    /// `EndpointGone`, `InvalidCandidate` (none of the batch is taken), `LimitExceeded`, `Unavailable`.
    pub async fn candidates(
        &self,
        endpoint_id: EndpointId,
        candidates: Vec<Candidate>,
    ) -> Result<(), MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::Candidates(endpoint_id, candidates, respond)).await
    }

    /// Takes candidates, or restarts ICE, without a description (RFC 8840). A restart leaves the media on the paths that it
    /// has until the client nominates others.
    ///
    /// # Errors
    /// `EndpointGone`, `PreconditionFailed` (the ICE session is another one than `if_match` says), `InvalidSdp` (malformed
    /// credentials), `InvalidCandidate`, `LimitExceeded`, `Unavailable`; nothing has changed then.
    pub async fn ice(
        &self,
        endpoint_id: EndpointId,
        fragment: IceFragment,
        if_match: IfMatch,
    ) -> Result<IceOutcome, MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::Ice(endpoint_id, fragment, if_match, respond))
            .await
    }

    /// Stops or resumes the forwarding of one published track; setting what is set changes nothing.
    ///
    /// # Errors
    /// `EndpointGone`, `TrackNotFound`, `Unavailable`.
    pub async fn set_muted(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        muted: bool,
    ) -> Result<Track, MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::SetMuted(endpoint_id, track_id, muted, respond))
            .await
    }

    /// Says what an endpoint wants of a track that it subscribes to, in place of what it said before. Another encoding
    /// comes with its next keyframe, which is asked for.
    ///
    /// # Errors
    /// `EndpointGone`, `TrackNotFound` when it does not subscribe to such a track, `Unavailable`.
    pub async fn set_wish(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        wish: Wish,
    ) -> Result<(), MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::SetWish(endpoint_id, track_id, wish, respond))
            .await
    }

    /// Takes a session's settings, for everybody who is in the pipeline and who comes. Older ones than are known change
    /// nothing; nor does a pipeline that is not here.
    pub async fn set_settings(&self, pipeline_id: PipelineId, settings: &SessionSettings) {
        for shard in 0..self.inner.shards.len() {
            // A thread that has ended has nobody to treat.
            let _ = self
                .call(shard, |respond| Request::SetSettings(pipeline_id, settings.clone(), respond))
                .await;
        }
    }

    /// How an endpoint and its tracks stand now.
    ///
    /// # Errors
    /// `EndpointGone`, `Unavailable`.
    pub async fn endpoint_stats(&self, endpoint_id: EndpointId) -> Result<EndpointStats, MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::EndpointStats(endpoint_id, respond)).await
    }

    /// Ends an endpoint: sends DTLS close_notify, drops its tracks. No `State` event follows.
    ///
    /// # Errors
    /// `EndpointGone` when it is not there (any more), `Unavailable`.
    pub async fn close_endpoint(&self, endpoint_id: EndpointId) -> Result<(), MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::CloseEndpoint(endpoint_id, respond)).await
    }

    /// Ends a pipeline and every endpoint in it, as [`MediaPlane::close_endpoint`] does.
    pub async fn close_pipeline(&self, pipeline_id: PipelineId) {
        // A thread that has ended has closed everything already.
        for shard in 0..self.inner.shards.len() {
            let _ = self.call(shard, |respond| Request::ClosePipeline(pipeline_id, respond)).await;
        }
    }

    /// The counters since start.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn stats(&self) -> Result<MediaStats, MediaError> {
        let mut all = MediaStats::default();
        for shard in 0..self.inner.shards.len() {
            all += self.call(shard, Request::Stats).await?;
        }
        let Inner { directory, tcp, .. } = &*self.inner;
        all.drops.add(super::Reason::Tcp, tcp.drops());
        Ok(MediaStats {
            tcp_connections: tcp.open(),
            tcp_refused: tcp.refused(),
            pipelines: directory.pipelines() as u64,
            all_tracks: directory.tracks() as u64,
            is_full: self.full().is_some(),
            load_per_mille: self.load_per_mille(),
            waiting_requests: self.inner.shards.iter().map(Shard::waiting).sum(),
            ..all
        })
    }

    /// How much is taken of the limit that is nearest, in thousandths.
    fn load_per_mille(&self) -> u32 {
        let Inner { directory, limits, .. } = &*self.inner;
        (directory.share().max(limits.share(directory.tracks())) * 1000.0).round() as u32
    }

    /// The limit that this worker has reached, if any.
    pub fn full(&self) -> Option<&'static str> {
        let Inner { directory, limits, .. } = &*self.inner;
        directory.is_full().then_some("endpoints").or_else(|| limits.reached(directory.tracks()))
    }

    /// Closes everything and ends the media threads. Further calls answer `Unavailable`.
    pub async fn shutdown(&self) {
        for shard in 0..self.inner.shards.len() {
            let _ = self.call(shard, Request::Shutdown).await;
        }
    }

    /// Test hook: see [`Request::InjectFault`].
    #[doc(hidden)]
    pub async fn inject_fault(&self, endpoint_id: EndpointId) -> Result<(), MediaError> {
        self.call_endpoint(endpoint_id, |respond| Request::InjectFault(endpoint_id, respond)).await
    }

    /// Test hook: see [`Request::InjectThreadFault`]. Always `Unavailable`: the thread forgets who asked.
    #[doc(hidden)]
    pub async fn inject_thread_fault(&self, endpoint_id: EndpointId) -> Result<(), MediaError> {
        self.call_endpoint(endpoint_id, Request::InjectThreadFault).await
    }

    /// Asks the thread that an endpoint lives on.
    async fn call_endpoint<T>(
        &self,
        endpoint_id: EndpointId,
        request: impl FnOnce(Respond<Result<T, MediaError>>) -> Request,
    ) -> Result<T, MediaError> {
        // Any thread knows that it does not know an endpoint, and whether it still lives.
        let shard = self.inner.directory.shard_of(endpoint_id).unwrap_or(0);
        self.call(shard, request).await?
    }

    async fn call<T>(
        &self,
        shard: usize,
        request: impl FnOnce(Respond<T>) -> Request,
    ) -> Result<T, MediaError> {
        let (respond, response) = oneshot::channel();
        let shard = &self.inner.shards[shard];
        shard.requests.send(request(respond)).await.map_err(|_| MediaError::Unavailable)?;
        shard.waker.wake().map_err(|_| MediaError::Unavailable)?;
        response.await.map_err(|_| MediaError::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_media_thread_for_every_two_cores() {
        assert_eq!([1, 2, 3, 4, 8, 64].map(default_threads), [1, 1, 1, 2, 4, 4]);
    }
}
