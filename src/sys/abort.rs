//! Ending the process when something that it cannot do without panics.

/// Ends the process when it is dropped by a panic. Held by the control task and by each worker's
/// loop: without one of them the process would go on half dead, and systemd starts the whole again.
#[derive(Debug)]
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
