//! What tasks and their wakers are made of. The model checker (`tests/tasks_model.rs`) compiles their file with its own
//! module of this name.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};
pub(super) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sets a flag that others swap. In loom it is a swap as well: loom does not know that a store cannot come between a swap and
/// what that has read.
pub(super) fn set(flag: &AtomicBool, value: bool) {
    flag.store(value, Ordering::Relaxed);
}
