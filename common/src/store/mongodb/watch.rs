//! The change stream on `sessions`.
//!
//! The server sends only what a [`SessionChange`] needs (`$project`): with hundreds of updates a second and every worker
//! watching, whole documents would be most of the traffic.
//!
//! ```text
//! open ─▶ read ─▶ change ─▶ caller          the driver itself resumes once after an error; when the server stays away
//!          │ ▲                              longer, this loop opens the stream again behind the last token, with a
//!    error ▼ │ opened behind the token      growing pause, for as long as the caller keeps asking
//!        reopen ─▶ HistoryLost (final)
//! ```

use std::time::Duration;

use ::mongodb::Collection;
use ::mongodb::bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc};
use ::mongodb::change_stream::ChangeStream;
use ::mongodb::change_stream::event::ResumeToken as ServerToken;
use ::mongodb::options::ReadConcern;
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;

use super::{OPERATION_LIMIT, decode, failure, note_unreadable};
use crate::model::{Session, SessionId, SessionState};
use crate::store::{
    ResumeToken, SessionChange, SessionChangeKind, SessionWatch, StoreError, StoreErrorKind, StoreResult,
};
use crate::time::UnixMillis;

/// The pause before opening a lost stream again; doubles up to [`REOPEN_PAUSE_LIMIT`].
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_LIMIT: Duration = Duration::from_secs(2);

type Events = ChangeStream<RawDocumentBuf>;

/// An open change stream, or one being opened again.
pub(super) struct MongoWatch {
    sessions: Collection<RawDocumentBuf>,
    state: State,
    /// Behind everything given to the caller. Only a server that sends no token with an empty batch leaves it unset.
    token: Option<ServerToken>,
    pause: Duration,
}

enum State {
    Open(Events),
    /// Held here, not in `next`, so that a caller who drops `next` again and again does not start it over each time.
    Reopening(BoxFuture<'static, StoreResult<Events>>),
    Ended(StoreErrorKind, String),
}

impl MongoWatch {
    /// Opens the stream on the server before it returns, so that a list made afterwards misses nothing.
    pub(super) async fn open(
        sessions: Collection<RawDocumentBuf>,
        resume: Option<&ResumeToken>,
    ) -> StoreResult<Self> {
        let token = resume.map(server_token).transpose()?;
        let stream = open_stream(&sessions, token.clone()).await?;
        let token = stream.resume_token().or(token);
        Ok(Self { sessions, state: State::Open(stream), token, pause: REOPEN_PAUSE })
    }

    /// The next event as the server sent it. Safe to cancel: what is under way stays in `self.state`.
    async fn event(&mut self) -> StoreResult<RawDocumentBuf> {
        loop {
            match &mut self.state {
                State::Open(stream) => {
                    let read = stream.next().await;
                    // The token may have moved without an event: the server says how far it has looked.
                    if let Some(token) = stream.resume_token() {
                        self.token = Some(token);
                    }
                    match read {
                        Some(Ok(event)) => {
                            self.pause = REOPEN_PAUSE;
                            note_lag(&event);
                            return Ok(event);
                        }
                        Some(Err(error)) => {
                            let failed = failure::watch_error(&error, false);
                            if failed.kind == StoreErrorKind::HistoryLost {
                                return Err(failed);
                            }
                            tracing::warn!(error = %failed, "change stream lost, resuming");
                        }
                        None => tracing::warn!("change stream ended, resuming"),
                    }
                    self.reopen()?;
                }
                State::Reopening(reopening) => match reopening.await {
                    Ok(stream) => {
                        tracing::info!("change stream resumed");
                        self.state = State::Open(stream);
                    }
                    Err(error) if error.kind == StoreErrorKind::Unavailable => {
                        tracing::debug!(%error, "change stream not resumed yet");
                        self.reopen()?;
                    }
                    Err(error) => return Err(error),
                },
                State::Ended(kind, message) => return Err(StoreError::new(*kind, message.clone())),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_reopening(&self) -> bool {
        matches!(self.state, State::Reopening(_))
    }

    /// Begins to open the stream again, behind the last token and after a pause that doubles until an event arrives.
    fn reopen(&mut self) -> StoreResult<()> {
        let Some(token) = self.token.clone() else {
            let message = "watch sessions: lost before the server said where it was";
            return Err(StoreError::new(StoreErrorKind::HistoryLost, message));
        };
        let (sessions, pause) = (self.sessions.clone(), self.pause);
        self.pause = (pause * 2).min(REOPEN_PAUSE_LIMIT);
        self.state = State::Reopening(Box::pin(async move {
            tokio::time::sleep(pause).await;
            open_stream(&sessions, Some(token)).await
        }));
        Ok(())
    }
}

#[async_trait]
impl SessionWatch for MongoWatch {
    async fn next(&mut self) -> StoreResult<SessionChange> {
        loop {
            let event = self.event().await;
            match event.and_then(|event| change(&event)) {
                Ok(Some(change)) => return Ok(change),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Ended(error.kind, error.message.clone());
                    return Err(error);
                }
            }
        }
    }
}

async fn open_stream(
    sessions: &Collection<RawDocumentBuf>,
    token: Option<ServerToken>,
) -> StoreResult<Events> {
    let resuming = token.is_some();
    let wanted = doc! { "$project": {
        "operationType": 1, "ns": 1, "wallTime": 1, "clusterTime": 1, "documentKey": 1, "fullDocument": 1,
        "updateDescription.updatedFields.state": 1,
    } };
    // Change streams accept no other; it is not the collection's.
    let majority = ReadConcern::majority();
    let open = async {
        sessions
            .watch()
            .pipeline([wanted])
            .read_concern(majority)
            .resume_after(token)
            .await
            .map(ChangeStream::with_type)
    };
    match tokio::time::timeout(OPERATION_LIMIT, open).await {
        Ok(opened) => opened.map_err(|error| failure::watch_error(&error, resuming)),
        Err(_) => Err(StoreError::new(StoreErrorKind::Unavailable, "watch sessions: no answer in time")),
    }
}

/// Notes how long the change took to get here. Servers before MongoDB 6 tell the second only, whose middle is taken.
fn note_lag(event: &RawDocument) {
    let told = event.get_datetime("wallTime").map(DateTime::timestamp_millis);
    let told = told.or_else(|_| event.get_timestamp("clusterTime").map(|it| i64::from(it.time) * 1000 + 500));
    if let Ok(at) = told {
        let lag = UnixMillis(at).until(UnixMillis::now());
        metrics::histogram!("switchyard_store_change_lag_seconds").record(lag.as_secs_f64());
    }
}

/// What the event means to us; `None` when nothing (a document that is not one of ours).
fn change(event: &RawDocument) -> StoreResult<Option<SessionChange>> {
    let text = |name: &str| event.get_str(name).unwrap_or_default();
    let kind = match text("operationType") {
        "insert" | "replace" => None,
        "update" => Some(match field_text(event, &["updateDescription", "updatedFields", "state"]) {
            Some("closed") => SessionChangeKind::Closed,
            _ => SessionChangeKind::Updated,
        }),
        "delete" => Some(SessionChangeKind::Deleted),
        "drop" | "rename" | "dropDatabase" | "invalidate" => {
            let message = format!("the sessions collection is gone ({})", text("operationType"));
            return Err(StoreError::new(StoreErrorKind::HistoryLost, message));
        }
        _ => return Ok(None),
    };
    let Some(session_id) = field_text(event, &["documentKey", "_id"]).and_then(|id| id.parse().ok()) else {
        note_unreadable(
            "sessions",
            &StoreError::new(StoreErrorKind::Internal, "an _id that is no session id"),
        );
        return Ok(None);
    };
    let kind = match kind {
        Some(kind) => kind,
        None => match whole_document(event, session_id) {
            Some(kind) => kind,
            None => return Ok(None),
        },
    };
    let token = event.get_document("_id").map_err(|error| {
        StoreError::new(StoreErrorKind::Internal, format!("a change without token: {error}"))
    })?;
    Ok(Some(SessionChange { session_id, kind, token: ResumeToken(token.as_bytes().to_vec()) }))
}

/// What an insert means, or a replacement (nothing of ours replaces, but an operator may).
fn whole_document(event: &RawDocument, session_id: SessionId) -> Option<SessionChangeKind> {
    let replaced = event.get_str("operationType").is_ok_and(|kind| kind == "replace");
    let decoded = match event.get_document("fullDocument") {
        Ok(document) => decode::<Session>(document),
        Err(error) => Err(StoreError::new(StoreErrorKind::Internal, format!("{session_id}: {error}"))),
    };
    match decoded {
        Ok(session) if replaced && session.state == SessionState::Closed => Some(SessionChangeKind::Closed),
        Ok(_) if replaced => Some(SessionChangeKind::Updated),
        Ok(session) => Some(SessionChangeKind::Inserted(Box::new(session))),
        Err(error) => {
            note_unreadable("sessions", &error);
            None
        }
    }
}

fn field_text<'a>(document: &'a RawDocument, path: &[&str]) -> Option<&'a str> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(document, |document, name| document.get_document(name).ok())?;
    parent.get_str(last).ok()
}

/// Our token is the server's, as bytes. Bytes that are no document cannot have come from it.
fn server_token(token: &ResumeToken) -> StoreResult<ServerToken> {
    let parsed = ::mongodb::bson::deserialize_from_slice::<Document>(&token.0);
    let server = parsed.and_then(::mongodb::bson::deserialize_from_document);
    server.map_err(|_| StoreError::new(StoreErrorKind::HistoryLost, "not a token of this store"))
}
