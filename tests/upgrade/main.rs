//! Two versions in one deployment, as in every rolling update: the binary under test, and the one of the commit before
//! (`tests/previous` builds it, and says how to have another). Whatever is written by one is read by the other.
//!
//! | file | shows |
//! |---|---|
//! | `together.rs` | both versions' APIs and workers serve the same sessions |
//! | `moves.rs` | a room goes from an old worker to a new one and back, drained and killed |
//! | `stored.rs` | what one version stored the other reads |
//! | `unknown.rs` | what a version does not know it refuses |

mod moves;
// What the whole cluster runs too; here a part of it.
#[allow(dead_code)]
#[path = "../scenarios/once.rs"]
mod once;
#[allow(dead_code)]
#[path = "../scenarios/room.rs"]
mod room;
mod stored;
mod together;
mod unknown;

use std::path::PathBuf;
use std::sync::OnceLock;

use support::Deployment;

/// The two programs.
struct Versions {
    old: PathBuf,
    new: PathBuf,
}

/// Builds what is missing, once for all tests.
fn versions() -> &'static Versions {
    static VERSIONS: OnceLock<Versions> = OnceLock::new();
    VERSIONS.get_or_init(|| {
        let versions = Versions { old: support::previous::binary(), new: support::process::binary() };
        println!("{} beside {}", versions.old.display(), versions.new.display());
        assert_ne!(versions.old.canonicalize().ok(), versions.new.canonicalize().ok(), "two programs");
        versions
    })
}

impl Versions {
    /// One API of each, and no worker yet: consecutive requests of a client alternate between the two.
    async fn both_apis(&self, arguments: &[&str]) -> Deployment {
        Deployment::start_programs(&[&self.old, &self.new], &[], arguments).await
    }
}

/// No process died of what the other version did, and none saw a panic.
fn still_there(deployment: &mut Deployment) {
    for process in deployment.apis.iter_mut().chain(&mut deployment.workers) {
        assert!(process.running(), "a process ended:\n{}", process.log());
        assert!(!process.log().contains("panicked at"), "a panic:\n{}", process.log());
    }
}

/// Nothing that one version sent was beyond another.
async fn no_dead_letters(deployment: &Deployment) {
    let queue = common::broker::topology::DEAD_LETTERS;
    let found = deployment.broker().look_at([queue]).await.expect("RabbitMQ answers");
    assert!(found[0].is_some_and(|queue| queue.messages == 0), "{queue}: {found:?}");
}
