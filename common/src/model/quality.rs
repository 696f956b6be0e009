//! How good a participant's connection is, in one word.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `docs/QUALITY.md` says how it is worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Nothing to complain of; also what nothing is known of yet.
    #[default]
    Excellent,
    /// Something is missing, and hardly noticed.
    Good,
    /// Everybody notices.
    Poor,
    /// Nothing comes any more.
    Lost,
}
