//! The binary of an earlier version, beside the one under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds the binary of the previous commit, unless that is there already (`tests/previous`, which says which commit that is
/// and how to have another), and gives its path.
///
/// # Panics
/// When it cannot be built; what there is to do about it stands in the output of the test run.
pub fn binary() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../previous");
    let said = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let said = said.unwrap_or_else(|error| panic!("{} cannot be started: {error}", script.display()));
    assert!(
        said.status.success(),
        "there is no previous version to test with: see what tests/previous said above"
    );
    let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    assert!(path.is_file(), "tests/previous names {}, which is not there", path.display());
    path
}
