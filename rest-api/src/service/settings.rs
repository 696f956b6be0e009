//! A session's settings as clients write and read them, and changing them.

use common::message::{CommandBody, ReplyBody};
use common::model::{Bitrates, CodecName, SessionId, SessionSettings, SessionState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sessions::unexpected;
use super::{Audience, CommandContext, Completed, Outcome, Route, owned_session, run};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;
use crate::view::SessionView;

/// The largest `last_n` and `loudest_n`: more than any screen shows.
pub const MAX_N: u16 = 1_000;

/// Where the estimate of a client's path begins, and its bounds, in bit/s: `min_bps` <= `start_bps` <= `max_bps`. What is absent
/// is left to the session, and then to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Bitrates)]
#[serde(deny_unknown_fields)]
pub struct BitratesBody {
    /// Before anything is known of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 30_000, maximum = 1_000_000_000)]
    pub start_bps: Option<u64>,
    /// Never less is sent because of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 30_000, maximum = 1_000_000_000)]
    pub min_bps: Option<u64>,
    /// Never more is sent to a client, and it is told to send no more on a video m-line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 30_000, maximum = 1_000_000_000)]
    pub max_bps: Option<u64>,
}

impl BitratesBody {
    /// The bit rates to store or hand on: of a session, of a participant, or a client's own.
    ///
    /// # Errors
    /// `invalid_request` when they are out of range or order.
    pub(super) fn checked(self) -> ApiResult<Bitrates> {
        let Self { start_bps, min_bps, max_bps } = self;
        let bitrates = Bitrates { start_bps, min_bps, max_bps };
        check_bitrates(&bitrates).map(|()| bitrates)
    }
}

impl From<Bitrates> for BitratesBody {
    fn from(stored: Bitrates) -> Self {
        let Bitrates { start_bps, min_bps, max_bps } = stored;
        Self { start_bps, min_bps, max_bps }
    }
}

/// How a session treats its media. What is absent is as the worker does it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = SessionSettings)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Cameras that each client gets at most, beside those that it has pinned: those of whoever spoke last. All when absent.
    #[serde(default)]
    #[schema(maximum = 1000)]
    pub last_n: Option<u16>,
    /// Microphones that are forwarded at most: the loudest. All when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    pub loudest_n: Option<u16>,
    /// What publishers are answered with first, in this order; others after these.
    #[serde(default)]
    pub codecs: Vec<CodecName>,
    /// Of what each client is sent, and of what it sends.
    #[serde(default)]
    pub bitrates: BitratesBody,
}

impl Settings {
    /// The settings to store.
    ///
    /// # Errors
    /// `invalid_request` for numbers out of range or order, and for a codec that is named twice.
    pub(super) fn checked(self) -> ApiResult<SessionSettings> {
        if self.last_n.is_some_and(|it| it > MAX_N) {
            return Err(ApiError::invalid("last_n is at most 1000"));
        }
        if self.loudest_n.is_some_and(|it| !(1..=MAX_N).contains(&it)) {
            return Err(ApiError::invalid("loudest_n is 1 to 1000"));
        }
        let twice = |codec: &CodecName| self.codecs.iter().filter(|it| *it == codec).count() > 1;
        if self.codecs.iter().any(twice) {
            return Err(ApiError::invalid("codecs names one of them twice"));
        }
        let Self { last_n, loudest_n, codecs, bitrates } = self;
        Ok(SessionSettings { revision: 0, last_n, loudest_n, codecs, bitrates: bitrates.checked()? })
    }
}

impl From<SessionSettings> for Settings {
    fn from(stored: SessionSettings) -> Self {
        let SessionSettings { last_n, loudest_n, codecs, bitrates, .. } = stored;
        Self { last_n, loudest_n, codecs, bitrates: bitrates.into() }
    }
}

/// Whether these may be: of a session, of a participant, or a client's own.
pub(super) fn check_bitrates(bitrates: &Bitrates) -> ApiResult<()> {
    if bitrates.are_in_order() {
        return Ok(());
    }
    Err(ApiError::invalid("bitrates are 30000 to 1000000000 bit/s, min_bps <= start_bps <= max_bps"))
}

/// A change of a session.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSession {
    /// In place of all that was set before.
    pub settings: Settings,
}

impl Completed for SessionView {
    fn status(&self) -> u16 {
        200
    }

    fn result(&self) -> serde_json::Value {
        super::commands::body_of(self)
    }
}

/// Changes the settings of an open session.
pub async fn change(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    id: SessionId,
    wanted: ChangeSession,
) -> ApiResult<Outcome<SessionView>> {
    // What a session costs is for the application to say, not for its users.
    caller.backend()?;
    let settings = wanted.settings.checked()?;
    let session = owned_session(state, caller, id).await?;
    if session.state == SessionState::Closed {
        return Err(ApiError::session_closed());
    }
    let body = CommandBody::ChangeSession { session_id: id, settings };
    run(state, context, Route::Session(id), Audience::Nobody, body, |reply| async move {
        match reply? {
            ReplyBody::SessionChanged { session } => Ok(SessionView::from(*session)),
            other => Err(unexpected(&other)),
        }
    })
    .await
}
