//! Ends the process when a task that it cannot do without panics.

/// Ends the process when a panic drops it. The control task and each worker's loop hold one: without them the
/// process would not work, and systemd starts it again.
#[derive(Debug)]
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
