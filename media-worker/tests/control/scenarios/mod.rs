//! What the control plane must do, whatever broker and store are under it.

pub mod death;
pub mod drain;
pub mod faults;
pub mod life;
pub mod lost;
pub mod once;
pub mod routing;
