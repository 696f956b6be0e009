//! `switchyard doctor`: looks at everything that a part needs from its machine and its network before it is started, and
//! says what to do about what is not right.
//!
//! | module | looks at |
//! |---|---|
//! | [`settings`] | keys, the public URL |
//! | [`ports`] | the ports that are to be bound, socket buffers, file descriptors |
//! | [`network`] | whether media gets through: by the own address, and as a STUN server sees us |
//! | [`turn`] | whether TURN servers give allocations to our credentials |
//! | [`servers`] | RabbitMQ and MongoDB: there, new enough, with the rights we need, and the clock of the latter |
//!
//! Each check makes [`Finding`]s and changes nothing that outlives it. Nothing that is printed has a secret in it.

mod network;
mod ports;
mod servers;
mod settings;
mod turn;

use std::fmt;

use serde::Serialize;

use crate::config::{Role, Settings};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, and not as it could, or not for everybody.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name: the same in every version.
    pub check: &'static str,
    pub state: State,
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        write!(f, "{state}  {:<18} {}", self.check, self.found)?;
        match &self.advice {
            Some(advice) => write!(f, "\n      {:<18} -> {advice}", ""),
            None => Ok(()),
        }
    }
}

/// Looks at everything that a part with these settings needs.
pub async fn examine(role: Role, settings: &Settings) -> Vec<Finding> {
    let mut findings = settings::check(role, settings);
    findings.extend(ports::check(role, settings));
    if role != Role::Api {
        findings.extend(network::check(settings).await);
    }
    findings.extend(turn::check(role, settings).await);
    findings.extend(servers::check(settings).await);
    findings
}

/// The findings as they are printed; `json`: as one document for programs.
pub fn render(findings: &[Finding], json: bool) -> String {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (warnings, failures) = (count(State::Warn), count(State::Fail));
    if json {
        let report = serde_json::json!({
            "ok": failures == 0, "warnings": warnings, "failures": failures, "findings": findings,
        });
        return report.to_string();
    }
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    format!("{}\n{} checks, {warnings} warnings, {failures} failures", lines.join("\n"), findings.len())
}

/// Whether a part can be started.
pub fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_words_and_to_programs() {
        let findings = [Finding::ok("files", "enough"), Finding::fail("store", "nobody there", "start it")];
        let text = render(&findings, false);
        assert!(text.contains("FAIL  store") && text.contains("-> start it"), "{text}");
        assert!(text.ends_with("2 checks, 0 warnings, 1 failures"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&render(&findings, true)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(
            json["findings"][0],
            serde_json::json!({"check": "files", "state": "ok", "found": "enough"})
        );
        assert_eq!(json["findings"][1]["state"], "fail");
        assert!(!is_well(&findings) && is_well(&findings[..1]));
    }
}
