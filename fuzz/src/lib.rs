//! What the fuzz targets share, and the target that needs a whole API.

#[cfg(feature = "api")]
mod rest;

#[cfg(feature = "api")]
pub use rest::rest;

/// Lets panics of `rtc-sctp` go on to where the media worker catches them (an association ends, and nothing else); any
/// other one ends the run, also where it would be caught.
pub fn tolerate_caught_panics() {
    let ends_the_run = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_caught = info.location().is_some_and(|at| at.file().contains("rtc-sctp"));
        if !is_caught {
            ends_the_run(info);
        }
    }));
}
