//! How the real binary asks the system for memory.

use support::{Deployment, Shape};

/// Where huge pages are always used (Debian, Red Hat), or where the allocator asks for them, the process would occupy
/// twice what it needs.
#[tokio::test]
async fn the_process_is_not_backed_with_huge_pages() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", deployment.apis[0].pid())).unwrap();
    let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert_eq!(enabled.map(str::trim), Some("0"), "{status}");
}
