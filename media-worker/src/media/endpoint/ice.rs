//! Candidates, and ICE restarts without a description (RFC 8840), for clients that describe themselves once.

use std::time::Instant;

use common::message::{Candidate, IceCredentials, IceFragment, IfMatch};

use super::{Effects, Endpoint, Life};
use crate::media::sdp::parse::credentials;
use crate::media::transport::ice::{Credentials, Restart};
use crate::media::{IceOutcome, MediaError};

/// Candidates that one endpoint may bring in its life.
const MAX_CANDIDATES: usize = 1000;
/// The longest candidate that is looked at, in bytes.
const MAX_CANDIDATE: usize = 1024;

impl Endpoint {
    /// Checks trickled candidates. None is needed: an ICE-lite agent answers checks and sends none, so
    /// the client's addresses show themselves (RFC 8445, section 7.3.1.3).
    pub fn add_candidates(&mut self, candidates: &[Candidate]) -> Result<(), MediaError> {
        if self.candidates.saturating_add(candidates.len()) > MAX_CANDIDATES {
            return Err(MediaError::LimitExceeded("candidates"));
        }
        candidates.iter().try_for_each(check_candidate)?;
        self.candidates += candidates.len();
        candidates.iter().for_each(|candidate| self.watch.note_candidate(&candidate.candidate));
        Ok(())
    }

    /// The server's candidates for the client, once, after the first description went out.
    pub fn take_candidates(&mut self, candidates: &[String]) -> Option<Vec<Candidate>> {
        // Who describes itself once reads no events: it has them in the answer.
        let first = self.lines.first().filter(|_| self.fixed.is_none())?;
        if std::mem::replace(&mut self.candidates_sent, true) {
            return None;
        }
        let wrap = |candidate: String| Candidate {
            candidate,
            sdp_mid: Some(first.mid.clone()),
            sdp_m_line_index: Some(0),
            username_fragment: Some(self.ice.local().fragment.clone()),
        };
        let mut candidates: Vec<_> = candidates.iter().cloned().map(wrap).collect();
        candidates.push(wrap(String::new()));
        Some(candidates)
    }

    /// Takes a client's fragment about ICE: candidates of the session that it has, or the credentials of a new one. Media
    /// goes on over the old paths until the client has nominated a new one.
    ///
    /// # Errors
    /// `PreconditionFailed` when `if_match` means another ICE session, `InvalidSdp` for malformed credentials,
    /// `InvalidCandidate`, `LimitExceeded`; nothing has changed then.
    pub fn handle_fragment(
        &mut self,
        now: Instant,
        fragment: &IceFragment,
        if_match: &IfMatch,
        candidates: &[String],
        effects: &mut Effects,
    ) -> Result<IceOutcome, MediaError> {
        if !if_match.matches(&self.ice.local().fragment) {
            return Err(MediaError::PreconditionFailed);
        }
        let remote = match &fragment.credentials {
            Some(IceCredentials { username_fragment, password }) => {
                Some(credentials(Some(username_fragment), Some(password))?)
            }
            None => None,
        };
        self.add_candidates(&fragment.candidates)?;
        let Some(remote) = remote else { return Ok(IceOutcome::Taken) };
        let Restart::Yes { retired } = self.restart(now, remote) else { return Ok(IceOutcome::Taken) };
        effects.retired.extend(retired);
        Ok(IceOutcome::Restarted(self.own_fragment(candidates)))
    }

    /// Takes the client's credentials; new ones give a lost connection its grace time anew.
    pub(super) fn restart(&mut self, now: Instant, remote: Credentials) -> Restart {
        let restart = self.ice.set_remote(remote);
        if let (Restart::Yes { .. }, Life::Disconnected { deadline }) = (&restart, &mut self.life) {
            *deadline = now + self.grace;
        }
        restart
    }

    /// The server's side of the ICE session.
    fn own_fragment(&self, candidates: &[String]) -> IceFragment {
        let Credentials { fragment, password } = self.ice.local().clone();
        let mid = self.lines.first().map(|line| line.mid.clone());
        let wrap = |candidate: &String| Candidate {
            candidate: candidate.clone(),
            sdp_mid: mid.clone(),
            sdp_m_line_index: Some(0),
            username_fragment: Some(fragment.clone()),
        };
        IceFragment {
            candidates: candidates.iter().map(wrap).collect(),
            credentials: Some(IceCredentials { username_fragment: fragment.clone(), password }),
        }
    }
}

/// RFC 8839, section 5.1: `candidate:` foundation component transport priority address port `typ` type.
/// The address may be a name (mDNS) and is not looked at; an empty text is the end of candidates.
pub(super) fn check_candidate(candidate: &Candidate) -> Result<(), MediaError> {
    let invalid = |why: &str| Err(MediaError::InvalidCandidate(why.to_string()));
    let text = candidate.candidate.trim();
    let text = text.strip_prefix("a=").unwrap_or(text);
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > MAX_CANDIDATE {
        return invalid("it is too long");
    }
    let Some(text) = text.strip_prefix("candidate:") else {
        return invalid("it does not start with candidate:");
    };
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, component, _, priority, _, port, "typ", kind, ..] = words[..] else {
        return invalid("it is incomplete");
    };
    if component.parse::<u16>().is_err() || priority.parse::<u32>().is_err() || port.parse::<u16>().is_err() {
        return invalid("component, priority or port is not a number");
    }
    if !["host", "srflx", "prflx", "relay"].contains(&kind) {
        return invalid("its type is unknown");
    }
    Ok(())
}
