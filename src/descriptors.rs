//! How many descriptors (connections, above all) the process may have.

/// Raises the soft limit to the hard one, which costs nothing, and says what it is. `usize::MAX` where nobody limits it.
#[cfg(target_os = "linux")]
pub fn limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to a struct of ours that is there.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return usize::MAX;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the call reads from a struct of ours that is there.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
        limit = raised;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

#[cfg(not(target_os = "linux"))]
pub fn limit() -> usize {
    usize::MAX
}
